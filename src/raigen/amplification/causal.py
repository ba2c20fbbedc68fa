"""Scores neurons by what steering them does to their attribute, beside two controls on the same seeds."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any, NamedTuple

from raigen.amplification.dose_response import Experiment
from raigen.config import CONTROLS
from raigen.errors import RaigenError
from raigen.runs.records import Causal, Difference
from raigen.runs.steps import Tick
from raigen.stats import paired_difference, q_values

LEVEL = 0.05  # of q, above which a neuron only correlates with its attribute


class Gains(NamedTuple):
    """The presence when steered less that of the same seeds unsteered, and under each control."""

    rate: float
    gain: Difference
    over_direction: Difference
    over_neuron: Difference

    @property
    def p(self) -> float:
        """Of having beaten both controls: the larger p (an intersection-union test, Berger 1982)."""
        return max(self.over_direction.p, self.over_neuron.p)


def scoring(lab: Experiment) -> Generator[Tick, None, list[dict[str, Any]]]:
    """Turns up every named attribute and both controls by one strength, and writes the scores into attributes.json.

    Returns the curves. An attribute of which the judge scores no image gets no score. Raises RaigenError as
    `amplifying` does, and when no attribute has a name.
    """
    run, config = lab.run, lab.config
    attributes = lab.chosen() if config.attribute else [a for a in run.attributes if a.label]
    if not attributes:
        raise RaigenError(f"{run.dir}: expected a named attribute; none has a label, so there is nothing to look for")
    strength, entries = (config.strength or (1.0,))[0], []
    gains: dict[int, Gains] = {}
    for attribute in attributes:
        curves = []
        for method in (config.method, *CONTROLS[config.method]):
            curve = yield from lab.curve(attribute, method, [strength])
            curves.append(curve)
        steered, direction, neuron = (curve.seen[strength].shows for curve in curves)
        before = curves[0].base.shows
        found = [paired_difference(steered, other, config.confidence) for other in (before, direction, neuron)]
        gain, over_direction, over_neuron = found
        if gain and over_direction and over_neuron:
            rate = next(p for p in curves[0].entry["points"] if p["strength"] == strength)["presence"]["rate"]
            gains[attribute.rank] = Gains(rate, gain, over_direction, over_neuron)
        entries += [curve.entry for curve in curves]
    scores = scored(gains, strength, config.method)
    tested = {attribute.rank for attribute in attributes}
    written = [replace(a, causal=scores.get(a.rank)) if a.rank in tested else a for a in run.attributes]
    run.write_attributes(written)
    return entries


def scored(gains: dict[int, Gains], strength: float, method: str = "steer") -> dict[int, Causal]:
    """The causal scores by rank; q over all that were tested together.

    A neuron correlates only where q > .05, or steering did not exceed both controls.
    """
    qs = q_values([found.p for found in gains.values()])
    return {
        rank: Causal(
            strength, found.rate, found.gain, found.over_direction, found.over_neuron, found.p, q,
            q > LEVEL or min(found.over_direction.difference, found.over_neuron.difference) <= 0, method,
        )
        for (rank, found), q in zip(gains.items(), qs, strict=True)
    }  # fmt: skip
