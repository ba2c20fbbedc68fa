"""How often a listed neuron fires under every prompt that shares its autoencoder."""

from collections.abc import Sequence
from typing import Any

from raigen.auditing.shared_sae import sharers
from raigen.discovery.codes import clear_from, reaches
from raigen.runs.run import Run

COLUMNS: tuple[str, ...] = ("model", "prompt", "rank", "neuron", "label", "under", "rate")


def cross_prompt_rates(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How often each listed neuron fires under the prompts that share its autoencoder: a row of `COLUMNS` for each.

    `prompt` is the prompt under which the neuron is listed, `under` is any of the prompts. The rate is the share of the
    images of `under` in which the neuron fires clearly: at least a quarter as strongly as in the mean of its ten
    strongest images of `prompt`. An autoencoder that is not shared has no rows, nor has one before `discover` has
    finished under two of its prompts.
    """
    found = []
    known = [run for run in runs if _autoencoder(run) and run.codes_path.is_file() and run.attributes_path.is_file()]
    codes = {run.dir: run.image_codes() for run in known}
    for run in known:
        own, neurons = run.config.capture, [attribute.neuron for attribute in run.attributes if not attribute.is_family]
        others = [other for other in known if _is_kin(run, other)]
        if not others or not neurons:
            continue
        least = clear_from(codes[run.dir][:, neurons])
        for other in (run, *others):
            shares = reaches(codes[other.dir][:, neurons], least).mean(axis=0).tolist()
            for attribute, rate in zip((one for one in run.attributes if not one.is_family), shares, strict=True):
                values = (attribute.rank, attribute.neuron, attribute.name, other.config.capture.prompt, rate)
                found.append(dict(zip(COLUMNS, (own.model, own.prompt, *values), strict=True)))
    return found


def _is_kin(run: Run, other: Run) -> bool:
    """Whether another run has the same autoencoder."""
    same_model = other.config.capture.model == run.config.capture.model
    return other is not run and same_model and _autoencoder(other) == _autoencoder(run)


def _autoencoder(run: Run) -> tuple[str, ...]:
    """What tells an autoencoder of several runs from others: its prompts, or the hash of its weights; empty for one of
    this run alone."""
    adopted = run.facts.train.adopted if run.has_finished("train") else None
    return sharers(run) if adopted is None else (adopted,)
