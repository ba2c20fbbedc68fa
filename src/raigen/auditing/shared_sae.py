"""Shares one autoencoder between the runs of several prompts."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from raigen.auditing.audit import begun, capture_and_train, steps
from raigen.auditing.inputs import check_inputs
from raigen.config import STAGES, AuditConfig
from raigen.errors import RaigenError
from raigen.runs.files import write_bytes
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Step


def share(runs: Sequence[Run], configs: Sequence[AuditConfig], redo: str | None = None) -> Iterator[Step]:
    """Takes runs of one model, each of another prompt, through `capture` and `train` together. Each of them gets the
    autoencoder that was trained on all of them, with the prompts as `shared_by` among its facts.

    What is done is skipped. Interrupted and started again with the same prompts, it keeps the images and ends with the
    same weights. `redo` names one of the two stages to do again in all runs. Raises RaigenError for runs that keep a
    store, and where a run already has an autoencoder that is not shared by exactly these prompts.
    """
    prompts = [config.capture.prompt for config in configs]
    check_shareable(prompts, configs[0])
    both = list(zip(runs, configs, strict=True))
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(run.locked())
        for run, config in both:
            for name in STAGES[: STAGES.index(redo)] if redo else ():
                run.is_done(name, getattr(config, name))  # raises where the folder holds another configuration
        if redo is not None or not any(_is_trained(run, config, prompts) for run, config in both):
            for config in configs:
                check_inputs(config)
        if redo is not None:
            for run in runs:
                run.forget(redo)
        trained = [run for run, config in both if _is_trained(run, config, prompts)]
        if not trained:
            yield from capture_and_train(runs, configs)
            trained = [runs[0]]
        for run, config in both:
            if run not in trained:
                yield from _copy_autoencoder(run, config, trained[0])


def check_shareable(prompts: Sequence[str], config: AuditConfig) -> None:
    """Raises RaigenError where one autoencoder cannot be shared."""
    if len(prompts) < 2:
        raise RaigenError(f"shared_sae: expected two prompts or more, to share an autoencoder; got {len(prompts)}")
    if config.train.sae is not None:
        raise RaigenError("shared_sae: expected none with --sae, whose autoencoder all prompts share; leave out one "
                          "of the two")  # fmt: skip
    if config.capture.store:
        raise RaigenError("shared_sae: expected none with --store, because a shared autoencoder is trained while the "
                          "images are generated; leave out one of the two")  # fmt: skip


def check_sharers(run: Run, prompts: Sequence[str]) -> None:
    """Raises RaigenError where the autoencoder of a run is not shared by exactly these prompts."""
    wanted, found = set(prompts), set(sharers(run))
    if wanted != found:
        whose = "is its own" if not found else f"is shared by {_listed(found)}"
        raise RaigenError(f"{run.dir}: its autoencoder {whose}, but one shared by {_listed(wanted)} was requested. "
                          "Choose another --study, or add --redo train to train a new one")  # fmt: skip


def sharers(run: Run) -> tuple[str, ...]:
    """The prompts that share the autoencoder of a run; none where it is its own, or not trained yet."""
    return run.facts.train.shared_by if run.has_finished("train") else ()


def _is_trained(run: Run, config: AuditConfig, prompts: Sequence[str]) -> bool:
    """Whether a run has the autoencoder of all prompts."""
    if not (run.is_done("capture", config.capture) and run.is_done("train", config.train)):
        return False
    check_sharers(run, prompts)
    return True


def _listed(prompts: set[str]) -> str:
    return ", ".join(f"“{prompt}”" for prompt in sorted(prompts))


def _copy_autoencoder(run: Run, config: AuditConfig, owner: Run) -> Iterator[Step]:
    """Copies the autoencoder of another run, so that the folder of each run is complete."""
    yield from steps(run, "capture", config.capture)
    with begun(run, {"train": config.train}):
        files = owner.manifest["stages"]["train"]["outputs"]
        for file in files:
            write_bytes(run.dir / file, (owner.dir / file).read_bytes())
        run.checkpoint_path.unlink(missing_ok=True)  # of an interrupted training with other prompts
        run.finish("train", Outcome([run.dir / file for file in files], owner.facts_of("train")), 0.0)
