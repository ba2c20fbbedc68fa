"""Measures the dose response of one attribute: its images at each strength, beside unsteered ones of the same seeds."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int

from raigen.amplification.measuring import Evaluator, Observed
from raigen.amplification.mixture import assign_prompts
from raigen.amplification.recipes import SavedRecipe, folder_name, key_of
from raigen.amplification.rendering import BrokenImageError, Recipe, Renderer, with_strength
from raigen.amplification.steering import Method
from raigen.config import CONTROLLED, CONTROLS, AmplifyConfig, identity
from raigen.errors import RaigenError
from raigen.judging.judges import Subject
from raigen.runs.files import write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tell

WITHOUT_NEURON = ("contrast", "prompt", "mix")  # methods that need only images or a name
RECIPE = "recipe"  # the method of a recipe file
BASE = "base"  # the folder of the unsteered images
# `select` generates enough for 2 expected hits per kept image; with exactly as many as it keeps, only 60 % are hits.
PER_WANTED = 2
DIRECTIONS_APART = 1_000_003  # between the seeds of the random directions of a neuron, so that no two neurons share one
MOST_PER_KEPT = 200  # images that `select` generates for each one it keeps, unless a strength is given


class Amplification(dict):
    """What an amplification.json holds. Its repr is one line."""

    def __repr__(self) -> str:
        if self["method"] == "mix":
            names = ", ".join(f"“{attribute['label']}”" for attribute in self["attributes"])
            return f"Amplification(mix of {len(self['prompts'])} prompts for {names})"
        shown = ", ".join(f"{point['strength']:g}: {_percent(point)}" for point in self["points"])
        return (f"Amplification({self['rank']}. neuron {self['neuron']}: “{self['label']}” by {self['method']}; "
                f"presence {_percent(self['base'])} unsteered, at strength {shown or 'none'})")  # fmt: skip


class Dose(NamedTuple):
    """The images of one point of a curve. `baseline` holds unsteered images of the same seeds. `n_made` images were
    made for this point."""

    strength: float
    samples: list[Sample]
    baseline: list[Sample]
    n_made: int
    seconds_per_image: float | None


class Curve(NamedTuple):
    """One attribute by one method: its entry, and what was observed unsteered and at each strength."""

    entry: Amplification
    base: Observed
    seen: dict[float, Observed]


@dataclass(frozen=True)
class Experiment:
    """What all curves of one amplification share."""

    run: Run
    config: AmplifyConfig
    renderer: Renderer
    evaluator: Evaluator

    @classmethod
    def of(cls, run: Run, config: AmplifyConfig) -> "Experiment":
        """Raises RaigenError when the run has no names yet, or the settings do not fit it."""
        run.require("train", "discover", "annotate")
        chosen(run, config)  # before anything is loaded
        return cls(run, config, Renderer(run, config), Evaluator(run, config))

    @property
    def base(self) -> Recipe:
        """The prompt of the run, unsteered."""
        return Recipe(self.run.config.capture.prompt)

    @property
    def setup(self) -> dict[str, Any]:
        """The settings that all points of a curve share."""
        varied = ("attribute", "method", "strength", "causal", "targets", "recipe",
                  "n_control_neurons", "n_control_directions", "n_control_images")  # fmt: skip
        return {name: value for name, value in identity(self.config).items() if name not in varied}

    def observe(self, samples: Sequence[Sample], subjects: Sequence[Subject], tell: Tell) -> Observed:
        """What these images show. `tell` receives progress in questions."""
        return self.evaluator.look(samples, subjects, tell)


def chosen(run: Run, config: AmplifyConfig) -> list[RareAttribute]:
    """The attributes that the settings name. Raises RaigenError for one that is not listed, has no label, or has no
    neuron where the method needs one."""
    by_rank = {attribute.rank: attribute for attribute in run.attributes}
    if not by_rank:
        raise RaigenError(f"{run.dir}: discovery listed no attribute, so there is none to amplify")
    ranks = config.attribute or _ranks_in(run, config)
    for rank in ranks:
        if rank not in by_rank:
            raise RaigenError(f"attribute: expected the rank of a listed attribute, 1 to {max(by_rank)}; got {rank}")
        if by_rank[rank].label is None:
            raise RaigenError(f"attribute: {rank} has no label, so no judge can look for it; name it first: "
                              f"raigen annotate {run.dir} --redo annotate")  # fmt: skip
        if by_rank[rank].is_family and (config.causal or config.method not in WITHOUT_NEURON):
            raise RaigenError(f"attribute: {rank} was found by looking around an odd image, and has no neuron. Take "
                              f"--method {', '.join(WITHOUT_NEURON[:-1])} or {WITHOUT_NEURON[-1]}")  # fmt: skip
    return [by_rank[rank] for rank in ranks]


def _ranks_in(run: Run, config: AmplifyConfig) -> list[int]:
    """The ranks of the named attributes that a recipe file turns; none without one."""
    if not config.recipe:
        return []
    neurons = [one.neuron for one in SavedRecipe.read(config.recipe).turned]
    ranks = [a.rank for a in run.attributes if a.neuron in neurons and a.label]
    if not ranks:
        raise RaigenError(f"recipe: none of its neurons ({', '.join(map(str, neurons))}) is listed with a name, so no "
                          f"judge knows what to look for. Name one in: raigen studio {run.dir}")  # fmt: skip
    return ranks


def subjects_of(experiment: Experiment, attribute: RareAttribute) -> list[Subject]:
    """What the judges look for: the attribute, and then, to measure the drift, all other named ones. In the planted
    world its own judge measures the drift."""
    others = [a for a in experiment.run.attributes if a.label and a.rank != attribute.rank]
    found = [attribute] if experiment.evaluator.world else [attribute, *others]
    return [Subject.of(a) for a in found]


def strengths_of(config: AmplifyConfig, attribute: RareAttribute) -> list[float]:
    """The strengths in the order in which they are tried: nearest to 0 first."""
    given = list(config.strength)
    if not given and config.method == "select":
        if attribute.presence is None or not attribute.presence.hits:
            raise RaigenError(f"strength: the rate of attribute {attribute.rank} is not known, so neither is how many "
                              "images to make for one that shows it; give --strength")  # fmt: skip
        given = [min(math.ceil(PER_WANTED / attribute.presence.rate), MOST_PER_KEPT)]
    given = given or ([1.0] if config.method == "prompt" or config.recipe else [0.5, 1.0, 2.0])
    return sorted(dict.fromkeys(map(float, given)), key=lambda value: (abs(value), value))


def curve(
    experiment: Experiment, attribute: RareAttribute, method: str, strengths: Sequence[float], tell: Tell
) -> Curve:
    """Makes and measures the images of each strength, and writes the amplification.json.

    `tell` receives progress in images. When a strength breaks the images, everything before it is measured and written
    first; then RaigenError is raised.
    """
    name, recipe = f"{attribute.neuron}-{method}", recipe_of(experiment, attribute, method)
    made = experiment.renderer.make(BASE, experiment.base, range(experiment.config.n_images), tell)
    doses, broken = [], None
    for strength in strengths:
        try:
            doses.append(_dose(experiment, attribute, method, recipe, strength, made.samples, tell))
        except BrokenImageError as error:
            broken = {"strength": strength, "why": str(error), "last_good": _last_good(doses, strength)}
            break
    subjects = subjects_of(experiment, attribute)
    base = experiment.observe(made.samples, subjects, tell)
    points, seen = [], {}
    for dose in doses:
        seen[dose.strength] = observed = experiment.observe(dose.samples, subjects, tell)
        baseline = base if dose.baseline is made.samples else observed
        points.append(_point(experiment.evaluator, dose, observed, base, baseline, subjects))
    entry = {
        "rank": attribute.rank, "neuron": attribute.neuron, "label": attribute.label, "method": method,
        "recipe": asdict(recipe), "setup": experiment.setup,
        "base": experiment.evaluator.summary(base) | {"seconds_per_image": made.seconds_per_image},
        "points": points, "stopped": broken,
    }  # fmt: skip
    written = write_curve(experiment.run, name if method != RECIPE else f"{name}-{key_of(recipe)}", entry)
    if broken:
        raise RaigenError(f"strength: {broken['strength']:g} {broken['why']}; the last good strength is "
                          f"{broken['last_good']:g}")  # fmt: skip
    return Curve(written, base, seen)


def recipe_of(experiment: Experiment, attribute: RareAttribute, method: str, number: int = 0) -> Recipe:
    """The recipe of a method for an attribute, without a strength. `number` counts random directions.

    Raises RaigenError for a neuron without a scale.
    """
    config = experiment.config
    if method == "select":
        return experiment.base
    if method == RECIPE:
        assert config.recipe
        return SavedRecipe.read(config.recipe).made_by(experiment.renderer)
    if method == "prompt":
        return Recipe(attribute.suggested_prompt or f"{experiment.base.prompt}, {attribute.label}")
    neurons, does = (attribute.neuron, *config.also), cast(Method, CONTROLLED.get(method, method))
    random_direction, random_neuron = CONTROLS.get(does, (None, None))
    if method == random_neuron:
        live = control_neurons(experiment)
        neurons = (int(live[np.random.default_rng((config.control_seed, attribute.neuron)).integers(len(live))]),)
    seed = config.control_seed + attribute.neuron + number * DIRECTIONS_APART if method == random_direction else None
    return turning(experiment, neurons, does, seed)


def turning(experiment: Experiment, neurons: tuple[int, ...], does: Method, seed: int | None = None) -> Recipe:
    """The recipe that turns neurons up, or random directions as long if there is a seed, without a strength."""
    config, renderer = experiment.config, experiment.renderer
    return replace(
        experiment.base, neurons=neurons, scales=tuple(map(renderer.scale, neurons)) if does != "contrast" else (),
        method=does, direction_seed=seed, steps=config.steps, every_branch=config.every_branch, mask=renderer.mask_hash,
    )  # fmt: skip


def write_curve(run: Run, name: str, entry: dict[str, Any]) -> Amplification:
    """Writes an amplification.json. An earlier one with the same label, recipe and setup keeps its points at other
    strengths. Returns what the file holds."""
    merged, path = Amplification(json.loads(json.dumps(entry))), run.amplification_path(name)
    if path.is_file():
        former = run.read_json(path, "amplify")
        if all(former[key] == merged[key] for key in ("label", "recipe", "setup")):
            measured = {point["strength"] for point in merged["points"]}
            merged["points"] += [point for point in former["points"] if point["strength"] not in measured]
    merged["points"].sort(key=lambda point: point["strength"])
    write_entry(run, path, merged)
    return merged


def write_entry(run: Run, path: Path, entry: Amplification) -> None:
    """Writes an amplification.json. The report shows it, so the report becomes outdated."""
    run.outdate("report")
    write_text(path, json.dumps(entry, indent=1))


def _dose(
    experiment: Experiment, attribute: RareAttribute, method: str, recipe: Recipe, strength: float,
    base: list[Sample], tell: Tell,
) -> Dose:  # fmt: skip
    """The images of one strength; `base` holds the unsteered ones."""
    config, renderer, name = experiment.config, experiment.renderer, f"{attribute.neuron}-{method}"
    n = config.n_images
    if method == "select":
        pool = renderer.make(BASE, recipe, range(round(strength * n)), tell)
        codes = renderer.codes(BASE, recipe, len(pool.samples), attribute.neuron)
        best = np.sort(np.argsort(-codes, kind="stable")[:n])
        kept = [pool.samples[index] for index in best]
        return Dose(strength, kept, kept, len(pool.samples), pool.seconds_per_image)
    if method == "prompt":
        is_revised = assign_prompts([1 - strength, strength], n, config.control_seed) == 1
        revised = renderer.make(name, recipe, np.flatnonzero(is_revised).tolist(), tell)
        parts = iter(revised.samples)
        samples = [next(parts) if chosen else base[place] for place, chosen in enumerate(is_revised)]
        return Dose(strength, samples, base, n, revised.seconds_per_image)
    folder = folder_name(recipe) if method == RECIPE else name
    made = renderer.make(folder, with_strength(recipe, strength), range(n), tell)
    return Dose(strength, made.samples, base, n, made.seconds_per_image)


def _point(
    evaluator: Evaluator, dose: Dose, seen: Observed, base: Observed, baseline: Observed, subjects: list[Subject]
) -> dict[str, Any]:
    found = evaluator.summary(seen)
    hits, was = found["presence"]["hits"], np.nanmean(base.shows) if not np.isnan(base.shows).all() else 0.0
    return {
        "strength": dose.strength, **found, **evaluator.compared(seen, base, baseline, subjects), "n_made": dose.n_made,
        "halves": [_counts(seen.shows[start::2]) for start in (0, 1)],  # to choose a strength on one, report the other
        "cost": dose.n_made / hits if hits else None,  # images made for each that shows the attribute
        "unsteered_cost": 1 / was if was else None, "seconds_per_image": dose.seconds_per_image,
    }  # fmt: skip


def _counts(shows: Float[np.ndarray, " image"]) -> dict[str, int]:
    return {"hits": int(np.nansum(shows)), "n": int((~np.isnan(shows)).sum())}


def control_neurons(experiment: Experiment, at_least: int = 1) -> Int[np.ndarray, " neuron"]:
    """The neurons that are not listed and fire in at least as many images as discovery requires.

    Raises RaigenError if there are fewer than `at_least`.
    """
    run = experiment.run
    alive = (run.image_codes() > 0).sum(0) >= run.config.discover.min_images
    alive[[other.neuron for other in run.attributes]] = False
    alive[run.facts.discover.n_neurons :] = False  # families are no neurons
    live = np.flatnonzero(alive)
    if len(live) < at_least:
        raise RaigenError(f"controls: expected {at_least} or more live neurons that are not listed; got {len(live)}. "
                          "Capture more images, list fewer attributes, or lower --n-control-neurons")  # fmt: skip
    return live


def _last_good(doses: Sequence[Dose], strength: float) -> float:
    """The tried strength nearest to the broken one, with the same sign; 0 if there is none."""
    same = [dose.strength for dose in doses if dose.strength * strength > 0]
    return same[-1] if same else 0.0


def _percent(measured: dict[str, Any]) -> str:
    presence = measured["presence"]
    return f"{100 * presence['rate']:.3g} %" if presence["n"] else "unscored"
