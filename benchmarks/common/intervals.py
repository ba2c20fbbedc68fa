"""Means and medians with their intervals."""

import re
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import binom
from scipy.stats import t as student


def interval_of(means: Float[np.ndarray, " seed"]) -> dict[str, float]:
    """Mean and 95 % Student interval; without an interval for fewer than two."""
    if len(means) == 0:
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    mean, n = float(means.mean()), len(means)
    half = float(student.ppf(0.975, n - 1) * means.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


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


def shown(value: dict[str, float]) -> str:
    """`.80 [.75, .85]`, or the mean alone where there is no interval.

    >>> shown({"mean": 10.0, "low": -0.25, "high": 0.5})
    '10.00 [-.25, .50]'
    """
    mean, low, high = (re.sub(r"^(-?)0\.", r"\1.", f"{value[name]:.2f}") for name in ("mean", "low", "high"))
    return mean if np.isnan(value["low"]) else f"{mean} [{low}, {high}]"


def without_nan(data: Any) -> Any:
    """Lists and dicts with None for NaN and infinity, which JSON does not know."""
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and not np.isfinite(data) else data
