"""Tests which neurons cause their attribute: steers each of them, beside two controls on the same seeds."""

from dataclasses import replace
from typing import NamedTuple

from raigen.amplification.dose_response import Amplification, Curve, Experiment, chosen, curve
from raigen.config import CONTROLS
from raigen.errors import RaigenError
from raigen.runs.records import Causal, Difference
from raigen.runs.steps import Tell
from raigen.stats import LEVEL, paired_difference, q_values


class Gains(NamedTuple):
    """Paired differences in presence: steered minus unsteered, minus a random direction, minus a random neuron."""

    rate: float
    gain: Difference
    over_direction: Difference
    over_neuron: Difference

    @property
    def p(self) -> float:
        """The p of having beaten both controls: the larger of the two (an intersection-union test, Berger 1982)."""
        return max(self.over_direction.p, self.over_neuron.p)


def score_causes(experiment: Experiment, tell: Tell) -> list[Amplification]:
    """Steers every named attribute and both controls with one strength, and writes the scores into attributes.json.

    Returns the entries of all curves. An attribute gets no score if the judge scores none of its images. Raises
    RaigenError as `amplify` does, and when no attribute has a label.
    """
    run, config = experiment.run, experiment.config
    attributes = chosen(experiment) if config.attribute else [a for a in run.attributes if a.name]
    if not attributes:
        raise RaigenError(f"{run.dir}: expected a named attribute; none has a label, so there is nothing to look for")
    strength, entries = (config.strength or (1.0,))[0], []
    gains: dict[int, Gains] = {}
    for attribute in attributes:
        methods = (config.method, *CONTROLS[config.method])
        curves = [curve(experiment, attribute, method, [strength], tell) for method in methods]
        found = gains_of(curves, strength, config.confidence)
        if found:
            gains[attribute.rank] = found
        entries += [each.entry for each in curves]
    scores = scored(gains, strength, config.method)
    tested = {attribute.rank for attribute in attributes}
    written = [replace(a, causal=scores.get(a.rank)) if a.rank in tested else a for a in run.attributes]
    run.write_attributes(written)
    return entries


def gains_of(curves: list[Curve], strength: float, confidence: float) -> Gains | None:
    """The gains at one strength from the curves of a method and of its two controls; None if none was scored."""
    steered, direction, neuron = (each.seen[strength].shows for each in curves)
    before = curves[0].base.shows
    found = [paired_difference(steered, other, confidence) for other in (before, direction, neuron)]
    gain, over_direction, over_neuron = found
    if not gain or not over_direction or not over_neuron:
        return None
    rate = next(p for p in curves[0].entry["points"] if p["strength"] == strength)["presence"]["rate"]
    return Gains(rate, gain, over_direction, over_neuron)


def scored(gains: dict[int, Gains], strength: float, method: str = "steer") -> dict[int, Causal]:
    """The causal scores by rank, with q over all attributes that were tested together.

    A neuron only correlates with its attribute if q > .05, or if steering did not exceed both controls.
    """
    qs = q_values([found.p for found in gains.values()])
    return {
        rank: Causal(
            strength=strength,
            rate=found.rate,
            gain=found.gain,
            over_direction=found.over_direction,
            over_neuron=found.over_neuron,
            p=found.p,
            q=q,
            correlates_only=q > LEVEL or min(found.over_direction.difference, found.over_neuron.difference) <= 0,
            method=method,
        )
        for (rank, found), q in zip(gains.items(), qs, strict=True)
    }
