"""Brings attributes out, and measures on the same seeds what that does."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raigen.amplification.causal import scoring
from raigen.amplification.dose_response import BASE, Experiment
from raigen.amplification.mixture import assign_prompts, mix
from raigen.config import AmplifyConfig
from raigen.errors import RaigenError
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick, exhausted


def amplify(run: Run | str | Path, *, progress: Callable[[Tick], object] | None = None, **options: Any) -> list[dict]:
    """Amplifies attributes of a finished run; a list of what each amplification.json holds.

    `options` are the fields of `raigen.config.AmplifyConfig`; `progress` is told every `Tick`. The same call again
    makes no image twice. Raises RaigenError as `amplifying` does.

        found = raigen.amplify(run, attribute=3, method="steer", strength=(0.5, 1, 2))
        print([(point["strength"], point["presence"]["rate"]) for point in found[0]["points"]])
    """
    opened = run if isinstance(run, Run) else Run(run)
    config = AmplifyConfig(**options)
    with opened.locked():
        return exhausted(amplifying(opened, config), progress)


def amplifying(run: Run, config: AmplifyConfig) -> Generator[Tick, None, list[dict[str, Any]]]:
    """Makes the images of every strength, measures them beside the unsteered ones of the same seeds, and writes an
    amplification.json for each attribute and method. Yields progress in images.

    Stopped and started again it makes no image twice. Raises RaigenError when the run has no names yet, an attribute
    is unknown or has no label, a strength breaks the images (after what came before it is written), or a target of
    `mix` cannot be reached.
    """
    lab = Experiment(run, config)
    if config.causal:
        return (yield from scoring(lab))
    attributes = lab.chosen()
    if config.method == "mix":
        return [(yield from mixed(lab, attributes))]
    found = []
    for attribute in attributes:
        curve = yield from lab.curve(attribute, config.method, lab.strengths(attribute))
        found.append(curve.entry)
    return found


def mixed(lab: Experiment, attributes: Sequence[RareAttribute]) -> Generator[Tick, None, dict[str, Any]]:
    """Mixes the base prompt and the suggested ones, so that every attribute comes at its target.

    Rates are measured on the first `n_images` seeds, the mixture is made and judged on the next ones. Raises
    RaigenError for targets that no mixture reaches, with the nearest that one does.
    """
    n, studio = lab.config.n_images, lab.studio
    places = [(BASE, lab.base)] + [(f"{a.neuron}-prompt", lab.recipe(a, "prompt")) for a in attributes]
    rates = np.zeros((len(places), len(attributes)))
    for row, (name, recipe) in enumerate(places):
        pilot = yield from studio.make(name, recipe, range(n))
        for column, attribute in enumerate(attributes):
            seen = yield from lab.eye.look(pilot.samples, lab.subjects(attribute))
            rates[row, column] = lab.eye.summary(seen)["presence"]["rate"]
    plan = mix(rates, np.array(lab.config.targets))
    if not np.allclose(plan.rates, lab.config.targets, atol=1e-4):
        near = ", ".join(f"{rate:.3g}" for rate in plan.rates)
        raise RaigenError(f"targets: no mixture of these prompts gives {lab.config.targets}; the nearest gives {near}")
    prompt_of = assign_prompts(plan.shares, n, lab.config.control_seed)
    samples: dict[int, Sample] = {}
    for place, (name, recipe) in enumerate(places):
        indices = (n + np.flatnonzero(prompt_of == place)).tolist()
        samples |= dict(zip(indices, (yield from studio.make(name, recipe, indices)).samples, strict=True))
    ordered, reached = [samples[index] for index in sorted(samples)], []
    for column, attribute in enumerate(attributes):
        seen = yield from lab.eye.look(ordered, lab.subjects(attribute))
        reached.append({"rank": attribute.rank, "neuron": attribute.neuron, "label": attribute.label,
                        "target": lab.config.targets[column], "expected": float(plan.rates[column]),
                        **lab.eye.summary(seen)})  # fmt: skip
    entry = {
        "method": "mix", "setup": lab.setup(), "attributes": reached,
        "prompts": [{"prompt": recipe.prompt, "share": float(share), "rates": row.tolist()}
                    for (_, recipe), share, row in zip(places, plan.shares, rates, strict=True)],
    }  # fmt: skip
    lab.keep(lab.run.amplification_path("-".join(["mix", *(str(a.neuron) for a in attributes)])), entry)
    return entry
