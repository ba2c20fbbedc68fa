"""Compares runs: judges every attribute that any of them found in fresh images of all of them."""

import csv
import io
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raigen.comparison.axes import is_model, rates_along, read_axes, rivals_of, table_of_axes
from raigen.comparison.changes import changes_of, verdict_when_asked
from raigen.comparison.matching import Match, match
from raigen.comparison.model_card import export
from raigen.comparison.page import page_of
from raigen.comparison.union import findings_of, given_of, merged
from raigen.comparison.verdicts import Judged, SharedJudge
from raigen.config import CompareConfig
from raigen.config.fields import address_of
from raigen.errors import RaigenError
from raigen.judging.fresh import compared_images, first_seed, n_missing_images, suggested_images
from raigen.judging.judges import CLIP, Verdicts, presence_jobs, presence_of
from raigen.judging.vlm.ask import Plan, open_answers
from raigen.judging.vlm.ask import plan as plan_of
from raigen.report.formatting import duration
from raigen.report.html import fill
from raigen.runs.files import write_text
from raigen.runs.records import Presence
from raigen.runs.run import Run
from raigen.runs.steps import Tick, exhausted, mapped
from raigen.runs.study import Study
from raigen.runs.study_records import CLOSED, COLUMNS, OPEN, Cell, Compared, Comparison, Unlisted, rows
from raigen.world.models import WORLD

Place = tuple[str, str]  # a prompt and a model


def compare(
    runs: Study | str | Path | Sequence[Run | str | Path],
    *,
    study: str | Path | None = None,
    progress: Callable[[Tick], object] | None = None,
    **options: Any,
) -> Study:
    """Compares the runs of a study, or several runs; the study with comparison.json, comparison.csv and report.html.

    `runs` is a study or its folder; or two runs or more, and then `study` names the new folder in which the comparison
    is written. `options` are the fields of `raigen.config.CompareConfig`; `progress` is told every `Tick`. Raises
    RaigenError as `comparing` does.

        study = raigen.compare("studies/professions", judge="clip")
        print(study.table()["q"], study.report_path)
    """
    config, opened = CompareConfig(**options), study_of(runs, study)
    with opened.locked():
        exhausted(comparing(opened, config), progress)
    return opened


def study_of(runs: Study | str | Path | Sequence[Run | str | Path], study: str | Path | None = None) -> Study:
    """The study to compare, made of several runs if need be."""
    if isinstance(runs, Study):
        return runs
    places = [runs] if isinstance(runs, str | Path) else list(runs)
    if len(places) == 1 and isinstance(places[0], str | Path):
        return Study(places[0])
    if study is None:
        raise RaigenError("study: expected a folder for the comparison of single runs; name it with --study DIR")
    opened = [run if isinstance(run, Run) else Run(run) for run in places]
    made = Study.create(study)
    made.adopt(opened)
    return made


def comparing(study: Study, config: CompareConfig) -> Generator[Tick, None, Comparison]:
    """Judges the union of what the runs of a study found, on fresh images with the same seeds, and writes what
    differs, and what closed and open sets find: comparison.json, comparison.csv, axes.csv, verdicts.jsonl, report.html
    and model cards.

    Images that were evaluated are used, further ones are made and kept; no question is paid for twice. Labels of one
    attribute are merged after they were judged. Yields progress in images, then in questions.
    Raises RaigenError when the runs cannot be compared (see `raigen.comparison.matching.match`), a model cannot be
    loaded or asked, or nothing was found.
    """
    runs = study.runs()
    matched = match(runs, config)
    findings, given = findings_of(runs), given_of(runs, config)
    answers = open_answers(study.answers_path, config)
    axes = yield from rivals_of(matched.prompts, answers, config)
    asked = [label for axis in axes for label in axis.labels]
    labels = list(dict.fromkeys([*given, *findings, *asked]))
    if not labels:
        raise RaigenError(f"{study.dir}: no run has a named attribute; there is nothing to compare. Name them with "
                          "another annotator, or give a list with --attributes FILE")  # fmt: skip
    yardstick = SharedJudge(runs, findings, matched.judge, config, axes, (answers.calls, answers.cost))
    judged: dict[Place, Judged] = {}
    for place, run in matched.run_of.items():
        with run.locked():
            judged[place] = yield from mapped(
                _judged(run, matched.n_fresh_images, labels, yardstick), partial(_about, run.dir.name)
            )
    attributes = merged(labels, given, findings, axes, matched, judged, config)
    cells = _cells(attributes, matched, judged, config.confidence)
    shows = {(label, *place): found.verdicts[label].shows for place, found in judged.items() for label in labels}
    changes = changes_of(attributes, shows, matched.prompts, matched.models, config.confidence)
    lone = yield from _lone(attributes, cells, matched, yardstick, config)
    first = first_seed(runs[0].config.capture)
    comparison = Comparison(
        next(iter(judged.values())).verdicts[labels[0]].judge, config.confidence, matched.models[0], matched.prompts,
        matched.models, matched.n_images, matched.n_fresh_images, first, config.drawn_rate, tuple(attributes),
        tuple(cells), tuple(changes), tuple(lone), tuple(rates_along(axes, shows, matched.prompts, matched.models)),
    )  # fmt: skip
    _write(study, comparison, judged, config)
    return comparison


