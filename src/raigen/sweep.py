"""Audits many prompts with many models: one run each, in one study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from raigen.audit import Step, walk
from raigen.cluster import spread_over
from raigen.config import STAGES, AuditConfig, identity
from raigen.errors import RaigenError
from raigen.run import Run
from raigen.study import Entry, Study, slug
from raigen.workers import spread

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
) -> Iterator[SweepStep]:
    """Takes a run for each of `prompts` and `models` through all stages; the rest of `config` is the same for all.

    What is done is skipped, what was stopped goes on. With `workers` above 1 runs go through that many processes at
    once; with `ray`, the address of a Ray cluster, through as many as it has GPUs for, or else CPUs (see
    `raigen.cluster`). A run that fails does not stop the others. Raises RaigenError at the end, naming those that
    failed; and at once when the study has other settings, another process works on it, or there is no such cluster.
    """
    if workers < 1:
        raise RaigenError(f"workers: expected 1 or more; got {workers}")
    if ray is not None and workers > 1:
        raise RaigenError("workers: a Ray cluster says itself how many runs go on at once; leave it out beside ray")
    with study.locked():
        anew = STAGES[STAGES.index(redo) :] if redo else ()
        entries = study.enroll(prompts, models, shared(config), anew)
        jobs = [(study.dir_of(e), _config_of(config, e), redo) for e in entries]
        failed = []
        for number, step, error in _news(jobs, workers, ray):
            yield SweepStep(number, len(jobs), entries[number - 1], step, error)
            if error is not None:
                failed.append(f"{entries[number - 1].folder}: {error}")
    if failed:
        count = f"{len(failed)} of {len(jobs)} runs"
        raise RaigenError(f"{count} failed; the same command goes on with them. " + "; ".join(failed))


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


News = tuple[int, Step | None, str | None]
Jobs = Sequence[tuple[Path, AuditConfig, str | None]]


def _news(jobs: Jobs, workers: int, ray: str | None) -> Iterator[News]:
    if ray is None and workers == 1:
        yield from _here(jobs)
        return
    messages = spread(_audited, jobs, workers) if ray is None else spread_over(_audited, jobs, ray)
    for message in messages:
        yield message.index + 1, message.item, message.error


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
