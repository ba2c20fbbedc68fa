"""Compares runs: judges each attribute that any of them found on fresh images of all of them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raigen.comparison.axes import configured_axes, is_model, rates_along, read_axes, table_of_axes
from raigen.comparison.changes import changes_of, verdict_when_asked
from raigen.comparison.matching import Match, match
from raigen.comparison.model_card import export
from raigen.comparison.page import page_of
from raigen.comparison.spread import distilled_models, spreads_of
from raigen.comparison.union import findings_of, given_of, merged
from raigen.comparison.verdicts import Judged, Pool, SharedJudge
from raigen.config import CompareConfig
from raigen.errors import RaigenError
from raigen.judging.fresh import compared_images, first_seed, loader, n_missing_images, suggested_images
from raigen.judging.judges import StoredImages, Subject, Verdicts, VlmJudge, judge_of
from raigen.judging.rates import presence_of
from raigen.judging.vlm.answers import Answers, Budget
from raigen.judging.vlm.ask import Plan
from raigen.report.formatting import duration
from raigen.report.html import render
from raigen.runs.files import csv_text, json_text, write_text
from raigen.runs.records import Presence
from raigen.runs.run import Run
from raigen.runs.steps import Tell, exhausted
from raigen.runs.study import Study
from raigen.runs.study_records import CLOSED, COLUMNS, OPEN, Axis, Cell, Compared, Comparison, Unlisted, rows

Place = tuple[str, str]  # a prompt and a model


def compare(
    runs: Study | str | Path | Sequence[Run | str | Path],
    *,
    study: str | Path | None = None,
    progress: Tell | None = None,
    **options: Any,
) -> Study:
    """Compares the runs of a study, or several runs; returns the study, with comparison.json and report.html.

    `runs` is a study or its folder; or two or more runs, and then `study` names the new folder for the comparison.
    `options` are the fields of `raigen.config.CompareConfig`; `progress` is called with every `Tick`. Raises
    RaigenError as `comparing` does.

        study = raigen.compare("studies/professions", judge="clip")
        print(study.table()["q"], study.report_path)
    """
    config, opened = CompareConfig(**options), study_of(runs, study)
    with opened.locked():
        comparing(opened, config, progress)
    return opened


def study_of(runs: Study | str | Path | Sequence[Run | str | Path], study: str | Path | None = None) -> Study:
    """The study to compare; several runs become a new one. Raises RaigenError when that has no folder."""
    if isinstance(runs, Study):
        return runs
    places = [runs] if isinstance(runs, str | Path) else list(runs)
    if len(places) == 1 and isinstance(places[0], str | Path):
        if Run.is_at(places[0]):
            raise RaigenError(f"runs: expected a study, or two runs or more; got one run. Compare it with another: "
                              f"raigen compare {places[0]} OTHER_RUN --study DIR")  # fmt: skip
        return Study(places[0])
    if study is None:
        raise RaigenError("study: expected a folder for the comparison of single runs; name it with --study DIR")
    opened = [run if isinstance(run, Run) else Run(run) for run in places]
    made = Study.create(study)
    made.adopt(opened)
    return made


def comparing(study: Study, config: CompareConfig, tell: Tell | None = None) -> Comparison:
    """Judges everything that the runs of a study found on fresh images with the same seeds.

    Writes what differs between models, and what closed and open sets find: comparison.json, comparison.csv, axes.csv,
    verdicts.jsonl, report.html and model cards.

    Images that were evaluated are used, further ones are made and kept; no question is paid for twice. Labels of one
    attribute are merged after they were judged. Raises RaigenError when the runs cannot be compared (see
    `raigen.comparison.matching.match`), a model cannot be loaded or asked, or nothing was found.
    """
    runs = study.runs()
    matched = match(runs, config)
    findings, given = findings_of(runs), given_of(runs, config)
    budget = Budget(config)
    device = runs[0].config.capture.device
    axes = configured_axes(matched.prompts, Answers(study.answers_path, budget), config, device, tell)
    labels = _labels(given, findings, axes)
    if not labels:
        raise RaigenError(f"{study.dir}: no run has a named attribute; there is nothing to compare. Name them with "
                          "another annotator, or give a list with --attributes FILE")  # fmt: skip
    judge = SharedJudge(matched.judge, Pool(runs, findings, axes), config, budget)
    judged = {place: _judged(run, matched.n_fresh_images, labels, judge, tell) for place, run in matched.run_of.items()}
    attributes = merged(labels, given, findings, axes, matched, judged, config)
    cells = _cells(attributes, matched, judged, config.confidence)
    shows = {(label, *place): found.verdicts[label].shows for place, found in judged.items() for label in labels}
    comparison = Comparison(
        judge=next(iter(judged.values())).verdicts[labels[0]].judge,
        confidence=config.confidence, drawn_rate=config.drawn_rate,
        prompts=matched.prompts, models=matched.models, baseline=matched.models[0],
        n_images=matched.n_images, n_fresh_images=matched.n_fresh_images,
        fresh_seeds_from=first_seed(runs[0].config.capture),
        attributes=tuple(attributes), cells=tuple(cells),
        changes=tuple(changes_of(attributes, shows, matched.prompts, matched.models, config.confidence,
                                 distilled_models(matched, config))),
        lone=tuple(_unlisted(attributes, cells, matched, judge, config, tell)),
        axes=tuple(rates_along(axes, shows, matched.prompts, matched.models)),
        spreads=tuple(spreads_of(matched, config.confidence)),
    )  # fmt: skip
    _write(study, comparison, judged, config)
    return comparison


def _labels(given: Sequence[str], findings: Iterable[str], axes: Sequence[Axis]) -> list[str]:
    """What is judged, each label once: what is given, what was found, what axes ask for."""
    return list(dict.fromkeys([*given, *findings, *(label for axis in axes for label in axis.labels)]))


class ComparePlan(NamedTuple):
    """What a comparison would take.

    It judges `n_labels` labels in `n_images` of each run. It makes `n_made` fresh images in about `seconds`, and at
    most `n_asked` images of prompts that name an attribute, in about `seconds_asked`. `plans` says what asking takes.
    """

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

    Seconds are estimated from the captures of the same runs. Raises RaigenError when the runs cannot be compared.
    """
    matched, findings = match(runs, config), findings_of(runs)
    is_open = config.open_set is not None and is_model(config.open_set)
    files = [(config.closed_set, CLOSED), (None if is_open else config.open_set, OPEN)]
    axes = [axis for file, approach in files if file for axis in read_axes(file, approach)]
    labels = _labels(given_of(runs, config), findings, axes)
    subjects = [Subject(label) for label in labels]
    n, made, asked, plans = matched.n_fresh_images, [], [], []
    for (prompt, model), run in matched.run_of.items():
        pace = run.manifest["stages"]["capture"]["seconds"] / matched.n_images
        made.append((n_missing_images(run, n), pace))
        alone = [label for label, found in findings.items() if prompt in {f.prompt for f in found}
                 and (prompt, model) not in {(f.prompt, f.model) for f in found}]  # fmt: skip
        asked.append((config.n_asked_images * len(alone), pace))
        judge = judge_of(matched.judge, run, Answers(run.answers_path, Budget(config)), config)
        if isinstance(judge, VlmJudge):
            stand_ins = StoredImages(run, (run.samples() * n)[:n])
            plans.append(judge.plan(judge.questions(stand_ins, subjects)))
    return ComparePlan(
        judge=matched.judge, n_runs=len(runs), n_labels=len(labels), n_images=n, plans=tuple(plans), is_open=is_open,
        n_made=sum(count for count, _ in made), seconds=sum(count * pace for count, pace in made),
        n_asked=sum(count for count, _ in asked), seconds_asked=sum(count * pace for count, pace in asked),
    )  # fmt: skip


