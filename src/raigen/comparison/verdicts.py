"""Judges attributes that other runs found: one yardstick for all runs of a study."""

from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from raigen.config import CompareConfig
from raigen.discovery.embeddings import Embedder, embedder_of
from raigen.judging.judges import CLIP, Subject, Verdicts, verdicts_of, without, world_verdicts
from raigen.judging.vlm.answers import Answers
from raigen.judging.vlm.ask import open_answers
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick
from raigen.runs.study_records import NONE, Axis, Finding
from raigen.world.models import WORLD

NAME = "CLIP, uncalibrated"
NO_IMAGES = "CLIP can judge only what a run has top images of"


class Judged(NamedTuple):
    """The fresh images of a run, and the verdicts on them by label."""

    run: Run
    samples: list[Sample]
    verdicts: dict[str, Verdicts]


class AuditedImages(NamedTuple):
    """The audited images of a run, for CLIP: their embeddings, and by neuron the places of its top images."""

    prompt: str
    embeddings: Float[np.ndarray, "image width"]
    tops: Mapping[int, Sequence[int]]


class SharedJudge:
    """Gives the verdicts of one judge on images of any of `runs`, by label.

    CLIP says that an image shows a label when it lies beyond a middle along the label's direction,
    text(prompt, label) - text(prompt). For a prompt whose runs list the label, that is the middle between the top
    images and the others of the run with the best score. For other prompts it is the mean of their audited images
    (of all models) plus half of the way that the top images lie ahead of the others where the label was found. One
    middle holds for all models. Of what no run found but an axis of `axes` asks for, it says that an image shows it
    when it is nearer to it than to the other categories of the (first such) axis; `none` is the bare prompt.
    """

    def __init__(self, runs: Sequence[Run], findings: Mapping[str, Sequence[Finding]], judge: str,
                 config: CompareConfig, axes: Sequence[Axis] = (), spent: tuple[int, float] = (0, 0.0)):  # fmt: skip
        self.runs, self.findings, self.judge, self.config, self.axes = runs, findings, judge, config, axes
        self._spent = spent  # calls and cost of all runs together: they share the budget
        if judge == CLIP:
            self._embedder = embedder_of(runs[0])
            self._seen = {place_of(run): _seen(run) for run in runs}

    def verdicts(
        self, run: Run, samples: Sequence[Sample], labels: Sequence[str]
    ) -> Generator[Tick, None, dict[str, Verdicts]]:
        """The verdicts on images of `run`, by label. Wholly black ones are unscored."""
        images = [run.read_image(sample, "evaluate") for sample in samples]
        subjects = [Subject(label) for label in labels]
        if self.judge == WORLD:
            found = world_verdicts(images, subjects)
        elif self.judge == CLIP:
            found = self._by_clip(run.config.capture.prompt, images, labels)
        else:
            answers = self._answers(run)
            found = yield from verdicts_of(run, samples, subjects, self.judge, answers, self.config, "compare")
            self._spent = (answers.calls, answers.cost)
        black = np.array([image.getbbox() is None for image in images])
        return {label: without(verdict, black) for label, verdict in zip(labels, found, strict=True)}

    def _answers(self, run: Run) -> Answers:
        answers = open_answers(run.answers_path, self.config)
        answers.calls, answers.cost = self._spent
        return answers

    def _by_clip(self, prompt: str, images: Sequence[Image], labels: Sequence[str]) -> list[Verdicts]:
        embeddings, found = self._embedder.images(images), []
        for label in labels:
            axis = next((axis for axis in self.axes if label in axis.labels), None)
            if not self.findings.get(label) and axis is not None:
                found.append(self._nearest(prompt, embeddings, label, axis))
                continue
            if not self.findings.get(label):
                nothing = np.full(len(images), np.nan)
                found.append(Verdicts(NAME, nothing, nothing, dict.fromkeys(range(len(images)), NO_IMAGES)))
                continue
            direction, middle, spread = self._middle(label, prompt)
            margin = (embeddings @ direction - middle) / max(spread, 1e-12)
            found.append(Verdicts(NAME, (margin > 0).astype(float), 1 / (1 + np.exp(-np.abs(margin)))))
        return found

    def _nearest(self, prompt: str, embeddings: np.ndarray, label: str, axis: Axis) -> Verdicts:
        """Which images are nearer to the label than to the other categories of the axis."""
        texts = self._embedder.texts([prompt if c == NONE else f"{prompt}, {c}" for c in axis.categories])
        near = (embeddings @ texts.T).argmax(axis=1) == axis.categories.index(label)
        return Verdicts(NAME, near.astype(float), np.full(len(embeddings), np.nan))

    def _middle(self, label: str, prompt: str) -> tuple[np.ndarray, float, float]:
        """The direction of the label for the prompt, the middle on it, and how far the audited images spread."""
        direction = self._direction(label, prompt)
        pool = np.concatenate([seen.embeddings for seen in self._seen.values() if seen.prompt == prompt]) @ direction
        best = sorted(self.findings[label], key=lambda finding: -finding.minority_score)
        here = [finding for finding in best if finding.prompt == prompt]
        finding = (here or best)[0]
        seen = self._seen[finding.prompt, finding.model]
        along = seen.embeddings @ (direction if here else self._direction(label, finding.prompt))
        is_top = np.zeros(len(along), bool)
        is_top[list(seen.tops[finding.neuron])] = True
        top, rest = float(along[is_top].mean()), float(along[~is_top].mean())
        middle = (top + rest) / 2 if here else float(pool.mean()) + (top - rest) / 2
        return direction, middle, float(pool.std())

    def _direction(self, label: str, prompt: str) -> np.ndarray:
        plain, named = self._embedder.texts([prompt, f"{prompt}, {label}"])
        return named - plain


def place_of(run: Run) -> tuple[str, str]:
    """The prompt and the model of a run."""
    capture = run.config.capture
    return capture.prompt, capture.model


def directions(embedder: Embedder, prompt: str, labels: Sequence[str]) -> Float[np.ndarray, "label width"]:
    """Which way each label leads from the prompt, of unit length: what tells near labels from far ones, where whole
    texts are all alike."""
    texts = embedder.texts([prompt, *(f"{prompt}, {label}" for label in labels)])
    ways = texts[1:] - texts[0]
    return ways / np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-12)


def _seen(run: Run) -> AuditedImages:
    place = {sample.file: sample.index for sample in run.samples()}
    embeddings = run.embeddings()
    tops = {a.neuron: [place[file] for file in a.top_images] for a in run.attributes}
    return AuditedImages(run.config.capture.prompt, embeddings, tops)
