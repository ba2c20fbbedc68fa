"""How well a label tells images on which a neuron fires from others: which images to ask about, and the score."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from raigen.discovery.codes import fires
from raigen.stats import Interval, rate_interval

STRONGLY = 0.5  # of the mean of a neuron's strongest codes
TINY = 1e-9  # keeps the search for an end off 0 and 1, where the variance is 0


class HeldOut(NamedTuple):
    """Indices of images that had no part in the naming: the neuron fires strongly on `active`, and hardly if at all
    on the others, of which `hard` look most like those on which it fires."""

    active: Int[np.ndarray, " image"]
    hard: Int[np.ndarray, " image"]
    random: Int[np.ndarray, " image"]


class Detection(NamedTuple):
    """How well verdicts tell the two sides apart. Balanced accuracy is the mean of the shares that are right on each
    side; AUROC, the chance that of an image from each side the active one has the higher score. Both in [0, 1], 0.5 as
    by chance, with intervals. `hits` of `n_active` active and `false_hits` of `n_silent` silent ones were a yes."""

    hits: int
    n_active: int
    false_hits: int
    n_silent: int
    balanced_accuracy: float
    accuracy_interval: Interval
    auroc: float
    auroc_interval: Interval


def held_out(
    codes: Float[np.ndarray, " image"],
    embeddings: Float[np.ndarray, "image width"],
    unusable: Bool[np.ndarray, " image"],
    count: int,
    seed: int,
) -> HeldOut:
    """Up to `count` active images, evenly from the strongest to the weakest, and as many silent ones.

    Active is a code of at least half the mean of the ten strongest, silent one below a quarter of it: a label names
    what a neuron is strongest on, and most neurons fire faintly on much else. Half of the silent ones are the nearest
    to the neuron's centroid, the rest are drawn by lot. `unusable` ones (those the label was made from) are left out.
    """
    firing = np.flatnonzero(fires(codes[:, None], STRONGLY)[:, 0] & ~unusable)
    firing = firing[np.argsort(-codes[firing], kind="stable")]
    active = firing[np.linspace(0, len(firing) - 1, min(count, len(firing))).round().astype(int)]
    silent = np.flatnonzero(~fires(codes[:, None])[:, 0] & ~unusable)
    nearness = embeddings[silent] @ (codes @ embeddings)  # the scale of the centroid changes no order
    hard = silent[np.argsort(-nearness, kind="stable")][: (len(active) + 1) // 2]
    others = np.setdiff1d(silent, hard)
    rng = np.random.default_rng(seed)
    random = np.sort(rng.choice(others, min(len(active) - len(hard), len(others)), replace=False))
    return HeldOut(active, hard, random)


def detection(
    active: Float[np.ndarray, " image"], silent: Float[np.ndarray, " other"], confidence: float = 0.95
) -> Detection | None:
    """The score from the probability of a yes on each image, NaN where there is no answer: those do not count.

    A yes is a probability above 1/2. The interval on balanced accuracy joins those of the two shares by squares
    (MOVER; Zou & Donner 2008); that on AUROC is Newcombe's (2006, method 5), which stays wide at 1. None when a side
    has no answer.

    >>> found = detection(np.array([0.9, 0.8, 0.2]), np.array([0.1, 0.3, np.nan]))
    >>> found.hits, found.n_silent, round(found.balanced_accuracy, 3), round(found.auroc, 3)
    (2, 2, 0.833, 0.833)
    """
    active, silent = active[~np.isnan(active)], silent[~np.isnan(silent)]
    if not len(active) or not len(silent):
        return None
    hits, false_hits = int((active > 0.5).sum()), int((silent > 0.5).sum())
    right = (hits, len(active)), (len(silent) - false_hits, len(silent))
    accuracy = sum(count / n for count, n in right) / 2
    ends = [(count / n, rate_interval(count, n, confidence)) for count, n in right]
    down = sum((share - interval.low) ** 2 for share, interval in ends) ** 0.5 / 2
    up = sum((interval.high - share) ** 2 for share, interval in ends) ** 0.5 / 2
    ranks = rankdata(np.concatenate([active, silent]))[: len(active)].sum()
    auroc = float((ranks - len(active) * (len(active) + 1) / 2) / (len(active) * len(silent)))
    return Detection(
        hits, len(active), false_hits, len(silent), accuracy,
        Interval(max(0.0, accuracy - down), min(1.0, accuracy + up), "MOVER"),
        auroc, auroc_interval(auroc, len(active), len(silent), confidence),
    )  # fmt: skip


def auroc_interval(auroc: float, n_active: int, n_silent: int, confidence: float = 0.95) -> Interval:
    """Newcombe's interval (2006, method 5) on an area under the ROC curve, from it and the two sizes alone.

    The ends are the areas t with |auroc - t| = z sqrt(V(t)),
    V(t) = t (1 - t) [1 + (N - 1) ((1 - t) / (2 - t) + t / (1 + t))] / (n_active n_silent), N = (n_active + n_silent)/2.

    >>> low, high, _ = auroc_interval(1.0, 10, 10)
    >>> round(low, 2), high
    (0.8, 1.0)
    """
    z, half = float(norm.ppf((1 + confidence) / 2)), (n_active + n_silent) / 2

    def beyond(area: float) -> float:
        spread = area * (1 - area) * (1 + (half - 1) * ((1 - area) / (2 - area) + area / (1 + area)))
        return (auroc - area) ** 2 - z**2 * spread / (n_active * n_silent)

    low = _zero(beyond, 0.0, min(auroc, 1 - TINY)) if auroc > 0 else 0.0
    high = _zero(beyond, max(auroc, TINY), 1.0) if auroc < 1 else 1.0
    return Interval(low, high, "Newcombe")


def _zero(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that changes its sign between `low` and `high` is 0."""
    return float(brentq(function, low, high))  # type: ignore[arg-type]  # a pair only where it is asked for
