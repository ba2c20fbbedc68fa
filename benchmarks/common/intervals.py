"""Means and medians with their intervals."""

import math
import re
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit
from scipy.stats import binom
from scipy.stats import t as student

Summary = dict[str, dict[str, dict[str, float]]]  # row -> measure -> mean with its interval
SHARE, CORRELATION = (0.0, 1.0), (-1.0, 1.0)  # the ends that a mean cannot pass
COUNT, ANY = (0.0, math.inf), (-math.inf, math.inf)
FEWEST = 3  # values that say how much they vary


def interval_of(values: Float[np.ndarray, " prompt"], within: tuple[float, float]) -> dict[str, float]:
    """Mean of independent values, usually one for each prompt, with a 95 % interval that stays `within` the two ends.

    Between two finite ends it is Student's interval of the mean's logit (by the delta method: the standard error is
    divided by the slope); otherwise Student's interval of the mean itself, cut off at the ends. There is no interval
    for fewer than three values, or for values that do not vary, because they do not say how much others would.
    """
    n, nan = len(values), math.nan
    mean = float(values.mean()) if n else nan
    spread = float(values.std(ddof=1)) if n >= FEWEST and np.ptp(values) > 0 else 0.0
    if spread == 0 or not within[0] < mean < within[1]:
        return {"mean": mean, "low": nan, "high": nan, "n": n}
    low, high = _ends(mean, float(student.ppf(0.975, n - 1)) * spread / math.sqrt(n), within)
    return {"mean": mean, "low": low, "high": high, "n": n}


def _ends(mean: float, half: float, within: tuple[float, float]) -> tuple[float, float]:
    """The ends of an interval around a mean, from half the length of Student's interval."""
    least, most = within
    if not all(map(math.isfinite, within)):
        return max(least, mean - half), min(most, mean + half)
    place = (mean - least) / (most - least)
    half /= (most - least) * place * (1 - place)
    low, high = (least + (most - least) * float(expit(logit(place) + step)) for step in (-half, half))
    return low, high


def median_interval(values: Float[np.ndarray, " value"]) -> dict[str, float]:
    """Median (as `mean`) of independent values, with the 95 % interval between two order statistics; without an
    interval for fewer than six values. Infinite values count as large ones.

    >>> median_interval(np.array([1.0, 2, 3, 4, 5, np.inf]))
    {'mean': 3.5, 'low': 1.0, 'high': inf, 'n': 6}
    """
    ordered, n = np.sort(values), len(values)
    if not n:
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    below = int(binom.ppf(0.025, n, 0.5))  # P(fewer than `below` lie under the median) <= .025
    known = below >= 1
    low, high = (float(ordered[below - 1]), float(ordered[n - below])) if known else (float("nan"), float("nan"))
    middle = (float(ordered[(n - 1) // 2]) + float(ordered[n // 2])) / 2
    return {"mean": middle, "low": low, "high": high, "n": n}


def shown(value: dict[str, float], n: float = 0) -> str:
    """`.80 [.75, .85]`, or the mean alone where there is no interval; with its number of values if that is below `n`,
    and `-` for none.

    >>> shown({"mean": 10.0, "low": -0.25, "high": 0.5, "n": 4}, n=6)
    '10.00 [-.25, .50] (n = 4)'
    """
    if np.isnan(value["mean"]):
        return "-"
    mean, low, high = (
        re.sub(r"^(-?)0\.", r"\1.", f"{round(value[name], 2) + 0.0:.2f}") for name in ("mean", "low", "high")
    )
    text = mean if np.isnan(value["low"]) else f"{mean} [{low}, {high}]"
    return text + (f" (n = {value['n']})" if value["n"] < n else "")


def without_nan(data: Any) -> Any:
    """Lists and dicts with None for NaN and infinity, which JSON does not know."""
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and not np.isfinite(data) else data


def with_nan(data: Any) -> Any:
    """Dicts with NaN for None: what `without_nan` wrote of numbers, read back."""
    if isinstance(data, dict):
        return {key: with_nan(value) for key, value in data.items()}
    return math.nan if data is None else data
