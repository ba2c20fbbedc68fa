"""Judges attributes that any run found on images of all runs, by one shared judge."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.config import CLIP, CompareConfig
from raigen.discovery.embeddings import Embedder, embedder_of
from raigen.judging.clip_judge import NAME, Threshold, direction_of, threshold_of, too_long
from raigen.judging.judges import (
    Images,
    Judge,
    StoredImages,
    Subject,
    Subjects,
    Verdicts,
    judge_of,
    unscored,
    without_black,
)
from raigen.judging.vlm.answers import Answers, Budget
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tell
from raigen.runs.study_records import NONE, Axis, Finding

SHORT_PROMPT = "a photo"  # what labels are compared with where the real prompt leaves no room for them


class Judged(NamedTuple):
    """The fresh images of a run, and the verdicts on them by label."""

    run: Run
    samples: list[Sample]
    verdicts: dict[str, Verdicts]


class AuditedImages(NamedTuple):
    """The audited images of a run: their embeddings, and by neuron the embeddings of its top images that are relatives
    of audited ones, and the indices of the others."""

    prompt: str
    embeddings: Float[np.ndarray, "image width"]
    tops: Mapping[int, tuple[Float[np.ndarray, "top width"], Sequence[int]]]


class SharedJudge:
    """One judge for images of all runs of a study.

    `name` is as `raigen.judging.judges.judge_of` takes it. A vision-language model keeps its answers in each run, and
    spends one `budget`. CLIP judges by thresholds that hold for all runs: see `PooledClipJudge`.
    """

    def __init__(self, name: str, pool: "Pool", config: CompareConfig, budget: Budget):
        self._name, self._pool, self._config, self._budget = name, pool, config, budget

    def of(self, run: Run) -> Judge:
        """The judge, for images of one run."""
        if self._name == CLIP:
            return PooledClipJudge(self._pool, run.config.capture.prompt)
        return judge_of(self._name, run, Answers(run.answers_path, self._budget), self._config)

    def verdicts(
        self, run: Run, samples: Sequence[Sample], labels: Sequence[str], tell: Tell | None = None
    ) -> dict[str, Verdicts]:
        """The verdicts on further images of a run, by label."""
        images = StoredImages(run, samples, "evaluate")
        found = self.of(run).verdicts(images, [Subject(label) for label in labels], tell)
        return dict(zip(labels, found, strict=True))


class Pool:
    """What CLIP knows of a study: the audited images of all runs, where each label was found, and the axes."""

    def __init__(self, runs: Sequence[Run], findings: Mapping[str, Sequence[Finding]], axes: Sequence[Axis]):
        self.runs, self.findings, self.axes = runs, findings, axes
        self._thresholds = dict[tuple[str, str], Threshold]()

    @cached_property
    def embedder(self) -> Embedder:
        """The CLIP model of all runs, loaded when it is first needed."""
        return embedder_of(self.runs[0])

    @cached_property
    def _audited(self) -> dict[tuple[str, str], AuditedImages]:
        return {place_of(run): _audited(run) for run in self.runs}

    def source(self, label: str, prompt: str) -> Finding:
        """Where the threshold of a found label comes from: the run with the best score, of this prompt if there is
        one."""
        return min(self.findings[label], key=lambda finding: (finding.prompt != prompt, -finding.minority_score))

    def threshold(self, label: str, prompt: str) -> Threshold:
        """The threshold of a found label for a prompt, computed once: see `_threshold`."""
        if (label, prompt) not in self._thresholds:
            self._thresholds[label, prompt] = self._threshold(label, prompt)
        return self._thresholds[label, prompt]

    def _threshold(self, label: str, prompt: str) -> Threshold:
        """The threshold of a found label for a prompt: one for all models.

        Where runs of the prompt list the label, it comes from the audited images of that prompt (of all models) and the
        top images of the run with the best score. For another prompt it is the threshold of the prompt where the label
        was found, moved by the difference of the two prompts' medians.
        """
        finding = self.source(label, prompt)
        direction = direction_of(self.embedder, finding.prompt, label)
        embeddings, first = self._pooled(finding.prompt)
        relatives, indices = self._audited[finding.prompt, finding.model].tops[finding.neuron]
        n_audited, n_relatives = len(embeddings), len(relatives)
        tops = [*(first[finding.model] + index for index in indices), *range(n_audited, n_audited + n_relatives)]
        found = threshold_of(direction, np.concatenate([embeddings, relatives]), tops, n_audited)
        if finding.prompt == prompt:
            return found
        here = direction_of(self.embedder, prompt, label)
        shift = float(np.median(self._pooled(prompt)[0] @ here) - np.median(embeddings @ direction))
        return found._replace(direction=here, shift=shift)

    def _pooled(self, prompt: str) -> tuple[Float[np.ndarray, "image width"], dict[str, int]]:
        """The embeddings of all models' audited images of a prompt, and the index of each model's first image."""
        parts, first, n = [], dict[str, int](), 0
        for (of, model), audited in self._audited.items():
            if of == prompt:
                parts.append(audited.embeddings)
                first[model], n = n, n + len(audited.embeddings)
        return np.concatenate(parts), first


class PooledClipJudge:
    """CLIP for images of one prompt of a study.

    A label that some run found has the threshold of the `pool`. If only an axis asks for a label, an image shows it if
    the image is nearer to its text than to the texts of the other categories of the first axis with this label. The
    text of `none` is the bare prompt. Any other label is unscored.
    """

    name = NAME

    def __init__(self, pool: Pool, prompt: str):
        self._pool, self._prompt = pool, prompt

    def verdicts(self, images: Images, subjects: Subjects, tell: Tell | None = None) -> list[Verdicts]:
        """The verdicts on images of the prompt, one entry per subject. There is no progress to tell."""
        embeddings = self._pool.embedder.images(images)
        return without_black(images, [self._verdict(embeddings, subject.label) for subject in subjects])

    def _verdict(self, embeddings: Float[np.ndarray, "image width"], label: str) -> Verdicts:
        axis = next((axis for axis in self._pool.axes if label in axis.labels), None)
        found = self._pool.findings.get(label)
        asked = [label] if found or axis is None else axis.labels
        prompts = {self._prompt, *([self._pool.source(label, self._prompt).prompt] if found else [])}
        if why := next(filter(None, (too_long(self._pool.embedder, prompt, asked) for prompt in prompts)), None):
            return unscored(self.name, len(embeddings), why)
        if found:
            return self._pool.threshold(label, self._prompt).verdicts(embeddings)
        if axis is None:
            return unscored(self.name, len(embeddings), "CLIP judges only attributes that have top images in a run")
        return self._nearest(embeddings, label, axis)

    def _nearest(self, embeddings: Float[np.ndarray, "image width"], label: str, axis: Axis) -> Verdicts:
        """Which images are nearer to the label than to the other categories of the axis."""
        texts = [self._prompt if c == NONE else f"{self._prompt}, {c}" for c in axis.categories]
        nearest = (embeddings @ self._pool.embedder.texts(texts).T).argmax(axis=1)
        shows = (nearest == axis.categories.index(label)).astype(float)
        return Verdicts(self.name, shows, np.full(len(embeddings), np.nan))


def place_of(run: Run) -> tuple[str, str]:
    """The prompt and the model of a run."""
    capture = run.config.capture
    return capture.prompt, capture.model


def directions(embedder: Embedder, prompt: str, labels: Sequence[str]) -> Float[np.ndarray, "label width"]:
    """Which way each label leads from the prompt, of unit length. These tell near labels from far ones; whole texts
    are all alike. A prompt that leaves no room for a label gives way to a short one."""
    if too_long(embedder, prompt, labels):
        prompt = SHORT_PROMPT
    texts = embedder.texts([prompt, *(f"{prompt}, {label}" for label in labels)])
    ways = texts[1:] - texts[0]
    return ways / np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-12)


def _audited(run: Run) -> AuditedImages:
    index_of, audited, embeddings = run.index_of, run.embeddings(), run.all_embeddings()
    tops = {}
    for attribute in run.attributes:
        top = np.array([index_of[file] for file in attribute.top_images], int)
        tops[attribute.neuron] = (embeddings[top[top >= len(audited)]], top[top < len(audited)].tolist())
    return AuditedImages(run.config.capture.prompt, audited, tops)
