"""Means over seeds with their intervals."""

import re
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student


def interval_of(means: Float[np.ndarray, " seed"]) -> dict[str, float]:
    """Mean and 95 % Student interval; without an interval for fewer than two."""
    if len(means) == 0:
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    mean, n = float(means.mean()), len(means)
    half = float(student.ppf(0.975, n - 1) * means.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def shown(value: dict[str, float]) -> str:
    """`.80 [.75, .85]`, or the mean alone where there is no interval.

    >>> shown({"mean": 10.0, "low": -0.25, "high": 0.5})
    '10.00 [-.25, .50]'
    """
    mean, low, high = (re.sub(r"^(-?)0\.", r"\1.", f"{value[name]:.2f}") for name in ("mean", "low", "high"))
    return mean if np.isnan(value["low"]) else f"{mean} [{low}, {high}]"


def without_nan(data: Any) -> Any:
    """Lists and dicts with None for NaN, which JSON does not know."""
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and np.isnan(data) else data
