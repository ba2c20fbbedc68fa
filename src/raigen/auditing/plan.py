"""Estimates what an audit takes and what it can show, before it starts."""

import time
from typing import NamedTuple

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.auditing.inputs import check_inputs
from raigen.config import AuditConfig
from raigen.diffusion.batches import batch_size_of
from raigen.diffusion.generation import Settings, defaults, generate
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.loading import load_pipeline
from raigen.runs.activations import MEMORY_BOUND
from raigen.runs.device import resolve_device
from raigen.runs.images import as_png
from raigen.sae.fit import fit
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.seeds import CLOSING_TOKENS, placed
from raigen.sae.stream import bytes_per_token, reservoir_capacity
from raigen.stats import images_needed, rarest_rate

PROBE_IMAGES = 4  # at most; larger batches are at least as fast per image
PROBE_STEPS = 3  # of training; the first warms up
EXAMPLES = 10  # images that must show an attribute before it can be judged
RATES = (0.05, 0.01, 0.005)


class AuditPlan(NamedTuple):
    """What an audit takes, in seconds, bytes and tokens, and the rarest rate that it can show.

    Seconds and image sizes are measured on a few images and steps. `memory` counts weights, the autoencoder with its
    gradients and moments, the reservoir and the closing tokens of the training; it does not count what the pipeline
    needs while it runs. Every listed attribute is assumed to be named, so that images of its suggested prompt are
    generated. An attribute of `rarest_rate` is shown by ten images with probability .95.
    """

    settings: Settings
    hookpoint: str
    grid: tuple[int, int]
    d_in: int
    seconds_images: float
    seconds_training: float
    seconds_fresh: float
    tokens: int
    training_steps: int
    memory: int
    disk_images: int
    disk_activations: int
    rarest_rate: float
    images_for: dict[float, tuple[int, int]]


def estimate(config: AuditConfig) -> AuditPlan:
    """Generates a few images, trains a few steps, and estimates the rest. Writes nothing.

    For some rates, `images_for` holds how many images show an attribute once, and ten times, with probability .95.
    Raises RaigenError as `capture` does.
    """
    check_inputs(config)
    capture = config.capture
    pipe = load_pipeline(capture.model, capture.device, capture)
    settings = defaults(pipe, capture.model, capture)
    point = find_hookpoint(pipe, capture.hookpoint)
    seeds = range(min(PROBE_IMAGES, batch_size_of(pipe, settings, capture.batch_size).size))
    generate(pipe, capture.prompt, seeds, settings, point)  # warms up, and detects the layout of the tokens
    started = time.perf_counter()
    made = generate(pipe, capture.prompt, seeds, settings, point)
    per_image = (time.perf_counter() - started) / len(seeds)
    assert made.activations is not None and made.grid is not None  # a hookpoint was given
    _, n_steps, n_tokens, d_in = made.activations.shape
    kept_steps = min(config.train.steps_per_image or n_steps, n_steps)
    kept_tokens = min(config.train.tokens_per_step or n_tokens, n_tokens)
    tokens = capture.n_images * kept_steps * kept_tokens * config.train.epochs
    training_steps = -(-tokens // config.train.batch_of(tokens))
    replays = 1 if capture.store else config.train.epochs
    n_more = config.evaluate.n_fresh_images + config.discover.n_attributes * config.evaluate.n_suggested_images
    png = sum(len(as_png(image)) for image in made.images) / len(made.images)
    on_disk = (n_steps if capture.store else 1) * n_tokens * d_in * 2
    return AuditPlan(
        settings=settings,
        hookpoint=point.path,
        grid=made.grid,
        d_in=d_in,
        seconds_images=per_image * capture.n_images * replays,
        seconds_training=_seconds_per_step(made.activations.flatten(0, 2), config, tokens) * training_steps,
        seconds_fresh=per_image * n_more,
        tokens=tokens,
        training_steps=training_steps,
        memory=_memory(pipe, d_in, tokens, config),
        disk_images=round(png * (capture.n_images + n_more)),
        disk_activations=on_disk * capture.n_images,
        rarest_rate=rarest_rate(capture.n_images, EXAMPLES),
        images_for={rate: (images_needed(rate), images_needed(rate, EXAMPLES)) for rate in RATES},
    )


def _seconds_per_step(tokens: torch.Tensor, config: AuditConfig, n_tokens: int) -> float:
    """The time of a training step on a batch of the real size, which repeats the given tokens."""
    rows = torch.arange(config.train.batch_of(n_tokens)) % len(tokens)
    sae = placed(MatryoshkaSAE(config.train.sae_config(tokens.shape[1])), resolve_device(config.capture.device))
    seconds, started = [], time.perf_counter()
    for _ in fit(sae, [tokens[rows]] * PROBE_STEPS, config.train):
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return min(seconds[1:])


def _memory(pipe: DiffusionPipeline, d_in: int, tokens: int, config: AuditConfig) -> int:
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
    sae = config.train.sae_config(d_in)
    autoencoder = 4 * 4 * (2 * sae.d_in * sae.d_sae + sae.d_in + sae.d_sae)  # weights, gradients, two moments
    per_epoch, per_token = tokens // config.train.epochs, bytes_per_token(d_in)
    closing = 4 * d_in * min(CLOSING_TOKENS, per_epoch)
    mixed = reservoir_capacity(config.train, d_in, per_epoch) * per_token
    if config.capture.store:
        mixed = min(per_epoch * per_token, MEMORY_BOUND)
    return weights + autoencoder + closing + mixed
