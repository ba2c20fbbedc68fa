"""Measures how much the guidance of a run hides each attribute."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.config import EvaluateConfig
from raigen.judging.fresh import fresh_images, loose_list
from raigen.judging.judges import asking
from raigen.judging.protocol import Judge, Look, StoredImages, Subject
from raigen.judging.rates import presence_of, ratio_of
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick


class Hidden(NamedTuple):
    """The attributes with their rates at the guidance of discovery, and the files with the images."""

    attributes: list[RareAttribute]
    files: list[Path]


def hidden(
    run: Run,
    judge: Judge,
    attributes: Sequence[RareAttribute],
    config: EvaluateConfig,
    pipeline: Callable[[], DiffusionPipeline],
) -> Generator[Tick, None, Hidden]:
    """The attributes with `loose`, their presence in as many fresh images with the guidance of discovery, and with
    `hidden`, this rate divided by their presence. The fresh images of both kinds have the same seeds.

    Without a guidance of its own for discovery, nothing changes. Yields progress in images, then in questions. Raises
    RaigenError as `evaluate` does.
    """
    guidance = run.config.capture.discovery_guidance
    if guidance is None or not any(one.label for one in attributes):
        return Hidden([*attributes], [])
    stored = loose_list(run)
    samples = yield from fresh_images(run, config.n_fresh_images, stored, pipeline, guidance=guidance)
    look = look_at(run, attributes, samples)
    yield from asking(judge, [look])
    verdicts = dict(zip(look.subjects, judge.verdicts(*look), strict=True))
    measured = []
    for one in attributes:
        if Subject.of(one) in verdicts and one.presence:
            loose = presence_of(verdicts[Subject.of(one)], config.confidence)
            one = replace(one, loose=loose, hidden=ratio_of(loose, one.presence, config.confidence))
        measured.append(one)
    return Hidden(measured, [stored.path, *(run.dir / sample.file for sample in samples)])


def look_at(run: Run, attributes: Sequence[RareAttribute], samples: Sequence[Sample]) -> Look:
    """What a judge looks for in these images: all named attributes."""
    return Look(StoredImages(run, samples, "evaluate"), [Subject.of(one) for one in attributes if one.label])
