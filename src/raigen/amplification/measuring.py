"""Measures images against unsteered ones: presence, fidelity, drift, diversity, alignment."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.config import AmplifyConfig
from raigen.discovery.embeddings import embedder_of
from raigen.judging.judges import (
    StoredImages,
    Subject,
    Verdicts,
    WorldReading,
    judges_of,
    read_world,
    world_shown,
)
from raigen.judging.rates import presence_of
from raigen.judging.vlm.answers import Answers, Budget
from raigen.runs.records import Difference, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tell
from raigen.stats import mean_interval, paired_difference, q_values, rate_interval


class Observed(NamedTuple):
    """The observations of a set of images. `verdicts` are by judge, then by subject; the sought attribute comes first.
    `reading` is what the world's judge reads off its own images; None for images of other models."""

    samples: Sequence[Sample]
    embeddings: Float[np.ndarray, "image width"]
    verdicts: list[list[Verdicts]]
    reading: WorldReading | None

    @property
    def shows(self) -> Float[np.ndarray, " image"]:
        """Whether each image shows the sought attribute, by the first judge: 1, 0, or NaN if unscored."""
        return self.verdicts[0][0].shows


class Evaluator:
    """Measures images of a run, with the judges of `config` and the CLIP model that discovery used.

    Raises RaigenError when discovery has not finished, a model cannot be loaded, or a judge cannot judge this run.
    """

    def __init__(self, run: Run, config: AmplifyConfig):
        self.run, self.config = run, config
        self.capture = run.config.capture
        self.judges = judges_of(config.judge, run, Answers(run.answers_path, Budget(config)), config, config.device)
        self.world = world_shown(self.capture)
        self._embedder = embedder_of(run, config.device)
        self._embeddings: dict[str, np.ndarray] = {}  # by the hash of the image
        self._prompt = self._embedder.texts([self.capture.prompt])

    def look(self, samples: Sequence[Sample], subjects: Sequence[Subject], tell: Tell | None = None) -> Observed:
        """The observations of these images; the first subject is the sought attribute. `tell` receives progress in
        questions."""
        images = StoredImages(self.run, samples, "amplify")
        fresh = [place for place, sample in enumerate(samples) if sample.sha256 not in self._embeddings]
        for place, row in zip(fresh, self._embedder.images([images[place] for place in fresh]), strict=True):
            self._embeddings[samples[place].sha256] = row
        verdicts = [judge.verdicts(images, subjects, tell) for judge in self.judges]
        embeddings = np.stack([self._embeddings[sample.sha256] for sample in samples])
        reading = read_world(images, self.world) if self.world else None
        return Observed(samples, embeddings, verdicts, reading)

    def sees(self, samples: Sequence[Sample], attribute: RareAttribute, tell: Tell) -> Float[np.ndarray, " image"]:
        """Whether each image shows the attribute, by the first judge: 1, 0, or NaN if unscored."""
        return (
            self.judges[0].verdicts(StoredImages(self.run, samples, "amplify"), [Subject.of(attribute)], tell)[0].shows
        )

    def summary(self, seen: Observed) -> dict[str, Any]:
        """The measures of one set of images by itself."""
        confidence = self.config.confidence
        presence, *others = [presence_of(found[0], confidence) for found in seen.verdicts]
        along = cosines(seen.embeddings, np.repeat(self._prompt, len(seen.embeddings), axis=0))
        return {
            "n": len(seen.samples),
            "presence": asdict(presence),
            "other_presences": [asdict(other) for other in others],
            "alignment": asdict(mean_interval(along, confidence)),
            "diversity": vendi_score(seen.embeddings),
            "files": [sample.file for sample in seen.samples],
        } | self._readability(seen)

    def compared(
        self, seen: Observed, base: Observed, baseline: Observed, subjects: Sequence[Subject]
    ) -> dict[str, Any]:
        """The measures of a set of images against unsteered ones: `base` for rates, `baseline` image by image."""
        confidence = self.config.confidence
        rate, was = (presence_of(found.verdicts[0][0], confidence).rate for found in (seen, base))
        gain = paired_difference(seen.shows, base.shows, confidence)
        return {
            "gain": asdict(gain) if gain else None,
            "lift": rate / was if was else None,
            "fidelity": asdict(mean_interval(cosines(seen.embeddings, baseline.embeddings), confidence)),
            "off_target": off_target(self._others(seen, subjects), self._others(base, subjects), confidence),
        }

    def _others(self, seen: Observed, subjects: Sequence[Subject]) -> dict[str, Float[np.ndarray, " image"]]:
        """Whether each image shows each attribute except the sought one: all values of a planted world, or else all
        named attributes."""
        if seen.reading is None:
            pairs = zip(subjects[1:], seen.verdicts[0][1:], strict=True)
            return {subject.label: verdict.shows for subject, verdict in pairs if subject.label != subjects[0].label}
        known = seen.reading.verdicts.items()
        return {phrase: verdicts.shows for phrase, verdicts in known if phrase != subjects[0].label}

    def _readability(self, seen: Observed) -> dict[str, Any]:
        """The share of images of a planted world that can be read, and the share of readable ones that show the
        profession of the prompt."""
        if seen.reading is None:
            return {"readable": None, "right_profession": None}
        readable = seen.reading.readable
        right = seen.reading.prompts[readable] == self.capture.prompt
        return {"readable": self._share(readable), "right_profession": self._share(right)}

    def _share(self, holds: np.ndarray) -> dict[str, Any]:
        hits, n = int(holds.sum()), len(holds)
        low, high, _ = rate_interval(hits, n, self.config.confidence)
        return {"rate": hits / n if n else None, "low": low, "high": high, "hits": hits, "n": n}


def off_target(
    after: dict[str, Float[np.ndarray, " image"]],
    before: dict[str, Float[np.ndarray, " image"]],
    confidence: float,
) -> list[dict[str, Any]]:
    """How far the rate of each other attribute moved, the largest moves first, with q over all of them."""
    moves: dict[str, Difference] = {}
    for label, shows in after.items():
        moved = paired_difference(shows, before[label], confidence)
        if moved:
            moves[label] = moved
    qs = q_values([move.p for move in moves.values()])
    rows = [
        {"label": label, "before": float(np.nanmean(before[label])), "after": float(np.nanmean(after[label])),
         **asdict(move), "q": q}
        for (label, move), q in zip(moves.items(), qs, strict=True)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -abs(row["difference"]))


def cosines(
    first: Float[np.ndarray, "image width"], second: Float[np.ndarray, "image width"]
) -> Float[np.ndarray, " image"]:
    """The cosine of each row of `first` with the same row of `second`, in [-1, 1]. All rows have unit length.

    >>> cosines(np.eye(2), np.eye(2)[::-1]).tolist()
    [0.0, 0.0]
    """
    return (first.astype(np.float64) * second).sum(1).clip(-1, 1)


def vendi_score(embeddings: Float[np.ndarray, "image width"]) -> float:
    """The effective number of different images (Friedman & Dieng 2023): from 1, all alike, to the number of images, all
    at right angles; at most the width.

    It is exp(-sum_j l_j log l_j), where the l_j are the eigenvalues of K / n and K holds the cosines of all pairs of
    the n images. The l_j are also the squared singular values of the embeddings / sqrt(n).

    >>> round(vendi_score(np.eye(4)), 6), round(vendi_score(np.ones((5, 1))), 6)
    (4.0, 1.0)
    """
    values = np.linalg.svd(embeddings.astype(np.float64) / np.sqrt(len(embeddings)), compute_uv=False) ** 2
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))
