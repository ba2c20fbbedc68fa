"""Audits many prompts with many models: one run each, in one study."""

import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from raigen.auditing.audit import walk
from raigen.auditing.processes import Message, messages_of, spread
from raigen.auditing.ray_cluster import spread_over
from raigen.auditing.shared_sae import check_shareable, check_sharers, share, sharers
from raigen.config import STAGES, AuditConfig, identity
from raigen.config.fields import FILE
from raigen.errors import RaigenError
from raigen.runs.files import csv_text, write_text
from raigen.runs.run import Run
from raigen.runs.steps import Step
from raigen.runs.study import Entry, Study, slug

OF_A_RUN = ("prompt", "model")  # settings in which the runs of a study differ


class SweepStep(NamedTuple):
    """Where a sweep stands: run `number` of `total`, from 1, has taken a `step`. Without a step the run has ended, and
    `error` says what stopped it, if anything did."""

    number: int
    total: int
    entry: Entry
    step: Step | None = None
    error: str | None = None


class Job(NamedTuple):
    """One run of a sweep: its number, from 1, its entry in the study, and what `walk` needs."""

    number: int
    entry: Entry
    dir: Path
    config: AuditConfig
    redo: str | None


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

    Finished stages are skipped, and interrupted ones resume. A run that fails does not stop the others. `workers` runs
    go on at once, each in its own process. `ray` is the address of a Ray cluster that works on the runs instead (see
    `raigen.auditing.ray_cluster`). With `shared_sae`, this process first trains one autoencoder per model on the images
    of all prompts (see `raigen.auditing.shared_sae`), and in the end writes rates.csv: how often each listed neuron
    fires under every prompt. So does a sweep with an autoencoder that is there (`config.train.sae`).

    Raises RaigenError at the end, naming the runs that failed. Raises it at once when the study has other settings,
    another process works on it, the cluster cannot be reached, or an autoencoder cannot be shared.
    """
    _check_ways(config, prompts, workers, ray, shared_sae)
    with study.locked():
        jobs = _enrolled(study, config, prompts, models, redo, shared_sae)
        failed = []
        for message in _messages(jobs, workers, ray, len(prompts) if shared_sae else None):
            job = message.job
            yield SweepStep(job.number, len(jobs), job.entry, message.item, message.error)
            if message.error is not None:
                failed.append(f"{job.entry.folder}: {message.error}")
        if shared_sae or config.train.sae is not None:
            _write_rates(study, [Run.create(job.dir) for job in jobs])
    if failed:
        count = f"{len(failed)} of {len(jobs)} runs"
        raise RaigenError(f"{count} failed; give the same command again to resume them. " + "; ".join(failed))


def shared(config: AuditConfig) -> dict[str, dict[str, Any]]:
    """The settings that all runs of a study have in common, by stage, as they stand in study.json."""
    found: dict[str, Mapping[str, Any]] = {stage: identity(getattr(config, stage)) for stage in STAGES}
    return {stage: {k: v for k, v in values.items() if k not in OF_A_RUN} for stage, values in found.items()}


def default_study_dir(prompts: Sequence[str], name: str | None) -> Path:
    """The folder of a study unless another is given, named after the list of prompts, or after the first prompt.

    >>> default_study_dir(["a photo of a doctor"], "lists/professions.txt").as_posix()
    'studies/professions'
    """
    return Path("studies") / slug(Path(name).stem if name else prompts[0])


def _check_ways(config: AuditConfig, prompts: Sequence[str], workers: int, ray: str | None, shared_sae: bool) -> None:
    """Raises RaigenError for ways to run a sweep that do not go together."""
    if workers < 1:
        raise RaigenError(f"workers: expected 1 or more; got {workers}")
    if ray is not None and workers > 1:
        raise RaigenError("workers: expected none with a Ray cluster, which decides how many runs go on at once; leave "
                          "out one of the two")  # fmt: skip
    for judge in config.evaluate.judge:
        if judge.startswith(FILE) and os.path.lexists(judge.removeprefix(FILE)):
            from raigen.judging.own_judges import need_paths  # numpy takes its time to load

            need_paths(judge)
    if shared_sae:
        if ray is not None:
            raise RaigenError("shared_sae: expected none with a Ray cluster, where every run generates its own images; "
                              "leave out one of the two")  # fmt: skip
        check_shareable(prompts, config)


def _enrolled(
    study: Study,
    config: AuditConfig,
    prompts: Sequence[str],
    models: Sequence[str],
    redo: str | None,
    shared_sae: bool,
) -> list[Job]:
    """Enters the runs in the study; all prompts of one model follow each other."""
    options = shared(config)
    options["train"]["shared_sae"] = shared_sae
    if shared_sae and redo not in STAGES[:2]:
        for run in _runs_of(study, prompts, models):
            if sharers(run):
                check_sharers(run, prompts)  # now, before a prompt is added in vain
    entries = study.enroll(prompts, models, options, STAGES[STAGES.index(redo) :] if redo else ())
    jobs = []
    for number, entry in enumerate(entries, 1):
        capture = replace(config.capture, prompt=entry.prompt, model=entry.model)
        jobs.append(Job(number, entry, study.dir_of(entry), replace(config, capture=capture), redo))
    return jobs


def _runs_of(study: Study, prompts: Sequence[str], models: Sequence[str]) -> Iterator[Run]:
    """The runs of these prompts and models that the study has already."""
    for entry in study.entries:
        if entry.prompt in prompts and entry.model in models and Run.is_at(study.dir_of(entry)):
            yield Run(study.dir_of(entry))


def _messages(jobs: Sequence[Job], workers: int, ray: str | None, group: int | None) -> Iterator[Message]:
    """Runs the jobs. With a `group`, each `group` successive jobs first train one autoencoder together."""
    if group is not None:
        jobs = yield from _train_together(jobs, group)
    if ray is not None:
        yield from spread_over(_walked, jobs, ray)
    elif workers > 1:
        from raigen.runs.device import gpus_for  # loads torch

        gpus = gpus_for(jobs[0].config.capture.device)
        if 0 < len(gpus) < workers:
            print(f"raigen: {workers} workers share {len(gpus)} GPUs; --workers {len(gpus)} gives each its own",
                  file=sys.stderr)  # fmt: skip
        yield from spread(_walked, jobs, workers, gpus)
    else:
        for job in jobs:
            yield from messages_of(_walked, job)


def _train_together(jobs: Sequence[Job], group: int) -> Generator[Message, None, list[Job]]:
    """Trains one autoencoder for every group of jobs, and yields its steps as steps of the group's first job. Returns
    the jobs that are ready for the other stages."""
    ready = []
    for start in range(0, len(jobs), group):
        together = jobs[start : start + group]
        redo = together[0].redo if together[0].redo in STAGES[:2] else None
        try:
            for step in share([Run.create(job.dir) for job in together], [job.config for job in together], redo):
                yield Message(together[0], step)
        except RaigenError as caught:
            for job in together:
                yield Message(job, is_end=True, error=str(caught))
        else:
            ready += [job._replace(redo=None) if redo else job for job in together]
    return ready


def _walked(job: Job) -> Iterator[Step]:
    """Takes one run through all stages, in whichever process."""
    yield from walk(Run.create(job.dir), job.config, job.redo)


def _write_rates(study: Study, runs: Sequence[Run]) -> None:
    from raigen.auditing.cross_prompt_rates import COLUMNS, cross_prompt_rates  # scipy takes a second to load

    write_text(study.rates_path, csv_text(COLUMNS, cross_prompt_rates(runs)))
