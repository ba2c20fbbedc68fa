"""The review by a person: which images are shown, and the checked rates that follow from what was ticked."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from raigen.config import json_of, shaped, text_of
from raigen.errors import RaigenError
from raigen.judging.presence_table import with_checked
from raigen.runs.files import sha256, write_text
from raigen.runs.records import Presence, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.stats import Interval, check_confidence, check_count

FORMAT = 1  # of the file that the browser downloads
FLOOR = 0.1  # of the mean weight of the images that the judge rejected: the least weight with which one is drawn


class Task(NamedTuple):
    """What a person is asked about one attribute: the `images` to look at, in an order that reveals nothing.

    `files` are the fresh images that the first judge scored, and `scores` what it said: above 0 for yes, below 0 for
    no, further from 0 where it is surer.
    """

    attribute: RareAttribute
    images: list[Sample]
    files: list[str]
    scores: Float[np.ndarray, " image"]

    def checked(self, shows: Mapping[str, bool], confidence: float) -> Presence:
        """The rate after a person has said of some files whether they show the attribute."""
        answers = np.array([float(shows[file]) if file in shows else np.nan for file in self.files])
        rate, interval = reviewed_rate(self.scores, answers, confidence)
        assert self.attribute.presence is not None  # only measured attributes have a task
        return replace(
            self.attribute.presence, rate=rate, low=interval.low, high=interval.high, hits=int(np.nansum(answers)),
            interval=f"{100 * confidence:g} % {interval.method}", mode="checked",
        )  # fmt: skip

    def expected_width(self, confidence: float) -> float:
        """The width of the interval if the person confirms half of what the judge saw, and sees it in no other image.
        The half is the one with the higher scores."""
        score_of = dict(zip(self.files, self.scores, strict=True))
        order = sorted((sample.file for sample in self.images), key=lambda file: -score_of[file])
        n_yes = sum(bool(score_of[file] > 0) for file in order)
        found = self.checked({file: place < n_yes / 2 for place, file in enumerate(order)}, confidence)
        return found.high - found.low


class Reviewed(NamedTuple):
    """What a person said about one attribute: which images show it, and which do not."""

    neuron: int
    label: str
    sha256: str
    shows: frozenset[str]
    does_not: frozenset[str]


def tasks(run: Run) -> list[Task]:
    """What there is to review: every attribute that the first judge looked for in fresh images."""
    n_looks = run.config.report.n_review_images
    if not run.judgements_path.is_file() or not n_looks:
        return []
    fresh, lines, found = {s.file: s for s in run.samples(run.fresh_samples_path)}, _lines(run), []
    for attribute in run.attributes:
        ours = lines.get(attribute.neuron, [])
        if attribute.presence is None or not ours or attribute.presence.mode == "sampled":
            continue  # the model of `reviewed_rate` needs the judge's scores of all images
        files, scores = [line["file"] for line in ours], _scores(ours)
        chosen = to_look_at(scores, n_looks, run.config.capture.base_seed + attribute.neuron)
        images = sorted((fresh[files[index]] for index in chosen), key=lambda sample: sample.sha256)
        found.append(Task(attribute, images, files, scores))
    return found


def to_look_at(scores: Float[np.ndarray, " image"], n_looks: int, seed: int) -> Int[np.ndarray, " look"]:
    """The images at which a look buys most: half of them, at most, are ones in which the judge saw the attribute; the
    others are drawn from those that it rejected, likelier where it was less sure.

    The weight of a rejected image is the logistic function of its score in standard deviations, but at least `FLOOR`
    times the mean weight, so that no image is left out for good. If one kind has too few images, there are more of the
    other.
    """
    rng = np.random.default_rng(seed)
    yes, no = np.flatnonzero(scores > 0), np.flatnonzero(scores <= 0)
    n_yes = min(len(yes), max(n_looks // 2, n_looks - len(no)))
    weight = expit(in_deviations(scores)[no])
    weight = np.maximum(weight, FLOOR * weight.mean()) if len(no) else weight
    drawn = rng.choice(no, min(n_looks - n_yes, len(no)), replace=False, p=weight / weight.sum()) if len(no) else no
    return np.concatenate([rng.choice(yes, n_yes, replace=False), drawn])


def review(run: Run, path: Path) -> list[RareAttribute]:
    """Writes the checked rates of a review into attributes.json and presence.csv; returns the checked attributes.

    `path` is the file that the browser downloaded; it is kept as review.json. Raises RaigenError when it cannot be read
    or belongs to another run.
    """
    ticks, confidence = read_ticks(run, path), run.config.evaluate.confidence
    found: dict[int, RareAttribute] = {}
    for task in tasks(run):
        if task.attribute.neuron in ticks:
            presence = task.checked(ticks[task.attribute.neuron], confidence)
            kept = tuple(other for other in task.attribute.corrected if other.mode != "checked")
            found[task.attribute.neuron] = replace(task.attribute, corrected=(*kept, presence))
    attributes = [found.get(attribute.neuron, attribute) for attribute in run.attributes]
    run.write_attributes(attributes)
    write_text(run.presence_path, with_checked(run.read_text(run.presence_path, "evaluate"), list(found.values())))
    if path.resolve() != run.review_path.resolve():
        write_text(run.review_path, text_of(path))
    return list(found.values())


def read_ticks(run: Run, path: Path) -> dict[int, dict[str, bool]]:
    """By neuron that was reviewed, and by file, whether the image shows the attribute according to the person.

    Raises RaigenError when the file was not made by a review sheet of this run. Sheets of an older raigen also showed
    audited images; their ticks are read, too, but count for nothing.
    """
    samples = {s.file: s for list_path in (run.samples_path, run.fresh_samples_path) for s in run.samples(list_path)}
    labels, ticks = {task.attribute.neuron: task.attribute.label for task in tasks(run)}, {}
    for one in _reviewed(run, path):
        files = one.shows | one.does_not
        known = [samples[file] for file in files if file in samples]
        if (
            labels.get(one.neuron) != one.label
            or len(known) < len(files)
            or one.shows & one.does_not
            or digest(known) != one.sha256
        ):
            raise RaigenError(
                f"{path}: expected ticks of the images of {run.sheet_path}; the ticks of {one.label!r} are of other "
                "images. Open the sheet again and review the images that it shows now"
            )
        ticks[one.neuron] = {file: file in one.shows for file in files}
    return ticks


def _reviewed(run: Run, path: Path) -> list[Reviewed]:
    wanted = f"the file that {run.sheet_path.name} downloads"
    if not path.is_file():
        raise RaigenError(f"{path}: expected {wanted}; there is no such file")
    with shaped(path, wanted):
        entry = json_of(path)
        version = entry["format"]
        found = [
            Reviewed(int(one["neuron"]), str(one["label"]), str(one["sha256"]), frozenset(one["shows"]),
                     frozenset(one["does_not"]))
            for one in entry["reviewed"]
        ]  # fmt: skip
        if not isinstance(entry["reviewed"], list):
            raise TypeError("reviewed is no list")
    if version != FORMAT:
        raise RaigenError(f"{path}: expected a review of format {FORMAT}; got {version!r}")
    return found


def digest(samples: list[Sample]) -> str:
    """A hash of images, in any order: it differs when other images have the same names."""
    return sha256("".join(sorted(sample.sha256 for sample in samples)).encode())


def _lines(run: Run) -> dict[int, list[dict]]:
    """The lines of judgements.jsonl with a verdict of the first judge, by neuron."""
    first = {attribute.neuron: attribute.presence.judge for attribute in run.attributes if attribute.presence}
    found: dict[int, list[dict]] = {}
    lines = run.read_lines(run.judgements_path, "evaluate")
    with run.shaped(run.judgements_path, "evaluate"):
        for line in lines:
            if line["shows"] is not None and line["judge"] == first.get(line["neuron"]):
                found.setdefault(line["neuron"], []).append(line)
    return found


def _scores(lines: list[dict]) -> Float[np.ndarray, " image"]:
    """The log-odds of a yes that the judge's confidence means; 1 for yes and -1 for no where any line has none."""
    side = np.array([1.0 if line["shows"] else -1.0 for line in lines])
    sure = np.array([np.nan if line.get("confidence") is None else line["confidence"] for line in lines], float)
    if np.isnan(sure).any():
        return side
    sure = sure.clip(0.5 + 1e-4, 1 - 1e-4)  # a verdict lies on its own side of 1/2
    return side * np.log(sure / (1 - sure))


