"""Scores labels on audited images that did not make them: does a judge see the label where the neuron fires?"""

import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.config import EvaluateConfig
from raigen.discovery.codes import fires
from raigen.discovery.scores import minority_scores
from raigen.judging.detection import STRONGLY, HeldOut, detection, held_out
from raigen.judging.interpretability import clarity, polysemanticity, redundancy
from raigen.judging.judges import Subject, Verdicts, presence_jobs, verdicts_of
from raigen.judging.vlm.answers import Answers
from raigen.judging.vlm.ask import Job
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick

FEWEST = 5  # held-out images on either side, without which a label is not scored
FEWEST_EMBEDDINGS = 4  # top images, without which they cannot form two clusters


class Material(NamedTuple):
    """What the scores are made from: codes and embeddings of the audited images, by index, and the images."""

    codes: Float[np.ndarray, "image neuron"]
    embeddings: Float[np.ndarray, "image width"]
    samples: list[Sample]


def label_scores(
    run: Run, judge: str, answers: Answers, config: EvaluateConfig
) -> Generator[Tick, None, list[dict[str, Any]]]:
    """The lines of label_scores.jsonl, one per listed neuron: measures that need no label, and for a label how well
    the judge's verdicts tell held-out images on which the neuron fires from others. Where there is no such score,
    `why_not` says why. `shuffled` is the score of the same label on the held-out images of another neuron, which
    shows what a label that has nothing to do with a neuron scores.

    Raises RaigenError when files of discovery are missing, or the judge cannot be asked.
    """
    material, lines = _material(run), []
    measured = _measures(run.attributes, material, run.config.discover.min_images)
    for attribute, chosen, other, reason in _paired(list(_chosen(run, material, config))):
        line: dict[str, Any] = {"neuron": attribute.neuron, "label": attribute.label, **measured[attribute.neuron]}
        if chosen is None:
            line["why_not"] = reason
        else:
            line |= yield from _asked(run, attribute, chosen, material, judge, answers, config)
        if other is not None:
            shuffled = yield from _asked(run, attribute, other.held_out, material, judge, answers, config)
            line["shuffled"] = {"neuron": other.neuron} | {n: v for n, v in shuffled.items() if n != "pictures"}
        lines.append(line)
    return lines


def label_jobs(run: Run, config: EvaluateConfig) -> Iterator[Job]:
    """What a vision-language model will be asked for the scores."""
    material = _material(run)
    for attribute, chosen, other, _ in _paired(list(_chosen(run, material, config))):
        for held in (chosen, other and other.held_out):
            if held is not None:
                samples = [material.samples[index] for index in np.concatenate(held)]
                yield from presence_jobs(run, samples, [attribute.label or ""])


class Other(NamedTuple):
    """Another neuron, on whose held-out images a label is scored for control."""

    neuron: int
    held_out: HeldOut


def _paired(
    chosen: Sequence[tuple[RareAttribute, HeldOut | None, str | None]],
) -> Iterator[tuple[RareAttribute, HeldOut | None, Other | None, str | None]]:
    """Each neuron with its held-out images, and with the next one of another label (after the last, the first) that
    has some, too."""
    for place, (attribute, held, reason) in enumerate(chosen):
        others = [
            Other(other.neuron, their)
            for other, their, _ in (*chosen[place + 1 :], *chosen[:place])
            if held is not None and their is not None and other.label != attribute.label
        ]
        yield attribute, held, others[0] if others else None, reason


def _asked(
    run: Run, attribute: RareAttribute, held: HeldOut, material: Material, judge: str, answers: Answers,
    config: EvaluateConfig,
) -> Generator[Tick, None, dict[str, Any]]:  # fmt: skip
    """The score of the attribute's label on held-out images."""
    samples = [material.samples[index] for index in np.concatenate(held)]
    subject = Subject(attribute.label or "", attribute.neuron, attribute.top_images)
    (verdicts,) = yield from verdicts_of(run, samples, [subject], judge, answers, config, "capture")
    return _scored(verdicts, held, samples, config.confidence)


def _material(run: Run) -> Material:
    codes = run.image_codes()
    embeddings = run.embeddings()
    return Material(codes, embeddings, run.samples())


