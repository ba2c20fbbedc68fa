"""Walks one run through the stages: skips what is done, resumes what is not."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raigen.config import STAGES, AuditConfig, CaptureConfig, TrainConfig
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Step, Tick, mapped
from raigen.runs.study import slug

if TYPE_CHECKING:
    from raigen.runs.activations import CapturedBatch

Stage = Callable[[Run, Any], Generator[Tick, None, Outcome]]
HOMES = {
    "capture": "raigen.diffusion.capture",
    "train": "raigen.sae.train",
    "discover": "raigen.discovery.discover",
    "annotate": "raigen.judging.annotate",
    "evaluate": "raigen.judging.evaluate",
    "report": "raigen.report.report",
}  # the module of each stage; its function has the stage's name


def audit(
    prompt: str,
    *,
    model: str = "portraits",
    n_images: int = 1000,
    run_dir: str | Path | None = None,
    progress: Callable[[Step], object] | None = None,
    **options: Any,
) -> Run:
    """Finds the attributes that `model` knows for `prompt` but hardly ever shows.

    `run_dir` is `runs/<prompt>` unless given; the same call again goes on where the last one stopped, and returns at
    once when all is done. `options` are the fields of the stages' configurations, such as `guidance_scale=2.0` or
    `n_fresh_images=1000`; `progress` is told every `Step`. Raises RaigenError for bad options, and when the folder
    holds a run with others.

        run = raigen.audit("a photo of a doctor", n_images=300)
        print([attribute.label for attribute in run.attributes])
    """
    config = AuditConfig.of(prompt, model=model, n_images=n_images, **options)
    run = Run.create(run_dir or default_run_dir(prompt))
    for step in walk(run, config):
        if progress is not None:
            progress(step)
    return run


def walk(run: Run, config: AuditConfig, redo: str | None = None) -> Iterator[Step]:
    """Takes `run` through all stages, holding its lock; `redo` names a stage to do anew, with all that follow it.

    Nothing is dropped before the stages ahead of `redo` are known to agree with `config`.
    """
    with run.locked():
        if redo is not None:
            for name in STAGES[: STAGES.index(redo)]:
                run.is_done(name, getattr(config, name))  # raises where the folder holds another configuration
            run.forget(redo)
        streamed = _is_streamed(run, config)
        if streamed:
            yield from _streamed_steps(run, config)
        for name in STAGES[2:] if streamed else STAGES:
            yield from steps(run, name, getattr(config, name))


def run_stage(
    run: Run, name: str, config: Any, redo: bool = False, on_tick: Callable[[Step], object] | None = None
) -> None:
    """Runs one stage with `config`, or skips it when it is done; `redo` does it anew.

    Raises RaigenError, naming what to run first, when an earlier stage has not finished. (A report can do without names
    and rates.)
    """
    with run.locked():
        run.require(*STAGES[: STAGES.index("annotate" if name == "report" else name)])
        if redo:
            run.forget(name)
        for step in steps(run, name, config):
            if on_tick is not None:
                on_tick(step)


def default_run_dir(prompt: str) -> Path:
    """The folder of a prompt's run unless another is given. Letters of every script are kept.

    >>> default_run_dir("A photo of a CEO, smiling!").as_posix()
    'runs/a-photo-of-a-ceo-smiling'
    """
    return Path("runs") / slug(prompt)


def steps(run: Run, name: str, config: Any) -> Iterator[Step]:
    """One stage of a run that the caller has locked: skipped where it is done, else begun, told and finished."""
    if run.is_done(name, config):
        yield Step(name, "skipped")
        return
    started = time.monotonic()
    with begun(run, {name: config}):
        yield Step(name, "begun")
        outcome = yield from mapped(_ticks(run, name, config), lambda tick: Step(name, "running", tick))
        run.finish(name, outcome, time.monotonic() - started)
    yield Step(name, "finished", seconds=time.monotonic() - started)


@contextmanager
def begun(run: Run, configs: dict[str, Any]) -> Iterator[None]:
    """Notes that stages begin. A first try that made no file (a mistyped model, say) is forgotten, lest it bind the
    folder to its configuration."""
    first = next(iter(configs))
    is_new, before = first not in run.manifest["stages"], set(run.dir.rglob("*"))
    for name, config in configs.items():
        run.begin(name, config)
    try:
        yield
    except BaseException:
        if is_new and set(run.dir.rglob("*")) == before:
            run.forget(first)
        raise


def _ticks(run: Run, name: str, config: Any) -> Generator[Tick, None, Outcome]:
    """The stage at work. Without a store, training makes the images again for what they put out inside."""
    if name == "train" and not (capturing := run.config.capture).store:
        return _training(run, config, capturing, [])
    return stage_function(name)(run, config)


def _training(
    run: Run, config: TrainConfig, capturing: CaptureConfig, captures: list[Outcome]
) -> Generator[Tick, None, Outcome]:
    """Training that asks for images as it needs their tokens; what each pass over the images made is appended to
    `captures`."""
    from raigen.diffusion.capture import capture_batches
    from raigen.sae.stream import train_on_stream

    def source(firsts: Sequence[int]) -> Iterator["CapturedBatch"]:
        captures.append((yield from capture_batches(run, capturing, firsts[0])))

    return train_on_stream(run, config, capturing.n_images, source)


def _is_streamed(run: Run, config: AuditConfig) -> bool:
    """Whether the autoencoder is to be trained while the images are made: neither is done yet."""
    done = [run.is_done(name, getattr(config, name)) for name in ("capture", "train")]
    return not config.capture.store and not any(done)


def _streamed_steps(run: Run, config: AuditConfig) -> Iterator[Step]:
    """Capture and train as one."""
    captures: list[Outcome] = []
    started = time.monotonic()
    with begun(run, {"capture": config.capture, "train": config.train}):
        yield Step("capture", "begun")
        ticks = _training(run, config.train, config.capture, captures)
        outcome = yield from mapped(ticks, lambda tick: Step("capture", "running", tick))
        training = outcome.facts["training_seconds"]
        seconds = {"capture": time.monotonic() - started - training, "train": training}
        run.finish("capture", captures[0], seconds["capture"])
        run.finish("train", outcome, seconds["train"])
    for name in STAGES[:2]:
        yield Step(name, "finished", seconds=seconds[name])


def stage_function(name: str) -> Stage:
    """The function that does a stage."""
    if name not in STAGES:
        raise RaigenError(f"unknown stage {name!r}; the stages are {', '.join(STAGES)}")
    return getattr(import_module(HOMES[name]), name)
