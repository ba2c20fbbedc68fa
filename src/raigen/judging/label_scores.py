"""Scores labels on audited images that had no part in the naming: does a judge see the label where the neuron fires?"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.config import EvaluateConfig
from raigen.discovery.codes import fires
from raigen.discovery.scores import minority_scores
from raigen.judging.detection import STRONGLY, HeldOut, detection, held_out
from raigen.judging.interpretability import clarity, polysemanticity, redundancy
from raigen.judging.protocol import Judge, Look, StoredImages, Subject, Verdicts
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run

FEWEST = 5  # held-out images that each side needs for a score
FEWEST_EMBEDDINGS = 4  # top images that two clusters need


class Material(NamedTuple):
    """What the scores are made from: the codes of the audited images, by index, and the codes of all images for each
    family; embeddings of all images, and the images. The audited images come first, then their relatives."""

    codes: Float[np.ndarray, "audited neuron"]
    family_codes: Float[np.ndarray, "image family"]
    embeddings: Float[np.ndarray, "image width"]
    samples: list[Sample]

    @property
    def place_of(self) -> dict[str, int]:
        """The place of each image, by file."""
        return {sample.file: place for place, sample in enumerate(self.samples)}

    def codes_of(self, attribute: RareAttribute) -> Float[np.ndarray, " image"]:
        """The codes of an attribute: of all images for a family, else of the audited ones."""
        if attribute.is_family:
            return self.family_codes[:, attribute.neuron - self.codes.shape[1]]
        return self.codes[:, attribute.neuron]


class Scored(NamedTuple):
    """A listed neuron with the images on which its label is scored; None for these, and why, where it is not scored.

    `other` is another neuron, on whose held-out images the same label is scored for control; None where there is none.
    """

    attribute: RareAttribute
    held_out: HeldOut | None
    why_not: str | None
    other: "Scored | None" = None


def material_of(run: Run) -> Material:
    """What the scores of a run are made from. Raises RaigenError when files of discovery are missing."""
    codes, families = run.image_codes(), run.family_codes()
    return Material(codes[:, : codes.shape[1] - families.shape[1]], families, run.all_embeddings(), run.all_samples())


def scored_labels(
    run: Run, attributes: Sequence[RareAttribute], material: Material, config: EvaluateConfig
) -> list[Scored]:
    """Each listed neuron with its held-out images. Its control is the next neuron of another label that has some, too;
    after the last neuron comes the first."""
    chosen = list(_chosen(run, attributes, material, config))
    found = []
    for place, one in enumerate(chosen):
        others = [
            other for other in (*chosen[place + 1 :], *chosen[:place])
            if one.held_out is not None and other.held_out is not None and other.attribute.label != one.attribute.label
        ]  # fmt: skip
        found.append(one._replace(other=others[0] if others else None))
    return found


def label_looks(run: Run, material: Material, scored: Sequence[Scored]) -> Iterator[Look]:
    """What a judge will look at for the scores."""
    for one in scored:
        for on in (one, one.other):
            if on is not None and on.held_out is not None:
                yield _look(run, material, one.attribute, on.held_out)


def label_scores(
    run: Run, judge: Judge, material: Material, scored: Sequence[Scored], config: EvaluateConfig
) -> list[dict[str, Any]]:
    """The lines of label_scores.jsonl, one per listed neuron.

    Each holds the measures that need no label, and how well the judge's verdicts tell held-out images on which the
    neuron fires from others; where there is no such score, `why_not` says why. `shuffled` is the score of the same
    label on the held-out images of another neuron: what a label that has nothing to do with a neuron scores.
    Raises RaigenError when the judge cannot be asked.
    """
    attributes = [one.attribute for one in scored]
    measured, lines = _measures(attributes, material, run.config.discover.min_images), []
    for attribute, held, why_not, other in scored:
        line: dict[str, Any] = {"neuron": attribute.neuron, "label": attribute.label, **measured[attribute.neuron]}
        if held is None:
            line["why_not"] = why_not
        else:
            line |= _score(run, judge, material, attribute, held, config.confidence)
        if other is not None and other.held_out is not None:
            shuffled = _score(run, judge, material, attribute, other.held_out, config.confidence)
            del shuffled["pictures"]
            line["shuffled"] = {"neuron": other.attribute.neuron} | shuffled
        lines.append(line)
    return lines


def _look(run: Run, material: Material, attribute: RareAttribute, held: HeldOut) -> Look:
    samples = [material.samples[index] for index in np.concatenate(held)]
    return Look(StoredImages(run, samples), [Subject.of(attribute)])


def _score(
    run: Run, judge: Judge, material: Material, attribute: RareAttribute, held: HeldOut, confidence: float
) -> dict[str, Any]:
    """The score of the attribute's label on held-out images."""
    (verdicts,) = judge.verdicts(*_look(run, material, attribute, held))
    return _detected(verdicts, held, [material.samples[index] for index in np.concatenate(held)], confidence)


