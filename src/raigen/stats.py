"""Statistics of rates: intervals, sample sizes, paired differences, false discovery rates."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import beta, binom, binomtest, false_discovery_control, fisher_exact, nbinom, norm, t

from raigen.errors import RaigenError
from raigen.runs.records import Difference, Mean

LEVEL = 0.05  # a finding holds if its q is at most this
FEW = 10  # with fewer hits, or fewer misses, the interval is Clopper-Pearson


class Interval(NamedTuple):
    """A confidence interval, 0 <= low <= high (on a rate <= 1), with the `method` that made it."""

    low: float
    high: float
    method: str


def rate_interval(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """The interval on the rate behind `hits` of `n` independent images; (0, 1) for `n` = 0, which says nothing.

    Clopper & Pearson (1934) with fewer than 10 hits or misses, else Wilson (1927). At a nominal 95 %, Wilson alone
    covers as little as 84 % (100 images, rate 0.175 %) near 0, where rare attributes are, and also near 1;
    Clopper-Pearson never covers less than it says, but is wide. Together, for 100, 300 and 1,000 images, they cover at
    least 93.5 % at rates of 0.05 % to 5 %, and at least 92.7 % at any rate. The two ends do not err equally: below one
    half, the true rate is below the lower end in up to 5.0 % of cases (from 10 hits on, where the interval is Wilson's)
    and above the upper end in up to 3.1 %.

    Raises RaigenError unless 0 <= hits <= n and 0 < confidence < 1.

    >>> low, high, method = rate_interval(3, 300)
    >>> round(low, 4), round(high, 4), method
    (0.0021, 0.0289, 'Clopper-Pearson')
    >>> rate_interval(0, 0)
    Interval(low=0.0, high=1.0, method='no data')
    """
    if min(hits, n - hits) < FEW:
        return exact_interval(hits, n, confidence)
    check_confidence(confidence)
    z, share = norm.ppf((1 + confidence) / 2), hits / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = np.clip([center - half, center + half], 0.0, 1.0)  # scipy's differ in the last digit
    return Interval(float(low), float(high), "Wilson")


def exact_interval(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Clopper & Pearson's (1934) interval on the rate behind `hits` of `n` independent images; (0, 1) for `n` = 0.

    The true rate is below it in at most (1 - confidence) / 2 of cases, and above it in at most as many.
    Raises RaigenError unless 0 <= hits <= n and 0 < confidence < 1.

    >>> low, high, method = exact_interval(50, 100)
    >>> round(low, 3), round(high, 3), method
    (0.398, 0.602, 'Clopper-Pearson')
    """
    check_confidence(confidence)
    if not 0 <= hits <= n:
        raise RaigenError(f"hits: expected 0 <= hits <= n = {n}; got {hits}")
    if n == 0:
        return Interval(0.0, 1.0, "no data")
    tail = (1 - confidence) / 2  # scipy has this interval, too, but searches for its ends: 4 times slower, less exact
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return Interval(low, high, "Clopper-Pearson")


def images_to_decide(interval_at: Callable[[int], Interval], value: float, start: int = 20) -> int:
    """About how many images leave `value` outside the interval that `interval_at` so many images would give; two
    digits, at least `start`, at most 1,000,000.

    >>> images_to_decide(lambda n: rate_interval(round(0.03 * n), n), 0.05)
    470
    """
    n, most = start, 1_000_000
    while n < most:
        low, high, _ = interval_at(n)
        if not low <= value <= high:
            return int(float(f"{n:.2g}"))
        n = math.ceil(1.05 * n)
    return most


def ratio_interval(hits: int, n: int, other_hits: int, other_n: int, confidence: float = 0.95) -> Interval:
    """The interval on the ratio (hits / n) / (other_hits / other_n) of the rates of two independent sets of images.

    MOVER-R, which combines the ends of both `rate_interval`s (Donner & Zou 2012; Newcombe 2016). `high` is infinite
    where `other_hits` is 0; `low` is finite even then. Raises RaigenError as `rate_interval` does, and for an `n` of 0.

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


def images_needed(rate: float, examples: int = 1, confidence: float = 0.95) -> int:
    """How many images to generate so that an attribute of this `rate` is shown at least `examples` times with
    probability `confidence`.

    The smallest n with P(Binomial(n, rate) >= examples) >= confidence.
    Raises RaigenError unless 0 < rate <= 1, examples >= 1 and 0 < confidence < 1.

    >>> images_needed(0.01), images_needed(0.01, examples=10)
    (299, 1568)
    """
    check_confidence(confidence)
    check_count("examples", examples)
    if not 0 < rate <= 1:
        raise RaigenError(f"rate: expected a number in (0, 1]; got {rate}")
    return examples + int(nbinom.ppf(confidence, examples, rate))  # with so many misses before the last example


def rarest_rate(n_images: int, examples: int = 10, confidence: float = 0.95) -> float:
    """The smallest rate of an attribute that `n_images` show at least `examples` times with probability `confidence`.

    In (0, 1). Raises RaigenError unless 1 <= examples <= n_images and 0 < confidence < 1.

    >>> round(rarest_rate(1000), 4)
    0.0157
    """
    check_confidence(confidence)
    check_count("examples", examples)
    if n_images < examples:
        raise RaigenError(f"n_images: expected at least examples = {examples}; got {n_images}")
    return float(beta.ppf(confidence, examples, n_images - examples + 1))


def krippendorff_alpha(ratings: Float[np.ndarray, "judge unit"]) -> float | None:
    """Krippendorff's alpha for nominal ratings, NaN where a judge gave none: 1 - observed / expected disagreement.

    1 is agreement, 0 is chance, below 0 is worse than chance. Units with fewer than two ratings do not count. The
    result is None where alpha is not defined: no unit was rated twice, or all ratings are the same. (Krippendorff,
    "Computing Krippendorff's alpha-reliability", 2011.)

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


def paired_difference(
    after: Float[np.ndarray, " image"], before: Float[np.ndarray, " image"], confidence: float = 0.95
) -> Difference | None:
    """The rate in `after` minus the rate in `before`, for images of the same seeds: 1 shows it, 0 does not, NaN is
    unscored.

    Pairs with an unscored image do not count; the result is None where no pair counts. The interval is Newcombe's for
    paired rates (1998, "square and add" with the correlation of the pairs, corrected for continuity), based on
    `rate_interval`. p is McNemar's exact test, two-sided: of the pairs that changed, whether half of them went up.
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


def above_controls(
    hits: int, n: int, control_hits: Int[np.ndarray, " control"], control_n: Int[np.ndarray, " control"]
) -> float:
    """The one-sided p of "more often than one more control would", for `hits` of `n` images and two controls or more.

    The logits of the rates, log((hits + 1/2) / (n - hits + 1/2)), are compared by Student's prediction interval: one
    minus their mean, divided by s sqrt(1 + 1/m), with m - 1 degrees of freedom. s is the standard deviation of the m
    controls, but at least what the counts alone would give, so controls without a hit do not count as certain.

    Raises RaigenError for fewer than two controls.

    >>> round(above_controls(25, 50, np.array([0, 1, 2, 0, 1]), np.full(5, 50)), 3)
    0.016
    """
    if len(control_hits) < 2:
        raise RaigenError(f"controls: expected at least 2, to estimate their spread; got {len(control_hits)}")
    shown, missing = control_hits + 0.5, control_n - control_hits + 0.5
    logits = np.log(shown / missing)
    spread = math.sqrt(max(logits.var(ddof=1), (1 / shown + 1 / missing).mean()) * (1 + 1 / len(logits)))
    return float(t.sf((math.log((hits + 0.5) / (n - hits + 0.5)) - logits.mean()) / spread, len(logits) - 1))


def mean_interval(values: Float[np.ndarray, " image"], confidence: float = 0.95) -> Mean:
    """The mean of two or more values with Student's interval.

    Raises RaigenError for fewer values, and unless 0 < confidence < 1.

    >>> mean_interval(np.array([1.0, 3.0])).mean
    2.0
    """
    if len(values) < 2:
        raise RaigenError(f"values: expected at least 2, to estimate their spread; got {len(values)}")
    check_confidence(confidence)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return Mean(mean, mean - half, mean + half, len(values))


def p_rarer(hits: int, n: int, rate: float) -> float:
    """p of "rarer than `rate`", shown by `hits` of `n` images: P(Binomial(n, rate) <= hits), one-sided.

    Raises RaigenError unless 0 <= hits <= n and 0 < rate < 1.

    >>> p_rarer(0, 100, 0.05) < 0.01 < p_rarer(5, 100, 0.05)
    True
    """
    _check_rate(rate)
    check_share("hits", hits, n)
    return float(binom.cdf(hits, n, rate))


def p_below(low: float, high: float, rate: float, confidence: float = 0.95) -> float:
    """About the probability that a rate with the interval [low, high] is not below `rate`: for intervals that know more
    than a binomial test does. The arcsine of its square root counts as normal between the two ends.

    Raises RaigenError unless 0 <= low < high <= 1, 0 < rate < 1 and 0 < confidence < 1.

    >>> round(p_below(0.01, 0.05, 0.05), 3), round(p_below(0.0, 0.02, 0.05), 3)
    (0.025, 0.0)
    """
    _check_rate(rate)
    check_confidence(confidence)
    if not 0 <= low < high <= 1:
        raise RaigenError(f"interval: expected 0 <= low < high <= 1; got [{low}, {high}]")
    first, last, at = (math.asin(math.sqrt(share)) for share in (low, high, rate))
    spread = (last - first) / (2 * norm.ppf((1 + confidence) / 2))
    return float(norm.sf((at - (first + last) / 2) / spread))


def p_independent(both: int, one: int, other: int, n: int) -> float:
    """The two-sided p of two things that show in `one` and in `other` of `n` images, and together in `both`, if they
    were independent (Fisher's exact test).

    >>> round(p_independent(5, 10, 10, 100), 4), p_independent(1, 10, 10, 100)
    (0.0007, 1.0)
    """
    result: Any = fisher_exact([[both, one - both], [other - both, n - one - other + both]])
    return float(result.pvalue)


def q_values(p_values: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg's (1995) q of each p: of the findings with q <= x, on average at most a share x is wrong.

    >>> q_values([0.01, 0.04, 0.5])
    [0.03, 0.06, 0.5]
    >>> q_values([])
    []
    """
    return false_discovery_control(list(p_values), method="bh").round(15).tolist() if len(p_values) else []


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise RaigenError(f"rate: expected a number in (0, 1); got {rate}")


def check_confidence(confidence: float) -> None:
    """Raises RaigenError unless 0 < confidence < 1."""
    if not 0 < confidence < 1:
        raise RaigenError(f"confidence: expected a number in (0, 1); got {confidence}")


def check_count(name: str, count: int) -> None:
    if count < 1:
        raise RaigenError(f"{name}: expected 1 or more; got {count}")


def check_share(name: str, part: float, whole: float) -> None:
    if not 0 <= part <= whole:
        raise RaigenError(f"{name}: expected 0 <= {name} <= {whole}; got {part}")


def _correlation(both: int, gained: int, lost: int, n: int) -> float:
    """The correlation of the two rates, with Newcombe's correction for continuity, from the counts of pairs."""
    neither = n - both - gained - lost
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not product:
        return 0.0
    above = both * neither - gained * lost
    return (max(above - n / 2, 0.0) if above > 0 else above) / math.sqrt(product)


def _added(one: float, other: float, correlation: float) -> float:
    """The root of the sum of two correlated squares."""
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))