def _judged(run: Run, n: int, labels: Sequence[str], judge: SharedJudge, tell: Tell | None) -> Judged:
    with run.locked():
        tell = _with_note(tell, run.dir.name)
        samples = exhausted(compared_images(run, n), tell)
        return Judged(run, samples, judge.verdicts(run, samples, labels, tell))


def _with_note(tell: Tell | None, note: str) -> Tell | None:
    """`tell` with this note in place of the note of each tick."""
    return None if tell is None else lambda tick: tell(tick._replace(note=note))


def _cells(
    attributes: Sequence[Compared], matched: Match, judged: dict[Place, Judged], confidence: float
) -> list[Cell]:
    return [
        Cell(a.label, prompt, model, a.is_listed(prompt, model),
             presence_of(judged[prompt, model].verdicts[a.label], confidence))
        for a in attributes for prompt in matched.prompts for model in matched.models
    ]  # fmt: skip


def _unlisted(
    attributes: Sequence[Compared], cells: Sequence[Cell], matched: Match, judge: SharedJudge, config: CompareConfig,
    tell: Tell | None,
) -> list[Unlisted]:  # fmt: skip
    """For each attribute that some but not all models list for a prompt, whether the others know it."""
    unasked = {(cell.label, cell.prompt, cell.model): cell.presence for cell in cells}
    found = []
    for attribute in attributes:
        for (prompt, model), run in matched.run_of.items():
            by_others = [finding for finding in attribute.findings if finding.prompt == prompt]
            if not by_others or attribute.is_listed(prompt, model):
                continue
            here, asked, presence = unasked[attribute.label, prompt, model], by_others[0].suggested_prompt, None
            if config.n_asked_images and not (here.n and here.low > config.drawn_rate):
                presence = _when_asked(run, asked, attribute.label, judge, config, tell)
            verdict = verdict_when_asked(here, presence, config.drawn_rate)
            found.append(Unlisted(label=attribute.label, prompt=prompt, model=model, asked=asked, presence=presence,
                                  verdict=verdict))  # fmt: skip
    return found


