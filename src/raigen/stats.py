"""Statistics of rates: intervals, their exact coverage, sample sizes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import beta, binom, norm

from raigen.errors import RaigenError

FEW = 10  # hits, or misses, below which the interval is Clopper-Pearson


class Interval(NamedTuple):
    """A confidence interval on a rate, 0 <= low <= high <= 1, with the `method` that made it."""

    low: float
    high: float
    method: str


def rate_interval(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """The interval on the rate behind `hits` of `n` independent pictures; `n` = 0 tells nothing and gives (0, 1).

    Clopper & Pearson (1934) when hits or misses are fewer than 10, else Wilson (1927). Why the switch: of a nominal
    95 %, Wilson alone covers as little as 84 % (100 pictures, rate 0.175 %), near 0, where rare attributes live, and
    near 1 alike; Clopper-Pearson never covers less than it says, but is wide. Together, for 100, 300 and 1,000
    pictures, they cover at least 93.5 % at rates of 0.05 % to 5 %, and at least 92.7 % at any rate (see `coverage`).

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


def coverage(rate: float, n: int, confidence: float = 0.95) -> float:
    """The exact probability, over all outcomes of `n` pictures, that `rate_interval` holds the true `rate`.

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
    """How many pictures show an attribute of this `rate` at least `examples` times with probability `confidence`.

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
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(np.stack([centre - half, centre + half]), 0.0, 1.0)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise RaigenError(f"confidence: expected a number in (0, 1); got {confidence}")


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise RaigenError(f"{name}: expected 1 or more; got {count}")
