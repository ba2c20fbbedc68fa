"""Makes pictures of a run that were not audited: fresh ones, and ones of prompts that ask for an attribute."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.config import CaptureConfig
from raigen.diffusion import defaults, make_pictures
from raigen.files import sha256
from raigen.loading import load_pipeline
from raigen.pictures import whole_samples, write_list, write_picture
from raigen.records import Sample, Tick, mapped
from raigen.run import Run

FRESH_SEEDS_FROM = 1_000_000_000  # beyond any base_seed in use, so that no fresh picture was seen before


class Shelf(NamedTuple):
    """Where pictures of one kind lie: their list, and the folder with the files."""

    path: Path
    folder: Path


def first_seed(capture: CaptureConfig) -> int:
    """The seed of the first fresh picture."""
    return FRESH_SEEDS_FROM + capture.base_seed


def known_pictures(run: Run, capture: CaptureConfig, shelf: Shelf) -> dict[int, Sample]:
    """The fresh pictures that are on the shelf, whole, by index."""
    return whole_samples(run, shelf.path, shelf.folder, capture.prompt, first_seed(capture))


def fresh_pictures(
    run: Run,
    capture: CaptureConfig,
    n: int,
    shelf: Shelf,
    elsewhere: Mapping[int, Sample] | None = None,
    pipeline: Callable[[], DiffusionPipeline] | None = None,
) -> Generator[Tick, None, list[Sample]]:
    """The first `n` fresh pictures of `capture`'s prompt; those that are neither on the shelf nor `elsewhere` are made
    and put on it, by what `pipeline` gives (left out: the model of `capture`). Yields progress in pictures.
    """
    base, others = first_seed(capture), elsewhere or {}
    samples = {index: sample for index, sample in known_pictures(run, capture, shelf).items() if index < n}
    missing = [index for index in range(n) if index not in samples and index not in others]
    yield Tick(n - len(missing), n)
    if missing:
        pipe = (pipeline or loader(capture))()
        settings = defaults(pipe, capture.model, capture)
        seeds = [base + index for index in missing]
        waiting = iter(missing)
        for images in make_pictures(pipe, capture.prompt, seeds, settings, capture.batch_size):
            for image, index in zip(images, waiting, strict=False):
                samples[index] = write_picture(run, shelf.folder, index, capture.prompt, base + index, image)
            write_list(shelf.path, samples)
            yield Tick(len({*samples, *(index for index in others if index < n)}), n)
    return [others[index] if index in others else samples[index] for index in range(n)]


def loader(capture: CaptureConfig) -> Callable[[], DiffusionPipeline]:
    """Loads the model of `capture` when it is first asked for it, and once."""
    return cache(lambda: load_pipeline(capture.model, capture.device, capture))


def compared_pictures(run: Run, n: int) -> Generator[Tick, None, list[Sample]]:
    """The first `n` fresh pictures of a run: those that `evaluate` made, and beyond them further ones."""
    capture: CaptureConfig = run.config_of("capture")
    evaluated = known_pictures(run, capture, Shelf(run.fresh_samples_path, run.fresh_dir))
    shelf = Shelf(run.compared_samples_path, run.compared_dir)
    return (yield from fresh_pictures(run, capture, n, shelf, evaluated))


def missing_pictures(run: Run, n: int) -> int:
    """How many of the first `n` fresh pictures of a run are not there yet."""
    capture: CaptureConfig = run.config_of("capture")
    shelves = [Shelf(run.fresh_samples_path, run.fresh_dir), Shelf(run.compared_samples_path, run.compared_dir)]
    known = {index for shelf in shelves for index in known_pictures(run, capture, shelf)}
    return sum(index not in known for index in range(n))


def asked_pictures(run: Run, prompts: Sequence[str], n: int) -> Generator[Tick, None, dict[str, list[Sample]]]:
    """`n` pictures of each of other prompts by the run's model, with the seeds of its fresh ones; by prompt. Yields
    progress in pictures."""
    capture: CaptureConfig = run.config_of("capture")
    pipeline, found, total = loader(capture), {}, n * len(set(prompts))
    for prompt in dict.fromkeys(prompts):
        made = fresh_pictures(run, replace(capture, prompt=prompt), n, asked_shelf(run, prompt), None, pipeline)
        found[prompt] = yield from mapped(made, partial(_of_all, n * len(found), total, prompt))
    return found


def _of_all(before: int, total: int, prompt: str, tick: Tick) -> Tick:
    return Tick(before + tick.done, total, prompt)


def asked_shelf(run: Run, prompt: str) -> Shelf:
    """Where the pictures of another prompt lie."""
    folder = run.asked_dir(sha256(prompt.encode())[:16])
    return Shelf(folder / "samples.jsonl", folder)