class ComparePlan(NamedTuple):
    """What a comparison would take: verdicts on `n_labels` labels, `n_made` images to make in about `seconds`, at
    most `n_asked` more (about `seconds_asked`) of prompts that ask for an attribute, and what asking models takes."""

    judge: str
    n_runs: int
    n_labels: int
    n_images: int
    n_made: int
    seconds: float
    n_asked: int
    seconds_asked: float
    plans: tuple[Plan, ...]
    is_open: bool

    def __str__(self) -> str:
        more = "; the classes that a model proposes for the open set come on top" if self.is_open else ""
        lines = [
            f"judged by {self.judge}: {self.n_labels:,} labels in {self.n_images:,} images of each of "
            f"{self.n_runs} runs, {self.n_labels * self.n_images * self.n_runs:,} verdicts{more}",
            f"to be made: {self.n_made:,} fresh images, about {duration(self.seconds)}; and at most {self.n_asked:,} "
            f"that are asked for an attribute, about {duration(self.seconds_asked)}",
            *map(str, self.plans),
        ]
        return "\n".join(lines)


def plan(runs: Sequence[Run], config: CompareConfig) -> ComparePlan:
    """What comparing the runs would take, without making, asking or writing anything.

    Seconds are by those that the captures of the same runs took for an image. Raises RaigenError where `comparing`
    would before it begins.
    """
    matched, findings = match(runs, config), findings_of(runs)
    files = [(config.closed_set, CLOSED), (None if _asks(config) else config.open_set, OPEN)]
    axes = [axis for file, approach in files if file for axis in read_axes(file, approach)]
    asked = [label for axis in axes for label in axis.labels]
    labels = list(dict.fromkeys([*given_of(runs, config), *findings, *asked]))
    n, made, asking, plans = matched.n_fresh_images, [], [], []
    for (prompt, model), run in matched.run_of.items():
        pace = run.manifest["stages"]["capture"]["seconds"] / matched.n_images
        made.append((n_missing_images(run, n), pace))
        alone = [label for label, found in findings.items() if prompt in {f.prompt for f in found}
                 and (prompt, model) not in {(f.prompt, f.model) for f in found}]  # fmt: skip
        asking.append((config.n_asked_images * len(alone), pace))
        if matched.judge not in (CLIP, WORLD):
            jobs = presence_jobs(run, (run.samples() * n)[:n], labels)
            plans.append(plan_of(address_of(matched.judge), jobs, open_answers(run.answers_path, config)))
    sums = [(sum(count for count, _ in kind), sum(count * pace for count, pace in kind)) for kind in (made, asking)]
    return ComparePlan(matched.judge, len(runs), len(labels), n, *sums[0], *sums[1], tuple(plans), _asks(config))


def _asks(config: CompareConfig) -> bool:
    return config.open_set is not None and is_model(config.open_set)


def _judged(run: Run, n: int, labels: Sequence[str], yardstick: SharedJudge) -> Generator[Tick, None, Judged]:
    samples = yield from compared_images(run, n)
    return Judged(run, samples, (yield from yardstick.verdicts(run, samples, labels)))


def _about(what: str, tick: Tick) -> Tick:
    return tick._replace(note=what)


def _cells(
    attributes: Sequence[Compared], matched: Match, judged: dict[Place, Judged], confidence: float
) -> list[Cell]:
    return [
        Cell(a.label, prompt, model, a.is_listed(prompt, model),
             presence_of(judged[prompt, model].verdicts[a.label], confidence))
        for a in attributes for prompt in matched.prompts for model in matched.models
    ]  # fmt: skip


def _lone(
    attributes: Sequence[Compared], cells: Sequence[Cell], matched: Match, yardstick: SharedJudge, config: CompareConfig
) -> Generator[Tick, None, list[Unlisted]]:
    """For each attribute that some but not all models list for a prompt, whether the others know it."""
    unasked = {(cell.label, cell.prompt, cell.model): cell.presence for cell in cells}
    found = []
    for attribute in attributes:
        for prompt, model in matched.run_of:
            by_others = [finding for finding in attribute.findings if finding.prompt == prompt]
            if not by_others or attribute.is_listed(prompt, model):
                continue
            here, asked = unasked[attribute.label, prompt, model], by_others[0].suggested_prompt
            presence = None
            if config.n_asked_images and not (here.n and here.low > config.drawn_rate):
                run = matched.run_of[prompt, model]
                ticks = _when_asked(run, asked, attribute.label, yardstick, config)
                presence = yield from mapped(ticks, partial(_about, f"{run.dir.name}: {asked}"))
            verdict = verdict_when_asked(here, presence, config.drawn_rate)
            found.append(Unlisted(attribute.label, prompt, model, asked, presence, verdict))
    return found


def _when_asked(
    run: Run, asked: str, label: str, yardstick: SharedJudge, config: CompareConfig
) -> Generator[Tick, None, Presence]:
    with run.locked():
        samples = yield from suggested_images(run, [asked], config.n_asked_images)
        verdicts = yield from yardstick.verdicts(run, samples[asked], [label])
    return presence_of(verdicts[label], config.confidence)


def _write(study: Study, comparison: Comparison, judged: dict[Place, Judged], config: CompareConfig) -> None:
    entry = json.loads(json.dumps(asdict(comparison)))
    lines = [json.dumps({"label": label, "prompt": prompt, "model": model, "shows": _signs(found.verdicts[label])})
             for (prompt, model), found in judged.items() for label in found.verdicts]  # fmt: skip
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(entry))
    write_text(study.verdicts_path, "".join(line + "\n" for line in lines))
    write_text(study.table_path, buffer.getvalue())
    write_text(study.axes_path, table_of_axes(comparison.axes))
    page = page_of(study, entry, judged, config)
    write_text(study.report_path, fill("study.html.jinja", page))
    export(study, page, {model: judged[entry["prompts"][0], model].run for model in entry["models"]})
    write_text(study.comparison_path, json.dumps(entry, indent=1, ensure_ascii=False))


def _signs(verdicts: Verdicts) -> str:
    """What was said of each image, in the order of the seeds: 1 shows it, 0 does not, ? unscored."""
    return "".join("?" if np.isnan(shown) else str(int(shown)) for shown in verdicts.shows)
