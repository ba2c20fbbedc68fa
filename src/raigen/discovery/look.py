"""Looks around odd images: makes relatives of each, and lists what a family of relatives has in common."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from jaxtyping import Bool, Float

from raigen.config import LookConfig
from raigen.discovery.discover import View, views_of
from raigen.discovery.families import FIRST, Family, Relative, Views, begin_families
from raigen.discovery.joint_list import Candidate, JointList, joined, of_family, of_neuron
from raigen.discovery.relative_images import RelativeImages, activations_at
from raigen.runs.activations import ActivationStore
from raigen.runs.files import write_tensors
from raigen.runs.records import FamilyOf, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick, mapped

FEWEST_IMAGES = 200  # audited ones: with fewer, the views have too few directions for an image to be odd in
AT_ONCE = 4  # families that grow together, so that batches are full
WHOLE = 6  # images that kept the oddity: with fewer, a family counts for nothing
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


def look(run: Run, config: LookConfig) -> Generator[Tick, None, Outcome]:
    """Makes relatives of the oddest audited images, and lists what families of them have in common.

    What is rare among all images is common among the relatives of an image that shows it. A relative is made from the
    noise of its parent, moved by a small step: it is a genuine image of the model, under the plain prompt. Families are
    scored as neurons are, by their top images, and listed together with them. What stands out too little, or looks like
    a combination of frequent things, is set aside (see `raigen.discovery.joint_list`).

    Writes look.safetensors, the folder `look`, attributes.json and set_aside.json. A stop loses no whole batch. Yields
    progress in images. Raises RaigenError when discovery has not run, and as `capture` does.
    """
    neurons = [one for one in (*run.attributes, *run.set_aside) if not (one.is_family or one.by_hand)]
    neurons.sort(key=lambda one: (-one.minority_score, one.neuron))  # as discovery listed them
    budget = config.n_relatives(run.config.capture.n_images)
    why_not = _why_not(run, budget)
    if why_not is None:
        images = RelativeImages(run)
        audited = yield from _audited(run, images.second)
        views = Views([audited.embeddings, audited.looks, audited.activations], audited.shown)
        families, n_odd = yield from _grown(images, audited, views, config.first_step, budget)
        if not images.are_copies:
            return _written(run, config, images, audited, views, families, neurons, n_odd)
        why_not = "this pipeline draws its noise in a way that raigen cannot move"
    run.write_attributes(replace(one, rank=rank, family=None, why_aside=None) for rank, one in enumerate(neurons, 1))
    run.write_attributes([], run.aside_path)
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


def joint_list(
    listed: Sequence[RareAttribute], families: Sequence[Family], views: Views, files: Sequence[str], run: Run
) -> JointList:
    """The list of these neurons and of the families that stand out. `files` are those of all images, by place."""
    discover, place_of = run.config.discover, {file: place for place, file in enumerate(files)}
    most = discover.pruning(len(views.shown)).max_frequency
    found = [of_family(family, views, min(discover.n_top_images, len(views.rows))) for family in families]
    neurons = [of_neuron(neuron, views, [place_of[file] for file in neuron.top_images]) for neuron in listed]
    return joined([*neurons, *(one for one in found if one.score.frequency <= most)])


def _written(
    run: Run,
    config: LookConfig,
    images: RelativeImages,
    audited: Audited,
    views: Views,
    families: Sequence[Family],
    neurons: Sequence[RareAttribute],
    n_odd: int,
) -> Outcome:
    """Writes what was found, and the list."""
    files = [sample.file for sample in (*audited.samples, *images.samples)]
    found = joint_list(neurons, families, views, files, run).shortened(config.n_families)
    numbers = count(run.image_codes().shape[1])  # those of families follow those of neurons
    entries = [_entry(one, files, found.families.get(place), numbers) for place, one in enumerate(found.listed)]
    aside = [replace(_entry(one, files, None, numbers), why_aside=why) for one, why in found.aside]
    map_of = dict(zip((neuron.neuron for neuron in neurons), torch.from_numpy(run.heatmaps()), strict=True))
    means = np.concatenate([audited.activations, images.activations])
    maps = [_heatmaps(run, one, means, audited.mean_map) if entry.is_family else map_of[entry.neuron]
            for one, entry in zip(found.listed, entries, strict=True)]  # fmt: skip
    seen = np.concatenate([views.rows * audited.shown[:, None], views.place(images.views())])
    codes = [one.codes(seen) for one, entry in zip(found.listed, entries, strict=True) if entry.is_family]
    write_tensors(run.look_path, {
        "codes": torch.from_numpy(np.array(codes).reshape(len(codes), len(seen)).T.copy()),
        "embeddings": torch.from_numpy(images.embeddings),
        "heatmaps": torch.stack(maps) if maps else torch.from_numpy(run.heatmaps()[:0]),
    })  # fmt: skip
    run.write_attributes((replace(entry, rank=rank) for rank, entry in enumerate(entries, 1)))
    run.write_attributes((replace(entry, rank=rank) for rank, entry in enumerate(aside, 1)), run.aside_path)
    facts = {"n_odd": n_odd, "n_relatives": len(images), "n_families": len(families), "n_listed": len(codes),
             "n_aside": len(aside)}  # fmt: skip
    return Outcome([run.look_path, *images.files], facts)


def _entry(one: Candidate, files: Sequence[str], other: Family | None, numbers: Iterator[int]) -> RareAttribute:
    """A neuron with the family that shows the same, if there is one, or a family as an entry of the list, without its
    rank."""
    if isinstance(one.source, RareAttribute):
        return replace(one.source, family=_family_of(other, files) if other else None, why_aside=None)
    return RareAttribute(
        rank=0, neuron=next(numbers), **one.score._asdict(), top_images=tuple(files[int(place)] for place in one.top),
        family=_family_of(one.source, files), is_family=True,
    )  # fmt: skip


def _family_of(family: Family, files: Sequence[str]) -> FamilyOf:
    members, has_kept = family.members, family.has_kept
    order = [int(place) for place in np.argsort(-family.oddity, kind="stable") if place > 0]  # without the odd image
    kept = [files[members[place].place] for place in order if has_kept[place]]
    lost = [files[members[place].place] for place in order[::-1] if not has_kept[place]]
    return FamilyOf(files[family.image], len(order), len(kept), tuple(kept[:N_NOTED]), tuple(lost[:N_NOTED]))


def _heatmaps(
    run: Run, one: Candidate, means: Float[np.ndarray, "image d_in"], mean_map: Float[torch.Tensor, "token d_in"]
) -> Float[torch.Tensor, "top row column"]:
    """Where the top images have what tells the members that kept the oddity from those that lost it, 0 or more.

    `means` are the mean activations of all images, in the order of `Run.index_of`.
    """
    assert isinstance(one.source, Family)
    members, kept = means[one.source.places], one.source.has_kept
    lost = members[~kept].mean(axis=0) if (~kept).any() else mean_map.mean(dim=0).numpy()
    direction = torch.from_numpy(members[kept].mean(axis=0) - lost).float()
    direction = direction / direction.norm()
    maps = (activations_at(run, one.top.tolist()) - mean_map) @ direction
    return maps.clamp(min=0).unflatten(-1, run.facts.capture.grid)
