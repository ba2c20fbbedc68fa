"""Makes the data of the benchmark for one prompt and one generation seed: images, activations, truth, codes."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.numpy import load_file, save_file
from torch import Tensor

from benchmarks.common.world import WORLD
from raigen.auditing.audit import run_stage
from raigen.config import CaptureConfig, SAEConfig, TrainConfig
from raigen.discovery.embeddings import Embedder
from raigen.runs.activations import ActivationStore, CapturedBatch, TokenBatch
from raigen.runs.run import Run
from raigen.runs.steps import Tick
from raigen.sae.fit import Training, fit
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.reservoir import Reservoir
from raigen.sae.scaling import InputScaling
from raigen.sae.stream import drawn, reservoir_capacity
from raigen.world.worlds import World

CALIBRATION_TOKENS = 8192
SEEDS_APART = 100_000  # between generation seeds; audits begin at 0, fresh images at a billion


def controls(prompt: str, world: World = WORLD) -> Int[np.ndarray, " control"]:
    """The columns of the values that are never planted for a prompt, but are common for others."""
    return np.array([world.value_names.index(name) for name in world.control_values(prompt)], dtype=np.int64)


class Cell(NamedTuple):
    """The readable images of one prompt and generation seed, with truth, embeddings and activations.

    `embeddings` by name: `clip`, `tower` (the pooled features of CLIP's image tower, before the projection) and
    `pixels` (16 x 16). `mid` are the activations [image, token, d_in] of the last step.
    """

    prompt: str
    seed: int
    readable: Bool[np.ndarray, " image"]
    shows: Bool[np.ndarray, "image value"]
    embeddings: dict[str, Float[np.ndarray, "image width"]]
    mid: Float[np.ndarray, "image token d_in"]

    controls: Int[np.ndarray, " control"]
    """The values that are never planted for this prompt, but are common for others."""


class Codes(NamedTuple):
    """The codes of all neurons at the scoring step: mean and largest over positions; the `n_coarse` coarse ones
    first."""

    mean: Float[np.ndarray, "image neuron"]
    peak: Float[np.ndarray, "image neuron"]
    n_coarse: int


def capture(work: Path, prompt: str, seed: int, n_images: int, model: str = WORLD.pipeline) -> Run:
    """The images and activations, by the `capture` stage of raigen; resumes where it was interrupted."""
    run = Run.create(work / prompt.split()[-1] / f"g{seed}")
    config = CaptureConfig(prompt, model=model, n_images=n_images, base_seed=seed * SEEDS_APART, store=True)
    run_stage(run, "capture", config)
    return run


def cell_of(run: Run, prompt: str, seed: int, world: World = WORLD) -> Cell:
    """Judges and embeds the images of a run, once."""
    path = run.dir / "truth.safetensors"
    if not path.exists():
        images = [run.read_image(sample) for sample in run.samples()]
        verdict = world.judge(images)
        embedder = Embedder(world.embedder, "cpu")
        small = np.stack([np.asarray(image.resize((16, 16))).reshape(-1) for image in images]).astype(np.float32)
        tower = torch.cat([_tower(embedder, images[i : i + 64]) for i in range(0, len(images), 64)])
        tensors = {
            "readable": verdict.readable, "shows": verdict.shows, "clip": embedder.images(images),
            "tower": tower.numpy(), "pixels": small - small.mean(0),
        }  # fmt: skip
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    stored = load_file(path)
    readable, store = stored["readable"].astype(bool), ActivationStore(run.activations_dir)
    mid = torch.cat([chunk.activations for chunk in store.step(store.step_indices[-1])]).numpy()
    return Cell(
        prompt, seed, readable, stored["shows"].astype(bool)[readable],
        {name: stored[name][readable] for name in ("clip", "tower", "pixels")}, mid[readable],
        controls(prompt, world),
    )  # fmt: skip


def activations_of(run: Run) -> Tensor:
    """All activations of a run, [image, step, token, d_in] in float16."""
    store = ActivationStore(run.activations_dir)
    steps = [torch.cat([chunk.activations.half() for chunk in store.step(step)]) for step in store.step_indices]
    return torch.stack(steps, 1)


def token_batches(activations: Tensor, size: int, epochs: int, seed: int) -> Iterator[TokenBatch]:
    """Every token once per epoch in random order, about `size` at a time."""
    generator = torch.Generator().manual_seed(seed)
    flat, per_image = activations.flatten(0, 2), activations.shape[1] * activations.shape[2]
    for _ in range(epochs):
        order = torch.randperm(len(flat), generator=generator)
        for rows in order.chunk(-(-len(flat) // size)):
            yield TokenBatch(flat[rows].float(), rows // per_image)


def streamed_batches(activations: Tensor, config: TrainConfig, at_once: int = 16) -> Iterator[TokenBatch]:
    """The tokens in the order of an audit without a store: `at_once` images at a time, with the steps and positions
    that `config` draws, mixed in a reservoir."""
    n_images, n_steps, n_tokens, d_in = activations.shape
    per_image = min(config.steps_per_image or n_steps, n_steps) * min(config.tokens_per_step or n_tokens, n_tokens)
    capacity = reservoir_capacity(config, d_in, n_images * per_image)
    generator = torch.Generator().manual_seed(config.sae_seed)
    reservoir = Reservoir(capacity, config.batch_of(n_images * per_image), d_in, generator)
    for indices in torch.arange(n_images).split(at_once):
        part = CapturedBatch(indices.tolist(), activations[indices], tuple(range(n_steps)), Tick(0, n_images))
        batch = drawn(part, config)
        yield from reservoir.add(batch.tokens, batch.images)
    yield from reservoir.drain()


def trained(
    activations: Tensor,
    config: TrainConfig,
    shape: SAEConfig | None = None,
    untrained: bool = False,
    streamed: bool = False,
    watch: Callable[[Training], object] = lambda training: None,
) -> MatryoshkaSAE:
    """Trains an autoencoder on these activations, in random order, or `streamed` as in an audit without a store. With
    `untrained` it is only initialized, with a threshold for its k. `watch` is called after every step."""
    scaling = InputScaling.of(activations[:16]) if config.input_scaling else None
    activations = scaling.scaled(activations) if scaling else activations
    sae = MatryoshkaSAE(shape or config.sae_config(activations.shape[-1]))
    size = config.batch_of(activations[..., 0].numel() * config.epochs)
    batches = token_batches(activations, size, config.epochs, config.sae_seed)
    if streamed:
        batches = streamed_batches(activations, config)
    if untrained:
        tokens = next(batches).tokens
        sae.initialize(tokens, torch.Generator().manual_seed(config.sae_seed))
        sae.train()
        sae.loss(tokens)
        return sae.eval()
    training = Training(sae, config)
    for _ in fit(sae, batches, config, training):
        watch(training)
    sae.calibrate(next(token_batches(activations, CALIBRATION_TOKENS, 1, config.sae_seed)).tokens)
    if scaling:
        scaling.fold(sae)
    return sae.eval()


@torch.inference_mode()
def encode(sae: MatryoshkaSAE, mid: Float[np.ndarray, "image token d_in"]) -> Codes:
    """The codes of images, from their activations at the scoring step."""
    parts = [
        sae.encode(torch.from_numpy(mid[i : i + 64]).flatten(0, 1)).unflatten(0, (-1, mid.shape[1]))
        for i in range(0, len(mid), 64)
    ]
    mean = np.concatenate([part.mean(1).numpy() for part in parts])
    peak = np.concatenate([part.amax(1).numpy() for part in parts])
    return Codes(mean, peak, sae.group_bounds[1])


def codes_of(run: Run, cell: Cell, activations: Callable[[], Tensor], name: str, config: TrainConfig,
             shape: SAEConfig | None = None, untrained: bool = False) -> Codes:  # fmt: skip
    """The codes of an autoencoder trained on `activations()`, cached in the run's folder under `name`."""
    path = run.dir / f"codes-{name}.safetensors"
    if not path.exists():
        codes = encode(trained(activations(), config, shape, untrained), cell.mid)
        save_file({"mean": codes.mean, "peak": codes.peak, "n_coarse": np.array([codes.n_coarse])}, path)
    stored = load_file(path)
    return Codes(stored["mean"], stored["peak"], int(stored["n_coarse"][0]))


def default_codes(run: Run, cell: Cell, sae_seed: int = 0) -> dict[str, Codes]:
    """The codes of three autoencoders: `matryoshka`, as in an audit; `batchtopk`, a plain one of the same size; and
    `untrained`, the plain one before training."""
    config = TrainConfig(sae_seed=sae_seed)
    shape = config.sae_config(cell.mid.shape[-1])
    plain = SAEConfig(shape.d_in, shape.d_sae, (shape.d_sae,), shape.k)
    activations = cache(lambda: activations_of(run))
    return {
        "matryoshka": codes_of(run, cell, activations, f"matryoshka-{sae_seed}", config),
        "batchtopk": codes_of(run, cell, activations, f"batchtopk-{sae_seed}", config, plain),
        "untrained": codes_of(run, cell, activations, f"untrained-{sae_seed}", config, plain, untrained=True),
    }


def _tower(embedder: Embedder, images: list) -> Tensor:
    pixels = embedder.processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return embedder.model.vision_model(pixels).pooler_output.float()