def _chosen(
    run: Run, attributes: Sequence[RareAttribute], material: Material, config: EvaluateConfig
) -> Iterator[Scored]:
    """Each listed neuron with its held-out images, or with the reason why there are none."""
    place_of = material.place_of
    is_black = ~run.is_shown()
    base = run.config.capture.base_seed
    for attribute in attributes:
        if attribute.label is None:
            yield Scored(attribute, None, "it has no label")
            continue
        if config.n_label_images == 0:
            yield Scored(attribute, None, "n_label_images is 0")
            continue
        codes = material.codes_of(attribute)
        unusable = np.pad(is_black, (0, len(codes) - len(is_black)))  # no relative is black
        unusable[[place_of[file] for file in attribute.top_images]] = True
        embeddings, seed = material.embeddings[: len(codes)], base + attribute.neuron
        chosen = held_out(codes, embeddings, unusable, config.n_label_images, seed)
        n_silent = len(chosen.hard) + len(chosen.random)
        if len(chosen.active) < FEWEST:
            n_strong = int(fires(codes[:, None], STRONGLY).sum())
            yield Scored(attribute, None, _too_few(len(chosen.active), len(attribute.top_images), n_strong, len(codes)))
        elif n_silent < FEWEST:
            yield Scored(attribute, None, f"it is silent in only {n_silent} images")
        else:
            yield Scored(attribute, chosen, None)


def _too_few(n_active: int, n_top: int, n_strong: int, n_images: int) -> str:
    """Why a label has no score, and how many audited images should be enough for one.

    The neuron fires strongly in `n_strong` of `n_images` images; `n_top` of them named it, `n_active` are left.

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


def _detected(verdicts: Verdicts, chosen: HeldOut, samples: Sequence[Sample], confidence: float) -> dict[str, Any]:
    """The score, and the verdict on each image."""
    # The verdict says on which side of 1/2 the probability of a yes is; the confidence only says how far from it.
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
    """By neuron, the measures that need no label; None where there are too few images or neurons."""
    place_of = material.place_of
    n_audited, families = len(material.codes), [one.neuron for one in attributes if one.is_family]
    codes = np.concatenate([material.codes, material.family_codes[:n_audited]], axis=1) if families else material.codes
    enough = (codes > 0).sum(0) >= np.where(np.isin(np.arange(codes.shape[1]), families), 1, min_images)
    live = np.flatnonzero(enough)
    if not attributes:
        return {}
    centroids = minority_scores(codes[:, live], material.embeddings[:n_audited]).centroids
    found: dict[int, dict[str, float | None]] = {}
    for attribute in attributes:
        top = material.embeddings[[place_of[file] for file in attribute.top_images]].astype(float)
        places = np.flatnonzero(live == attribute.neuron)  # none for a family that shows in no audited image
        found[attribute.neuron] = {
            "clarity": round(clarity(top), 4) if len(top) >= 2 else None,
            "redundancy": round(redundancy(centroids, int(places[0])), 4) if len(live) >= 2 and len(places) else None,
            "polysemanticity": round(polysemanticity(top), 4) if len(top) >= FEWEST_EMBEDDINGS else None,
        }
    return found
