"""Says of each image whether it shows an attribute: the planted world's judge, CLIP, a vision-language model."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL.Image import Image

from raigen.config import AskConfig, CaptureConfig
from raigen.config.fields import ModelAddress, address_of
from raigen.config.prompts import lines_of
from raigen.diffusion.loading import resolve_device
from raigen.discovery.embeddings import Embedder
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import Answers, Reply
from raigen.judging.vlm.ask import Job, ask_all
from raigen.judging.vlm.questions import presence_question, read_presence
from raigen.runs.records import Presence, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick, mapped
from raigen.stats import krippendorff_alpha, rate_interval
from raigen.world.attributes import PROMPTS, VALUES
from raigen.world.judge import judge
from raigen.world.models import WORLD, makes_portraits

CLIP = "clip"  # beside that of the world, the judge that is no vision-language model
NOT_KNOWN = "the judge does not know this attribute"


class Subject(NamedTuple):
    """An attribute to look for: its label, and for a listed neuron its number and its top images."""

    label: str
    neuron: int | None = None
    top_images: tuple[str, ...] = ()


class Verdicts(NamedTuple):
    """What a judge says of each fresh image: 1 shows the attribute, 0 does not, NaN unscored.

    `confidence` in [0, 1] is the probability of the verdict, NaN where the judge gives none; `why` says by image why
    it is unscored.
    """

    judge: str
    shows: Float[np.ndarray, " image"]
    confidence: Float[np.ndarray, " image"]
    why: Mapping[int, str] | None = None


def given_labels(file: str) -> list[str]:
    """The attributes of a text file, one a line, each once. Lines that begin with # are notes.

    Raises RaigenError when there is no file, or none in it.
    """
    path = Path(file)
    if not path.is_file():
        raise RaigenError(f"attributes: expected a text file with one attribute a line; there is no file {file!r}")
    given = lines_of(path)
    if not given:
        raise RaigenError(f"attributes: expected one attribute a line; {path} has none")
    return given


def verdicts_of(
    run: Run,
    samples: Sequence[Sample],
    subjects: Sequence[Subject],
    name: str,
    answers: Answers,
    config: AskConfig,
    stage: str = "evaluate",
) -> Generator[Tick, None, list[Verdicts]]:
    """The verdicts of the judge `name` on images that `stage` made, in the order of the subjects."""
    if name in (CLIP, WORLD):
        images = [run.read_image(sample, stage) for sample in samples]
        return world_verdicts(images, subjects) if name == WORLD else clip_verdicts(run, images, subjects)
    address = address_of(name)
    labels = list(dict.fromkeys(subject.label for subject in subjects))
    total = len(samples) * len(labels)
    verdicts = yield from mapped(
        vlm_verdicts(run, samples, labels, address, answers, config), lambda done: Tick(done, total, address.name)
    )
    return [verdicts[subject.label] for subject in subjects]


def world_verdicts(images: Sequence[Image], subjects: Sequence[Subject]) -> list[Verdicts]:
    """Verdicts of the world's judge, for labels that are phrases of the world; all others are unscored."""
    judgment, name = judge(images), "portraits judge"
    column_of = {value.phrase: index for index, value in enumerate(VALUES)}
    readable, found = judgment.readable, []
    for subject in subjects:
        column = column_of.get(subject.label)
        if column is None:
            found.append(_unscored(name, len(images), NOT_KNOWN))
            continue
        shows = np.where(readable, judgment.shows[:, column].astype(float), np.nan)
        why = dict.fromkeys(np.flatnonzero(~readable).tolist(), "the image cannot be read")
        found.append(Verdicts(name, shows, judgment.confidence[:, column].astype(float), why))
    return found


def without(verdicts: Verdicts, black: Bool[np.ndarray, " image"]) -> Verdicts:
    """The verdicts with wholly black images unscored: a safety checker's, they show nothing."""
    why = dict(verdicts.why or {}) | dict.fromkeys(np.flatnonzero(black).tolist(), "the image is black")
    return verdicts._replace(shows=np.where(black, np.nan, verdicts.shows), why=why)


def clip_verdicts(run: Run, images: Sequence[Image], subjects: Sequence[Subject]) -> list[Verdicts]:
    """Verdicts of CLIP: nearer to the neuron's top images than to random ones, along the label's direction.

    What has no top images has no such middle, and is unscored.
    """
    prompt, name = run.config.capture.prompt, "CLIP, uncalibrated"
    embedder = _embedder(run.facts.discover.embedder, resolve_device(run.config.capture.device))
    fresh = embedder.images(images)
    audited = run.embeddings()
    index_of = run.index_of
    found = []
    for subject in subjects:
        if not subject.top_images:
            found.append(_unscored(name, len(images), "CLIP can judge only what it has top images of"))
            continue
        plain, named = embedder.texts([prompt, f"{prompt}, {subject.label}"])
        direction = named - plain
        is_top = np.zeros(len(audited), bool)
        is_top[[index_of[file] for file in subject.top_images]] = True
        seen = audited @ direction
        middle = (seen[is_top].mean() + seen[~is_top].mean()) / 2
        margin = (fresh @ direction - middle) / max(float(seen.std()), 1e-12)
        found.append(Verdicts(name, (margin > 0).astype(float), 1 / (1 + np.exp(-np.abs(margin)))))
    return found


