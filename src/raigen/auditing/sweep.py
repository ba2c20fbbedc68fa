"""Audits many prompts with many models: one run each, in one study."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from raigen.auditing.audit import walk
from raigen.auditing.processes import spread
from raigen.auditing.ray_cluster import spread_over
from raigen.auditing.shared_sae import check_shareable, check_sharers, share, sharers
from raigen.config import STAGES, AuditConfig, identity
from raigen.errors import RaigenError
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.runs.steps import Step
from raigen.runs.study import Entry, Study, slug

OF_A_RUN = ("prompt", "model")  # settings in which the runs of a study differ


class SweepStep(NamedTuple):
    """Where a sweep stands: run `number` of `total`, from 1, has taken a `step`; or, without one, has ended, with the
    `error` that stopped it or None."""

    number: int
    total: int
    entry: Entry
    step: Step | None = None
    error: str | None = None


def sweep(
    study: Study,
    config: AuditConfig,
    prompts: Sequence[str],
    models: Sequence[str],
    redo: str | None = None,
    workers: int = 1,
    ray: str | None = None,
    shared_sae: bool = False,
) -> Iterator[SweepStep]:
    """Takes a run for each of `prompts` and `models` through all stages; the rest of `config` is the same for all.

    What is done is skipped, what was stopped goes on. With `workers` above 1 runs go through that many processes at
    once; with `ray`, the address of a Ray cluster, through as many as it has GPUs for, or else CPUs (see
    `raigen.auditing.ray_cluster`). A run that fails does not stop the others.

    With `shared_sae`, the prompts share an autoencoder for each model (see `raigen.auditing.shared_sae`), which is
    trained here, whatever the `workers`, before the rest of the runs; rates.csv then says how often each listed neuron
    fires under every prompt.

    Raises RaigenError at the end, naming the runs that failed; and at once when the study has other settings, another
    process works on it, there is no such cluster, or an autoencoder cannot be shared: with one prompt, a store or a
    cluster.
    """
    if workers < 1:
        raise RaigenError(f"workers: expected 1 or more; got {workers}")
    if ray is not None and workers > 1:
        raise RaigenError("workers: a Ray cluster says itself how many runs go on at once; leave it out beside ray")
    if shared_sae:
        if ray is not None:
            raise RaigenError("shared_sae: expected none with a Ray cluster, whose nodes make their images each for "
                              "itself; leave out one of the two")  # fmt: skip
        check_shareable(prompts, config)
    with study.locked():
        anew = STAGES[STAGES.index(redo) :] if redo else ()
        options = shared(config)
        options["train"]["shared_sae"] = shared_sae
        if shared_sae and redo not in STAGES[:2]:
            for run in (run for run in _begun(study, prompts, models) if sharers(run)):
                check_sharers(run, prompts)  # before a prompt is added in vain
        entries = study.enroll(prompts, models, options, anew)
        jobs = [(study.dir_of(e), _config_of(config, e), redo) for e in entries]
        failed = []
        for number, step, error in _news(jobs, workers, ray, len(prompts) if shared_sae else None):
            yield SweepStep(number, len(jobs), entries[number - 1], step, error)
            if error is not None:
                failed.append(f"{entries[number - 1].folder}: {error}")
        if shared_sae:
            _write_rates(study, [Run.create(dir) for dir, _, _ in jobs])
    if failed:
        count = f"{len(failed)} of {len(jobs)} runs"
        raise RaigenError(f"{count} failed; the same command goes on with them. " + "; ".join(failed))


def _begun(study: Study, prompts: Sequence[str], models: Sequence[str]) -> Iterator[Run]:
    """The runs of the study for these prompts and models that are there."""
    for entry in study.entries:
        if entry.prompt in prompts and entry.model in models and Run.is_at(study.dir_of(entry)):
            yield Run(study.dir_of(entry))


def shared(config: AuditConfig) -> dict[str, dict[str, Any]]:
    """The settings that all runs of a study have in common, by stage, as they stand in study.json."""
    found: dict[str, Mapping[str, Any]] = {stage: identity(getattr(config, stage)) for stage in STAGES}
    return {stage: {k: v for k, v in values.items() if k not in OF_A_RUN} for stage, values in found.items()}


def default_study_dir(prompts: Sequence[str], name: str | None) -> Path:
    """The folder of a study unless another is given: of the list's name, or of the first prompt.

    >>> default_study_dir(["a photo of a doctor"], "lists/professions.txt").as_posix()
    'studies/professions'
    """
    return Path("studies") / slug(Path(name).stem if name else prompts[0])


def _config_of(config: AuditConfig, entry: Entry) -> AuditConfig:
    return replace(config, capture=replace(config.capture, prompt=entry.prompt, model=entry.model))


def _audited(dir: Path, config: AuditConfig, redo: str | None) -> Iterator[Step]:
    """One run, wherever it runs."""
    yield from walk(Run.create(dir), config, redo)


def _write_rates(study: Study, runs: Sequence[Run]) -> None:
    from raigen.auditing.cross_prompt_rates import as_csv, cross_prompt_rates  # scipy takes a second to load

    write_text(study.rates_path, as_csv(cross_prompt_rates(runs)))


News = tuple[int, Step | None, str | None]
Jobs = Sequence[tuple[Path, AuditConfig, str | None]]


def _news(jobs: Jobs, workers: int, ray: str | None, group: int | None) -> Iterator[News]:
    """What comes of the jobs; of every `group` that follow each other, if given, with one autoencoder."""
    numbers, rest = list(range(1, len(jobs) + 1)), list(jobs)
    if group is not None:
        failed = yield from _shared(jobs, group)
        numbers = [number for number in numbers if number not in failed]
        rest = [(dir, config, _after_training(redo)) for dir, config, redo in (jobs[n - 1] for n in numbers)]
    if ray is None and workers == 1:
        news = _here(rest)
    else:
        messages = spread(_audited, rest, workers) if ray is None else spread_over(_audited, rest, ray)
        news = ((message.index + 1, message.item, message.error) for message in messages)
    for place, step, error in news:
        yield numbers[place - 1], step, error


def _shared(jobs: Jobs, group: int) -> Generator[News, None, set[int]]:
    """The autoencoders that every `group` of jobs share, told as steps of the first of them; returns the numbers of
    those that failed."""
    failed: set[int] = set()
    for start in range(0, len(jobs), group):
        dirs, configs, redos = zip(*jobs[start : start + group], strict=True)
        try:
            redo = redos[0] if redos[0] in STAGES[:2] else None
            for step in share([Run.create(dir) for dir in dirs], configs, redo):
                yield start + 1, step, None
        except RaigenError as caught:
            numbers = range(start + 1, start + 1 + group)
            failed |= set(numbers)
            for number in numbers:
                yield number, None, str(caught)
    return failed


def _after_training(redo: str | None) -> str | None:
    """The stage to do anew once the autoencoders are trained: none, where they were what was to be done anew."""
    return redo if redo not in STAGES[:2] else None


def _here(jobs: Jobs) -> Iterator[News]:
    """One run after the other."""
    for number, job in enumerate(jobs, 1):
        error = None
        try:
            for step in _audited(*job):
                yield number, step, None
        except RaigenError as caught:
            error = str(caught)
        yield number, None, error
