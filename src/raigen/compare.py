"""Compares runs: judges every attribute that any of them found in fresh pictures of all of them."""

import csv
import io
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from raigen.axes import rates_along, table_of_axes
from raigen.comparisons import COLUMNS, Axis, Cell, Compared, Comparison, Finding, Lone, Merged, OnAxis, rows
from raigen.config import CompareConfig
from raigen.contrast import changes_of, verdict_when_asked
from raigen.embed import Embedder
from raigen.errors import RaigenError
from raigen.fresh import asked_pictures, compared_pictures, first_seed
from raigen.judges import CLIP, Verdicts, given_labels
from raigen.judging import presence_of
from raigen.markup import fill
from raigen.matching import Match, match
from raigen.records import Presence, Tick, exhausted, mapped
from raigen.rivals import rivals_of
from raigen.run import Run, write_text
from raigen.stats import krippendorff_alpha
from raigen.study import Study
from raigen.study_cards import export
from raigen.study_page import page_of
from raigen.synonyms import Group, merge
from raigen.vlm import open_answers
from raigen.yardstick import Judged, Yardstick, directions, place_of

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
    """Judges the union of what the runs of a study found, on fresh pictures with the same seeds, and writes what
    differs: comparison.json, comparison.csv, verdicts.jsonl and report.html.

    Pictures that were evaluated are used, further ones are made and kept; no question is paid for twice. Labels of one
    attribute are merged after they were judged. Yields progress in pictures, then in questions.
    Raises RaigenError when the runs cannot be compared (see `raigen.matching.match`), a model cannot be loaded or
    asked, or nothing was found.
    """
    runs = study.runs()
    matched = match(runs, config)
    findings, given = _findings(runs), _given(runs, config)
    axes = yield from rivals_of(matched.prompts, open_answers(study.answers_path, config), config)
    asked = [label for axis in axes for label in axis.labels]
    labels = list(dict.fromkeys([*given, *findings, *asked]))
    if not labels:
        raise RaigenError(f"{study.dir}: no run has a named attribute; there is nothing to compare. Name them with "
                          "another annotator, or give a list with --attributes FILE")  # fmt: skip
    yardstick = Yardstick(runs, findings, matched.judge, config, axes)
    judged: dict[Place, Judged] = {}
    for place, run in matched.run_of.items():
        with run.locked():
            judged[place] = yield from mapped(
                _judged(run, matched.n_fresh_images, labels, yardstick), partial(_about, run.dir.name)
            )
    attributes = _merged(labels, given, findings, axes, matched, judged, config)
    cells = _cells(attributes, matched, judged, config.confidence)
    shows = {(label, *place): found.verdicts[label].shows for place, found in judged.items() for label in labels}
    changes = changes_of(attributes, shows, matched.prompts, matched.models, config.confidence)
    lone = yield from _lone(attributes, cells, matched, yardstick, config)
    first = first_seed(runs[0].config_of("capture"))
    comparison = Comparison(
        next(iter(judged.values())).verdicts[labels[0]].judge, config.confidence, matched.models[0], matched.prompts,
        matched.models, matched.n_images, matched.n_fresh_images, first, config.drawn_rate, tuple(attributes),
        tuple(cells), tuple(changes), tuple(lone), tuple(rates_along(axes, shows, matched.prompts, matched.models)),
    )  # fmt: skip
    _write(study, comparison, judged, config)
    return comparison


def _judged(run: Run, n: int, labels: Sequence[str], yardstick: Yardstick) -> Generator[Tick, None, Judged]:
    samples = yield from compared_pictures(run, n)
    return Judged(run, samples, (yield from yardstick.verdicts(run, samples, labels)))


def _about(what: str, tick: Tick) -> Tick:
    return tick._replace(note=what)


def _findings(runs: Sequence[Run]) -> dict[str, list[Finding]]:
    """What the runs list, by label."""
    found: dict[str, list[Finding]] = {}
    for run in runs:
        prompt, model = place_of(run)
        for a in run.attributes:
            if a.label:
                asked = a.suggested_prompt or f"{prompt}, {a.label}"
                finding = Finding(prompt, model, a.rank, a.neuron, a.label, a.minority_score, asked)
                found.setdefault(a.label, []).append(finding)
    return found


