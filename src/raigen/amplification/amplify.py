"""Amplifies attributes, and measures on the same seeds what that does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raigen.amplification.causal import score_causes
from raigen.amplification.dose_response import (
    BASE,
    RECIPE,
    Amplification,
    Experiment,
    chosen,
    curve,
    recipe_of,
    strengths_of,
    subjects_of,
    write_entry,
)
from raigen.amplification.mixture import assign_prompts, mix
from raigen.config import AmplifyConfig
from raigen.errors import RaigenError
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tell, Tick


def amplify(
    run: Run | str | Path, *, progress: Callable[[Tick], object] | None = None, **options: Any
) -> list[Amplification]:
    """Amplifies attributes of a finished run: makes the images of every strength, measures them beside unsteered images
    of the same seeds, and writes an amplification.json for each attribute and method. Returns what these files hold.

    `options` are the fields of `raigen.config.AmplifyConfig`. `progress` receives every `Tick`, in images. The same
    call again, also after a stop, makes no image twice.

    Raises RaigenError when the run has no names yet, when an attribute is not listed or has no label, when a strength
    breaks the images (everything before it is written first), and when `mix` cannot reach a target.

        found = raigen.amplify(run, attribute=3, method="steer", strength=(0.5, 1, 2))
        print([(point["strength"], point["presence"]["rate"]) for point in found[0]["points"]])
    """
    opened = run if isinstance(run, Run) else Run(run)
    config, tell = AmplifyConfig(**options), progress or _silent
    with opened.locked():
        experiment = Experiment.of(opened, config)
        if config.causal:
            return score_causes(experiment, tell)
        attributes = chosen(opened, config)
        if config.method == "mix":
            return [amplify_by_mixing(experiment, attributes, tell)]
        method = RECIPE if config.recipe else config.method
        return [curve(experiment, attribute, method, strengths_of(config, attribute), tell).entry
                for attribute in attributes]  # fmt: skip


def amplify_by_mixing(experiment: Experiment, attributes: Sequence[RareAttribute], tell: Tell) -> Amplification:
    """Mixes the base prompt and the suggested prompts so that every attribute reaches its target rate.

    The rates of the prompts are measured on the first `n_images` seeds; the mixture is made and judged on the next
    ones. Raises RaigenError when no mixture reaches the targets, with the nearest rates that one does reach.
    """
    config, renderer, evaluator = experiment.config, experiment.renderer, experiment.evaluator
    n = config.n_images
    subjects = [subjects_of(experiment, attribute) for attribute in attributes]
    prompts = [(BASE, experiment.base)]
    prompts += [(f"{a.neuron}-prompt", recipe_of(experiment, a, "prompt")) for a in attributes]
    rates = np.zeros((len(prompts), len(attributes)))
    for row, (name, recipe) in enumerate(prompts):
        pilot = renderer.make(name, recipe, range(n), tell).samples
        for column, sought in enumerate(subjects):
            seen = experiment.observe(pilot, sought, tell)
            rates[row, column] = evaluator.summary(seen)["presence"]["rate"]
    plan = mix(rates, np.array(config.targets))
    if not np.allclose(plan.rates, config.targets, atol=1e-4):
        near = ", ".join(f"{rate:.3g}" for rate in plan.rates)
        raise RaigenError(f"targets: no mixture of these prompts gives {config.targets}; the nearest gives {near}")
    prompt_of = assign_prompts(plan.shares, n, config.control_seed)
    samples: dict[int, Sample] = {}
    for place, (name, recipe) in enumerate(prompts):
        indices = (n + np.flatnonzero(prompt_of == place)).tolist()
        samples |= dict(zip(indices, renderer.make(name, recipe, indices, tell).samples, strict=True))
    ordered, reached = [samples[index] for index in sorted(samples)], []
    for a, sought, target, expected in zip(attributes, subjects, config.targets, plan.rates, strict=True):
        found = evaluator.summary(experiment.observe(ordered, sought, tell))
        reached.append({"rank": a.rank, "neuron": a.neuron, "label": a.label, "target": target,
                        "expected": float(expected), **found})  # fmt: skip
    entry = Amplification({
        "method": "mix", "setup": experiment.setup, "attributes": reached,
        "prompts": [{"prompt": recipe.prompt, "share": float(share), "rates": row.tolist()}
                    for (_, recipe), share, row in zip(prompts, plan.shares, rates, strict=True)],
    })  # fmt: skip
    name = "-".join(["mix", *(str(attribute.neuron) for attribute in attributes)])
    write_entry(experiment.run, experiment.run.amplification_path(name), entry)
    return entry


def _silent(tick: Tick) -> None:
    """What `tell` is when nobody asks for progress."""
