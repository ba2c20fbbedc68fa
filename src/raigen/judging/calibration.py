"""Corrects rates for a judge's errors, which are estimated from images with known answers."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from raigen.errors import RaigenError
from raigen.runs.records import Presence
from raigen.stats import Calibration, calibrated_interval

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
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        missing = {"judged", "true"} - set(rows.fieldnames or ())
        if missing:
            raise RaigenError(f"calibration: expected the columns judged and true; {path} lacks {sorted(missing)[0]}")
        known = []
        for row in rows:
            answers = [ANSWERS.get((row[name] or "").strip().lower()) for name in ("judged", "true")]
            if None in answers:
                raise RaigenError(f"calibration: expected yes or no; {path} has {row} in line {rows.line_num}")
            place = [(row.get(name) or "").strip() for name in ("label", "judge")]
            known.append(Known(bool(answers[0]), bool(answers[1]), *place))
    return known


def calibration_of(known: Sequence[Known], label: str, judge: str) -> Calibration | None:
    """How the judge did on images of this label, or, when there are none, on images without a label.

    None unless there are images that show the attribute and images that do not.
    """
    ours = [one for one in known if one.judge in ("", judge)]
    chosen = [one for one in ours if one.label == label] or [one for one in ours if not one.label]
    positives, negatives = ([one.judged for one in chosen if one.true is side] for side in (True, False))
    if not positives or not negatives:
        return None
    return Calibration(sum(positives), len(positives), len(negatives) - sum(negatives), len(negatives))


def calibrated(raw: Presence, judge: Calibration | None, confidence: float) -> Presence | None:
    """The rate without the judge's errors (Rogan & Gladen's estimate, clipped to the interval); None when these are not
    known."""
    if judge is None or not raw.n:
        return None
    interval = calibrated_interval(raw.hits, raw.n, judge, confidence)
    sensitivity, specificity = judge.true_yes / judge.positives, judge.true_no / judge.negatives
    better = sensitivity + specificity - 1
    rate = (raw.rate + specificity - 1) / better if better > 0 else (interval.low + interval.high) / 2
    return replace(
        raw, rate=min(max(rate, interval.low), interval.high), low=interval.low, high=interval.high,
        interval=f"{100 * confidence:g} % {interval.method}", mode="calibrated",
    )  # fmt: skip