def _when_asked(
    run: Run, prompt: str, label: str, judge: SharedJudge, config: CompareConfig, tell: Tell | None
) -> Presence | None:
    """How often images of a prompt that names the attribute show it; None if the model does not read the whole
    prompt."""
    with run.locked():
        tell = _with_note(tell, f"{run.dir.name}: {prompt}")
        making = suggested_images(run, [prompt], config.n_asked_images, loader(run))
        samples = exhausted(making, tell).get(prompt)
        if samples is None:
            return None
        return presence_of(judge.verdicts(run, samples, [label], tell)[label], config.confidence)


def _write(study: Study, comparison: Comparison, judged: dict[Place, Judged], config: CompareConfig) -> None:
    entry = json.loads(json.dumps(asdict(comparison)))
    lines = [json.dumps({"label": label, "prompt": prompt, "model": model, "shows": _signs(found.verdicts[label])})
             for (prompt, model), found in judged.items() for label in found.verdicts]  # fmt: skip
    write_text(study.verdicts_path, "".join(line + "\n" for line in lines))
    write_text(study.table_path, csv_text(COLUMNS, rows(entry)))
    write_text(study.axes_path, table_of_axes(comparison.axes))
    page = page_of(study, entry, judged, config)
    write_text(study.report_path, render("study", page))
    export(study, page, {model: judged[entry["prompts"][0], model].run for model in entry["models"]})
    write_text(study.comparison_path, json_text(entry, indent=1))


def _signs(verdicts: Verdicts) -> str:
    """The verdict on each image, in the order of the seeds: 1 shows it, 0 does not, ? unscored."""
    return "".join("?" if np.isnan(shown) else str(int(shown)) for shown in verdicts.shows)
