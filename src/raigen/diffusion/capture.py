"""Generates the images of a run, and keeps the activations of its hookpoint."""

import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from safetensors import SafetensorError, safe_open

from raigen.config import CaptureConfig
from raigen.diffusion.batches import BatchSize, batch_size_of
from raigen.diffusion.checks import check_guidance, check_repeatable, check_room, unread_tokens, watched
from raigen.diffusion.distilled import sign_of_distilled
from raigen.diffusion.generation import Generated, Settings, generate, layout_of, own_settings
from raigen.diffusion.hookpoints import Hookpoint, denoiser_of, find_hookpoint
from raigen.diffusion.loading import find_source, license_of, origin_of
from raigen.diffusion.recorded import note_model, recorded_pipeline
from raigen.errors import RaigenError
from raigen.runs.activations import NAME, ActivationStore, CapturedBatch
from raigen.runs.device import resolve_device
from raigen.runs.files import sha256, shards_in
from raigen.runs.images import as_png, whole_samples, write_image, write_list
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick, mapped

OURS = re.compile(r"\d{6,}\.(png|safetensors)(\.part)?")  # the files that a capture may delete


def capture(run: Run, config: CaptureConfig) -> Generator[Tick, None, Outcome]:
    """Makes image i from seed `base_seed + i` and keeps the activations of its last denoising step, or of all steps.

    Each batch is written whole: its images, one shard of activations, then its lines in samples.jsonl. After a stop,
    the next start keeps every batch whose images have the hashes in samples.jsonl and whose shard is whole. It makes
    the other batches again, with the same images. Yields progress in images.

    A safety checker, or a decoder that breaks down, makes wholly black images. The facts list them as `black_images`,
    and later stages leave them out.

    Raises RaigenError when the model cannot be loaded, the hookpoint does not exist or cannot be captured, an
    activation is not finite, a whole batch is black without a safety checker, or the disk is full.
    """
    return mapped(capture_batches(run, config), lambda part: part.tick)


def capture_batches(
    run: Run, config: CaptureConfig, again_from: int | None = None, pipe: DiffusionPipeline | None = None
) -> Generator[CapturedBatch, None, Outcome]:
    """`capture` that yields the activations of every batch as it is made, at all steps.

    With `again_from`, all images from that index on are made, even if they are there already, since their activations
    are needed again; they are not written again. `pipe` is the pipeline of `config`, if it is loaded already.
    """
    pipe = pipe or recorded_pipeline(run, config)
    settings = note_model(run, pipe, config).with_guidance(config.discovery_guidance)
    hookpoint = find_hookpoint(pipe, config.hookpoint)
    model_facts = _model_facts(pipe, config, hookpoint)
    layout, samples = layout_of(pipe, config.prompt, settings, hookpoint), _whole_batches(run, config)
    check_guidance(pipe, settings, layout)
    cautions = check_room(run, config, settings, layout, config.n_images - len(samples))
    begun = Tick(len(samples) if again_from is None else again_from, config.n_images)
    sizes = batch_size_of(pipe, settings, config.batch_size)
    words = [*_first_words(pipe, model_facts, settings, config, sizes), *cautions]
    yield CapturedBatch([], None, (), begun._replace(note="; ".join(words)))
    n_made, seconds, started = 0, 0.0, time.perf_counter()
    wanted = _wanted(config, samples, again_from)
    for indices, generated in _made(pipe, config, settings, hookpoint, wanted, sizes):
        for missing in _consecutive([index for index in indices if index not in samples]):
            start = missing[0] - indices[0]
            samples |= _write_batch(run, config, missing, slice(start, start + len(missing)), generated)
            write_list(run.samples_path, samples)
        n_made, seconds = n_made + len(indices), seconds + time.perf_counter() - started
        done = len(samples) if again_from is None else indices[-1] + 1
        tick = Tick(done, config.n_images, f"{seconds / n_made:.2f} s an image")
        yield CapturedBatch(list(indices), generated.activations, generated.step_indices, tick)
        started = time.perf_counter()
    facts = {
        **model_facts,
        **settings._asdict(),
        "hookpoint": hookpoint.path,
        **_store_facts(ActivationStore(run.activations_dir)),
        "seconds_per_image": round(seconds / n_made, 4) if n_made else None,
        "black_images": _black(samples, settings),
    }
    images = [run.dir / sample.file for sample in samples.values()]
    return Outcome([run.samples_path, *images, *shards_in(run.activations_dir)], facts)


def _made(
    pipe: DiffusionPipeline, config: CaptureConfig, settings: Settings, hookpoint: Hookpoint, wanted: list[int],
    sizes: BatchSize,
) -> Iterator[tuple[Sequence[int], Generated]]:  # fmt: skip
    """Makes the images with the indices in `wanted`; yields some consecutive ones at a time. Checks that the first ones
    can be made again, and that none of the batches is wholly black."""

    def make(indices: Sequence[int]) -> Generated:
        seeds = [config.base_seed + index for index in indices]
        with watched() as draws:
            generated = generate(pipe, config.prompt, seeds, settings, hookpoint)
        if draws.any and indices[0] == wanted[0]:
            check_repeatable(pipe, config.prompt, seeds[0], settings)
        _check_not_black(pipe, config, generated)
        return generated

    for indices in _consecutive(wanted):
        yield from sizes.made(indices, make)


