"""Measures how often fresh images show each named attribute."""

import csv
import io
import json
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from raigen.config import EvaluateConfig
from raigen.config.fields import address_of
from raigen.judging.calibration import Known, calibrated, calibration_of, read_calibration
from raigen.judging.fresh import (
    ImageList,
    fresh_images,
    known_images,
    ratio_of,
    suggested_jobs,
    suggested_samples,
    suggested_verdicts,
)
from raigen.judging.judges import (
    CLIP,
    Rates,
    Subject,
    Verdicts,
    given_labels,
    is_in_world,
    judges_of,
    presence_jobs,
    presence_of,
    rates_of,
    verdicts_of,
    without,
)
from raigen.judging.label_scores import label_jobs, label_scores
from raigen.judging.vlm.answers import Answers
from raigen.judging.vlm.ask import Plan, open_answers
from raigen.judging.vlm.ask import plan as plan_of
from raigen.runs.files import write_text
from raigen.runs.records import SUGGESTED, Presence, RareAttribute, Sample, suggested_columns
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.world.judge import judge
from raigen.world.models import WORLD
from raigen.world.truth import truth_of

RATES = ("rate", "low", "high", "hits", "n", "unscored", "judge", "interval", "mode")  # of a presence
Given = dict[Subject, Rates]  # the rates of the attributes that came from a file


def evaluate(run: Run, config: EvaluateConfig) -> Generator[Tick, None, Outcome]:
    """Makes images with seeds of their own and counts, per named attribute, how many show it.

    Each judge gives rates of its own; where there are two or more, Krippendorff's alpha says how far they agree. What
    cannot be judged is unscored: it is counted apart and stays out of the rate. Attributes of a file are judged beside
    the discovered ones. Each label is scored on held-out audited images. For the bundled world truth.json says which
    neurons were right. Stopped and started again it keeps the images that are whole, and the answers. Yields progress
    in images, then in questions. Images of each suggested prompt say how often the attribute shows when it is asked
    for.

    Raises RaigenError when annotation has not run, a model cannot be loaded or asked, or a judge cannot judge this run.
    """
    run.require("annotate")
    capture = run.config.capture
    judges, subjects = judges_of(config.judge, capture), _subjects(run, config)
    known = read_calibration(Path(config.calibration)) if config.calibration else []
    answers = open_answers(run.answers_path, config)  # one, so that all judges share the budget
    samples = yield from fresh_images(run, capture, config.n_fresh_images, _fresh_list(run))
    by_judge = []
    for name in judges:
        by_judge.append((yield from verdicts_of(run, samples, subjects, name, answers, config)))
    black = np.array([run.read_image(sample, "evaluate").getbbox() is None for sample in samples])
    by_judge = [[without(verdict, black) for verdict in found] for found in by_judge]
    verdicts = {subject: [found[index] for found in by_judge] for index, subject in enumerate(subjects)}
    given = [subject for subject in subjects if subject.neuron is None]
    asked = yield from suggested_verdicts(run, judges[0], answers, config)
    measured = [_measured(a, verdicts, asked.get(a.neuron), config.confidence, known) for a in run.attributes]
    scores = yield from label_scores(run, judges[0], answers, config)
    write_text(run.label_scores_path, "".join(json.dumps(score) + "\n" for score in scores))
    write_text(run.judgements_path, judgments(samples, verdicts))
    write_text(run.presence_path, table(measured, {s: rates_of(verdicts[s], config.confidence) for s in given}))
    run.write_attributes(measured)
    outputs = [run.fresh_samples_path, run.judgements_path, run.presence_path, run.label_scores_path]
    outputs += [run.dir / sample.file for sample in samples]
    outputs += [run.dir / sample.file for _, made in suggested_samples(run, config) for sample in made]
    if is_in_world(capture):
        outputs.append(_write_truth(run, measured))
    names = list(dict.fromkeys(verdict.judge for found in verdicts.values() for verdict in found))
    facts = {
        "judge": ", ".join(names), "n_fresh_images": len(samples), "fresh_seeds_from": samples[0].seed,
        "n_given_attributes": len(given),
        "n_unscored": unscored_by_reason([*chain(*verdicts.values()), *asked.values()]),
        "answers": _usages(judges, answers),
    }  # fmt: skip
    return Outcome(outputs, facts)


def plan(run: Run, config: EvaluateConfig) -> list[Plan]:
    """What asking the vision-language judges would take, without asking. Images that are not made yet count as one
    of the audited ones."""
    run.require("annotate")
    capture = run.config.capture
    made = known_images(run, capture, _fresh_list(run))
    stand_in = run.samples()[0]
    samples = [made.get(index, stand_in) for index in range(config.n_fresh_images)]
    labels = list(dict.fromkeys(subject.label for subject in _subjects(run, config)))
    answers, plans, judges = open_answers(run.answers_path, config), [], judges_of(config.judge, capture)
    for name in judges:
        if name not in (CLIP, WORLD):
            jobs = presence_jobs(run, samples, labels)
            if name == judges[0]:
                jobs = chain(jobs, suggested_jobs(run, config, stand_in), label_jobs(run, config))
            plans.append(plan_of(address_of(name), jobs, answers))
    return plans


