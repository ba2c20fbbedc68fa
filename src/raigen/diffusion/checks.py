"""Checks of a pipeline, with real calls, that its images are what the settings say."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import ImageChops
from transformers import PreTrainedTokenizerBase

from raigen.config import CaptureConfig, TrainConfig
from raigen.diffusion.generation import Settings, generate
from raigen.diffusion.hooks import TokenLayout
from raigen.diffusion.loading import arguments_of, no_advice
from raigen.errors import RaigenError
from raigen.runs.activations import MEMORY_BOUND
from raigen.runs.device import free_memory, resolve_device
from raigen.runs.run import Run
from raigen.sae.seeds import CLOSING_TOKENS
from raigen.sae.stream import bytes_per_token, reservoir_capacity

SAME_LEVELS = 4  # of 255, by which one image may differ on a GPU; other noise moves it by 17 or more
LEAST_BYTES_PER_PIXEL = 0.1  # of a PNG
LIKELY_BYTES_PER_PIXEL = 1.5  # of a photograph's


class Draws:
    """Whether random numbers were drawn outside the generators of the images, while `watched`."""

    def __init__(self) -> None:
        self.any = False


@contextmanager
def watched() -> Iterator[Draws]:
    """Tells, in the end, whether the global random state of the CPU or of a GPU has changed."""
    draws, before = Draws(), _random_states()
    yield draws
    draws.any = any(not torch.equal(state, other) for state, other in zip(before, _random_states(), strict=False))


def check_repeatable(pipe: DiffusionPipeline, prompt: str, seed: int, settings: Settings) -> None:
    """Raises RaigenError, naming the scheduler, unless two calls with one seed make the same image, but for the last
    bits of a GPU."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        first, second = (generate(pipe, prompt, [seed], settings).images[0].convert("RGB") for _ in range(2))
    channels: Any = ImageChops.difference(first, second).getextrema()  # lowest and highest of each
    if max(high for _, high in channels) > SAME_LEVELS:
        scheduler = type(pipe.components["scheduler"]).__name__
        raise RaigenError(f"scheduler: {scheduler} of {type(pipe).__name__} draws noise that does not come from an "
                          "image's seed, so no image could be made again. Switch this off (for example "
                          "stochastic_sampling), or choose another scheduler")  # fmt: skip


def check_guidance(pipe: DiffusionPipeline, settings: Settings, layout: TokenLayout) -> None:
    """Raises RaigenError where settings of guidance have no effect, because the denoiser is called without it."""
    if layout.n_branches > 1:
        return
    if (settings.true_cfg_scale or 0) > 1:
        raise RaigenError(f"true_cfg_scale: {type(pipe).__name__} called its denoiser without guidance, so "
                          f"{settings.true_cfg_scale:g} has no effect; give a negative_prompt (a space is enough), or "
                          "a true_cfg_scale of 1")  # fmt: skip
    if settings.negative_prompt:
        scale = "true_cfg_scale" if "true_cfg_scale" in arguments_of(type(pipe)) else "guidance_scale"
        raise RaigenError(f"negative_prompt: {type(pipe).__name__} called its denoiser without guidance, so it has no "
                          f"effect; leave it out, or give a {scale} above 1")  # fmt: skip


class Need(NamedTuple):
    """What an audit takes beside its pipeline, in bytes: on the disk, in the memory of the device, and in that of the
    machine. On a CPU these two are one."""

    disk: int
    device: int
    machine: int


