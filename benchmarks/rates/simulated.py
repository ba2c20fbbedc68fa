"""Simulated audits: a known rate, a judge that errs, and a calibration that is right or wrong about its errors."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from raigen.judging.calibration import SURE, calibrated, checked
from raigen.runs.records import Presence
from raigen.stats import Calibration, contradiction, rate_interval


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
    """One audit of `n` images: how often the judge said yes, how many of these a person would confirm, and what the
    judge said to the images with known answers."""

    hits: int
    confirmed: int
    n: int
    known: Calibration

    @property
    def raw(self) -> Presence:
        """The judge's rate."""
        low, high, method = rate_interval(self.hits, self.n)
        return Presence(self.hits / self.n, low, high, self.hits, self.n, 0, "simulated", method)


def audit(rng: np.random.Generator, rate: float, n: int, judge: Judge, kind: Kind) -> Audit:
    """Draws an audit."""
    shown = int(rng.binomial(n, rate))
    confirmed = int(rng.binomial(shown, judge.sensitivity))
    alarms = int(rng.binomial(n - shown, 1 - judge.specificity))
    true_yes = rng.binomial(kind.positives, 1 - kind.misses * (1 - judge.sensitivity))
    true_no = rng.binomial(kind.negatives, 1 - kind.alarms * (1 - judge.specificity))
    known = Calibration(int(true_yes), kind.positives, int(true_no), kind.negatives)
    return Audit(confirmed + alarms, confirmed, n, known)


def rates_of(found: Audit, kind: Kind) -> Iterator[tuple[str, Presence]]:
    """The rates that raigen reports for an audit, by mode. The negatives of a calibration do not matter to a checked
    rate, so it is left out where only they are wrong; a raw rate is given for right calibrations only."""
    raw, known = found.raw, found.known
    corrected = _calibrated(raw, known)
    assert corrected is not None  # there are images of both classes
    yield "calibrated", corrected
    if kind.alarms == 1:
        yield "checked", checked(raw, found.confirmed, known.true_yes, known.positives, 0.95)
    if kind == KINDS["random sample"]:
        yield "raw", raw


def cell(rng: np.random.Generator, rate: float, n: int, judge: Judge, kind: Kind, n_audits: int) -> list[dict]:
    """What many audits find, a row for each mode: the share of intervals that hold the rate (`coverage`, with its own
    interval), the mean error of the rate (`bias`), the mean `width`, and how often raigen says that the judge and the
    calibration contradict each other (`told`)."""
    audits = [audit(rng, rate, n, judge, kind) for _ in range(n_audits)]
    told = sum(contradiction(found.hits, n, found.known) > SURE for found in audits) / n_audits
    by_mode: dict[str, list[Presence]] = {}
    for found in audits:
        for mode, presence in rates_of(found, kind):
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