def _subjects(run: Run, config: EvaluateConfig) -> list[Subject]:
    """What is looked for: the named attributes, then those of the file."""
    found = [Subject(a.label, a.neuron, a.top_images) for a in run.attributes if a.label]
    if config.attributes is None:
        return found
    return found + [Subject(label) for label in given_labels(config.attributes)]


def _fresh_list(run: Run) -> ImageList:
    return ImageList(run.fresh_samples_path, run.fresh_dir)


def unscored_by_reason(verdicts: Sequence[Verdicts]) -> dict[str, int]:
    """How many verdicts are missing, by judge and reason."""
    counts: dict[str, int] = {}
    for verdict in verdicts:
        for reason in (verdict.why or {}).values():
            short = f"{verdict.judge}: {reason.split(':')[0]}"  # what follows a colon differs from case to case
            counts[short] = counts.get(short, 0) + 1
    return counts


def _usages(judges: Sequence[str], answers: Answers) -> dict[str, dict[str, Any]]:
    """What the vision-language judges took, for the run card."""
    addresses = [address_of(name) for name in judges if name not in (CLIP, WORLD)]
    return {address.name: answers.usage(address.model)._asdict() for address in addresses}


def _measured(
    attribute: RareAttribute,
    verdicts: dict[Subject, list[Verdicts]],
    asked: Verdicts | None,
    confidence: float,
    known: Sequence[Known],
) -> RareAttribute:
    """The attribute with its rates, or with none where it has no label."""
    subject = Subject(attribute.label or "", attribute.neuron, attribute.top_images)
    if subject not in verdicts:
        return replace(attribute, presence=None, other_presences=(), judges_alpha=None, corrected=(), suggested=None,
                       ratio=None)  # fmt: skip
    (first, *others), alpha = rates_of(verdicts[subject], confidence)
    corrected = calibrated(first, calibration_of(known, subject.label, first.judge), confidence)
    suggested = None if asked is None else presence_of(asked, confidence)
    return replace(
        attribute, presence=first, other_presences=tuple(others), judges_alpha=alpha,
        corrected=(corrected,) if corrected else (), suggested=suggested,
        ratio=None if suggested is None else ratio_of(suggested, first, confidence),
    )  # fmt: skip


def judgments(samples: Sequence[Sample], verdicts: dict[Subject, list[Verdicts]]) -> str:
    """judgements.jsonl: a line for every attribute, judge and image; `shows` is null where it was not scored."""
    lines = []
    for subject, verdict in ((subject, verdict) for subject, found in verdicts.items() for verdict in found):
        name, shows, confidence, why = verdict
        for index, (sample, shown, sure) in enumerate(zip(samples, shows, confidence, strict=True)):
            line = {"file": sample.file, "seed": sample.seed, "neuron": subject.neuron, "label": subject.label}
            line |= {"judge": name, "shows": None if np.isnan(shown) else bool(shown)}
            line["confidence"] = None if np.isnan(sure) else round(float(sure), 4)
            if np.isnan(shown):
                line["why"] = (why or {}).get(index, "unscored")
            lines.append(json.dumps(line))
    return "".join(line + "\n" for line in lines)


def table(attributes: Sequence[RareAttribute], given: Given | None = None) -> str:
    """presence.csv: a line per attribute, judge and mode, discovered ones first; a given one has no rank and neuron.

    How often it shows when it is asked for stands on every line of an attribute.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rank", "neuron", "label", *RATES, "judges_alpha", *SUGGESTED])
    for a in attributes:
        for presence in (a.presence, *a.other_presences, *a.corrected):
            if presence is not None:
                writer.writerow([a.rank, a.neuron, a.label, *_rate(presence, a.judges_alpha), *suggested_columns(a)])
    for subject, (presences, alpha) in (given or {}).items():
        for presence in presences:
            writer.writerow(["", "", subject.label, *_rate(presence, alpha), *[""] * len(SUGGESTED)])
    return buffer.getvalue()


def _rate(presence: Presence, alpha: float | None) -> list[Any]:
    return [*(getattr(presence, name) for name in RATES), "" if alpha is None else f"{alpha:.4f}"]


def _write_truth(run: Run, attributes: Sequence[RareAttribute]):
    samples = run.samples()
    index_of = {sample.file: sample.index for sample in samples}
    judgment = judge([run.read_image(sample) for sample in samples])
    top = [[index_of[file] for file in attribute.top_images] for attribute in attributes]
    prompt = run.config.capture.prompt
    truth = truth_of(judgment, top, [attribute.neuron for attribute in attributes], prompt)
    write_text(run.truth_path, json.dumps(truth, indent=1))
    return run.truth_path
