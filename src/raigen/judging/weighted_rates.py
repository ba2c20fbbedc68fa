"""Draws some of the images for a judge, and weights their verdicts back to a rate among all images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta

from raigen.errors import RaigenError
from raigen.stats import check_confidence

FLOOR = 0.2  # of the draws, this share gives every image the same chance
LESS_LIKELY = 0.7  # of the chance of the least likely hit that was drawn: one more, for the upper end


class WeightedRate(NamedTuple):
    """A rate in [0, 1] with its interval; `effective_n` images drawn with equal chances would say as much."""

    rate: float
    low: float
    high: float
    effective_n: float


def chances_of(share: Float[np.ndarray, " image"], n: int, floor: float = FLOOR) -> Float[np.ndarray, " image"]:
    """The chance in (0, 1] with which each image is drawn, so that `n` are drawn: in proportion to (1 - `floor`) times
    its `share` (0 or more, of any sum above 0) plus `floor` times an equal one, and 1 where that would exceed 1.

    Raises RaigenError unless 1 <= n <= the number of images.

    >>> chances_of(np.array([9.0, 1.0, 0.0, 0.0]), 2).round(2).tolist()
    [1.0, 0.57, 0.22, 0.22]
    """
    if not 1 <= n <= len(share):
        raise RaigenError(f"n: expected 1 to {len(share)}, the number of images; got {n}")
    weight = (1 - floor) * share / share.sum() + floor / len(share)
    sure = np.zeros(len(share), bool)
    while True:
        scale = (n - sure.sum()) / weight[~sure].sum() if not sure.all() else 0.0
        more = ~sure & (weight * scale >= 1)
        if not more.any():
            return np.where(sure, 1.0, weight * scale)
        sure |= more


def drawn(chances: Float[np.ndarray, " image"], rng: np.random.Generator) -> Bool[np.ndarray, " image"]:
    """Draws images, each with its chance, by one pass with equal steps over a random order (Madow 1949). Their number
    is the sum of the chances, up to rounding."""
    order = rng.permutation(len(chances))
    places = np.floor(np.cumsum(chances[order]) + rng.random() + 1e-9)
    found = np.zeros(len(chances), bool)
    found[order] = np.diff(places, prepend=0.0) > 0
    return found


def weighted_rate(
    shows: Float[np.ndarray, " drawn"], chances: Float[np.ndarray, " drawn"], n_images: int, confidence: float = 0.95
) -> WeightedRate:
    """The rate among all images of a prompt, from those of `n_images` that were drawn with these `chances` and judged:
    1 shows it, 0 does not.

    The rate is Hajek's (1971): sum(shows / chance) / sum(1 / chance). Its variance has two parts, r (1 - r) / n_images
    for the images of the prompt and sum((1 - chance) (shows - r)^2 / chance^2) / sum(1 / chance)^2 for the draw. The
    interval is Clopper and Pearson's for as many images of equal weight as have this variance (Korn and Graubard 1998),
    at most `n_images`. A hit with a small chance is often not drawn, and then nothing tells of it; so the variance of
    the upper end includes one more hit, with `LESS_LIKELY` times the smallest chance of those that were drawn. Without
    a hit, the images count as Kish's number, sum(1 / chance)^2 / sum(1 / chance^2). docs/log.md has its coverage.
    Raises RaigenError unless 0 < confidence < 1.

    >>> found = weighted_rate(np.array([1.0, 0, 0, 0]), np.array([1.0, 0.5, 0.1, 0.1]), 100)
    >>> round(found.rate, 3), found.low < 0.05 < found.high
    (0.043, True)
    """
    check_confidence(confidence)
    weights = 1 / chances
    total = float(weights.sum())
    if not len(shows):
        return WeightedRate(0.0, 0.0, 1.0, 0.0)
    rate = float((weights * shows).sum()) / total
    tail, kish = (1 - confidence) / 2, total**2 / float((weights**2).sum())
    inside = 0 < rate < 1
    spread = rate * (1 - rate) / n_images + float(((1 - chances) * (weights * (shows - rate)) ** 2).sum()) / total**2
    n_low = min(float(n_images), rate * (1 - rate) / spread) if inside else kish
    least = max(float(chances.min()), LESS_LIKELY * float(chances[shows > 0].min())) if inside else 1.0
    more = (1 - least) / (least * total) ** 2
    n_high = min(n_low, rate * (1 - rate) / (spread + more)) if inside else kish
    low = float(beta.ppf(tail, rate * n_low, (1 - rate) * n_low + 1)) if rate > 0 else 0.0
    high = float(beta.ppf(1 - tail, rate * n_high + 1, (1 - rate) * n_high)) if rate < 1 else 1.0
    return WeightedRate(rate, low, high, n_high)
