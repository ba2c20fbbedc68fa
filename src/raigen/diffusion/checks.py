"""Checks of a pipeline, with real calls, that its images are what the settings say."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import ImageChops
from transformers import PreTrainedTokenizerBase

from raigen.config import CaptureConfig, TrainConfig
from raigen.diffusion.generation import Settings, generate
from raigen.diffusion.hooks import TokenLayout
from raigen.diffusion.loading import arguments_of, no_advice
from raigen.errors import RaigenError
from raigen.runs.device import resolve_device
from raigen.runs.run import Run

SAME_LEVELS = 4  # of 255, by which one image may differ on a GPU; other noise moves it by 17 or more
LEAST_BYTES_PER_PIXEL = 0.1  # of a PNG; photographs take 1 to 2


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


def check_room(run: Run, config: CaptureConfig, settings: Settings, layout: TokenLayout, n_images: int) -> None:
    """Raises RaigenError when the disk cannot hold `n_images` more images with their activations, however well their
    PNGs are packed, and when no autoencoder can be trained on them, as `check_autoencoder` does."""
    check_autoencoder(run.config_of("train"), layout.d_in, resolve_device(config.device))
    n_steps = settings.num_inference_steps if config.store else 1
    activations = n_steps * layout.grid[0] * layout.grid[1] * layout.d_in * 2
    needed = n_images * (activations + int(LEAST_BYTES_PER_PIXEL * settings.height * settings.width))
    free = shutil.disk_usage(run.dir).free
    if needed > free:
        raise RaigenError(f"{run.dir}: {n_images:,} images and their activations need {needed / 1e9:.1f} GB or more, "
                          f"the disk has {free / 1e9:.1f} GB left. Free some, choose another --run-dir, or make "
                          "fewer images")  # fmt: skip


def check_autoencoder(config: TrainConfig, d_in: int, device: torch.device) -> None:
    """Raises RaigenError when tokens of this width give the autoencoder no legal shape, or the device has not the
    memory for its weights, their gradients and two moments of each."""
    shape = config.sae_config(d_in)
    needed = 4 * 4 * 2 * shape.d_in * shape.d_sae * config.n_seeds
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