def _chosen(
    run: Run, material: Material, config: EvaluateConfig
) -> Iterator[tuple[RareAttribute, HeldOut | None, str | None]]:
    """Each listed neuron with its held-out images, or with the reason why there are none. One without a label has
    none."""
    index_of = {sample.file: sample.index for sample in material.samples}
    black = ~run.is_shown()
    base = run.config.capture.base_seed
    for attribute in run.attributes:
        if attribute.label is None:
            yield attribute, None, "it has no label"
            continue
        if config.n_label_images == 0:
            yield attribute, None, "n_label_images is 0"
            continue
        unusable = black.copy()
        unusable[[index_of[file] for file in attribute.top_images]] = True
        strength = material.codes[:, attribute.neuron]
        chosen = held_out(strength, material.embeddings, unusable, config.n_label_images, base + attribute.neuron)
        n_silent = len(chosen.hard) + len(chosen.random)
        if len(chosen.active) < FEWEST:
            n_strong = int(fires(strength[:, None], STRONGLY).sum())
            yield attribute, None, _too_few(len(chosen.active), len(attribute.top_images), n_strong, len(strength))
        elif n_silent < FEWEST:
            yield attribute, None, f"it is silent in only {n_silent} images"
        else:
            yield attribute, chosen, None


def _too_few(n_active: int, n_top: int, n_strong: int, n_images: int) -> str:
    """Why there is no score where `n_strong` of `n_images` images make the neuron fire strongly, among them `n_top`
    that it was named by; and from how many images on there should be one.

    >>> _too_few(2, 10, 12, 1000).split(": ")[1]
    'some 1,300 audited images would give that many, if it goes on so'
    """
    needed = n_images * (n_top + FEWEST) / max(n_strong, 1)
    step = 10 ** max(math.floor(math.log10(needed)) - 1, 0)  # two digits, rounded up
    needed = math.ceil(needed / step) * step
    return (
        f"apart from the {n_top} images it was named by, the neuron fires strongly in only {n_active} of "
        f"{n_images:,}, and {FEWEST} are needed: some {needed:,.0f} audited images would give that many, if it goes "
        "on so"
    )


def _scored(verdicts: Verdicts, chosen: HeldOut, samples: Sequence[Sample], confidence: float) -> dict[str, Any]:
    """The score, and what was said of each image."""
    # The verdict says on which side of 1/2 an image stands, its confidence only how far from there.
    sure = np.where(np.isnan(verdicts.confidence), 1.0, np.maximum(verdicts.confidence, 0.5 + 1e-6))
    yes = np.where(np.isnan(verdicts.shows), np.nan, np.where(verdicts.shows == 1, sure, 1 - sure))
    groups = np.repeat(["active", "hard", "random"], [len(part) for part in chosen])
    found = detection(yes[groups == "active"], yes[groups != "active"], confidence)
    images = [
        {"file": sample.file, "group": str(group), "shows": None if np.isnan(shown) else bool(shown)}
        for sample, group, shown in zip(samples, groups, verdicts.shows, strict=True)
    ]
    line: dict[str, Any] = {"judge": verdicts.judge, "n_unscored": int(np.isnan(yes).sum()), "pictures": images}
    if found is None:
        return line | {"why_not": "the judge gave no usable answer on one of the two sides"}
    numbers = {name: list(value) if isinstance(value, tuple) else value for name, value in found._asdict().items()}
    return line | {"why_not": None, **numbers}


def _measures(
    attributes: Sequence[RareAttribute], material: Material, min_images: int
) -> dict[int, dict[str, float | None]]:
    """By neuron the measures that need no label; None where too few images or neurons tell nothing."""
    index_of = {sample.file: sample.index for sample in material.samples}
    live = np.flatnonzero((material.codes > 0).sum(0) >= min_images)
    if not attributes:
        return {}
    centroids = minority_scores(material.codes[:, live], material.embeddings).centroids
    found: dict[int, dict[str, float | None]] = {}
    for attribute in attributes:
        top = material.embeddings[[index_of[file] for file in attribute.top_images]].astype(float)
        place = int(np.flatnonzero(live == attribute.neuron)[0])
        found[attribute.neuron] = {
            "clarity": round(clarity(top), 4) if len(top) >= 2 else None,
            "redundancy": round(redundancy(centroids, place), 4) if len(live) >= 2 else None,
            "polysemanticity": round(polysemanticity(top), 4) if len(top) >= FEWEST_EMBEDDINGS else None,
        }
    return found
