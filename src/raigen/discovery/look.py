"""Looks around odd images: makes relatives of each, and lists what a family of relatives has in common."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from raigen.config import LookConfig, Pruning
from raigen.discovery.discover import View, views_of
from raigen.discovery.families import FIRST, Family, Relative, Views, begin_families
from raigen.discovery.relative_images import RelativeImages, activations_at
from raigen.discovery.scores import SetScore, score_of_set
from raigen.runs.activations import ActivationStore
from raigen.runs.files import write_tensors
from raigen.runs.records import FamilyOf, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick, mapped

FEWEST_IMAGES = 200  # audited ones: with fewer, the views have too few directions for an image to be odd in
AT_ONCE = 4  # families that grow together, so that batches are full
WHOLE = 6  # images that kept the oddity: with fewer, a family counts for nothing
WEAKEST = 9.5  # standard deviations of the audited images: the weakest top image of a family lies that far out
REACH = 0.4  # of the mean of the top images: an audited image with more of the oddity than this shows it
N_NOTED = 10  # relatives of each kind that a family notes


@dataclass(frozen=True)
class Audited:
    """The audited images in three views: what they mean, how they look (the second view of discovery), and their mean
    activations at the last step. `mean_map` is the mean of all their activations, by position. `shown` is False for
    black images."""

    samples: list[Sample]
    shown: Bool[np.ndarray, " image"]
    embeddings: Float[np.ndarray, "image width"]
    looks: Float[np.ndarray, "image other"]
    activations: Float[np.ndarray, "image d_in"]
    mean_map: Float[torch.Tensor, "token d_in"]


class Finding(NamedTuple):
    """A family with its score, its top images as places in `Run.index_of`, and how far these lie along its direction,
    on average."""

    family: Family
    score: SetScore
    top: Int[np.ndarray, " top"]
    strength: float

    def codes(self, rows: Float[np.ndarray, "image direction"]) -> Float[np.ndarray, " image"]:
        """How much images have of the oddity: 0 for those that do not show it."""
        return np.clip(rows @ self.family.direction / self.strength - REACH, 0, None)


def look(run: Run, config: LookConfig) -> Generator[Tick, None, Outcome]:
    """Makes relatives of the oddest audited images, and lists what families of them have in common.

    What is rare among all images is common among the relatives of an image that shows it. A relative is made from the
    noise of its parent, moved by a small step: it is a genuine image of the model, under the plain prompt. Families are
    scored as neurons are, by their top images. Where a listed neuron shows the same, the family is noted there. The
    others are listed beside the neurons.

    Writes look.safetensors, the folder `look`, and attributes.json. A stop loses no whole batch. Yields progress in
    images. Raises RaigenError when discovery has not run, and as `capture` does.
    """
    listed = [replace(one, family=None) for one in run.attributes if not (one.is_family or one.by_hand)]
    budget = config.n_relatives(run.config.capture.n_images)
    why_not = _why_not(run, budget)
    if why_not is None:
        images = RelativeImages(run)
        audited = yield from _audited(run, images.second)
        views = Views([audited.embeddings, audited.looks, audited.activations], audited.shown)
        families, n_odd = yield from _grown(images, audited, views, config.first_step, budget)
        if not images.are_copies:
            return _written(run, config, images, audited, views, families, listed, n_odd)
        why_not = "this pipeline draws its noise in a way that raigen cannot move"
    run.write_attributes(replace(one, rank=rank) for rank, one in enumerate(listed, 1))
    return Outcome([], {"why_not": why_not})


def _why_not(run: Run, budget: int) -> str | None:
    """Why there is nothing to look for; None if there is."""
    n_shown = int(run.is_shown().sum())
    if budget == 0:
        return "--n-look-images is 0"
    if n_shown < FEWEST_IMAGES:
        return f"{n_shown} audited images are too few: {FEWEST_IMAGES} or more are needed"
    if budget < AT_ONCE * FIRST:
        return f"{budget} relatives are too few: {AT_ONCE * FIRST} or more are needed"
    return None


def _audited(run: Run, second: View) -> Generator[Tick, None, Audited]:
    samples, store = run.samples(), ActivationStore(run.activations_dir)
    seeing = views_of(run, samples, [second])
    (looks,) = yield from mapped(seeing, lambda tick: tick._replace(note="looking for odd images"))
    means, total = [], torch.zeros(store.n_tokens, store.d_in, dtype=torch.float64)
    for chunk in store.step(store.step_indices[-1]):
        means.append(chunk.activations.mean(dim=1))
        total += chunk.activations.double().sum(dim=0)
    return Audited(samples, run.is_shown(), run.embeddings(), looks, torch.cat(means).numpy(),
                   (total / len(samples)).float())  # fmt: skip


def _grown(
    images: RelativeImages, audited: Audited, views: Views, step: float, budget: int
) -> Generator[Tick, None, tuple[list[Family], int]]:
    """The families in which enough images keep an oddity, and how many odd images were looked around."""
    order, seeds = views.odd_first().tolist(), [sample.seed for sample in audited.samples]
    tried: set[int] = set()
    families: list[Family] = []
    while len(images) + AT_ONCE * FIRST <= budget:
        begun = growing = begin_families(views, order, families, tried, seeds, step, AT_ONCE)
        while growing:
            generations = [family.next_generation() for family in growing]
            lineages = [lineage for generation in generations for lineage in generation]
            if len(images) + len(lineages) > budget:
                break
            first = yield from images.make(lineages, budget)
            if images.are_copies:
                return [], len(tried)
            made = iter(enumerate(views.place(images.views(first)), start=images.n_audited + first))
            for family, generation in zip(growing, generations, strict=True):
                family.add([Relative(lineage, *next(made)) for lineage in generation])
            growing = [family for family in growing if family.goes_on]
        families += [family for family in begun if family.n_kept >= WHOLE]
        if not begun:
            break
    return families, len(tried)


def findings_of(
    families: Sequence[Family], audited: Audited, views: Views, n_top: int, pruning: Pruning
) -> list[Finding]:
    """The families that stand out, best first, no two with the same oddity."""
    found = [_finding(family, audited, views, n_top) for family in families]
    kept: list[Finding] = []
    for one in sorted((one for one in found if one is not None), key=lambda one: -one.score.minority_score):
        is_rare = one.score.frequency <= pruning.max_frequency
        if is_rare and not any(one.family.is_like(other.family.direction) for other in kept):
            kept.append(one)
    return kept


def _finding(family: Family, audited: Audited, views: Views, n_top: int) -> Finding | None:
    """The family with its top images, which may be audited ones, too; None if the weakest does not stand out."""
    along = np.where(audited.shown, views.rows @ family.direction, 0.0)
    places = np.concatenate([np.arange(len(along)), family.places[1:]])
    rows = np.concatenate([views.rows, family.rows[1:]])
    strength = np.concatenate([along, family.rows[1:] @ family.direction])
    top = np.argsort(-strength, kind="stable")[:n_top]
    if strength[top[-1]] < WEAKEST * along[audited.shown].std():
        return None
    scored = views.parts[:2]  # the views in which neurons are scored
    shown = views.rows[audited.shown]
    score = score_of_set([shown[:, part] for part in scored], [rows[top][:, part] for part in scored])
    return Finding(family, score, places[top], float(strength[top].mean()))


def _written(
    run: Run,
    config: LookConfig,
    images: RelativeImages,
    audited: Audited,
    views: Views,
    families: Sequence[Family],
    listed: Sequence[RareAttribute],
    n_odd: int,
) -> Outcome:
    """Writes what was found, and the list."""
    discover, n_top = run.config.discover, min(run.config.discover.n_top_images, len(audited.samples))
    findings = findings_of(families, audited, views, n_top, discover.pruning(int(audited.shown.sum())))
    files = [sample.file for sample in (*audited.samples, *images.samples)]
    listed, others = _noted(listed, findings, views, files)
    others = others[: config.n_families]
    first = run.image_codes().shape[1]
    entries = [*listed, *(_entry(one, first + number, files) for number, one in enumerate(others))]
    means = np.concatenate([audited.activations, images.activations])
    maps = [*torch.from_numpy(run.heatmaps()), *(_heatmaps(run, one, means, audited.mean_map) for one in others)]
    seen = np.concatenate([views.rows * audited.shown[:, None], views.place(images.views())])
    codes = np.array([one.codes(seen) for one in others]).reshape(len(others), len(seen))
    order = sorted(range(len(entries)), key=lambda place: -entries[place].minority_score)
    write_tensors(run.look_path, {
        "codes": torch.from_numpy(codes.T.copy()),
        "embeddings": torch.from_numpy(images.embeddings),
        "heatmaps": torch.stack([maps[place] for place in order]) if maps else torch.from_numpy(run.heatmaps()),
    })  # fmt: skip
    run.write_attributes(replace(entries[place], rank=rank) for rank, place in enumerate(order, 1))
    facts = {"n_odd": n_odd, "n_relatives": len(images), "n_families": len(families), "n_listed": len(others)}
    return Outcome([run.look_path, *images.files], facts)


def _noted(
    listed: Sequence[RareAttribute], findings: Sequence[Finding], views: Views, files: Sequence[str]
) -> tuple[list[RareAttribute], list[Finding]]:
    """The listed neurons, each with the best family that shows the same, and the findings of no neuron."""
    place_of = {file: place for place, file in enumerate(files)}
    noted, taken = [], set[int]()
    for neuron in listed:
        top = [place_of[file] for file in neuron.top_images]
        direction = views.direction(views.rows[top].mean(axis=0))
        alike = [number for number, one in enumerate(findings) if one.family.is_like(direction)]
        family = _family_of(findings[alike[0]].family, files) if alike else None
        noted.append(replace(neuron, family=family))
        taken |= {*alike}
    return noted, [one for number, one in enumerate(findings) if number not in taken]


def _entry(one: Finding, number: int, files: Sequence[str]) -> RareAttribute:
    """A family as an entry of the list, without its rank."""
    return RareAttribute(
        rank=0, neuron=number, **one.score._asdict(), top_images=tuple(files[int(place)] for place in one.top),
        family=_family_of(one.family, files), is_family=True,
    )  # fmt: skip


def _family_of(family: Family, files: Sequence[str]) -> FamilyOf:
    members, has_kept = family.members, family.has_kept
    order = [int(place) for place in np.argsort(-family.oddity, kind="stable") if place > 0]  # without the odd image
    kept = [files[members[place].place] for place in order if has_kept[place]]
    lost = [files[members[place].place] for place in order[::-1] if not has_kept[place]]
    return FamilyOf(files[family.image], len(order), len(kept), tuple(kept[:N_NOTED]), tuple(lost[:N_NOTED]))


def _heatmaps(
    run: Run, one: Finding, means: Float[np.ndarray, "image d_in"], mean_map: Float[torch.Tensor, "token d_in"]
) -> Float[torch.Tensor, "top row column"]:
    """Where the top images have what tells the members that kept the oddity from those that lost it, 0 or more.

    `means` are the mean activations of all images, in the order of `Run.index_of`.
    """
    members, kept = means[one.family.places], one.family.has_kept
    lost = members[~kept].mean(axis=0) if (~kept).any() else mean_map.mean(dim=0).numpy()
    direction = torch.from_numpy(members[kept].mean(axis=0) - lost).float()
    direction = direction / direction.norm()
    maps = (activations_at(run, one.top.tolist()) - mean_map) @ direction
    return maps.clamp(min=0).unflatten(-1, run.facts.capture.grid)
