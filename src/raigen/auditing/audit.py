"""Takes one run through the stages: skips what is done, resumes what is not."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raigen.auditing.inputs import check_inputs
from raigen.config import STAGES, AuditConfig, CaptureConfig
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Step, Tick, mapped
from raigen.runs.study import slug

if TYPE_CHECKING:
    from raigen.runs.activations import CapturedBatch
    from raigen.sae.stream import ImageStream

Stage = Callable[[Run, Any], Generator[Tick, None, Outcome]]
HOMES = {
    "capture": "raigen.diffusion.capture",
    "train": "raigen.sae.train",
    "discover": "raigen.discovery.discover",
    "look": "raigen.discovery.look",
    "annotate": "raigen.judging.annotate",
    "evaluate": "raigen.judging.evaluate",
    "report": "raigen.report.report",
}  # the module of each stage; its function has the name of the stage


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

    `run_dir` is `runs/<prompt>` unless given. The same call again resumes an interrupted audit, and returns at once
    when everything is done. `options` are fields of the stages' configurations, such as `guidance_scale=2.0` or
    `n_fresh_images=1000`; `progress` is called with every `Step`. Raises RaigenError for bad options, and when the
    folder holds a run with other options.

        run = raigen.audit("a photo of a doctor", n_images=300)
        print([attribute.title for attribute in run.attributes])
    """
    config = AuditConfig.of(prompt, model=model, n_images=n_images, **options)
    run = Run.create(run_dir or default_run_dir(prompt))
    for step in walk(run, config):
        if progress is not None:
            progress(step)
    return run


def walk(run: Run, config: AuditConfig, redo: str | None = None) -> Iterator[Step]:
    """Takes `run` through all stages, holding its lock. `redo` names a stage to do again, with all that follow it.

    Everything that needs no image is checked before the first image is made. Nothing is dropped before that, and before
    the stages ahead of `redo` are known to agree with `config`.
    """
    with run.locked():
        config, n_done = _at_its_hookpoint(run, config), 0
        for name in STAGES[: STAGES.index(redo) if redo else len(STAGES)]:
            if not run.is_done(name, getattr(config, name)) and redo is None:  # raises for another configuration
                break
            n_done += 1
        check_inputs(config, STAGES[n_done:], _d_in(run, STAGES[n_done:]))
        if redo is not None:
            run.forget(redo)
        # A list, not a generator: each is_done also checks the configuration.
        is_done = [run.is_done(name, getattr(config, name)) for name in ("capture", "train")]
        at_once = not any(is_done) and (config.train.sae is not None or not config.capture.store)
        if not at_once and not any(is_done):
            run.begin("train", config.train)
            run.forget("train")  # but for its settings: the capture checks that it can follow
        if at_once:
            yield from capture_and_train([run], [config])
        for name in STAGES[2:] if at_once else STAGES:
            yield from steps(run, name, getattr(config, name))


def run_stage(
    run: Run, name: str, config: Any, redo: bool = False, on_tick: Callable[[Step], object] | None = None
) -> None:
    """Runs one stage with `config`, or skips it when it is done; `redo` does it again.

    Raises RaigenError, naming what to run first, when an earlier stage has not finished. (A report needs neither names
    nor rates.)
    """
    with run.locked():
        before = STAGES[: STAGES.index("annotate" if name == "report" else name)]
        run.require(*(stage for stage in before if stage != "look"))  # a list is whole without it
        if redo or (name == "look" and run.predates_look):
            known = AuditConfig(config) if name == "capture" else run.config
            check_inputs(replace(known, **{name: config}), [name], _d_in(run, [name]))
            run.forget(name)
        for step in steps(run, name, config):
            if on_tick is not None:
                on_tick(step)


def _at_its_hookpoint(run: Run, config: AuditConfig) -> AuditConfig:
    """With an autoencoder that is there, the hookpoint at which it was trained, unless one is given, or images were
    made without."""
    sae, capture = config.train.sae, config.capture
    is_chosen = "capture" in run.manifest["stages"] and run.config.capture.hookpoint is None
    if sae is None or capture.hookpoint is not None or is_chosen:
        return config
    from raigen.sae.train import open_shared

    origin = open_shared(sae, config.train.sae_revision, capture.offline).origin
    return replace(config, capture=replace(capture, hookpoint=origin.hookpoint))


def _d_in(run: Run, stages: Sequence[str]) -> int | None:
    """The width of the tokens, if they are captured and will not be captured again by one of the `stages`."""
    is_kept = "capture" not in stages and run.has_finished("capture")
    return (run.facts.capture.d_in or None) if is_kept else None


def default_run_dir(prompt: str) -> Path:
    """The folder of a prompt's run unless another is given. Letters of every script are kept.

    >>> default_run_dir("A photo of a CEO, smiling!").as_posix()
    'runs/a-photo-of-a-ceo-smiling'
    """
    return Path("runs") / slug(prompt)


