"""Estimates what an audit takes and what it can show, before it starts."""

import time
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.auditing.audit import default_run_dir
from raigen.auditing.inputs import check_inputs
from raigen.config import AuditConfig
from raigen.diffusion.batches import batch_size_of
from raigen.diffusion.checks import (
    check_autoencoder,
    check_guidance,
    check_repeatable,
    shortages,
    tokens_of,
    training_need,
    watched,
)
from raigen.diffusion.generation import Generated, Settings, defaults, generate, layout_of
from raigen.diffusion.hookpoints import Hookpoint, find_hookpoint
from raigen.diffusion.loading import load_pipeline
from raigen.discovery.look import FEWEST_IMAGES
from raigen.runs.device import resolve_device
from raigen.runs.images import as_png
from raigen.sae.fit import fit
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.seeds import placed
from raigen.stats import images_needed, rarest_rate

PROBE_IMAGES = 4  # at most; larger batches are at least as fast per image
PROBE_STEPS = 3  # of training; the first warms up
EXAMPLES = 10  # images that must show an attribute before it can be judged
RATES = (0.05, 0.01, 0.005)


class AuditPlan(NamedTuple):
    """What an audit takes, in seconds, bytes and tokens, and the rarest rate that it can show.

    Seconds and image sizes are measured on a few images and steps. `memory` counts weights, the autoencoder with its
    gradients and moments, the reservoir and the closing tokens of the training; it does not count what the pipeline
    needs while it runs. `disk_training` counts the autoencoder and, while it trains, its checkpoint. `shortages` are
    sentences about a disk or a memory that has too little free. Every listed attribute is assumed to be named, so that
    images of its suggested prompt are generated. An attribute of `rarest_rate` is shown by ten images with probability
    .95.
    """

    settings: Settings
    hookpoint: str
    grid: tuple[int, int]
    d_in: int
    seconds_images: float
    seconds_training: float
    seconds_fresh: float
    seconds_relatives: float
    n_relatives: int
    tokens: int
    training_steps: int
    memory: int
    disk_images: int
    disk_activations: int
    disk_training: int
    shortages: tuple[str, ...]
    rarest_rate: float
    images_for: dict[float, tuple[int, int]]


def estimate(config: AuditConfig, run_dir: Path | None = None) -> AuditPlan:
    """Generates a few images, trains a few steps, and estimates the rest. Writes nothing.

    For some rates, `images_for` holds how many images show an attribute once, and ten times, with probability .95.
    Raises RaigenError as an audit does before its first image; what only may not suffice is among the `shortages`.
    """
    check_inputs(config)
    capture = config.capture
    pipe = load_pipeline(capture.model, capture.device, capture)
    settings = defaults(pipe, capture.model, capture)
    settings.with_guidance(capture.discovery_guidance)  # raises if there is none
    point = find_hookpoint(pipe, capture.hookpoint)
    device = resolve_device(capture.device)
    made, per_image = _tried(pipe, config, settings, point, device)
    assert made.activations is not None and made.grid is not None  # a hookpoint was given
    _, n_steps, n_tokens, d_in = made.activations.shape
    per_epoch = tokens_of(config.train, capture.n_images, n_steps, n_tokens)
    tokens = per_epoch * config.train.epochs
    training_steps = -(-tokens // config.train.batch_of(tokens))
    replays = 1 if capture.store else config.train.epochs
    n_relatives = config.look.n_relatives(capture.n_images) if capture.n_images >= FEWEST_IMAGES else 0
    n_more = _n_more(config, n_relatives)
    png = sum(len(as_png(image)) for image in made.images) / len(made.images)
    disk_images = round(png * (capture.n_images + n_relatives + n_more))
    disk_activations = (n_steps if capture.store else 1) * n_tokens * d_in * 2 * capture.n_images
    need = training_need(config.train, capture.store, d_in, per_epoch, disk_images + disk_activations)
    return AuditPlan(
        settings=settings,
        hookpoint=point.path,
        grid=made.grid,
        d_in=d_in,
        seconds_images=per_image * capture.n_images * replays,
        seconds_training=_seconds_per_step(made.activations.flatten(0, 2), config, tokens) * training_steps,
        seconds_fresh=per_image * n_more,
        seconds_relatives=per_image * n_relatives,
        n_relatives=n_relatives,
        tokens=tokens,
        training_steps=training_steps,
        memory=_weights(pipe) + need.device + need.machine,
        disk_images=disk_images,
        disk_activations=disk_activations,
        disk_training=need.disk - disk_images - disk_activations,
        shortages=tuple(shortages(run_dir or default_run_dir(capture.prompt), device, need)),
        rarest_rate=rarest_rate(capture.n_images, EXAMPLES),
        images_for={rate: (images_needed(rate), images_needed(rate, EXAMPLES)) for rate in RATES},
    )


def _n_more(config: AuditConfig, n_relatives: int) -> int:
    """How many images `evaluate` makes: fresh ones, with both guidances if there are two, and suggested ones."""
    n_listed = config.discover.n_attributes + (config.look.n_families if n_relatives else 0)
    n_kinds = 1 if config.capture.discovery_guidance is None else 2
    return n_kinds * config.evaluate.n_fresh_images + n_listed * config.evaluate.n_suggested_images


def _tried(
    pipe: DiffusionPipeline, config: AuditConfig, settings: Settings, point: Hookpoint, device: torch.device
) -> tuple[Generated, float]:
    """A few images, and the seconds that each of them takes. They are checked as in an audit."""
    prompt, layout = config.capture.prompt, layout_of(pipe, config.capture.prompt, settings, point)
    check_guidance(pipe, settings, layout)
    check_autoencoder(config.train, layout.d_in, device)
    seeds = range(min(PROBE_IMAGES, batch_size_of(pipe, settings, config.capture.batch_size).size))
    with watched() as draws:
        generate(pipe, prompt, seeds, settings, point)  # warms up
    if draws.any:
        check_repeatable(pipe, prompt, seeds[0], settings)
    started = time.perf_counter()
    made = generate(pipe, prompt, seeds, settings, point)
    return made, (time.perf_counter() - started) / len(seeds)


def _seconds_per_step(tokens: torch.Tensor, config: AuditConfig, n_tokens: int) -> float:
    """The time of a training step on a batch of the real size, which repeats the given tokens."""
    rows = torch.arange(config.train.batch_of(n_tokens)) % len(tokens)
    sae = placed(MatryoshkaSAE(config.train.sae_config(tokens.shape[1])), resolve_device(config.capture.device))
    seconds, started = [], time.perf_counter()
    for _ in fit(sae, [tokens[rows]] * PROBE_STEPS, config.train):
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return min(seconds[1:])


def _weights(pipe: DiffusionPipeline) -> int:
    """Bytes."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
