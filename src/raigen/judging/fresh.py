"""Makes further images of a run's model: fresh ones of the same prompt, and ones of suggested prompts."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.config import CaptureConfig
from raigen.diffusion.checks import unread_tokens
from raigen.diffusion.generation import generate_images
from raigen.diffusion.recorded import recorded_pipeline, recorded_settings
from raigen.runs.files import sha256
from raigen.runs.images import whole_samples, write_image, write_list
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick, mapped

FRESH_SEEDS_FROM = 1_000_000_000  # beyond any base_seed in use, so that no fresh image was seen before


class ImageList(NamedTuple):
    """Where images of one kind lie: their list, and the folder with the files."""

    path: Path
    folder: Path


def fresh_list(run: Run) -> ImageList:
    """Where the fresh images of `evaluate` lie."""
    return ImageList(run.fresh_samples_path, run.fresh_dir)


def compared_list(run: Run) -> ImageList:
    """Where the fresh images lie that only a comparison needed."""
    return ImageList(run.compared_samples_path, run.compared_dir)


def suggested_list(run: Run, prompt: str) -> ImageList:
    """Where the images of a suggested prompt lie."""
    folder = run.asked_dir(sha256(prompt.encode())[:16])
    return ImageList(folder / "samples.jsonl", folder)


def loose_list(run: Run) -> ImageList:
    """Where the fresh images with the guidance of discovery lie."""
    folder = run.asked_dir("discovery-guidance")
    return ImageList(folder / "samples.jsonl", folder)


def first_seed(capture: CaptureConfig) -> int:
    """The seed of the first fresh image."""
    return FRESH_SEEDS_FROM + capture.base_seed


def known_images(run: Run, stored: ImageList, prompt: str | None = None) -> dict[int, Sample]:
    """The whole images of a list, by index. They are of the run's prompt unless another `prompt` is given."""
    capture = run.config.capture
    return whole_samples(run, stored.path, stored.folder, prompt or capture.prompt, first_seed(capture))


def loader(run: Run) -> Callable[[], DiffusionPipeline]:
    """A function that loads the model of a run at its first call, and keeps it."""
    return cache(lambda: recorded_pipeline(run))


def fresh_images(
    run: Run,
    n: int,
    stored: ImageList,
    pipeline: Callable[[], DiffusionPipeline],
    prompt: str | None = None,
    others: Mapping[int, Sample] | None = None,
    guidance: float | None = None,
) -> Generator[Tick, None, list[Sample]]:
    """The first `n` fresh images of the run's prompt, or of another `prompt` with the same seeds. Yields progress.

    Images that are neither in `stored` nor among `others`, by index, are made with `pipeline` and added to `stored`,
    with the guidance of the run unless another `guidance` is given.
    """
    capture = run.config.capture if prompt is None else replace(run.config.capture, prompt=prompt)
    others = {index: sample for index, sample in (others or {}).items() if index < n}
    known = known_images(run, stored, capture.prompt)
    samples = {index: sample for index, sample in known.items() if index < n}
    missing = [index for index in range(n) if index not in samples and index not in others]
    yield Tick(n - len(missing), n)
    if missing:
        pipe, base = pipeline(), first_seed(capture)
        settings = recorded_settings(run, pipe, capture).with_guidance(guidance)
        waiting = iter(missing)
        seeds = [base + index for index in missing]
        for images in generate_images(pipe, capture.prompt, seeds, settings, capture.batch_size):
            for image, index in zip(images, waiting, strict=False):
                samples[index] = write_image(run, stored.folder, index, capture.prompt, base + index, image)
            write_list(stored.path, samples)
            yield Tick(len({*samples, *others}), n)
    return [others[index] if index in others else samples[index] for index in range(n)]


def compared_images(run: Run, n: int) -> Generator[Tick, None, list[Sample]]:
    """The first `n` fresh images of a run: those that `evaluate` made, and further ones made now. Yields progress."""
    evaluated = known_images(run, fresh_list(run))
    return fresh_images(run, n, compared_list(run), loader(run), others=evaluated)


def n_missing_images(run: Run, n: int) -> int:
    """How many of the first `n` fresh images of a run are not made yet."""
    known = {*known_images(run, fresh_list(run)), *known_images(run, compared_list(run))}
    return sum(index not in known for index in range(n))


def suggested_images(
    run: Run, prompts: Sequence[str], n: int, pipeline: Callable[[], DiffusionPipeline]
) -> Generator[Tick, None, dict[str, list[Sample]]]:
    """`n` images of each suggested prompt, by prompt, with the first seeds of the fresh images. Yields progress.

    A prompt whose end the model's text encoders do not read has none: the end names the attribute.
    """
    found: dict[str, list[Sample]] = {}
    unique = list(dict.fromkeys(prompts))
    for done, prompt in enumerate(unique):
        is_made = len(known_images(run, suggested_list(run, prompt), prompt)) >= n
        if not is_made and unread_tokens(pipeline(), prompt):
            continue
        making = fresh_images(run, n, suggested_list(run, prompt), pipeline, prompt)
        found[prompt] = yield from mapped(
            making, lambda tick, done=done, prompt=prompt: Tick(done * n + tick.done, len(unique) * n, prompt)
        )
    return found
