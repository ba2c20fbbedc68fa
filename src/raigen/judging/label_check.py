"""Checks each label on images that had no part in the naming, and tries the annotator's next phrases where it fails."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from raigen.judging.annotate import relabeled
from raigen.judging.judges import asking
from raigen.judging.label_scores import Scored
from raigen.judging.protocol import Judge, Look, StoredImages, Subject, Verdicts
from raigen.judging.rates import presence_of, ratio_of
from raigen.runs.records import Presence, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick

N_TRIES = 3  # the label, and two more phrases


class Try(NamedTuple):
    """A label on trial. `hits` of `n` held-out images in which the neuron fires strongly show it. `fresh_hits` of
    `fresh_n` fresh images show it, too; `fresh_n` is 0 if `hits` is 0, because there was no need to look.

    At the given `confidence`, the first share is at least `low` times the second one; `low` is 0 or more. The label
    holds if `low` is above 1.
    """

    label: str
    hits: int
    n: int
    fresh_hits: int
    fresh_n: int
    low: float
    confidence: float

    @property
    def holds(self) -> bool:
        """Whether the label surely shows more often where the neuron fires strongly."""
        return self.low > 1


class Trial(NamedTuple):
    """A listed neuron with its held-out images, and the same attribute with the label that is tried."""

    one: Scored
    attribute: RareAttribute

    @property
    def subject(self) -> Subject:
        """What a judge looks for."""
        return Subject.of(self.attribute)


class Checked(NamedTuple):
    """The attributes with the labels that stay, the judge's verdicts on the fresh images by subject, also for labels
    that were only tried, and the tries by neuron."""

    attributes: list[RareAttribute]
    fresh: dict[Subject, Verdicts]
    tries: dict[int, list[Try]]


def check_labels(
    run: Run, judge: Judge, scored: Sequence[Scored], fresh: Sequence[Sample], confidence: float
) -> Generator[Tick, None, Checked]:
    """Compares how often each label shows where its neuron fires strongly with how often it shows in fresh images.

    If it is not surely more often there, the annotator's next phrases (`keywords`) are tried, and the first that holds
    becomes the label. The confidence of these tries is raised for their number (Bonferroni), so that one of several
    wrong phrases passes no more often than a single one would. If none holds, the annotator's label stays, with
    `label_holds` False; a label that cannot be checked stays, with None. Yields progress in questions. Raises
    RaigenError when the judge cannot be asked.
    """
    kept = {one.attribute.neuron: one.attribute for one in scored}
    seen: dict[Subject, Verdicts] = {}
    tries: dict[int, list[Try]] = {neuron: [] for neuron in kept}
    waiting = [one for one in scored if one.attribute.label]
    for number in range(N_TRIES):
        trials = list(_trials(run, waiting, number))
        active = yield from _on_active(run, judge, trials)
        # A label that no active image shows cannot hold; of the first ones the rate is measured in any case.
        promising = [trial for trial in trials if number == 0 or active[trial.attribute.neuron].hits]
        subjects = [trial.subject for trial in promising if trial.subject not in seen]
        yield from asking(judge, [Look(StoredImages(run, fresh, "evaluate"), subjects)])
        if subjects:
            seen |= zip(subjects, judge.verdicts(StoredImages(run, fresh, "evaluate"), subjects), strict=True)
        for trial in trials:
            neuron = trial.attribute.neuron
            level = confidence if number == 0 else 1 - (1 - confidence) / (len(_phrases(trial.one.attribute)) - 1)
            found = _try(trial, active.get(neuron), seen.get(trial.subject), level)
            if found is not None:
                tries[neuron].append(found)
                kept[neuron] = replace(trial.attribute if found.holds else trial.one.attribute, label_holds=found.holds)
        waiting = [one for one in waiting if kept[one.attribute.neuron].label_holds is False]
    return Checked(list(kept.values()), seen, tries)


def _phrases(attribute: RareAttribute) -> list[str]:
    """The label, and what else the annotator said."""
    return list(dict.fromkeys([attribute.label or "", *attribute.keywords]))[:N_TRIES]


def _trials(run: Run, waiting: Sequence[Scored], number: int) -> Iterator[Trial]:
    for one in waiting:
        phrases = _phrases(one.attribute)
        if number < len(phrases):
            yield Trial(one, relabeled(run, one.attribute, phrases[number]) if number else one.attribute)


def _on_active(run: Run, judge: Judge, trials: Sequence[Trial]) -> Generator[Tick, None, dict[int, Presence]]:
    """How often the held-out images in which each neuron fires strongly show the label on trial, by neuron."""
    samples, looks = run.all_samples(), {}
    for one, attribute in trials:
        if one.held_out is not None:
            active = StoredImages(run, [samples[index] for index in one.held_out.active])
            looks[attribute.neuron] = Look(active, [Subject.of(attribute)])
    yield from asking(judge, list(looks.values()))
    return {neuron: presence_of(judge.verdicts(*look)[0], 0.95) for neuron, look in looks.items()}


def _try(trial: Trial, active: Presence | None, fresh: Verdicts | None, confidence: float) -> Try | None:
    """The result of a trial; None where the judge scored none of the images on one side."""
    if active is None or not active.n:
        return None
    if fresh is None:
        return Try(trial.subject.label, active.hits, active.n, 0, 0, 0.0, confidence)
    everywhere = presence_of(fresh, confidence)
    ratio = ratio_of(active, everywhere, confidence)
    found = (active.hits, active.n, everywhere.hits, everywhere.n)
    return None if ratio is None else Try(trial.subject.label, *found, ratio.low, confidence)