def check_room(run: Run, config: CaptureConfig, settings: Settings, layout: TokenLayout, n_images: int) -> list[str]:
    """What probably does not suffice for `n_images` more images and the training: a line each, none if all does.

    Raises RaigenError when the disk cannot hold the images with their activations, however well their PNGs are packed,
    and when no autoencoder can be trained on them, as `check_autoencoder` does.
    """
    train, device = run.config_of("train"), resolve_device(config.device)
    check_autoencoder(train, layout.d_in, device)
    n_steps, n_tokens = settings.num_inference_steps, layout.grid[0] * layout.grid[1]
    activations = (n_steps if config.store else 1) * n_tokens * layout.d_in * 2
    pixels, free = settings.height * settings.width, shutil.disk_usage(run.dir).free
    needed = n_images * (activations + int(LEAST_BYTES_PER_PIXEL * pixels))
    if needed > free:
        raise RaigenError(f"{run.dir}: {n_images:,} images and their activations need {needed / 1e9:.1f} GB or more, "
                          f"the disk has {free / 1e9:.1f} GB left. Free some, choose another --run-dir, or make "
                          "fewer images")  # fmt: skip
    likely = n_images * (activations + int(LIKELY_BYTES_PER_PIXEL * pixels))
    n_drawn = tokens_of(train, config.n_images, n_steps, n_tokens)
    return shortages(run.dir, device, training_need(train, config.store, layout.d_in, n_drawn, likely))


def shortages(dir: Path, device: torch.device, need: Need) -> list[str]:
    """A line for the disk of a folder, which need not exist yet, and for each memory that has less free than needed."""
    folder = next(path for path in (dir, *dir.absolute().parents) if path.exists())
    places = [("the disk", need.disk, shutil.disk_usage(folder).free)]
    if device.type == "cuda":
        places.append((f"the memory of {device}", need.device, free_memory(device)))
        places.append(("the memory of this machine", need.machine, free_memory(torch.device("cpu"))))
    else:
        places.append(("the memory of this machine", need.device + need.machine, free_memory(device)))
    return [f"{place} has {free / 1e9:,.1f} GB free, about {needed / 1e9:,.1f} GB are needed"
            for place, needed, free in places if needed > free]  # fmt: skip


def tokens_of(config: TrainConfig, n_images: int, n_steps: int, n_tokens: int) -> int:
    """How many tokens are trained on in an epoch, of images with `n_steps` times `n_tokens`."""
    return (
        n_images * min(config.steps_per_image or n_steps, n_steps) * min(config.tokens_per_step or n_tokens, n_tokens)
    )


def training_need(config: TrainConfig, store: bool, d_in: int, n_tokens: int, disk: int) -> Need:
    """What the training takes for `n_tokens` tokens an epoch of width `d_in`: the weights of the autoencoders, their
    gradients and two moments of each; the tokens that are mixed, and those that set the threshold. A training without a
    store also writes a checkpoint. `disk` are the bytes of the other files."""
    shape = config.sae_config(d_in)
    weights = 4 * (2 * shape.d_in * shape.d_sae + shape.d_in + shape.d_sae) * config.n_seeds
    mixed = n_tokens * bytes_per_token(d_in)
    mixed = min(mixed, MEMORY_BOUND) if store else reservoir_capacity(config, d_in, n_tokens) * bytes_per_token(d_in)
    closing = 4 * d_in * min(CLOSING_TOKENS, n_tokens)
    return Need(disk + weights + (0 if store else 3 * weights + mixed), 4 * weights, mixed + closing)


def check_autoencoder(config: TrainConfig, d_in: int, device: torch.device) -> None:
    """Raises RaigenError when tokens of this width give the autoencoder no legal shape, or the device has not the
    memory for its weights, their gradients and two moments of each."""
    shape, needed = config.sae_config(d_in), training_need(config, False, d_in, 0, 0).device
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > total:
        raise RaigenError(f"d_sae: to train {shape.d_sae:,} neurons for tokens of width {d_in:,} takes "
                          f"{needed / 1e9:,.1f} GB, {device} has {total / 1e9:,.1f} GB; take fewer")  # fmt: skip


def unread_tokens(pipe: DiffusionPipeline, prompt: str) -> int:
    """How many tokens at the end of the prompt no text encoder of the pipeline reads; 0 if one of them reads all."""
    longest = getattr(arguments_of(type(pipe)).get("max_sequence_length"), "default", None)
    left = []
    for part in pipe.components.values():
        if isinstance(part, PreTrainedTokenizerBase):
            limit = part.model_max_length
            if isinstance(longest, int) and "CLIP" not in type(part).__name__:
                limit = min(limit, longest)
            with no_advice():
                left.append(max(0, len(part(prompt).input_ids) - limit))
    return min(left, default=0)


def _random_states() -> list[torch.Tensor]:
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in gpus)]
