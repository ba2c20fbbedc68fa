"""Simulated audits: a known rate, a judge that errs, and a calibration that is right or wrong about its errors."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

from raigen.config import ReportConfig
from raigen.judging.calibration import SURE, calibrated
from raigen.judging.posterior import Calibration, contradiction
from raigen.judging.review import reviewed_rate, to_look_at
from raigen.runs.records import Presence
from raigen.stats import rate_interval


class Judge(NamedTuple):
    """How often the judge says yes to images that show the attribute, and no to images that do not."""

    sensitivity: float
    specificity: float


class Kind(NamedTuple):
    """A set of images with known answers. On its negatives the judge errs `alarms` times as often as on the prompt's
    own images, on its positives it misses `misses` times as many."""

    positives: int
    negatives: int
    alarms: float = 1.0
    misses: float = 1.0


KINDS = {
    "random sample": Kind(50, 200),
    "look-alike negatives": Kind(50, 200, alarms=5.0),
    "easy negatives": Kind(50, 200, alarms=0.2),
    "easy positives": Kind(50, 200, misses=0.2),
    "too few": Kind(5, 10),
}


class Audit(NamedTuple):
    """One audit: which images show the attribute, the judge's scores (above 0 for yes), and what the judge said to the
    images with known answers."""

    shows: Bool[np.ndarray, " image"]
    scores: Float[np.ndarray, " image"]
    known: Calibration

    @property
    def raw(self) -> Presence:
        """The judge's rate."""
        hits, n = int((self.scores > 0).sum()), len(self.scores)
        low, high, method = rate_interval(hits, n)
        return Presence(hits / n, low, high, hits, n, 0, "simulated", method)

    def checked(self, n_looks: int, seed: int) -> Presence:
        """The rate after a person has looked at some of the images and made no error."""
        answers = np.full(len(self.scores), np.nan)
        looked = to_look_at(self.scores, n_looks, seed)
        answers[looked] = self.shows[looked]
        rate, (low, high, method) = reviewed_rate(self.scores, answers)
        return replace(self.raw, rate=rate, low=low, high=high, interval=method, mode="checked")


def audit(rng: np.random.Generator, rate: float, n: int, judge: Judge, kind: Kind) -> Audit:
    """Draws an audit. Scores are normal with variance 1 among the images that show the attribute, and among the others;
    the means follow from the judge's sensitivity and specificity."""
    shows = rng.random(n) < rate
    scores = rng.normal(size=n) + np.where(shows, norm.ppf(judge.sensitivity), -norm.ppf(judge.specificity))
    true_yes = rng.binomial(kind.positives, 1 - kind.misses * (1 - judge.sensitivity))
    true_no = rng.binomial(kind.negatives, 1 - kind.alarms * (1 - judge.specificity))
    return Audit(shows, scores, Calibration(int(true_yes), kind.positives, int(true_no), kind.negatives))


def rates_of(found: Audit, kind: Kind, seed: int) -> Iterator[tuple[str, Presence]]:
    """The rates that raigen reports for an audit, by mode. Only the calibrated one depends on the calibration; the
    others are given for one kind."""
    corrected = _calibrated(found.raw, found.known)
    assert corrected is not None  # there are images of both classes
    yield "calibrated", corrected
    if kind == KINDS["random sample"]:
        yield "checked", found.checked(ReportConfig().n_review_images, seed)
        yield "raw", found.raw


def cell(rng: np.random.Generator, rate: float, n: int, judge: Judge, kind: Kind, n_audits: int) -> list[dict]:
    """What many audits find, a row for each mode: the share of intervals that hold the rate (`coverage`, with its own
    interval), the mean error of the rate (`bias`), the mean `width`, and how often raigen says that the judge and the
    calibration contradict each other (`told`)."""
    audits = [audit(rng, rate, n, judge, kind) for _ in range(n_audits)]
    told = sum(contradiction(found.raw.hits, n, found.known) > SURE for found in audits) / n_audits
    by_mode: dict[str, list[Presence]] = {}
    for seed, found in enumerate(audits):
        for mode, presence in rates_of(found, kind, seed):
            by_mode.setdefault(mode, []).append(presence)
    rows = []
    for mode, found in by_mode.items():
        held = sum(presence.low <= rate <= presence.high for presence in found)
        low, high, _ = rate_interval(held, n_audits)
        rows.append({
            "mode": mode, "coverage": held / n_audits, "coverage low": low, "coverage high": high,
            "bias": float(np.mean([presence.rate for presence in found]) - rate),
            "width": float(np.mean([presence.high - presence.low for presence in found])), "told": told,
        })  # fmt: skip
    return rows


# Many audits give the same counts. The function is raigen's own.
_calibrated: Callable[[Presence, Calibration], Presence | None] = cache(lambda raw, known: calibrated(raw, known, 0.95))
