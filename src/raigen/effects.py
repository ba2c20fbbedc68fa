"""Effects on the same seeds: what a change did to a rate, to a mean, and which of many effects hold."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, false_discovery_control, t

from raigen.errors import RaigenError
from raigen.records import Difference, Mean
from raigen.stats import rate_interval


def paired_difference(
    after: Float[np.ndarray, " picture"], before: Float[np.ndarray, " picture"], confidence: float = 0.95
) -> Difference | None:
    """The rate in `after` minus that in `before`, of pictures of the same seeds; 1 shows it, 0 does not, NaN unscored.

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


def mean_interval(values: Float[np.ndarray, " picture"], confidence: float = 0.95) -> Mean:
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
