"""Corrects rates for a judge's errors, which are estimated from images with known answers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from raigen.config import rows_of
from raigen.errors import RaigenError
from raigen.judging.posterior import Calibration, calibrated_interval, contradiction
from raigen.runs.records import Presence

FEW_POSITIVES, FEW_NEGATIVES = 10, 50  # with fewer images of a class, the calibrated interval is very wide
SURE = 0.975  # the posterior probability with which a judge and its calibration contradict each other
ANSWERS = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}


class Known(NamedTuple):
    """What a judge said about an image, and what is true. An empty `label` or `judge` stands for any."""

    judged: bool
    true: bool
    label: str
    judge: str


def read_calibration(path: Path) -> list[Known]:
    """The lines of a CSV file with the columns `judged` and `true`, and optionally `label` and `judge`.

    Raises RaigenError when the file is missing, a column is missing, or an answer is neither yes nor no.
    """
    if not path.is_file():
        raise RaigenError(f"calibration: expected a CSV file; there is no file {str(path)!r}")
    known = []
    for line, row in rows_of(path, ("judged", "true")):
        answers = [ANSWERS.get(row.get(name, "").strip().lower()) for name in ("judged", "true")]
        if None in answers:
            raise RaigenError(f"calibration: expected yes or no; {path} has {row} in line {line}")
        place = [row.get(name, "").strip() for name in ("label", "judge")]
        known.append(Known(bool(answers[0]), bool(answers[1]), *place))
    if not known:
        raise RaigenError(f"calibration: expected one image a line below the names of the columns; {path} has none")
    return known


def calibration_of(known: Sequence[Known], label: str, judge: str) -> Calibration:
    """How the judge did on images of this label, or, when there are none, on images without a label."""
    ours = [one for one in known if one.judge in ("", judge)]
    chosen = [one for one in ours if one.label == label] or [one for one in ours if not one.label]
    positives, negatives = ([one.judged for one in chosen if one.true is side] for side in (True, False))
    return Calibration(sum(positives), len(positives), len(negatives) - sum(negatives), len(negatives))


def calibrated(raw: Presence, judge: Calibration, confidence: float, mode: str = "calibrated") -> Presence | None:
    """The rate without the judge's errors (Rogan & Gladen's estimate, clipped to the interval); None without images
    that show the attribute, or without images that do not. `mode` says where the errors are known from."""
    if not (raw.n and judge.positives and judge.negatives):
        return None
    interval = calibrated_interval(*raw.counts, judge, confidence)
    sensitivity, specificity = judge.true_yes / judge.positives, judge.true_no / judge.negatives
    better = sensitivity + specificity - 1
    rate = (raw.rate + specificity - 1) / better if better > 0 else (interval.low + interval.high) / 2
    return replace(
        raw, rate=min(max(rate, interval.low), interval.high), low=interval.low, high=interval.high,
        interval=f"{100 * confidence:g} % {mode}, {interval.method}", mode=mode, effective_n=None,
    )  # fmt: skip


def caution(label: str, raw: Presence, judge: Calibration) -> str | None:
    """What a person must know about the calibration of a label, in a line: that it contradicts the judge, or which
    images it lacks. None if there is nothing to say."""
    if judge.negatives and contradiction(*raw.counts, judge) > SURE:
        alarms = judge.negatives - judge.true_no
        return (
            f"{label}: the calibration contradicts {raw.judge}, which says yes to {raw.hits} of {raw.n:,} fresh images "
            f"and to {alarms} of {judge.negatives} calibration images that do not show it. Calibrate with images drawn "
            "at random from the prompt's own"
        )
    lacks = [
        f"{few - found} or more that {verb}"
        for found, few, verb in (
            (judge.positives, FEW_POSITIVES, "show it"),
            (judge.negatives, FEW_NEGATIVES, "do not"),
        )
        if found < few
    ]
    if not lacks:
        return None
    outcome = "the calibrated interval is wide" if judge.positives and judge.negatives else "no calibrated rate"
    return (
        f"{label}: {outcome}, because the calibration of {raw.judge} is small (images that show it: {judge.positives}, "
        f"that do not: {judge.negatives}). Add {' and '.join(lacks)}, drawn at random from the prompt's own images"
    )