def _store_facts(store: ActivationStore) -> dict[str, Any]:
    return {"grid": list(store.grid), "d_in": store.d_in, "n_steps": store.step_indices[-1] + 1}


def _first_words(
    pipe: DiffusionPipeline, facts: Mapping[str, Any], settings: Settings, config: CaptureConfig, sizes: BatchSize
) -> list[str]:
    """What a person must know before the first image."""
    words = [f"{settings.summary()}, {facts['dtype']} on {facts['device']}, {sizes}"]
    if (sign := sign_of_distilled(pipe, config.model)) and not own_settings(config.model):
        words.append(f"this looks like a distilled model by its {sign}, which takes few steps and little guidance: see "
                     "its card; --num-inference-steps and --guidance-scale change them")  # fmt: skip
    if facts["unread_tokens"]:
        words.append(f"the model does not read the last {facts['unread_tokens']} tokens of the prompt")
    if facts["licence"]:
        words.append(f"the model's license: {facts['licence']}")
    return words


def _model_facts(pipe: DiffusionPipeline, config: CaptureConfig, hookpoint: Hookpoint) -> dict[str, Any]:
    """Which model made the images, exactly, and how it ran."""
    source = find_source(config.model, replace(config, revision=origin_of(pipe).revision or config.revision))
    return {
        "model": config.model,
        "revision": source.commit,
        "weights": origin_of(pipe).weights,
        "unread_tokens": unread_tokens(pipe, config.prompt),
        "licence": license_of(source, config),
        "pipeline": type(pipe).__name__,
        "scheduler": type(pipe.components["scheduler"]).__name__,
        "device": str(resolve_device(config.device)),
        "dtype": str(denoiser_of(pipe, hookpoint).dtype).removeprefix("torch."),
        "offload": config.offload,
        "safety_checker": pipe.components.get("safety_checker") is not None,
    }


def _whole_batches(run: Run, config: CaptureConfig) -> dict[int, Sample]:
    """The samples of the batches that an earlier start finished. The files of all other batches are
    deleted; what else lies there is left alone."""
    listed = whole_samples(run, run.samples_path, run.images_dir, config.prompt, config.base_seed)
    whole: dict[int, Sample] = {}
    files = set()
    for path in shards_in(run.activations_dir):
        indices = _images_of(path)
        is_new = whole.keys().isdisjoint(indices)
        if indices and indices[-1] < config.n_images and is_new and listed.keys() >= set(indices):
            whole |= {index: listed[index] for index in indices}
            files |= {path, *(run.dir / listed[index].file for index in indices)}
    for path in {*run.images_dir.glob("*"), *run.activations_dir.glob("*")} - files:
        if OURS.fullmatch(path.name) and path.is_file():
            path.unlink()
    if run.samples_path.exists():  # it may list images of broken batches, which are deleted now
        write_list(run.samples_path, whole)
    return whole


def _images_of(shard: Path) -> range:
    """The indices of the images in a shard; empty if it is broken."""
    try:
        with safe_open(shard, "pt") as file:
            first = int(file.metadata()["first"])
            return range(first, first + file.get_slice(NAME).get_shape()[0])
    except (SafetensorError, KeyError, TypeError, ValueError):
        return range(0)


def _wanted(config: CaptureConfig, samples: Mapping[int, Sample], again_from: int | None) -> list[int]:
    """The indices to make: those without a sample, or all from `again_from` on."""
    first = 0 if again_from is None else again_from
    return [index for index in range(first, config.n_images) if again_from is not None or index not in samples]


def _consecutive(indices: list[int]) -> Iterator[list[int]]:
    """Rising indices, split at every gap."""
    for _, group in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        yield [index for _, index in group]


def _write_batch(
    run: Run, config: CaptureConfig, indices: list[int], rows: slice, generated: Generated
) -> dict[int, Sample]:
    """Writes the images of `rows` with these indices, and their activations."""
    assert generated.activations is not None and generated.grid is not None  # a hookpoint was given
    samples = {}
    for index, image in zip(indices, generated.images[rows], strict=True):
        seed = config.base_seed + index
        samples[index] = write_image(run, run.images_dir, index, config.prompt, seed, image)
    steps = slice(None) if config.store else slice(-1, None)
    kept = generated.activations[rows, steps]
    ActivationStore.write(run.activations_dir, indices[0], kept, generated.grid, generated.step_indices[steps])
    return samples


def _black(samples: Mapping[int, Sample], settings: Settings) -> list[int]:
    """The indices of the wholly black images."""
    black = sha256(as_png(Image.new("RGB", (settings.width, settings.height))))
    return sorted(index for index, sample in samples.items() if sample.sha256 == black)


def _check_not_black(pipe: DiffusionPipeline, config: CaptureConfig, generated: Generated) -> None:
    if pipe.components.get("safety_checker") is None and not any(image.getbbox() for image in generated.images):
        raise RaigenError(f"{config.model}: a whole batch of images came out black; its decoder breaks down with this "
                          f"dtype. Try --dtype float32 or bfloat16 (now: {config.dtype})")  # fmt: skip
