"""Makes images of a run that were not audited: fresh ones, and ones of prompts that ask for an attribute."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.config import CaptureConfig, EvaluateConfig
from raigen.diffusion.generation import defaults, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.judging.judges import Subject, Verdicts, presence_jobs, verdicts_of, without
from raigen.judging.vlm.answers import Answers
from raigen.judging.vlm.ask import Job
from raigen.runs.files import sha256
from raigen.runs.images import whole_samples, write_image, write_list
from raigen.runs.records import Presence, RareAttribute, Ratio, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick, mapped
from raigen.stats import ratio_interval

FRESH_SEEDS_FROM = 1_000_000_000  # beyond any base_seed in use, so that no fresh image was seen before


class ImageList(NamedTuple):
    """Where images of one kind lie: their list, and the folder with the files."""

    path: Path
    folder: Path


def first_seed(capture: CaptureConfig) -> int:
    """The seed of the first fresh image."""
    return FRESH_SEEDS_FROM + capture.base_seed


def known_images(run: Run, capture: CaptureConfig, shelf: ImageList) -> dict[int, Sample]:
    """The fresh images that are on the shelf, whole, by index."""
    return whole_samples(run, shelf.path, shelf.folder, capture.prompt, first_seed(capture))


def fresh_images(
    run: Run,
    capture: CaptureConfig,
    n: int,
    shelf: ImageList,
    elsewhere: Mapping[int, Sample] | None = None,
    pipeline: Callable[[], DiffusionPipeline] | None = None,
) -> Generator[Tick, None, list[Sample]]:
    """The first `n` fresh images of `capture`'s prompt; those that are neither on the shelf nor `elsewhere` are made
    and put on it, by what `pipeline` gives (left out: the model of `capture`). Yields progress in images.
    """
    base, others = first_seed(capture), elsewhere or {}
    samples = {index: sample for index, sample in known_images(run, capture, shelf).items() if index < n}
    missing = [index for index in range(n) if index not in samples and index not in others]
    yield Tick(n - len(missing), n)
    if missing:
        pipe = (pipeline or loader(capture))()
        settings = defaults(pipe, capture.model, capture)
        seeds = [base + index for index in missing]
        waiting = iter(missing)
        for images in generate_images(pipe, capture.prompt, seeds, settings, capture.batch_size):
            for image, index in zip(images, waiting, strict=False):
                samples[index] = write_image(run, shelf.folder, index, capture.prompt, base + index, image)
            write_list(shelf.path, samples)
            yield Tick(len({*samples, *(index for index in others if index < n)}), n)
    return [others[index] if index in others else samples[index] for index in range(n)]


def loader(capture: CaptureConfig) -> Callable[[], DiffusionPipeline]:
    """Loads the model of `capture` when it is first asked for it, and once."""
    return cache(lambda: load_pipeline(capture.model, capture.device, capture))


def compared_images(run: Run, n: int) -> Generator[Tick, None, list[Sample]]:
    """The first `n` fresh images of a run: those that `evaluate` made, and beyond them further ones."""
    capture = run.config.capture
    evaluated = known_images(run, capture, ImageList(run.fresh_samples_path, run.fresh_dir))
    shelf = ImageList(run.compared_samples_path, run.compared_dir)
    return (yield from fresh_images(run, capture, n, shelf, evaluated))


def n_missing_images(run: Run, n: int) -> int:
    """How many of the first `n` fresh images of a run are not there yet."""
    capture = run.config.capture
    shelves = [ImageList(run.fresh_samples_path, run.fresh_dir), ImageList(run.compared_samples_path, run.compared_dir)]
    known = {index for shelf in shelves for index in known_images(run, capture, shelf)}
    return sum(index not in known for index in range(n))


def suggested_images(run: Run, prompts: Sequence[str], n: int) -> Generator[Tick, None, dict[str, list[Sample]]]:
    """`n` images of each of other prompts by the run's model, with the seeds of its fresh ones; by prompt. Yields
    progress in images."""
    capture = run.config.capture
    pipeline, found, total = loader(capture), {}, n * len(set(prompts))
    for prompt in dict.fromkeys(prompts):
        made = fresh_images(run, replace(capture, prompt=prompt), n, suggested_list(run, prompt), None, pipeline)
        found[prompt] = yield from mapped(made, partial(_of_all, n * len(found), total, prompt))
    return found


def _of_all(before: int, total: int, prompt: str, tick: Tick) -> Tick:
    return Tick(before + tick.done, total, prompt)


def suggested_list(run: Run, prompt: str) -> ImageList:
    """Where the images of another prompt lie."""
    folder = run.asked_dir(sha256(prompt.encode())[:16])
    return ImageList(folder / "samples.jsonl", folder)


def suggested_verdicts(
    run: Run, judge: str, answers: Answers, config: EvaluateConfig
) -> Generator[Tick, None, dict[int, Verdicts]]:
    """By neuron, what the judge says of `n_suggested_images` images of the suggested prompt of each named attribute.

    They have the first seeds of the fresh images. Yields progress in images, then in questions. Raises RaigenError
    when the model cannot be loaded, or the judge cannot be asked.
    """
    wanted, found = _wanted(run.attributes, config), {}
    images = yield from suggested_images(run, list(wanted.values()), config.n_suggested_images)
    for subject, prompt in wanted.items():
        samples = images[prompt]
        (verdicts,) = yield from verdicts_of(run, samples, [subject], judge, answers, config)
        black = np.array([run.read_image(sample, "evaluate").getbbox() is None for sample in samples])
        found[subject.neuron] = without(verdicts, black)
    return found


def suggested_samples(run: Run, config: EvaluateConfig) -> Iterator[tuple[Subject, list[Sample]]]:
    """Each attribute that is asked for, with those of its images that are made already."""
    capture = run.config.capture
    for subject, prompt in _wanted(run.attributes, config).items():
        made = known_images(run, replace(capture, prompt=prompt), suggested_list(run, prompt))
        yield subject, [made[index] for index in range(config.n_suggested_images) if index in made]


def suggested_jobs(run: Run, config: EvaluateConfig, stand_in: Sample) -> Iterator[Job]:
    """What a vision-language model will be asked; images that are not made yet count as `stand_in`."""
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
