"""Draws the curve of one attribute by one method: its images at each strength, beside the unsteered ones."""

import json
import math
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from raigen.amplification.measuring import Evaluator, Observed
from raigen.amplification.mixture import assign_prompts
from raigen.amplification.rendering import BrokenImageError, Recipe, Renderer, with_strength
from raigen.amplification.steering import Method
from raigen.config import CONTROLLED, CONTROLS, AmplifyConfig, identity
from raigen.errors import RaigenError
from raigen.judging.judges import Subject
from raigen.runs.files import write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick

BASE = "base"  # the folder of the unsteered images
PER_WANTED = 2  # images that show the attribute, in what `select` makes for one: of as many as it keeps it finds .6
MOST_PER_KEPT = 200  # images that it makes for one, unless told otherwise


class Dose(NamedTuple):
    """The images of one point of a curve. `twins` are of the same seeds, unsteered; `n_made` were made for it."""

    strength: float
    samples: list[Sample]
    twins: list[Sample]
    n_made: int
    seconds_per_image: float | None


class Curve(NamedTuple):
    """One attribute by one method: what amplification.json holds, and what was seen unsteered and at each strength."""

    entry: dict[str, Any]
    base: Observed
    seen: dict[float, Observed]


class Experiment:
    """A run's studio and eye, and what both work on: the attributes and the unsteered images."""

    def __init__(self, run: Run, config: AmplifyConfig):
        run.require("train", "discover", "annotate")
        self.run, self.config = run, config
        self.studio, self.eye = Renderer(run, config), Evaluator(run, config)
        self.base = Recipe(self.studio.capture.prompt)

    def chosen(self) -> list[RareAttribute]:
        """The attributes that the configuration names. Raises RaigenError for one that is unknown or has no label."""
        by_rank = {attribute.rank: attribute for attribute in self.run.attributes}
        if not by_rank:
            raise RaigenError(f"{self.run.dir}: discovery listed no attribute, so there is none to bring out")
        for rank in self.config.attribute:
            if rank not in by_rank:
                raise RaigenError(
                    f"attribute: expected the rank of a listed attribute, 1 to {max(by_rank)}; got {rank}"
                )
            if by_rank[rank].label is None:
                raise RaigenError(f"attribute: {rank} has no label, so no judge can look for it; name it first: "
                                  f"raigen annotate {self.run.dir} --redo annotate")  # fmt: skip
        return [by_rank[rank] for rank in self.config.attribute]

    def subjects(self, sought: RareAttribute) -> list[Subject]:
        """What the judges look for: the sought attribute, then the other named ones where they tell the drift."""
        others = [] if self.eye.in_world else [a for a in self.run.attributes if a.label and a.rank != sought.rank]
        return [Subject(a.label or "", a.neuron, a.top_images) for a in (sought, *others)]

    def strengths(self, attribute: RareAttribute) -> list[float]:
        """The strengths in the order in which they are tried: nearest to 0 first."""
        given = list(self.config.strength)
        if not given and self.config.method == "select":
            if attribute.presence is None or not attribute.presence.hits:
                raise RaigenError(f"strength: the rate of attribute {attribute.rank} is not known, so neither is how "
                                  "many images to make for one that shows it; give --strength")  # fmt: skip
            given = [min(math.ceil(PER_WANTED / attribute.presence.rate), MOST_PER_KEPT)]
        given = given or ([1.0] if self.config.method == "prompt" else [0.5, 1.0, 2.0])
        return sorted(dict.fromkeys(map(float, given)), key=lambda value: (abs(value), value))

    def curve(self, attribute: RareAttribute, method: str, strengths: Sequence[float]) -> Generator[Tick, None, Curve]:
        """The curve of one attribute by one method, written. Raises RaigenError where a strength breaks the images,
        after what came before it is written."""
        name = f"{attribute.neuron}-{method}"
        made = yield from self.studio.make(BASE, self.base, range(self.config.n_images))
        recipe = self.recipe(attribute, method)
        doses, broken = [], None
        for strength in strengths:
            try:
                doses.append((yield from self._dose(name, attribute, method, recipe, strength, made.samples)))
            except BrokenImageError as error:
                broken = {"strength": strength, "why": str(error), "last_good": _last_good(doses, strength)}
                break
        subjects = self.subjects(attribute)
        base = yield from self.eye.look(made.samples, subjects)
        points, seen = [], {}
        for dose in doses:
            seen[dose.strength] = looked = yield from self.eye.look(dose.samples, subjects)
            twins = base if dose.twins is made.samples else looked
            points.append(self._point(dose, looked, base, twins, subjects))
        entry = {
            "rank": attribute.rank, "neuron": attribute.neuron, "label": attribute.label, "method": method,
            "recipe": asdict(recipe), "setup": self.setup(),
            "base": self.eye.summary(base) | {"seconds_per_image": made.seconds_per_image},
            "points": points, "stopped": broken,
        }  # fmt: skip
        entry = self.write(name, entry)
        if broken:
            raise RaigenError(f"strength: {broken['strength']:g} {broken['why']}; the last good strength is "
                              f"{broken['last_good']:g}")  # fmt: skip
        return Curve(entry, base, seen)

    def recipe(self, attribute: RareAttribute, method: str) -> Recipe:
        """What a method does for an attribute, at any strength. Raises RaigenError for a neuron without a scale."""
        if method == "select":
            return self.base
        if method == "prompt":
            return Recipe(attribute.suggested_prompt or f"{self.base.prompt}, {attribute.label}")
        neurons, does = (attribute.neuron, *self.config.also), cast(Method, CONTROLLED.get(method, method))
        direction, neuron = CONTROLS.get(does, (None, None))
        if method == neuron:
            neurons = (self._random_neuron(attribute),)
        seed = self.config.control_seed + attribute.neuron if method == direction else None
        return replace(
            self.base, neurons=neurons, scales=tuple(map(self.studio.scale, neurons)) if does != "contrast" else (),
            method=does, direction_seed=seed, steps=self.config.steps,
            every_branch=self.config.every_branch, mask=self.studio.mask_hash,
        )  # fmt: skip

    def setup(self) -> dict[str, Any]:
        """What all points of a curve share: the configuration without what is varied."""
        varied = ("attribute", "method", "strength", "causal", "targets")
        return {name: value for name, value in identity(self.config).items() if name not in varied}

    def write(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Writes an amplification.json; points of an earlier one that were measured alike, at other strengths, stay.
        Returns what the file holds."""
        entry = json.loads(json.dumps(entry))
        path = self.run.amplification_path(name)
        if path.is_file():
            former = json.loads(path.read_text(encoding="utf-8"))
            if all(former[key] == entry[key] for key in ("label", "recipe", "setup")):
                measured = {point["strength"] for point in entry["points"]}
                entry["points"] += [point for point in former["points"] if point["strength"] not in measured]
        entry["points"].sort(key=lambda point: point["strength"])
        self.keep(path, entry)
        return entry

    def keep(self, path: Path, entry: dict[str, Any]) -> None:
        """Writes what came of an amplification; the report, which shows it, is to be written anew."""
        self.run.outdate("report")
        write_text(path, json.dumps(entry, indent=1))

    def _dose(
        self, name: str, attribute: RareAttribute, method: str, recipe: Recipe, strength: float, base: list[Sample]
    ) -> Generator[Tick, None, Dose]:
        n = self.config.n_images
        if method == "select":
            pool = yield from self.studio.make(BASE, recipe, range(round(strength * n)))
            codes = self.studio.codes(BASE, recipe, len(pool.samples), attribute.neuron)
            best = np.sort(np.argsort(-codes, kind="stable")[:n])
            kept = [pool.samples[index] for index in best]
            return Dose(strength, kept, kept, len(pool.samples), pool.seconds_per_image)
        if method == "prompt":
            is_revised = assign_prompts([1 - strength, strength], n, self.config.control_seed) == 1
            revised = yield from self.studio.make(name, recipe, np.flatnonzero(is_revised).tolist())
            parts = iter(revised.samples)
            samples = [next(parts) if chosen else base[place] for place, chosen in enumerate(is_revised)]
            return Dose(strength, samples, base, n, revised.seconds_per_image)
        made = yield from self.studio.make(name, with_strength(recipe, strength), range(n))
        return Dose(strength, made.samples, base, n, made.seconds_per_image)

    def _point(
        self, dose: Dose, seen: Observed, base: Observed, twins: Observed, subjects: list[Subject]
    ) -> dict[str, Any]:
        found = self.eye.summary(seen)
        hits, was = found["presence"]["hits"], np.nanmean(base.shows) if not np.isnan(base.shows).all() else 0.0
        return {
            "strength": dose.strength, **found, **self.eye.compared(seen, base, twins, subjects), "n_made": dose.n_made,
            "cost": dose.n_made / hits if hits else None,  # images made for each that shows the attribute
            "unsteered_cost": 1 / was if was else None, "seconds_per_image": dose.seconds_per_image,
        }  # fmt: skip

    def _random_neuron(self, attribute: RareAttribute) -> int:
        """A neuron that fires in as many images as discovery asks for, and is not listed."""
        codes = self.run.read_tensors(self.run.codes_path, "discover")["image_codes"]
        alive = (codes > 0).sum(0) >= self.run.config.discover.min_images
        alive[[other.neuron for other in self.run.attributes]] = False
        live = alive.nonzero().squeeze(1).tolist()
        if not live:
            raise RaigenError("random-neuron: expected a live neuron that is not listed; there is none: capture more "
                              "images, or list fewer attributes")  # fmt: skip
        return live[np.random.default_rng((self.config.control_seed, attribute.neuron)).integers(len(live))]


def _last_good(doses: Sequence[Dose], strength: float) -> float:
    """The strength nearest to the broken one, of its sign; 0 where there is none."""
    same = [dose.strength for dose in doses if dose.strength * strength > 0]
    return same[-1] if same else 0.0
