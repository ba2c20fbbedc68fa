"""Statistics of rates: intervals, their exact coverage, sample sizes, judges that err, many rates at once."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import beta, binom, binomtest, false_discovery_control, fisher_exact, norm, t

from raigen.errors import RaigenError
from raigen.runs.records import Difference, Mean

LEVEL = 0.05  # of q: up to here a finding is called one
FEW = 10  # hits, or misses, below which the interval is Clopper-Pearson


class Interval(NamedTuple):
    """A confidence interval, 0 <= low <= high (on a rate <= 1), with the `method` that made it."""

    low: float
    high: float
    method: str


def rate_interval(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """The interval on the rate behind `hits` of `n` independent images; `n` = 0 tells nothing and gives (0, 1).

    Clopper & Pearson (1934) when hits or misses are fewer than 10, else Wilson (1927). Why the switch: of a nominal
    95 %, Wilson alone covers as little as 84 % (100 images, rate 0.175 %), near 0, where rare attributes live, and
    near 1 alike; Clopper-Pearson never covers less than it says, but is wide. Together, for 100, 300 and 1,000
    images, they cover at least 93.5 % at rates of 0.05 % to 5 %, and at least 92.7 % at any rate (see `coverage`).

    Raises RaigenError unless 0 <= hits <= n and 0 < confidence < 1.

    >>> low, high, method = rate_interval(3, 300)
    >>> round(low, 4), round(high, 4), method
    (0.0021, 0.0289, 'Clopper-Pearson')
    >>> rate_interval(0, 0)
    Interval(low=0.0, high=1.0, method='no data')
    """
    _check_confidence(confidence)
    if not 0 <= hits <= n:
        raise RaigenError(f"hits: expected 0 <= hits <= n = {n}; got {hits}")
    if n == 0:
        return Interval(0.0, 1.0, "no data")
    low, high = _bounds(np.array([hits]), n, confidence)
    return Interval(float(low[0]), float(high[0]), "Clopper-Pearson" if min(hits, n - hits) < FEW else "Wilson")


def ratio_interval(hits: int, n: int, other_hits: int, other_n: int, confidence: float = 0.95) -> Interval:
    """The interval on (hits / n) / (other_hits / other_n), two rates of images that are not the same.

    MOVER-R: from the ends of `rate_interval` of each, by squares (Donner & Zou 2012; Newcombe 2016). `high` is infinite
    where `other_hits` is 0; `low` then still says how many times as much it is at least. Raises RaigenError as
    `rate_interval` does, and for an `n` of 0.

    >>> low, high, method = ratio_interval(8, 10, 2, 300)
    >>> round(low), round(high), method
    (29, 993, 'MOVER-R')
    """
    if not n or not other_n:
        raise RaigenError(f"n: expected two rates of 1 image or more; got {n} and {other_n}")
    low, high, _ = rate_interval(hits, n, confidence)
    other_low, other_high, _ = rate_interval(other_hits, other_n, confidence)
    rate, other = hits / n, other_hits / other_n
    product, least, under = rate * other, low * (2 * rate - low), other_low * (2 * other - other_low)
    root = math.sqrt(max(0.0, product**2 - least * other_high * (2 * other - other_high)))
    start = least / (product + root) if least > 0 else 0.0
    if under <= 0:
        return Interval(start, math.inf, "MOVER-R")
    root = math.sqrt(max(0.0, product**2 - high * (2 * rate - high) * under))
    return Interval(start, (product + root) / under, "MOVER-R")


def coverage(rate: float, n: int, confidence: float = 0.95) -> float:
    """The exact probability, over all outcomes of `n` images, that `rate_interval` holds the true `rate`.

    sum over h of Binomial(h; n, rate) [low(h) <= rate <= high(h)]. In [0, 1].
    Raises RaigenError unless 0 <= rate <= 1, n >= 1 and 0 < confidence < 1.

    >>> round(coverage(0.01, 300), 3)
    0.989
    """
    _check_confidence(confidence)
    _check_count("n", n)
    if not 0 <= rate <= 1:
        raise RaigenError(f"rate: expected a number in [0, 1]; got {rate}")
    hits = np.arange(n + 1)
    low, high = _bounds(hits, n, confidence)
    return float(binom.pmf(hits, n, rate)[(low <= rate) & (rate <= high)].sum())


def images_needed(rate: float, examples: int = 1, confidence: float = 0.95) -> int:
    """How many images show an attribute of this `rate` at least `examples` times with probability `confidence`.

    The smallest n with P(Binomial(n, rate) >= examples) >= confidence.
    Raises RaigenError unless 0 < rate <= 1, examples >= 1 and 0 < confidence < 1.

    >>> images_needed(0.01), images_needed(0.01, examples=10)
    (299, 1568)
    """
    _check_confidence(confidence)
    _check_count("examples", examples)
    if not 0 < rate <= 1:
        raise RaigenError(f"rate: expected a number in (0, 1]; got {rate}")
    low, high = examples - 1, examples  # too few, and perhaps enough
    while binom.sf(examples - 1, high, rate) < confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if binom.sf(examples - 1, middle, rate) < confidence:
            low = middle
        else:
            high = middle
    return high


def rarest_rate(n_images: int, examples: int = 10, confidence: float = 0.95) -> float:
    """The smallest rate of an attribute that `n_images` show at least `examples` times with probability `confidence`.

    In (0, 1). Raises RaigenError unless 1 <= examples <= n_images and 0 < confidence < 1.

    >>> round(rarest_rate(1000), 4)
    0.0157
    """
    _check_confidence(confidence)
    _check_count("examples", examples)
    if n_images < examples:
        raise RaigenError(f"n_images: expected at least examples = {examples}; got {n_images}")
    return float(beta.ppf(confidence, examples, n_images - examples + 1))


class Calibration(NamedTuple):
    """How a judge did on images with known answers: it said yes to `true_yes` of `positives` that show the attribute
    and no to `true_no` of `negatives` that do not."""

    true_yes: int
    positives: int
    true_no: int
    negatives: int


def calibrated_interval(
    hits: int, n: int, judge: Calibration, confidence: float = 0.95, seed: int = 0, draws: int = 20_000
) -> Interval:
    """The interval on the true rate behind `hits` of `n` images to which an imperfect judge said yes.

    With sensitivity Se and specificity Sp the judge says yes at the rate q = p Se + (1 - p) (1 - Sp), so that
    p = (q + Sp - 1) / (Se + Sp - 1) (Rogan & Gladen 1978), cut to [0, 1]. q, Se and Sp are drawn from their posteriors
    under Jeffreys' priors, Beta(yes + 1/2, no + 1/2), and the ends are quantiles of p. A draw in which the judge is no
    better than chance tells nothing: p is uniform there. In simulations of 1 % to 5 % (Se .9, Sp .98 to .99,
    calibrated on 50 to 100 positives and 200 to 1,000 negatives) it covers at least 93 %; the interval on the raw
    count covers less than 50 % there.

    Raises RaigenError unless the counts fit and 0 < confidence < 1.
    """
    _check_confidence(confidence)
    for name, yes, total in (("hits", hits, n), ("true_yes", judge.true_yes, judge.positives),
                             ("true_no", judge.true_no, judge.negatives)):  # fmt: skip
        _check_share(name, yes, total)
    rng = np.random.default_rng(seed)
    seen = rng.beta(hits + 0.5, n - hits + 0.5, draws)
    sensitivity = rng.beta(judge.true_yes + 0.5, judge.positives - judge.true_yes + 0.5, draws)
    specificity = rng.beta(judge.true_no + 0.5, judge.negatives - judge.true_no + 0.5, draws)
    better = sensitivity + specificity - 1
    rate = np.where(better > 0, (seen + specificity - 1) / np.where(better > 0, better, 1), rng.random(draws))
    return _quantiles(rate.clip(0, 1), confidence, "calibrated, Beta posterior")


def checked_interval(
    confirmed: int, n: int, true_yes: int, positives: int, confidence: float = 0.95, seed: int = 0, draws: int = 20_000
) -> Interval:
    """The interval on the true rate when a person has looked at every yes of the judge and confirmed some.

    Confirmed images come at the rate p Se, whatever the judge's specificity: p = Beta(confirmed + 1/2, rest + 1/2) /
    Se, with Se = Beta(true_yes + 1/2, positives - true_yes + 1/2) from a calibration, cut to [0, 1].

    Raises RaigenError unless the counts fit and 0 < confidence < 1.
    """
    _check_confidence(confidence)
    _check_share("confirmed", confirmed, n)
    _check_share("true_yes", true_yes, positives)
    rng = np.random.default_rng(seed)
    found = rng.beta(confirmed + 0.5, n - confirmed + 0.5, draws)
    sensitivity = rng.beta(true_yes + 0.5, positives - true_yes + 0.5, draws)
    return _quantiles((found / sensitivity).clip(0, 1), confidence, "checked, Beta posterior")


def krippendorff_alpha(ratings: Float[np.ndarray, "judge unit"]) -> float | None:
    """Krippendorff's alpha for nominal ratings, NaN where a judge gave none: 1 - observed / expected disagreement.

    1 is agreement, 0 what chance would give, below 0 worse than that. Units with fewer than two ratings do not count.
    None where it is not defined: no unit was rated twice, or all ratings are the same. (Krippendorff, "Computing
    Krippendorff's alpha-reliability", 2011.)

    >>> krippendorff_alpha(np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, np.nan]]))
    1.0
    """
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[None] == values[:, None, None]).sum(1)  # [value, unit]
    rated = counts.sum(0)
    counts, rated = counts[:, rated >= 2], rated[rated >= 2]
    n = rated.sum()
    totals = counts.sum(1)
    expected = 1 - (totals * (totals - 1)).sum() / (n * (n - 1)) if n else 0.0
    if expected <= 0:
        return None
    observed = 1 - (counts * (counts - 1) / (rated - 1)).sum() / n
    return float(1 - observed / expected)


def q_rarer(hits: Sequence[int], n: Sequence[int], rate: float) -> Float[np.ndarray, " attribute"]:
    """q-values of "rarer than `rate`", one per attribute shown by `hits` of `n` images.

    p = P(Binomial(n, rate) <= hits), one-sided, then Benjamini & Hochberg (1995): calling all with q <= x rare makes at
    most a share x of wrong calls on average. Raises RaigenError unless 0 <= hits <= n and 0 < rate < 1.

    >>> q_rarer([0, 6], [600, 600], 0.01).round(4).tolist()
    [0.0048, 0.6063]
    """
    if not 0 < rate < 1:
        raise RaigenError(f"rate: expected a number in (0, 1); got {rate}")
    for count, total in zip(hits, n, strict=True):
        _check_share("hits", count, total)
    return false_discovery_control(binom.cdf(np.array(hits), np.array(n), rate), method="bh")


def q_different(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> Float[np.ndarray, " attribute"]:
    """q-values of "shown at another rate", one per attribute, for (hits, n) in two sets of images.

    p of Fisher's exact test, two-sided, then Benjamini & Hochberg (1995). Raises RaigenError unless 0 <= hits <= n.
    """
    p_values = []
    for (a, n_a), (b, n_b) in zip(first, second, strict=True):
        _check_share("hits", a, n_a)
        _check_share("hits", b, n_b)
        p_values.append(fisher_exact([[a, n_a - a], [b, n_b - b]]).pvalue)  # type: ignore[attr-defined]  # scipy has it
    return false_discovery_control(p_values, method="bh")


def _quantiles(rate: Float[np.ndarray, " draw"], confidence: float, method: str) -> Interval:
    low, high = np.quantile(rate, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), method)


def _bounds(hits: Int[np.ndarray, " outcome"], n: int, confidence: float) -> np.ndarray:
    """Lower and upper ends [2, outcome] for each number of hits."""
    few = np.minimum(hits, n - hits) < FEW
    return np.where(few, _clopper_pearson(hits, n, confidence), _wilson(hits, n, confidence))


def _clopper_pearson(hits: Int[np.ndarray, " outcome"], n: int, confidence: float) -> Float[np.ndarray, "2 outcome"]:
    tail = (1 - confidence) / 2
    low = np.where(hits == 0, 0.0, beta.ppf(tail, np.maximum(hits, 1), n - hits + 1))
    high = np.where(hits == n, 1.0, beta.ppf(1 - tail, hits + 1, np.maximum(n - hits, 1)))
    return np.stack([low, high])


def _wilson(hits: Int[np.ndarray, " outcome"], n: int, confidence: float) -> Float[np.ndarray, "2 outcome"]:
    z = norm.ppf((1 + confidence) / 2)
    share = hits / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(np.stack([center - half, center + half]), 0.0, 1.0)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise RaigenError(f"confidence: expected a number in (0, 1); got {confidence}")


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise RaigenError(f"{name}: expected 1 or more; got {count}")


def _check_share(name: str, part: int, whole: int) -> None:
    if not 0 <= part <= whole:
        raise RaigenError(f"{name}: expected 0 <= {name} <= {whole}; got {part}")


def paired_difference(
    after: Float[np.ndarray, " image"], before: Float[np.ndarray, " image"], confidence: float = 0.95
) -> Difference | None:
    """The rate in `after` minus that in `before`, of images of the same seeds; 1 shows it, 0 does not, NaN unscored.

    Only pairs with both scored count; None where there is none. The interval is Newcombe's for paired rates (1998,
    "square and add" with the correlation of the pairs, corrected for continuity), on the intervals of `rate_interval`.
    p is McNemar's exact test, two-sided: of the pairs that changed, how many went up, against one half.
    Raises RaigenError unless 0 < confidence < 1.

    >>> paired_difference(np.array([1.0, 1, 1, 0]), np.array([0.0, 0, 0, np.nan])).difference
    1.0
    """
    scored = ~(np.isnan(after) | np.isnan(before))
    n = int(scored.sum())
    if not n:
        return None
    up, down = after[scored] > before[scored], after[scored] < before[scored]
    gained, lost, both = int(up.sum()), int(down.sum()), int((after[scored] * before[scored]).sum())
    rates = (both + gained) / n, (both + lost) / n
    (low_1, high_1, _), (low_2, high_2, _) = (rate_interval(hits, n, confidence)
                                              for hits in (both + gained, both + lost))  # fmt: skip
    together = _correlation(both, gained, lost, n)
    difference = rates[0] - rates[1]
    down_by = _added(rates[0] - low_1, high_2 - rates[1], together)
    up_by = _added(high_1 - rates[0], rates[1] - low_2, together)
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Difference(difference, n, max(-1.0, difference - down_by), min(1.0, difference + up_by), p)


def mean_interval(values: Float[np.ndarray, " image"], confidence: float = 0.95) -> Mean:
    """The mean of two values or more with Student's interval.

    Raises RaigenError for fewer values, and unless 0 < confidence < 1.

    >>> mean_interval(np.array([1.0, 3.0])).mean
    2.0
    """
    if len(values) < 2:
        raise RaigenError(f"values: expected at least 2, to tell how far they spread; got {len(values)}")
    if not 0 < confidence < 1:
        raise RaigenError(f"confidence: expected a number in (0, 1); got {confidence}")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return Mean(mean, mean - half, mean + half, len(values))


def q_values(p_values: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg's (1995) q of each p: calling all with q <= x true is wrong in at most a share x of calls,
    on average. Nothing for no p.

    >>> q_values([0.01, 0.04, 0.5])
    [0.03, 0.06, 0.5]
    """
    return false_discovery_control(list(p_values), method="bh").round(15).tolist() if len(p_values) else []


def _correlation(both: int, gained: int, lost: int, n: int) -> float:
    """Of the two rates, from the counts of the four kinds of pairs; Newcombe's correction for continuity."""
    neither = n - both - gained - lost
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not product:
        return 0.0
    above = both * neither - gained * lost
    return (max(above - n / 2, 0.0) if above > 0 else above) / math.sqrt(product)


def _added(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))