def steps(run: Run, name: str, config: Any) -> Iterator[Step]:
    """Runs one stage of a run that the caller has locked, or skips it when it is done."""
    if run.is_done(name, config):
        yield Step(name, "skipped")
        return
    started = time.monotonic()
    with begun(run, {name: config}):
        yield Step(name, "begun")
        outcome = yield from mapped(_ticks(run, name, config), lambda tick: Step(name, "running", tick))
        run.finish(name, outcome, time.monotonic() - started)
    yield Step(name, "finished", seconds=time.monotonic() - started)


def capture_and_train(runs: Sequence[Run], configs: Sequence[AuditConfig]) -> Iterator[Step]:
    """Captures runs of one model, each of another prompt, while one autoencoder trains on the images of all of them.

    The caller has locked the runs. Their images are generated in turns, so that batches mix prompts. A run whose
    capture is done keeps its files; its images are generated again, for their activations. The autoencoder is written
    to the first run.
    """
    from raigen.sae.train import train

    captures, outcomes = [config.capture for config in configs], list[dict[int, Outcome]]()
    started = time.monotonic()
    with ExitStack() as stack:
        missing = [index for index, run in enumerate(runs) if not run.is_done("capture", captures[index])]
        for index, run in enumerate(runs):
            stages = ("capture", "train") if index in missing else ("train",)
            stack.enter_context(begun(run, {stage: getattr(configs[index], stage) for stage in stages}))
        yield Step("capture", "begun")
        ticks = train(runs[0], configs[0].train, _stream(runs, captures, outcomes))
        outcome = yield from mapped(ticks, lambda tick: Step("capture", "running", tick))
        training = outcome.facts["training_seconds"]
        capturing = time.monotonic() - started - training
        for index in missing:
            runs[index].finish("capture", outcomes[0][index], capturing / len(runs))
        runs[0].finish("train", outcome, training)
    yield Step("capture", "finished", seconds=capturing)
    yield Step("train", "finished", seconds=training)


@contextmanager
def begun(run: Run, configs: dict[str, Any]) -> Iterator[None]:
    """Records that stages have begun. A first try that makes no file (because of a mistyped model, say) is forgotten,
    so that it does not bind the folder to its configuration."""
    first = next(iter(configs))
    is_new, before = first not in run.manifest["stages"], set(run.dir.rglob("*"))
    for name, config in configs.items():
        run.begin(name, config)
    try:
        yield
    except BaseException:
        if is_new and set(run.dir.rglob("*")) == before:
            run.forget(first, keep_settings=False)
        raise


def stage_function(name: str) -> Stage:
    """The function that runs a stage."""
    if name not in STAGES:
        raise RaigenError(f"unknown stage {name!r}; the stages are {', '.join(STAGES)}")
    return getattr(import_module(HOMES[name]), name)


def _ticks(run: Run, name: str, config: Any) -> Generator[Tick, None, Outcome]:
    """The stage at work. Training without a store generates the images again, for their activations."""
    if name == "train" and config.sae is None and not (capture := run.config.capture).store:
        from raigen.sae.train import train

        return train(run, config, _stream([run], [capture], []))
    return stage_function(name)(run, config)


def _stream(
    runs: Sequence[Run], captures: Sequence[CaptureConfig], outcomes: list[dict[int, Outcome]]
) -> "ImageStream":
    """The images of runs in turns. Each pass over them appends the outcome of every run's capture to `outcomes`."""
    from raigen.sae.stream import ImageStream

    def generate(firsts: Sequence[int]) -> Iterator["CapturedBatch"]:
        outcomes.append((yield from _in_turns(runs, captures, firsts)))

    prompts = [capture.prompt for capture in captures] if len(runs) > 1 else []
    return ImageStream(captures[0].n_images, generate, prompts)


def _in_turns(
    runs: Sequence[Run], captures: Sequence[CaptureConfig], firsts: Sequence[int]
) -> Generator["CapturedBatch", None, dict[int, Outcome]]:
    """Generates the images from `firsts` on, a batch at a time, always of the run with the fewest images so far (the
    first among equals). Returns the outcome of each run's capture."""
    from raigen.diffusion.capture import capture_batches
    from raigen.diffusion.recorded import recorded_pipeline

    pipe = recorded_pipeline(runs[0], captures[0])
    batches = {index: capture_batches(run, captures[index], firsts[index], pipe) for index, run in enumerate(runs)}
    n_done, outcomes = list(firsts), {}
    while batches:
        index = min(batches, key=lambda index: (n_done[index], index))
        try:
            batch = next(batches[index])
        except StopIteration as end:
            outcomes[index] = end.value
            del batches[index]
            continue
        n_done[index] = batch.tick.done
        tick = Tick(sum(n_done), captures[0].n_images * len(runs), batch.tick.note)
        yield batch._replace(tick=tick, run=index)
    return outcomes
