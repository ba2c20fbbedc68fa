"""Checks whether runs can be compared: one judge, equally many images, same seeds, every prompt with every model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from raigen.comparison.verdicts import place_of
from raigen.config import WORLDS, CompareConfig
from raigen.config.fields import FILE
from raigen.errors import RaigenError
from raigen.judging.judges import judge_names, need_world_prompt
from raigen.judging.own_judges import need_paths
from raigen.runs.run import Run


class Match(NamedTuple):
    """What the runs of a comparison have in common. The baseline is the first of `models`."""

    run_of: Mapping[tuple[str, str], Run]  # by prompt and model
    prompts: tuple[str, ...]
    models: tuple[str, ...]
    judge: str
    n_images: int
    n_fresh_images: int


def match(runs: Sequence[Run], config: CompareConfig) -> Match:
    """What the runs have in common.

    Raises RaigenError, saying what is missing and how to make it, when they cannot be compared: a run is missing or
    unfinished, or they differ in judge, images, seeds or embedder.
    """
    if len(runs) < 2:
        raise RaigenError(f"runs: expected two or more to compare; got {len(runs)}")
    for run in runs:
        run.require("evaluate")
    run_of = {place_of(run): run for run in runs}
    prompts = tuple(dict.fromkeys(prompt for prompt, _ in run_of))
    models = _models([model for _, model in run_of], config.baseline)
    missing = [(prompt, model) for prompt in prompts for model in models if (prompt, model) not in run_of]
    if missing:
        told = "; ".join(f"“{prompt}” with {model}" for prompt, model in missing)
        raise RaigenError(
            f"runs: expected every prompt with every model; there is no run of {told}. Audit what is missing, such as: "
            f'raigen audit "{missing[0][0]}" --model {missing[0][1]}, in the same study if there is one (--study)'
        )
    n_images = _same(runs, "n_images", lambda run: run.config.capture.n_images,
                     "how many were audited decides what is found. Audit again with one --n-images")  # fmt: skip
    _same(runs, "base_seed", lambda run: run.config.capture.base_seed,
          "rates are compared on the same seeds. Audit again with one --base-seed")  # fmt: skip
    _same(runs, "embedder", lambda run: run.facts.discover.embedder,
          "texts and images need one CLIP model. Discover again with one --embedder")  # fmt: skip
    n_fresh = config.n_fresh_images or _same(
        runs, "n_fresh_images", lambda run: run.facts.evaluate.n_fresh_images,
        "rates are compared on equally many of each. Add --n-fresh-images N: what is missing is then made")  # fmt: skip
    return Match(run_of, prompts, models, _judge(runs, config), n_images, n_fresh)


def _models(found: Sequence[str], baseline: str | None) -> tuple[str, ...]:
    models = list(dict.fromkeys(found))
    if baseline is None:
        return tuple(models)
    if baseline not in models:
        raise RaigenError(f"baseline: expected one of {', '.join(models)}; got {baseline!r}")
    return (baseline, *(model for model in models if model != baseline))


def _judge(runs: Sequence[Run], config: CompareConfig) -> str:
    """The one judge of all runs. The judge of a planted world, if it is named, also judges models that were made of a
    bundled one."""
    judge, why = config.judge, "rates of two judges are not mixed. Add --judge JUDGE: it judges all images anew"
    if judge is None:
        judge = _same(runs, "judge", lambda run: judge_names(run.config.evaluate.judge, run.config.capture)[0], why)
        _same(runs, "judge", lambda run: run.facts.evaluate.judge if run.facts.evaluate.sources else judge, why)
    elif judge in WORLDS:
        for run in runs:
            need_world_prompt(judge, run.config.capture)
    if judge.startswith(FILE):
        need_paths(judge, [run.dir for run in runs])
    return judge


def _same(runs: Sequence[Run], name: str, read: Callable[[Run], Any], why: str) -> Any:
    """What `read` finds in all runs. Raises RaigenError when it differs, naming a run for each value."""
    found: dict[Any, Run] = {}
    for run in runs:
        found.setdefault(read(run), run)
    if len(found) > 1:
        told = ", ".join(f"{run.dir} has {value}" for value, run in found.items())
        raise RaigenError(f"{name}: expected the same in all runs; {told}: {why}")
    return next(iter(found))
