"""Tells images that show an attribute from all others by one similarity, when a few that show it are known."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from raigen.judging.posterior import Calibration

MOST_PARTS = 5  # normal distributions that describe the images that do not show it
N_STEPS = 80  # of expectation and maximization
TYPICAL_SPREAD = 0.3  # of images that show it, in standard deviations of all images
WORTH = 12  # known images that this typical spread counts for
LEAST_SPREAD = 0.15  # of each part, in the same unit: a narrower one describes single images
LEAST_FALSE = 0.05  # the false share is never known to be smaller


class Mixture(NamedTuple):
    """Similarities of all images as a mixture of normal distributions: one of those that show the attribute, with
    `mean` and `spread` (standard deviation), and parts of the others, with `weights`, `means` and `spreads`.

    `rate` in [0, 1] is the share of images that show it. An image counts as showing it beyond the `threshold`, where
    as many false images lie above as true ones below; so the images beyond it are as many as show the attribute.
    `false_share` is the share of false ones among them. `n_known` images were known to show it.
    """

    rate: float
    mean: float
    spread: float
    weights: Float[np.ndarray, " part"]
    means: Float[np.ndarray, " part"]
    spreads: Float[np.ndarray, " part"]
    threshold: float
    false_share: float
    n_known: int

    @property
    def errors(self) -> Calibration:
        """What is known of the errors of the threshold, as if from a calibration: a sensitivity as sure as `n_known`
        images make it, and a rate of false images that may well be off by its own size."""
        false_share = max(self.false_share, LEAST_FALSE)
        n_others = (1 - self.rate) / (false_share * self.rate)
        return Calibration((1 - false_share) * self.n_known, self.n_known, n_others - 1, n_others)

    def probability(self, similarity: Float[np.ndarray, " image"]) -> Float[np.ndarray, " image"]:
        """The probability of each image to show the attribute; constant beyond the mean of those that do."""
        at = np.minimum(similarity, self.mean)
        shows = self.rate * norm.pdf(at, self.mean, self.spread)
        others = (1 - self.rate) * _densities(at, self.weights, self.means, self.spreads).sum(1)
        return np.divide(shows, shows + others, out=np.zeros(len(at)), where=shows > 0)


def mixture_of(similarity: Float[np.ndarray, " image"], known: Float[np.ndarray, " known"]) -> Mixture:
    """The mixture that describes the similarities of all images. `known` holds the similarities of images that show it.

    The known images give the mean and the spread of all that show it: the spread with a typical one for prior. The
    rest is fitted by expectation and maximization (Dempster, Laird & Rubin 1977). The number of parts is the one with
    the least Bayesian information criterion; no part may lie where the known images do.
    """
    scale = max(float(similarity.std()), 1e-12)
    n, mean = len(known), float(known.mean())
    squares = WORTH * (TYPICAL_SPREAD * scale) ** 2 + float(((known - mean) ** 2).sum())
    spread = float(np.sqrt(squares / (WORTH + n - 1)))
    fits = [_fitted(similarity, mean, spread, n_parts, LEAST_SPREAD * scale) for n_parts in range(1, MOST_PARTS + 1)]
    best = min(fits, key=lambda fit: 3 * len(fit.weights) * np.log(len(similarity)) - 2 * fit.log_likelihood)
    threshold, false_share = _balance(best, mean, spread, float(np.median(similarity)))
    return Mixture(best.rate, mean, spread, best.weights, best.means, best.spreads, threshold, false_share, n)


class _Fit(NamedTuple):
    rate: float
    weights: Float[np.ndarray, " part"]
    means: Float[np.ndarray, " part"]
    spreads: Float[np.ndarray, " part"]
    log_likelihood: float


def _fitted(similarity: Float[np.ndarray, " image"], mean: float, spread: float, n_parts: int, least: float) -> _Fit:
    """The rate and the parts, with this mean and spread of the images that show the attribute."""
    shows = norm.pdf(similarity, mean, spread)
    means = np.quantile(similarity, (np.arange(n_parts) + 0.5) / n_parts)
    spreads, weights = np.full(n_parts, similarity.std() / n_parts + least), np.full(n_parts, 1 / n_parts)
    rate, total = 0.03, shows
    for _ in range(N_STEPS):
        others = (1 - rate) * _densities(similarity, weights, means, spreads)
        total = rate * shows + others.sum(1) + 1e-300
        of_part = others / total[:, None]
        count = of_part.sum(0) + 1e-9
        rate = max(float((rate * shows / total).mean()), 1e-6)
        weights = count / count.sum()
        means = np.minimum((of_part * similarity[:, None]).sum(0) / count, mean - spread)
        squares = (of_part * (similarity[:, None] - means) ** 2).sum(0) / count
        spreads = np.sqrt(np.maximum(squares, least**2))
    return _Fit(rate, weights, means, spreads, float(np.log(total).sum()))


def _densities(
    similarity: Float[np.ndarray, " image"],
    weights: Float[np.ndarray, " part"],
    means: Float[np.ndarray, " part"],
    spreads: Float[np.ndarray, " part"],
) -> Float[np.ndarray, "image part"]:
    return weights * norm.pdf(similarity[:, None], means, spreads)


def _balance(fit: _Fit, mean: float, spread: float, start: float) -> tuple[float, float]:
    """The threshold above which there are as many false images as true ones below, and the share of these."""
    at = np.linspace(start, mean + 3 * spread, 2000)
    false = (1 - fit.rate) * (fit.weights * norm.sf(at[:, None], fit.means, fit.spreads)).sum(1)
    missed = fit.rate * norm.cdf(at, mean, spread)
    place = int(np.abs(false - missed).argmin())
    return float(at[place]), float(min(false[place] / fit.rate, 1.0))
