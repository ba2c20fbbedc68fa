"""Measures how often fresh images show each named attribute."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.config import EvaluateConfig
from raigen.discovery.codes import fires
from raigen.judging.annotate import as_annotated
from raigen.judging.calibration import Known, calibrated, calibration_of, caution, read_calibration
from raigen.judging.fresh import fresh_images, fresh_list, known_images, loader, suggested_images, suggested_list
from raigen.judging.held_back import held_back, look_at
from raigen.judging.judges import VlmJudge, asking, given_labels, judges_of, truth_of_run, world_shown
from raigen.judging.label_check import Checked, check_labels
from raigen.judging.label_scores import Material, Scored, label_looks, label_scores, material_of, scored_labels
from raigen.judging.own_judges import FileJudge, sources_of
from raigen.judging.presence_table import table
from raigen.judging.protocol import Judge, Look, StoredImages, Subject, Verdicts
from raigen.judging.rates import covers_more, presence_of, rates_of, ratio_of, unscored_by_reason
from raigen.judging.sampling import n_judged, sampled
from raigen.judging.vlm.answers import Answers, Budget
from raigen.judging.vlm.ask import Plan
from raigen.runs.files import write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick


class Inputs(NamedTuple):
    """What is judged: fresh images for all `subjects`, images of each suggested prompt for the subject that it names,
    and audited images for the label scores. All judges see the fresh images; only the first one sees the rest."""

    subjects: list[Subject]
    fresh: list[Sample]
    suggested: dict[Subject, list[Sample]]
    material: Material
    scored: list[Scored]

    def looks(self, run: Run, is_first: bool) -> Iterator[Look]:
        """What a judge looks at."""
        yield Look(StoredImages(run, self.fresh, "evaluate"), self.subjects)
        if is_first:
            for subject, samples in self.suggested.items():
                yield Look(StoredImages(run, samples, "evaluate"), [subject])
            yield from label_looks(run, self.material, self.scored)


class Found(NamedTuple):
    """What the judges say: on the fresh images, by subject, one entry per judge; on the images of the suggested
    prompts, by subject; and the lines of label_scores.jsonl."""

    verdicts: dict[Subject, list[Verdicts]]
    suggested: dict[Subject, Verdicts]
    scores: list[dict[str, Any]]


def evaluate(run: Run, config: EvaluateConfig) -> Generator[Tick, None, Outcome]:
    """Makes fresh images and counts, for each named attribute, how many show it.

    Each judge gives its own rates; with two or more, Krippendorff's alpha says how far they agree. What cannot be
    judged is unscored: it is counted separately and stays out of the rate. Attributes of a file are judged beside the
    discovered ones. Images of each suggested prompt say how often the attribute shows when the prompt names it. The
    first judge checks each label on held-out audited images; one that does not hold there gives way to the annotator's
    next phrase that does (`raigen.judging.label_check`). For the planted world, truth.json says which neurons were
    right. If discovery had a guidance of its own, fresh images with it say how much the run's guidance holds back.

    Started again after a stop it keeps the images that are whole, and the answers. Yields progress in images, then in
    questions. Raises RaigenError when annotation has not run, a model cannot be loaded or asked, or a judge cannot
    judge this run.
    """
    run.require("annotate")
    known = read_calibration(Path(config.calibration)) if config.calibration is not None else []
    judges = judges_of(config.judge, run, Answers(run.answers_path, Budget(config)), config)
    attributes, material = as_annotated(run), material_of(run)
    pipeline = loader(run)
    fresh = yield from fresh_images(run, config.n_fresh_images, fresh_list(run), pipeline)
    judges = [sampled(judge, run, fresh, config) for judge in judges]
    yield from _suggested(run, attributes, config, pipeline)
    del pipeline  # a judge may need its memory
    scored = scored_labels(run, attributes, material, config)
    checked = yield from check_labels(run, judges[0], scored, fresh, config.confidence)
    suggested = yield from _suggested(run, checked.attributes, config, loader(run))  # a new label has its own prompt
    scored = scored_labels(run, checked.attributes, material, config)
    inputs = Inputs(_subjects(checked.attributes, config), fresh, suggested, material, scored)
    for judge in judges:
        yield from asking(judge, list(inputs.looks(run, judge is judges[0])))
    found = _judge(run, judges, inputs, checked, config)
    measured = [_measured(attribute, found, config.confidence, known, material) for attribute in checked.attributes]
    loosely = yield from held_back(run, judges[0], measured, config, loader(run))
    files = [judge for judge in judges if isinstance(judge, FileJudge)]
    for judge in files:
        judge.finish()
    outputs = [*_write(run, config, inputs, found, loosely.attributes), *loosely.files]
    facts = {
        "judge": ", ".join(dict.fromkeys(one.judge for verdicts in found.verdicts.values() for one in verdicts)),
        "n_fresh_images": len(fresh),
        "fresh_seeds_from": fresh[0].seed,
        "n_judged": {judge.name: n_judged(judge, config, len(fresh)) for judge in judges},
        "n_given_attributes": sum(subject.neuron is None for subject in inputs.subjects),
        "n_unscored": unscored_by_reason([*chain(*found.verdicts.values()), *found.suggested.values()]),
        "answers": {judge.name: judge.usage._asdict() for judge in judges if isinstance(judge, VlmJudge)},
        "sources": sources_of(judges),
        "cut_prompts": _cut_prompts(checked.attributes, suggested, config),
        "unjudged": {judge.source.path: [sum(judge.asked.values()), len(judge.asked)] for judge in files},
        "judge_errors": _errors(found, known),
    }
    if config.calibration:
        facts["calibration_cautions"] = _cautions(measured, known)
    return Outcome(outputs, facts)


def plan(run: Run, config: EvaluateConfig) -> list[Plan]:
    """What asking the vision-language judges would take, without asking. An audited image stands in for each image that
    is not made yet."""
    run.require("annotate")
    judges = judges_of(config.judge, run, Answers(run.answers_path, Budget(config)), config)
    stand_in = run.samples()[0]
    made = known_images(run, fresh_list(run))
    fresh = [made.get(index, stand_in) for index in range(config.n_fresh_images)]
    suggested = {}
    attributes = as_annotated(run)
    for subject, prompt in _suggested_prompts(attributes, config).items():
        made = known_images(run, suggested_list(run, prompt), prompt)
        suggested[subject] = [made.get(index, stand_in) for index in range(config.n_suggested_images)]
    material = material_of(run)
    scored = scored_labels(run, attributes, material, config)
    inputs = Inputs(_subjects(attributes, config), fresh, suggested, material, scored)
    has_loose = run.config.capture.discovery_guidance is not None
    loose = [look_at(run, attributes, [stand_in] * config.n_fresh_images)] if has_loose else []
    plans = []
    for judge in (judge for judge in judges if isinstance(judge, VlmJudge)):
        seen = inputs._replace(fresh=fresh[: n_judged(judge, config, len(fresh))])  # the draw needs the images
        looks = [*seen.looks(run, judge is judges[0]), *(loose if judge is judges[0] else [])]
        plans.append(judge.plan(chain.from_iterable(judge.questions(*look) for look in looks)))
    return plans


def _suggested(
    run: Run, attributes: Sequence[RareAttribute], config: EvaluateConfig, pipeline: Callable[[], DiffusionPipeline]
) -> Generator[Tick, None, dict[Subject, list[Sample]]]:
    """The images of the suggested prompts, by subject; not of prompts that the model would cut. `pipeline` is loaded
    only if some are missing."""
    prompts = _suggested_prompts(attributes, config)
    made = yield from suggested_images(run, list(prompts.values()), config.n_suggested_images, pipeline)
    return {subject: made[prompt] for subject, prompt in prompts.items() if prompt in made}


def _judge(run: Run, judges: Sequence[Judge], inputs: Inputs, checked: Checked, config: EvaluateConfig) -> Found:
    fresh = StoredImages(run, inputs.fresh, "evaluate")
    given = [subject for subject in inputs.subjects if subject not in checked.fresh]
    first = checked.fresh | dict(zip(given, judges[0].verdicts(fresh, given) if given else [], strict=True))
    others = [judge.verdicts(fresh, inputs.subjects) for judge in judges[1:]]
    by_judge = [[first[subject] for subject in inputs.subjects], *others]
    suggested = {
        subject: judges[0].verdicts(StoredImages(run, samples, "evaluate"), [subject])[0]
        for subject, samples in inputs.suggested.items()
    }
    verdicts = {subject: [found[index] for found in by_judge] for index, subject in enumerate(inputs.subjects)}
    scores = label_scores(run, judges[0], inputs.material, inputs.scored, config)
    tries = [[one._asdict() | {"holds": one.holds} for one in checked.tries[score["neuron"]]] for score in scores]
    return Found(verdicts, suggested, [score | {"tries": own} for score, own in zip(scores, tries, strict=True)])


def _subjects(attributes: Sequence[RareAttribute], config: EvaluateConfig) -> list[Subject]:
    """The attributes to look for: the named ones, then the ones in the file."""
    given = given_labels(config.attributes) if config.attributes is not None else []
    return [*(Subject.of(attribute) for attribute in attributes if attribute.label), *map(Subject, given)]


def _suggested_prompts(attributes: Sequence[RareAttribute], config: EvaluateConfig) -> dict[Subject, str]:
    """The prompts that name an attribute; none where no images of them are wanted."""
    if not config.n_suggested_images:
        return {}
    return {Subject.of(a): a.suggested_prompt for a in attributes if a.label and a.suggested_prompt}


def _cut_prompts(
    attributes: Sequence[RareAttribute], suggested: Mapping[Subject, Any], config: EvaluateConfig
) -> list[str]:
    """The suggested prompts of which no images were made, because the model would cut them."""
    prompts = _suggested_prompts(attributes, config).items()
    return [prompt for subject, prompt in prompts if subject not in suggested]


def _measured(
    attribute: RareAttribute, found: Found, confidence: float, known: Sequence[Known], material: Material
) -> RareAttribute:
    """The attribute with its rates, or with none where it has no label."""
    subject = Subject.of(attribute)
    if subject not in found.verdicts:
        return attribute.unmeasured()
    fired = float(fires(material.codes_of(attribute)[: len(material.codes), None]).mean())
    (first, *others), alpha = rates_of(found.verdicts[subject], confidence)
    corrected = calibrated(first, calibration_of(known, subject.label, first.judge), confidence)
    suggested = presence_of(found.suggested[subject], confidence) if subject in found.suggested else None
    return replace(
        attribute, presence=first, other_presences=tuple(others), judges_alpha=alpha,
        corrected=(corrected,) if corrected else (), suggested=suggested,
        ratio=None if suggested is None else ratio_of(suggested, first, confidence),
        covers_more=covers_more(first, attribute.frequency, fired, len(material.codes), confidence),
    )  # fmt: skip


def _errors(found: Found, known: Sequence[Known]) -> dict[str, dict[str, list[float]]]:
    """What is known of the errors of each judge, by label: the numbers of a `Calibration`."""
    errors: dict[str, dict[str, list[float]]] = {}
    for subject, verdicts in found.verdicts.items():
        for one in verdicts:
            counts = one.errors or calibration_of(known, subject.label, one.judge)
            if counts.positives or counts.negatives:
                errors.setdefault(one.judge, {})[subject.label] = list(counts)
    return errors


def _cautions(measured: Sequence[RareAttribute], known: Sequence[Known]) -> list[str]:
    """What a person must know about the calibrations, a line for each."""
    judged = [(a.label, a.presence) for a in measured if a.label and a.presence and a.presence.n]
    found = (caution(label, raw, calibration_of(known, label, raw.judge)) for label, raw in judged)
    return [line for line in found if line]


def _write(
    run: Run, config: EvaluateConfig, inputs: Inputs, found: Found, measured: Sequence[RareAttribute]
) -> list[Path]:
    """Writes what was measured; the paths of all that the stage made."""
    given = {
        subject.label: rates_of(verdicts, config.confidence)
        for subject, verdicts in found.verdicts.items() if subject.neuron is None
    }  # fmt: skip
    write_text(run.label_scores_path, "".join(json.dumps(score) + "\n" for score in found.scores))
    write_text(run.judgements_path, judgments(inputs.fresh, found.verdicts))
    write_text(run.presence_path, table(measured, given))
    run.write_attributes(measured)
    outputs = [run.fresh_samples_path, run.judgements_path, run.presence_path, run.label_scores_path]
    outputs += [run.dir / sample.file for sample in chain(inputs.fresh, *inputs.suggested.values())]
    if world := world_shown(run.config.capture):
        write_text(run.truth_path, json.dumps(truth_of_run(run, world), indent=1))
        outputs.append(run.truth_path)
    return outputs


def judgments(samples: Sequence[Sample], verdicts: Mapping[Subject, Sequence[Verdicts]]) -> str:
    """judgements.jsonl: a line for every attribute, judge and image that it was to see; `shows` is null where it was
    not scored. `chance` is that of an image that was drawn."""
    lines = []
    for subject, verdict in ((subject, verdict) for subject, found in verdicts.items() for verdict in found):
        rows = zip(samples, verdict.shows, verdict.confidence, strict=True)
        for index, (sample, shown, sure) in enumerate(rows):
            chance = 1.0 if verdict.chances is None else float(verdict.chances[index])
            if chance == 0:
                continue
            line = {"file": sample.file, "seed": sample.seed, "neuron": subject.neuron, "label": subject.label}
            line |= {"judge": verdict.judge, "shows": None if np.isnan(shown) else bool(shown)}
            line |= {} if verdict.chances is None else {"chance": round(chance, 6)}
            line["confidence"] = None if np.isnan(sure) else round(float(sure), 4)
            if np.isnan(shown):
                line["why"] = (verdict.why or {}).get(index, "unscored")
            lines.append(json.dumps(line) + "\n")
    return "".join(lines)
