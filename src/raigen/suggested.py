"""Looks at pictures of the suggested prompts: can the model show an attribute when it is asked to?"""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np

from raigen.answers import Answers
from raigen.config import CaptureConfig, EvaluateConfig
from raigen.fresh import asked_pictures, asked_shelf, known_pictures
from raigen.judges import Subject, Verdicts, presence_jobs, verdicts_of, without
from raigen.records import Presence, RareAttribute, Ratio, Sample, Tick
from raigen.run import Run
from raigen.stats import ratio_interval
from raigen.vlm import Job


def suggested_verdicts(
    run: Run, judge: str, answers: Answers, config: EvaluateConfig
) -> Generator[Tick, None, dict[int, Verdicts]]:
    """By neuron, what the judge says of `n_suggested_images` pictures of the suggested prompt of each named attribute.

    They have the first seeds of the fresh pictures. Yields progress in pictures, then in questions. Raises RaigenError
    when the model cannot be loaded, or the judge cannot be asked.
    """
    wanted, found = _wanted(run.attributes, config), {}
    pictures = yield from asked_pictures(run, list(wanted.values()), config.n_suggested_images)
    for subject, prompt in wanted.items():
        samples = pictures[prompt]
        (verdicts,) = yield from verdicts_of(run, samples, [subject], judge, answers, config)
        black = np.array([run.read_image(sample, "evaluate").getbbox() is None for sample in samples])
        found[subject.neuron] = without(verdicts, black)
    return found


def suggested_samples(run: Run, config: EvaluateConfig) -> Iterator[tuple[Subject, list[Sample]]]:
    """Each attribute that is asked for, with those of its pictures that are made already."""
    capture: CaptureConfig = run.config_of("capture")
    for subject, prompt in _wanted(run.attributes, config).items():
        made = known_pictures(run, replace(capture, prompt=prompt), asked_shelf(run, prompt))
        yield subject, [made[index] for index in range(config.n_suggested_images) if index in made]


def suggested_jobs(run: Run, config: EvaluateConfig, stand_in: Sample) -> Iterator[Job]:
    """What a vision-language model will be asked; pictures that are not made yet count as `stand_in`."""
    for subject, made in suggested_samples(run, config):
        missing = config.n_suggested_images - len(made)
        yield from presence_jobs(run, [*made, *[stand_in] * missing], [subject.label])


def ratio_of(suggested: Presence, bare: Presence, confidence: float) -> Ratio | None:
    """How many times as often the attribute shows when it is asked for; None where a rate was not measured."""
    if not suggested.n or not bare.n:
        return None
    low, high, _ = ratio_interval(suggested.hits, suggested.n, bare.hits, bare.n, confidence)
    return Ratio(suggested.rate / bare.rate if bare.hits else None, low, None if math.isinf(high) else high)


def _wanted(attributes: Sequence[RareAttribute], config: EvaluateConfig) -> dict[Subject, str]:
    """The named attributes with the prompts that ask for them."""
    if not config.n_suggested_images:
        return {}
    return {
        Subject(a.label, a.neuron, a.top_images): a.suggested_prompt
        for a in attributes
        if a.label and a.suggested_prompt
    }