def _given(runs: Sequence[Run], config: CompareConfig) -> list[str]:
    """The attributes of files: of this comparison's, and of those with which the runs were evaluated."""
    found = given_labels(config.attributes) if config.attributes else []
    for run in runs:
        table = csv.DictReader(io.StringIO(run.read_text(run.presence_path, "evaluate")))
        found += [row["label"] for row in table if not row["neuron"]]
    return list(dict.fromkeys(found))


def _merged(
    labels: Sequence[str],
    given: Sequence[str],
    findings: dict[str, list[Finding]],
    axes: Sequence[Axis],
    matched: Match,
    judged: dict[Place, Judged],
    config: CompareConfig,
) -> list[Compared]:
    """The labels as attributes: given ones first, then by the best score, those that no picture was judged on last;
    what only an axis asks for comes after all that was found.

    CLIP's verdicts on labels with near texts agree whatever the pictures show, for they are made of the texts: where it
    judges, only texts that are the same are merged. A row too many does less harm than a finding that is gone.
    """
    best = {label: max((f.minority_score for f in findings.get(label, [])), default=0.0) for label in labels}
    is_blank = {label: all(np.isnan(one.verdicts[label].shows).all() for one in judged.values()) for label in labels}
    found = [label for label in labels if label not in given]
    order = [*given, *sorted(found, key=lambda label: (label not in findings, is_blank[label], -best[label]))]
    run = next(iter(matched.run_of.values()))
    ways = directions(Embedder(run.facts_of("discover")["embedder"]), matched.prompts[0], order)

    def agreement(first: int, second: int) -> float | None:
        if matched.judge == CLIP:
            return None
        both = ([one.verdicts[order[index]].shows for one in judged.values()] for index in (first, second))
        return krippendorff_alpha(np.stack([np.concatenate(shows) for shows in both]))

    groups = merge(order, ways @ ways.T, agreement, config.min_similarity, config.min_agreement)
    return [_compared(group, order, given, findings, axes) for group in groups]


def _compared(
    group: Group, order: Sequence[str], given: Sequence[str], findings: dict[str, list[Finding]], axes: Sequence[Axis]
) -> Compared:
    merged = tuple(Merged(order[index], near, agreed) for index, near, agreed in group.others)
    names = [order[group.head], *(other.label for other in merged)]
    found = [finding for name in names for finding in findings.get(name, [])]
    on = [OnAxis(axis.approach, axis.name, name, axis.prompt) for axis in axes for name in names if name in axis.labels]
    return Compared(names[0], names[0] in given, merged, tuple(found), tuple(on))


def _cells(
    attributes: Sequence[Compared], matched: Match, judged: dict[Place, Judged], confidence: float
) -> list[Cell]:
    return [
        Cell(a.label, prompt, model, a.is_listed(prompt, model),
             presence_of(judged[prompt, model].verdicts[a.label], confidence))
        for a in attributes for prompt in matched.prompts for model in matched.models
    ]  # fmt: skip


def _lone(
    attributes: Sequence[Compared], cells: Sequence[Cell], matched: Match, yardstick: Yardstick, config: CompareConfig
) -> Generator[Tick, None, list[Lone]]:
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
            found.append(Lone(attribute.label, prompt, model, asked, presence, verdict))
    return found


def _when_asked(
    run: Run, asked: str, label: str, yardstick: Yardstick, config: CompareConfig
) -> Generator[Tick, None, Presence]:
    with run.locked():
        samples = yield from asked_pictures(run, asked, config.n_asked_images)
        verdicts = yield from yardstick.verdicts(run, samples, [label])
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
    """What was said of each picture, in the order of the seeds: 1 shows it, 0 does not, ? unscored."""
    return "".join("?" if np.isnan(shown) else str(int(shown)) for shown in verdicts.shows)
