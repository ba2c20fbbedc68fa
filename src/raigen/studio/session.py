"""Makes what a person asks for in the studio: an unsteered and a steered image of each seed, and what they show."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from raigen.amplification.dose_response import BASE
from raigen.amplification.measuring import Evaluator, cosines
from raigen.amplification.recipes import SavedRecipe, Turned, folder_name
from raigen.amplification.rendering import Recipe, Renderer
from raigen.config import AmplifyConfig, StudioConfig
from raigen.errors import RaigenError
from raigen.judging.protocol import Subject
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick

SHARED = ("judge", "device", "concurrency", "timeout", "max_calls", "max_cost", "price_in", "price_out")
MOST = 64  # images of one request


class Shown(NamedTuple):
    """Whether the unsteered and the steered image show a label, by the first judge; None is unscored."""

    label: str
    before: bool | None
    after: bool | None


class Pair(NamedTuple):
    """Two images of one seed, as files of the run. `fidelity` is the cosine of their CLIP embeddings, in [-1, 1]."""

    number: int
    seed: int
    unsteered: str
    steered: str
    fidelity: float
    shown: tuple[Shown, ...]


class Studio:
    """One run, one model in memory. A call from another thread waits for the one that is at work.

    Raises RaigenError when the run has no names yet, or a judge cannot judge it.
    """

    def __init__(self, run: Run, config: StudioConfig):
        run.require("train", "discover", "annotate")
        self.run = run
        judges = run.config.evaluate.judge[:1] if config.judge == ("auto",) else config.judge
        shared: dict[str, Any] = {name: getattr(config, name) for name in SHARED} | {"judge": judges}
        self._config = AmplifyConfig(attribute=(1,), batch_size=1, **shared)  # no method reads the attribute here
        self.renderer = Renderer(run, self._config)
        self._at_work = threading.Lock()

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.run, self._config)

    @property
    def listed(self) -> list[RareAttribute]:
        """The attributes that can be turned, by rank."""
        return self.run.attributes

    @property
    def n_steps(self) -> int:
        """The number of denoising steps."""
        return self.renderer.facts.n_steps

    def seed_of(self, index: int) -> int:
        """The seed of image `index`: the same as that of `raigen amplify`."""
        return self.renderer.first_seed + index

    def recipe(self, strengths: Sequence[Turned], **how: Any) -> SavedRecipe:
        """What sliders say as a recipe of this run: neurons at strength 0 are left out. `how` are the other fields of
        `SavedRecipe`. Raises RaigenError when every strength is 0, and as `SavedRecipe.made_by` does."""
        turned = tuple(one for one in strengths if one.strength)
        if not turned:
            raise RaigenError("sliders: expected a strength other than 0; move the slider of an attribute")
        if len({one.neuron for one in turned}) < len(turned):
            raise RaigenError("sliders: expected each neuron once; one of them has two strengths")
        labels = {attribute.neuron: attribute.label for attribute in self.listed}
        named = tuple(one._replace(label=labels.get(one.neuron)) for one in turned)
        saved = replace(SavedRecipe(named, sae=self.renderer.weights), **how)
        saved.made_by(self.renderer)
        return saved

    def unsteered(self, index: int) -> Sample:
        """The unsteered image of this index."""
        with self._at_work, self.run.locked():
            return self.renderer.make(BASE, self._base, [index], _silent).samples[0]

    def pairs(self, saved: SavedRecipe, indices: Sequence[int]) -> Iterator[Pair]:
        """Makes the images of a recipe beside unsteered ones, a pair at a time. None that is there is made again.

        Between two pairs other callers come to their turn, and the caller may stop. Raises RaigenError for indices
        below 0, for more than 64 of them, and as `Renderer.make` and the judges do.
        """
        if not 0 < len(indices) <= MOST or min(indices) < 0:
            raise RaigenError(f"images: expected 1 to {MOST} of them, from number 0 on; got {len(indices)}")
        recipe = saved.made_by(self.renderer)
        neurons = [one.neuron for one in saved.turned]
        sought = [Subject.of(one) for one in self.listed if one.neuron in neurons and one.label]
        for index in indices:
            with self._at_work, self.run.locked():
                unsteered = self.renderer.make(BASE, self._base, [index], _silent).samples[0]
                steered = self.renderer.make(folder_name(recipe), recipe, [index], _silent).samples[0]
                seen = self._evaluator.look([unsteered, steered], sought)
            verdicts = zip(sought, seen.verdicts[0], strict=True)
            yield Pair(
                index, unsteered.seed, unsteered.file, steered.file,
                float(cosines(seen.embeddings[1:], seen.embeddings[:1])[0]),
                tuple(Shown(subject.label, *map(_verdict, found.shows)) for subject, found in verdicts),
            )  # fmt: skip

    @property
    def judge(self) -> str:
        """Who says what the images show."""
        return self._evaluator.judges[0].name

    @property
    def _base(self) -> Recipe:
        return Recipe(self.renderer.capture.prompt)


def summary(pairs: Sequence[Pair]) -> list[tuple[str, int, int, int]]:
    """For each label: how many unsteered and how many steered images show it, and of how many pairs both were scored.

    >>> made = Pair(0, 7, "a.png", "b.png", 0.9, (Shown("bald", False, True), Shown("hat", None, True)))
    >>> summary([made, made])
    [('bald', 0, 2, 2), ('hat', 0, 0, 0)]
    """
    found: dict[str, list[Shown]] = {}
    for shown in (one for pair in pairs for one in pair.shown):
        found.setdefault(shown.label, []).append(shown)
    scored = {label: [s for s in each if s.before is not None and s.after is not None] for label, each in found.items()}
    return [(label, sum(bool(s.before) for s in each), sum(bool(s.after) for s in each), len(each))
            for label, each in scored.items()]  # fmt: skip


def _verdict(shows: float) -> bool | None:
    return None if np.isnan(shows) else bool(shows)


def _silent(tick: Tick) -> None:
    """Progress is a pair at a time."""
