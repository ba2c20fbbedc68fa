"""Trains one autoencoder on the images of several prompts, made in turns."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from raigen.auditing.audit import begun, steps
from raigen.config import STAGES, AuditConfig
from raigen.errors import RaigenError
from raigen.runs.files import write_bytes
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Step, Tick, mapped

if TYPE_CHECKING:
    from raigen.runs.activations import CapturedBatch


def share(runs: Sequence[Run], configs: Sequence[AuditConfig], redo: str | None = None) -> Iterator[Step]:
    """Takes runs of one model, each of another prompt, through `capture` and `train` together: their images are made
    in turns, so that the reservoir mixes prompts, and every run gets the autoencoder that was trained on all of them,
    with the prompts as `shared_by` among its facts.

    What is done is skipped; stopped and started again with the same prompts, it keeps the images and comes to the
    same weights. `redo` names one of the two stages to do anew in all runs. Raises RaigenError for runs that keep a
    store, and where a run has an autoencoder already that is not shared by just these prompts.
    """
    check_shareable([config.capture.prompt for config in configs], configs[0])
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(run.locked())
        for run, config in zip(runs, configs, strict=True):
            for name in STAGES[: STAGES.index(redo)] if redo else ():
                run.is_done(name, getattr(config, name))  # raises where the folder holds another configuration
        if redo is not None:
            for run in runs:
                run.forget(redo)
        trained = [run for run, config in zip(runs, configs, strict=True) if _is_trained(run, config, configs)]
        if not trained:
            yield from _trained(runs, configs)
            trained = [runs[0]]
        for run, config in zip(runs, configs, strict=True):
            if run not in trained:
                yield from _adopted(run, config, trained[0])


def check_shareable(prompts: Sequence[str], config: AuditConfig) -> None:
    """Raises RaigenError for what one autoencoder cannot be shared by."""
    if len(prompts) < 2:
        raise RaigenError(f"shared_sae: expected two prompts or more, to share an autoencoder; got {len(prompts)}")
    if config.capture.store:
        raise RaigenError("shared_sae: expected none with --store, for it is trained while the images are made; "
                          "leave out one of the two")  # fmt: skip


def check_sharers(run: Run, prompts: Sequence[str]) -> None:
    """Raises RaigenError where the autoencoder of a run is not shared by just these prompts."""
    wanted, found = set(prompts), set(sharers(run))
    if wanted != found:
        whose = "is its own" if not found else f"is shared by {_listed(found)}"
        raise RaigenError(f"{run.dir}: its autoencoder {whose}, now asked for one shared by {_listed(wanted)}. Choose "
                          "another --study, or add --redo train to train one anew")  # fmt: skip


def sharers(run: Run) -> tuple[str, ...]:
    """The prompts that share the autoencoder of a run; none where it is its own, or there is none."""
    record = run.manifest["stages"].get("train", {})
    return tuple(record["facts"].get("shared_by", ())) if record.get("finished") else ()


def _is_trained(run: Run, config: AuditConfig, configs: Sequence[AuditConfig]) -> bool:
    """Whether a run has the autoencoder of all prompts."""
    if not (run.is_done("capture", config.capture) and run.is_done("train", config.train)):
        return False
    check_sharers(run, [other.capture.prompt for other in configs])
    return True


def _listed(prompts: set[str]) -> str:
    return ", ".join(f"“{prompt}”" for prompt in sorted(prompts))


def _trained(runs: Sequence[Run], configs: Sequence[AuditConfig]) -> Iterator[Step]:
    """Capture and train of all runs as one; the autoencoder lies in the first run."""
    from raigen.sae.stream import train_on_stream

    first, capturing = runs[0], configs[0].capture
    prompts = [config.capture.prompt for config in configs]
    captures: dict[int, Outcome] = {}
    started = time.monotonic()
    with ExitStack() as stack:
        lacking = []
        for index, (run, config) in enumerate(zip(runs, configs, strict=True)):
            stages: dict[str, Any] = {"train": config.train}
            if not run.is_done("capture", config.capture):
                stages = {"capture": config.capture} | stages
                lacking.append(index)
            stack.enter_context(begun(run, stages))
        yield Step("capture", "begun")

        def source(firsts: Sequence[int]) -> Iterator["CapturedBatch"]:
            captures.update((yield from _in_turns(runs, configs, firsts)))

        ticks = train_on_stream(first, configs[0].train, capturing.n_images, source, prompts)
        outcome = yield from mapped(ticks, lambda tick: Step("capture", "running", tick))
        training = outcome.facts["training_seconds"]
        seconds = {"capture": time.monotonic() - started - training, "train": training}
        for index in lacking:
            runs[index].finish("capture", captures[index], seconds["capture"] / len(runs))
        first.finish("train", Outcome(outcome.outputs, outcome.facts | {"shared_by": prompts}), training)
    for name in STAGES[:2]:
        yield Step(name, "finished", seconds=seconds[name])


def _in_turns(
    runs: Sequence[Run], configs: Sequence[AuditConfig], firsts: Sequence[int]
) -> Generator["CapturedBatch", None, dict[int, Outcome]]:
    """The parts of all runs from their `firsts` on: always of the run that is least far, the first among equals.
    Returns what came of each capture."""
    from raigen.diffusion.capture import capture_batches
    from raigen.diffusion.loading import load_pipeline

    capturing = configs[0].capture
    pipe = load_pipeline(capturing.model, capturing.device, capturing)
    sources = {index: capture_batches(run, config.capture, start, pipe)
               for index, (run, config, start) in enumerate(zip(runs, configs, firsts, strict=True))}  # fmt: skip
    place, outcomes = list(firsts), {}
    while sources:
        index = min(sources, key=lambda index: (place[index], index))
        try:
            part = next(sources[index])
        except StopIteration as end:
            outcomes[index] = end.value
            del sources[index]
            continue
        place[index] = part.tick.done
        tick = Tick(sum(place), capturing.n_images * len(runs), part.tick.note)
        yield part._replace(tick=tick, run=index)
    return outcomes


def _adopted(run: Run, config: AuditConfig, owner: Run) -> Iterator[Step]:
    """Gives a run the autoencoder of another one. (A copy: a run folder stands alone.)"""
    yield from steps(run, "capture", config.capture)
    with begun(run, {"train": config.train}):
        files = owner.manifest["stages"]["train"]["outputs"]
        for file in files:
            write_bytes(run.dir / file, (owner.dir / file).read_bytes())
        run.checkpoint_path.unlink(missing_ok=True)  # of a training of other prompts that was stopped
        run.finish("train", Outcome([run.dir / file for file in files], owner.facts_of("train")), 0.0)