def _quantiles(rate: Float[np.ndarray, " draw"], confidence: float, method: str) -> Interval:
    low, high = np.quantile(rate, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), method)


class Estimate(NamedTuple):
    """A rate in [0, 1] with its interval."""

    rate: float
    interval: Interval


def reviewed_rate(
    scores: Float[np.ndarray, " image"], answers: Float[np.ndarray, " image"], confidence: float = 0.95, seed: int = 0,
    draws: int = 20_000,
) -> Estimate:  # fmt: skip
    """The rate of an attribute when a person has looked at some of the judged images.

    `scores` are the judge's, higher where a yes is likelier. `answers` are the person's: 1 shows it, 0 does not, NaN
    was not looked at. Which images were looked at may depend on the scores, but on nothing else. The probability that
    an image shows the attribute is taken as logistic in its score, P = 1 / (1 + exp(-(a + b s))), with s in standard
    deviations (Platt 1999). The posterior of a and b >= 0 under a flat prior on a grid gives draws of the number T of
    images that show it: those that were seen, and a Poisson number of others with mean sum(P). Each draw of the rate is
    Beta(T + 1/2, n - T + 1/2). `rate` is the median of the draws, and the ends are quantiles. docs/log.md has its
    coverage. Raises RaigenError for an empty `scores`, and unless 0 < confidence < 1.

    >>> estimate = reviewed_rate(np.linspace(-3, 1, 300), np.r_[np.full(280, np.nan), np.zeros(15), np.ones(5)])
    >>> round(estimate.rate, 3), round(estimate.interval.low, 3), round(estimate.interval.high, 3)
    (0.03, 0.011, 0.153)
    """
    check_confidence(confidence)
    check_count("scores", len(scores))
    rng, n = np.random.default_rng(seed), len(scores)
    looked, units = ~np.isnan(answers), in_deviations(scores)
    starts, slopes = (axis.ravel() for axis in np.meshgrid(np.linspace(-8, 6, 43), np.linspace(0, 6, 19)))
    logits = starts[:, None] + slopes[:, None] * units[looked]
    likelihood = -np.logaddexp(0, np.where(answers[looked] == 1, -logits, logits)).sum(axis=1)
    weights = np.exp(likelihood - likelihood.max())
    others = expit(starts[:, None] + slopes[:, None] * units[~looked]).sum(axis=1)
    chosen = rng.choice(len(weights), draws, p=weights / weights.sum())
    total = np.nansum(answers) + np.minimum(rng.poisson(others[chosen]), n - looked.sum())
    rate = rng.beta(total + 0.5, n - total + 0.5)
    return Estimate(float(np.median(rate)), _quantiles(rate, confidence, "checked, logistic in the judge's score"))


def in_deviations(scores: Float[np.ndarray, " image"]) -> Float[np.ndarray, " image"]:
    """Scores in units of their standard deviation; 0 where all are the same, because they then tell nothing apart.

    >>> in_deviations(np.array([-2.0, 2.0])).tolist(), in_deviations(np.array([3.0, 3.0])).tolist()
    ([-1.0, 1.0], [0.0, 0.0])
    """
    spread = float(scores.std())
    return scores / spread if spread > 1e-6 else np.zeros(len(scores))