@lru_cache(maxsize=1)
def _embedder(name: str, device: torch.device) -> Embedder:
    """The embedder, loaded once for all labels of a run: each is judged by itself."""
    return Embedder(name, device)


def vlm_verdicts(
    run: Run,
    samples: Sequence[Sample],
    labels: Sequence[str],
    address: ModelAddress,
    answers: Answers,
    config: AskConfig,
) -> Generator[int, None, dict[str, Verdicts]]:
    """Verdicts of a vision-language model by label; yields how many questions are answered.

    An answer of "unsure", one that cannot be read, and none at all are unscored. Raises RaigenError when the model
    cannot be asked, or the budget is spent.
    """
    shows = {label: np.full(len(samples), np.nan) for label in labels}
    confidence = {label: np.full(len(samples), np.nan) for label in labels}
    why: dict[str, dict[int, str]] = {label: {} for label in labels}
    results = ask_all(address, presence_jobs(run, samples, labels), answers, config)
    for done, ((index, label), reply, reason) in enumerate(results, 1):
        verdict = read_presence(reply.text) if reply else None
        if verdict in ("yes", "no"):
            shows[label][index] = verdict == "yes"
            if reply and reply.yes_share is not None:
                confidence[label][index] = reply.yes_share if verdict == "yes" else 1 - reply.yes_share
        else:
            why[label][index] = reason or ("the judge is unsure" if verdict else _unreadable(reply))
        yield done
    return {label: Verdicts(address.name, shows[label], confidence[label], why[label]) for label in labels}


def presence_jobs(run: Run, samples: Sequence[Sample], labels: Sequence[str]) -> Iterator[Job]:
    """Every label asked of every fresh image, all questions about one image in a row."""
    questions = [(label, presence_question(label)) for label in labels]
    for index, sample in enumerate(samples):
        image = run.read_image(sample, "evaluate")
        yield from (Job((image,), question, (index, label)) for label, question in questions)


def _unreadable(reply: Reply | None) -> str:
    return "the answer cannot be read" if reply and reply.text else "the judge refused to answer"


def _unscored(name: str, n_images: int, reason: str) -> Verdicts:
    nothing = np.full(n_images, np.nan)
    return Verdicts(name, nothing, nothing, dict.fromkeys(range(n_images), reason))


class Rates(NamedTuple):
    """The rate of one attribute by each judge, and how far the judges agree, where there are two or more."""

    presences: tuple[Presence, ...]
    alpha: float | None


def is_in_world(capture: CaptureConfig) -> bool:
    """Whether the run's images are of the planted world, whose own judge can read them."""
    return makes_portraits(capture.model) and capture.prompt in PROMPTS


def judges_of(names: Sequence[str], capture: CaptureConfig) -> list[str]:
    """The names of the judges, each once, `auto` resolved. Raises RaigenError where one cannot judge this run."""
    found = [(WORLD if is_in_world(capture) else CLIP) if name == "auto" else name for name in names]
    if WORLD in found and not is_in_world(capture):
        raise RaigenError(
            f"judge: expected clip or a vision-language model; {WORLD!r} can judge only images of the planted world "
            f"and its prompts, this run is {capture.model!r} with {capture.prompt!r}"
        )
    return list(dict.fromkeys(found))


def presence_of(verdicts: Verdicts, confidence: float) -> Presence:
    """The rate of the attribute with its interval; unscored images are not in the denominator."""
    scored = ~np.isnan(verdicts.shows)
    hits, n = int(verdicts.shows[scored].sum()), int(scored.sum())
    interval = rate_interval(hits, n, confidence)
    return Presence(
        rate=hits / n if n else 0.0,
        low=interval.low,
        high=interval.high,
        hits=hits,
        n=n,
        unscored=int((~scored).sum()),
        judge=verdicts.judge,
        interval=f"{100 * confidence:g} % {interval.method}",
    )


def rates_of(found: Sequence[Verdicts], confidence: float) -> Rates:
    """The rate by each judge, and Krippendorff's alpha where there are two or more and it is defined."""
    alpha = krippendorff_alpha(np.stack([verdicts.shows for verdicts in found])) if len(found) > 1 else None
    return Rates(tuple(presence_of(verdicts, confidence) for verdicts in found), alpha)
