"""Measures a list of units against the judge's verdicts on the same images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

from raigen.world.truth import RARE_SEEN_AT_MOST as RARE_AT_MOST
from raigen.world.truth import SHARED_BY_AT_LEAST as SHARED_BY

BANDS = ((0.0, 0.005), (0.005, 0.01), (0.01, 0.02), (0.02, 0.05), (0.05, 0.10))  # of rates: above, and up to
N_TOP = 10
RANGES = {"redundancy": (1.0, np.inf), "rate correlation": (-1.0, 1.0), "listed": (0.0, np.inf),
          "control hits": (0.0, np.inf)}  # of the measures; all others are shares, in [0, 1]  # fmt: skip
LIFT = 2.0  # a value must be this much more frequent in the top images than in all images


class Listing(NamedTuple):
    """Units in the order of the list: the activation of each in every image, and its estimated rate."""

    activations: Float[np.ndarray, "image unit"]
    rates: Float[np.ndarray, " unit"]


class Truth(NamedTuple):
    """The judge's verdicts: `shows` for each readable image and value; `controls` are values never planted here."""

    shows: Bool[np.ndarray, "image value"]
    controls: Int[np.ndarray, " control"]


class Verdict(NamedTuple):
    """For each unit: the rare value it hits, the value it means, the control it hits; -1 for none."""

    hit: Int[np.ndarray, " unit"]
    meaning: Int[np.ndarray, " unit"]
    control: Int[np.ndarray, " unit"]


def top_images(activations: Float[np.ndarray, "image unit"], count: int = N_TOP) -> Int[np.ndarray, "unit top"]:
    """The images in which each unit is strongest; ties in the order of images."""
    return np.argsort(-activations, axis=0, kind="stable")[:count].T


def verdicts(listing: Listing, truth: Truth) -> Verdict:
    """Finds the values that the ten top images of each unit share.

    A unit *means* a value when at least 80 % of its top images show it, at least twice as often as all images do;
    of several values, the one with the highest lift. It is a *hit* when one of these values is rare (shown by above 0
    and at most 10 % of all images), and a control hit when 80 % of its top images show a value that is never planted.
    """
    rate = truth.shows.mean(0)
    shares = truth.shows[top_images(listing.activations)].mean(1)  # [unit, value]
    lift = shares / np.maximum(rate, 1e-9)
    shared = shares >= SHARED_BY
    rare = (rate > 0) & (rate <= RARE_AT_MOST)
    control = np.isin(np.arange(len(rate)), truth.controls)
    return Verdict(
        _best(lift, shared & rare), _best(lift, shared & (lift >= LIFT)), _best(lift, shared & control)
    )  # fmt: skip


def measure(listing: Listing, truth: Truth) -> dict[str, float]:
    """All measures of one list, by name; NaN where there is nothing to measure.

    precision@m: share of the first m units (or of all, if fewer) that hit. recall@m: share of the rare values hit by
    the first m; also by band of rate. redundancy: hits per value hit. interpretable: share of the first ten that mean a
    value. presence: mean rate of these values. rate correlation: Spearman correlation of estimated and true rate, over
    all units that mean a value. matched AP: mean over rare values of the average precision of the unit matched to each
    (one to one; 0 for values without a unit).
    """
    verdict = verdicts(listing, truth)
    rate = truth.shows.mean(0)
    rare = (rate > 0) & (rate <= RARE_AT_MOST)
    first = slice(0, 10)
    meaning = verdict.meaning[first][verdict.meaning[first] >= 0]
    hits = verdict.hit[verdict.hit >= 0]
    result = {f"precision@{m}": _share(verdict.hit[:m] >= 0) for m in (10, 20)}
    for m in (10, 20, 50):
        found = np.isin(np.arange(len(rate)), verdict.hit[:m])
        result[f"recall@{m}"] = _share(found[rare])
        for low, high in BANDS:
            band = rare & (rate > low) & (rate <= high)
            result[f"recall@{m} in {100 * low:g}-{100 * high:g} %"] = _share(found[band])
    means = verdict.meaning >= 0
    return result | {
        "redundancy": len(hits) / len(np.unique(hits)) if len(hits) else np.nan,
        "control hits": float((verdict.control[first] >= 0).sum()),
        "interpretable": _share(verdict.meaning[first] >= 0),
        "presence": float(rate[meaning].mean()) if len(meaning) else np.nan,
        "rate correlation": _spearman(listing.rates[means], rate[verdict.meaning[means]]),
        "matched AP": matched_precision(listing.activations, truth.shows[:, rare]),
        "listed": float(len(listing.rates)),
    }


def average_precision(
    activations: Float[np.ndarray, "image unit"], shows: Bool[np.ndarray, "image value"]
) -> Float[np.ndarray, "unit value"]:
    """Average precision of each unit for each value: sum over thresholds of precision x growth of recall.

    Images of equal activation are added together, as in scikit-learn's `average_precision_score`.
    """
    result = np.empty((activations.shape[1], shows.shape[1]))
    for unit, column in enumerate(activations.T):
        order = np.argsort(-column, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(column[order]) != 0, True))
        true = shows[order].cumsum(0)[ends]
        precision = true / (ends[:, None] + 1)
        growth = np.diff(true, axis=0, prepend=0) / np.maximum(true[-1], 1)
        result[unit] = (precision * growth).sum(0)
    return result


def matched_precision(activations: Float[np.ndarray, "image unit"], shows: Bool[np.ndarray, "image value"]) -> float:
    """Mean average precision over values, with units matched to values one to one such that it is highest."""
    if shows.shape[1] == 0:
        return float("nan")
    table = average_precision(activations, shows)
    units, values = linear_sum_assignment(table, maximize=True)
    return float(table[units, values].sum() / shows.shape[1])


def _best(lift: Float[np.ndarray, "unit value"], allowed: Bool[np.ndarray, "unit value"]) -> Int[np.ndarray, " unit"]:
    best = np.where(allowed, lift, -1.0).argmax(1)
    return np.where(allowed.any(1), best, -1)


def _share(flags: Sequence[bool] | np.ndarray) -> float:
    return float(np.mean(flags)) if len(flags) else float("nan")


def _spearman(estimated: np.ndarray, true: np.ndarray) -> float:
    known = np.isfinite(estimated)
    if known.sum() < 3 or np.ptp(estimated[known]) == 0 or np.ptp(true[known]) == 0:
        return float("nan")
    return float(spearmanr(estimated[known], true[known])[0])  # type: ignore[arg-type]
