"""Tests which neurons cause their attribute: steers each of them, beside random neurons and random directions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float

from raigen.amplification.dose_response import (
    Amplification,
    Curve,
    Experiment,
    chosen,
    control_neurons,
    curve,
    recipe_of,
    turning,
)
from raigen.amplification.rendering import BrokenImageError, Recipe, with_strength
from raigen.amplification.steering import Method
from raigen.config import CONTROLS
from raigen.errors import RaigenError
from raigen.runs.records import Causal, Difference, RareAttribute, Sample
from raigen.runs.steps import Tell
from raigen.stats import LEVEL, above_controls, paired_difference, q_values

Shows = Float[np.ndarray, " _"]  # of some first seeds: 1 shows the attribute, 0 does not, NaN is unscored
NEURONS = "control-neurons"  # the folder of the images of random neurons, which all attributes share


class Gains(NamedTuple):
    """The presence when steered, and paired differences: steered minus unsteered, minus the random direction and minus
    the random neuron that brought the attribute most. `p` is that of having beaten all controls."""

    rate: float
    gain: Difference
    over_direction: Difference
    over_neuron: Difference
    p: float


class Beaten(NamedTuple):
    """How steering compares with several controls of one kind: the paired difference to the one that brought the
    attribute most, and the p of `above_controls`."""

    over_best: Difference
    p: float


def score_causes(experiment: Experiment, tell: Tell) -> list[Amplification]:
    """Steers every named attribute and its controls with one strength, and writes the scores into attributes.json.

    The random neurons are the same for all attributes; each attribute has random directions of its own. Returns the
    entries of all curves. An attribute gets no score if the judge scores none of its images. Raises RaigenError as
    `amplify` does, when no attribute has a label, and when too few neurons can be controls.
    """
    run, config = experiment.run, experiment.config
    named = [a for a in run.attributes if a.name and not a.is_family]
    attributes = chosen(run, config) if config.attribute else named
    if not attributes:
        raise RaigenError(f"{run.dir}: expected a named attribute; none has a label, so there is nothing to look for")
    strength, entries = (config.strength or (1.0,))[0], []
    n = min(config.n_control_images, config.n_images)
    live = control_neurons(experiment, at_least=config.n_control_neurons)
    drawn = np.random.default_rng(config.control_seed).choice(live, config.n_control_neurons, replace=False)
    shared = [turning(experiment, (neuron,), cast(Method, config.method)) for neuron in drawn.tolist()]
    gains: dict[int, Gains] = {}
    for attribute in attributes:
        found = curve(experiment, attribute, config.method, [strength], tell)
        entries.append(found.entry)
        of_neurons = _seen(experiment, attribute, NEURONS, shared, strength, n, tell)
        of_directions = _seen(experiment, attribute, *directions_of(experiment, attribute), strength, n // 2, tell)
        measured = gains_of(found, strength, of_directions, of_neurons, config.confidence)
        if measured:
            gains[attribute.rank] = measured
    scores = scored(gains, strength, config.method, (len(shared), config.n_control_directions))
    tested = {attribute.rank for attribute in attributes}
    run.write_attributes([replace(a, causal=scores.get(a.rank)) if a.rank in tested else a for a in run.attributes])
    return entries


def directions_of(experiment: Experiment, attribute: RareAttribute) -> tuple[str, list[Recipe]]:
    """The folder and the recipes of an attribute's random directions (patterns), as long as its own."""
    method, n = CONTROLS[experiment.config.method][0], experiment.config.n_control_directions
    return f"{attribute.neuron}-{method}", [recipe_of(experiment, attribute, method, number) for number in range(n)]


def gains_of(
    steered: Curve, strength: float, directions: Sequence[Shows], neurons: Sequence[Shows], confidence: float
) -> Gains | None:
    """The gains at one strength, beside what the controls show on the first seeds; None if none was scored."""
    shows, before = steered.seen[strength].shows, steered.base.shows
    gain = paired_difference(shows, before, confidence)
    over_directions, over_neurons = (beaten(shows, controls, confidence) for controls in (directions, neurons))
    if not gain or not over_directions or not over_neurons:
        return None
    rate = next(p for p in steered.entry["points"] if p["strength"] == strength)["presence"]["rate"]
    p = max(over_directions.p, over_neurons.p)  # of both: an intersection-union test (Berger 1982)
    return Gains(rate, gain, over_directions.over_best, over_neurons.over_best, p)


def beaten(shows: Shows, controls: Sequence[Shows], confidence: float) -> Beaten | None:
    """Compares steering with controls on the first seeds, on which the controls were made; None if no seed counts."""
    ours = shows[: len(controls[0])]
    found = [each for control in controls if (each := paired_difference(ours, control, confidence))]
    if not found or np.isnan(ours).all():
        return None
    counts = [(int(np.nansum(each)), int((~np.isnan(each)).sum())) for each in (ours, *controls)]
    (hits, n), *others = counts
    p = above_controls(hits, n, *np.array(others).T)
    return Beaten(min(found, key=lambda each: each.difference), p)


def scored(
    gains: dict[int, Gains], strength: float, method: str = "steer", n_controls: tuple[int, int] = (1, 1)
) -> dict[int, Causal]:
    """The causal scores by rank, with q over all attributes that were tested together. `n_controls` counts the random
    neurons and the random directions.

    A neuron only correlates with its attribute if q > .05, or if steering did not exceed every control.
    """
    qs = q_values([found.p for found in gains.values()])
    return {
        rank: Causal(
            strength=strength,
            **found._asdict(),
            q=q,
            correlates_only=q > LEVEL or min(found.over_direction.difference, found.over_neuron.difference) <= 0,
            method=method,
            n_neurons=n_controls[0],
            n_directions=n_controls[1],
        )
        for (rank, found), q in zip(gains.items(), qs, strict=True)
    }


def _seen(
    experiment: Experiment, attribute: RareAttribute, name: str, recipes: Sequence[Recipe], strength: float, n: int,
    tell: Tell,
) -> list[Shows]:  # fmt: skip
    """Which images of each control show the attribute, on the first `n` seeds. A control that breaks the images shows
    nothing."""
    found = []
    for recipe in recipes:
        try:
            made: list[Sample] = experiment.renderer.make(name, with_strength(recipe, strength), range(n), tell).samples
        except BrokenImageError:
            found.append(np.zeros(n))
            continue
        found.append(experiment.evaluator.sees(made, attribute, tell))
    return found
