"""What is known of a rate when the judge errs: the posterior, from images with known answers."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, softmax, xlogy
from scipy.stats import beta

from raigen.stats import Interval, check_confidence, check_share

LATTICE = 377, 233  # Fibonacci numbers: how many points a lattice on a square has, and their order on its second side
TINY = 1e-15  # a judge never says yes at a rate of exactly 0 or 1


class Calibration(NamedTuple):
    """A judge's answers on images with known truth: yes to `true_yes` of the `positives`, which show the attribute, and
    no to `true_no` of the `negatives`, which do not. What an estimate is worth need not be a whole number of images."""

    true_yes: float
    positives: float
    true_no: float
    negatives: float


def calibrated_interval(hits: int, n: int, judge: Calibration, confidence: float = 0.95) -> Interval:
    """The interval on the true rate behind `hits` of `n` images to which an imperfect judge said yes.

    With sensitivity Se and specificity Sp the judge says yes at the rate q = p Se + (1 - p) (1 - Sp) (Rogan & Gladen
    1978). The interval is the middle of the posterior of p: p, Se and Sp have Jeffreys' prior Beta(1/2, 1/2), and the
    likelihood Binomial(hits; n, q) is averaged over the posteriors of Se and Sp, on grids, without random draws. The
    ends lie between 0 and 1 and apart, even where no hit was seen.

    It is right if the calibration's images are random samples of the prompt's own images: the `positives` of those that
    show the attribute, the `negatives` of those that do not. Negatives that are harder than most images of the prompt
    (look-alikes) make the rate too low, easier ones too high; `python -m benchmarks.rates` measures how much.

    Raises RaigenError unless the counts fit and 0 < confidence < 1.

    >>> low, high, method = calibrated_interval(0, 300, Calibration(45, 50, 190, 200))
    >>> f"{low:.6f}", f"{high:.4f}", method
    ('0.000002', '0.0094', 'Beta posterior')
    """
    check_confidence(confidence)
    _check_judged(hits, n, judge)
    most = beta.ppf(1 - 1e-9, hits + 0.5, n - hits + 0.5)  # of q, and q >= p Se
    most = min(1.0, most / beta.ppf(1e-7, judge.true_yes + 0.5, judge.positives - judge.true_yes + 0.5))
    end = math.asin(math.sqrt(most))
    edges = np.linspace(0, end, 50 + math.ceil(8 * end * math.sqrt(n)))  # four cells a standard deviation, or more
    rates = np.sin((edges[1:, None] + edges[:-1, None]) / 2) ** 2  # of a uniform angle: Jeffreys' prior
    points, turn = LATTICE
    places = np.arange(points)
    sensitivities, of_se = _posterior_at((places + 0.5) / points, judge.true_yes, judge.positives)
    specificities, of_sp = _posterior_at((places * turn % points + 0.5) / points, judge.true_no, judge.negatives)
    said = (rates * sensitivities + (1 - rates) * (1 - specificities)).clip(TINY, 1 - TINY)
    likely = hits * np.log(said) + (n - hits) * np.log(1 - said) + of_se + of_sp
    posterior = softmax(logsumexp(likely, axis=1))
    tail = (1 - confidence) / 2
    ends = np.sin(np.interp([tail, 1 - tail], np.r_[0, posterior.cumsum()], edges)) ** 2
    return Interval(float(ends[0]), float(ends[1]), "Beta posterior")


def contradiction(hits: int, n: int, judge: Calibration) -> float:
    """The posterior probability that the judge says yes to fewer of the `n` images than a judge with this calibration
    would if no image showed the attribute, q < 1 - Sp.

    Near 1, the calibration's negatives are not like the images that were judged. Raises RaigenError unless the counts
    fit.

    >>> round(contradiction(0, 300, Calibration(45, 50, 190, 200)), 3)
    1.0
    """
    _check_judged(hits, n, judge)
    specificities, log_weights = _posterior_at((np.arange(1000) + 0.5) / 1000, judge.true_no, judge.negatives)
    return float(softmax(log_weights) @ beta.cdf(1 - specificities, hits + 0.5, n - hits + 0.5))


def _posterior_at(
    places: Float[np.ndarray, " node"], yes: float, n: float
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
    """Rates at `places` in [0, 1] of the range of the posterior Beta(yes + 1/2, n - yes + 1/2), and the logarithms of
    their weights, up to a constant. The range is even in angles a, with rate = sin^2 a."""
    first, last = np.arcsin(np.sqrt(beta.ppf([1e-7, 1 - 1e-7], yes + 0.5, n - yes + 0.5)))
    angles = first + (last - first) * places
    return np.sin(angles) ** 2, 2 * (xlogy(yes, np.sin(angles)) + xlogy(n - yes, np.cos(angles)))


def _check_judged(hits: int, n: int, judge: Calibration) -> None:
    check_share("hits", hits, n)
    check_share("true_yes", judge.true_yes, judge.positives)
    check_share("true_no", judge.true_no, judge.negatives)
