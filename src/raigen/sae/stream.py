"""Trains an autoencoder while images are generated, so that the training set is never on disk."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from raigen.config import TrainConfig
from raigen.runs.activations import CapturedBatch, TokenBatch, as_half
from raigen.runs.files import write_tensors
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.sae.fit import TrainStep, below
from raigen.sae.reservoir import Reservoir
from raigen.sae.scaling import InputScaling
from raigen.sae.seeds import SeedTrainings, n_closing_batches

CHECKPOINT_SECONDS = 60.0  # between two checkpoints, at least


class ImageStream(NamedTuple):
    """Activations of the images of one prompt, or of several prompts in turns, as the images are generated.

    `generate(firsts)` generates the images from `firsts[r]` to `n_images` of each run r. `shared_by` names the prompts
    that share the autoencoder; it is empty where there is one.
    """

    n_images: int
    generate: Callable[[Sequence[int]], Iterator[CapturedBatch]]
    shared_by: Sequence[str] = ()

    @property
    def n_prompts(self) -> int:
        """The number of prompts, and so of runs."""
        return max(1, len(self.shared_by))


def train_on_stream(run: Run, config: TrainConfig, stream: ImageStream) -> Generator[Tick, None, Outcome]:
    """The stage `train` on activations that arrive while images are generated; `run` keeps the autoencoder.

    Tokens pass through a reservoir of bounded memory, each once per epoch; from the second epoch on, the images are
    generated again from their seeds. Every minute, between two batches of images, a checkpoint is written; `Run.finish`
    deletes it, once the training is recorded. Interrupted
    at any point and started again with the same batches, the training ends with the same weights, bit for bit on a CPU.
    """
    training = _StreamTraining(run, config, stream)
    first_epoch, firsts = training.restore()
    written = time.monotonic()
    for epoch in range(first_epoch, config.epochs):
        for part in stream.generate(tuple(firsts)):
            if part.activations is not None:
                training.take(part)
                firsts[part.run] = part.indices[-1] + 1
                if time.monotonic() - written > CHECKPOINT_SECONDS:
                    training.save(epoch, firsts)
                    written = time.monotonic()
            mixing = "" if part.activations is None else "mixing"
            notes = part.tick.note, training.latest.summary() if training.latest else mixing
            yield part.tick._replace(note=", ".join(note for note in notes if note))
        firsts = [0] * stream.n_prompts
    n_all = stream.n_images * stream.n_prompts
    for step in training.drain():
        yield Tick(n_all, n_all, step.summary())
    return training.finish()


def reservoir_capacity(config: TrainConfig, d_in: int, n_tokens: int) -> int:
    """How many of `n_tokens` tokens are mixed at a time: at most a quarter, or training would start only when all
    images are generated."""
    batch = config.batch_of(n_tokens * config.epochs)
    return max(batch, min(config.reservoir_mb * 2**20 // bytes_per_token(d_in), n_tokens // 4))


def bytes_per_token(d_in: int) -> int:
    """The memory of a token in the reservoir: float16 values, and the index of its image."""
    return 2 * d_in + 8


def drawn(part: CapturedBatch, config: TrainConfig, scaling: InputScaling | None = None) -> TokenBatch:
    """The tokens of a part that are trained on, as float16. Steps and positions are drawn for each image, from its
    index and `sae_seed`."""
    assert part.activations is not None
    half = as_half(part.activations, part.indices[0], part.step_indices)
    half = scaling.scaled(half) if scaling else half
    if config.steps_per_image is None and config.tokens_per_step is None:
        tokens = half.flatten(0, 2)
    else:
        tokens = torch.cat([_drawn(image, index, config) for image, index in zip(half, part.indices, strict=True)])
    return TokenBatch(tokens, torch.tensor(part.indices).repeat_interleave(len(tokens) // len(part.indices)))


def scale_dead_thresholds(config: TrainConfig, n_prompts: int) -> TrainConfig:
    """With P prompts, a neuron is needed 1/P as often: it counts as dead only after P times as many tokens and
    images."""
    return replace(
        config,
        dead_after_tokens=config.dead_after_tokens * n_prompts,
        dead_after_images=config.dead_after_images * n_prompts,
    )


def _drawn(image: torch.Tensor, index: int, config: TrainConfig) -> torch.Tensor:
    """Some steps of [step, token, d_in], and some positions of each: [token, d_in]."""
    generator = torch.Generator().manual_seed(config.sae_seed * 1_000_003 + index)
    n_steps, n_tokens = image.shape[:2]
    steps = torch.randperm(n_steps, generator=generator)[: config.steps_per_image or n_steps]
    count = min(config.tokens_per_step or n_tokens, n_tokens)
    places = torch.stack([torch.randperm(n_tokens, generator=generator)[:count] for _ in steps])
    return image[steps[:, None], places].flatten(0, 1)


class _StreamTraining:
    """The trainings, and the reservoir before them. Both are made when the first part shows how wide a token is."""

    trainings: SeedTrainings
    reservoir: Reservoir
    tokens_per_image: int

    def __init__(self, run: Run, config: TrainConfig, stream: ImageStream):
        self.run, self.config, self.stream = run, config, stream
        self.has_begun = False
        self.scaling: InputScaling | None = None  # from the first part
        # Only `drain` fills it, which no checkpoint interrupts: so it is in no checkpoint.
        self.closing: deque[torch.Tensor] = deque()

    @property
    def latest(self) -> TrainStep | None:
        """The latest step of the first training."""
        return self.trainings.metrics[-1] if self.has_begun and self.trainings.metrics else None

    def take(self, part: CapturedBatch) -> None:
        """Trains on the batches that a part pushes out of the reservoir."""
        assert part.activations is not None
        if self.config.input_scaling and not self.has_begun:
            self.scaling = InputScaling.of(part.activations)
        batch = drawn(part, self.config, self.scaling)
        images = batch.images + part.run * self.stream.n_images
        if not self.has_begun:
            self._begin(batch.tokens.shape[1], len(batch.tokens) // len(part.indices))
        for mixed in self.reservoir.add(batch.tokens, images):
            self.trainings.update(mixed)

    def drain(self) -> Iterator[TrainStep]:
        """Trains on what is left; keeps its last batches for `finish`."""
        for batch in self.reservoir.drain():
            self.closing.append(batch.tokens)
            yield self.trainings.update(batch)

    def finish(self) -> Outcome:
        """Writes the autoencoders."""
        outputs, facts = self.trainings.finish(self.closing, self.scaling)
        facts |= {"training_seconds": round(self.trainings.seconds, 2)}
        return Outcome(outputs, facts | ({"shared_by": list(self.stream.shared_by)} if self.stream.shared_by else {}))

    def save(self, epoch: int, firsts: Sequence[int]) -> None:
        """Writes a checkpoint; `firsts` are the next images of each run."""
        tensors = self.trainings.state()
        tensors |= {f"reservoir.{name}": value for name, value in self.reservoir.state().items()}
        if self.scaling:
            tensors |= {f"scaling.{name}": value for name, value in self.scaling._asdict().items()}
        tensors["place"] = torch.tensor([epoch, *firsts])
        tensors["prompts"] = self._prompts_as_bytes()
        tensors["tokens_per_image"] = torch.tensor(self.tokens_per_image)
        write_tensors(self.run.checkpoint_path, tensors)

    def restore(self) -> tuple[int, list[int]]:
        """Continues from the checkpoint; returns the epoch and the next image of each run. Without a checkpoint, or
        with one that is broken or of other prompts, that is the start."""
        start = 0, [0] * self.stream.n_prompts
        try:
            saved = load_file(self.run.checkpoint_path)
        except (FileNotFoundError, SafetensorError):
            return start
        if not torch.equal(saved.get("prompts", torch.empty(0, dtype=torch.uint8)), self._prompts_as_bytes()):
            return start
        self._begin(saved["reservoir.tokens"].shape[1], int(saved["tokens_per_image"]))
        self.trainings.restore(saved)
        self.reservoir.restore(below(saved, "reservoir."))
        scaling = below(saved, "scaling.")
        self.scaling = InputScaling(**scaling) if scaling else None
        epoch, *firsts = saved["place"].tolist()
        return epoch, firsts

    def _begin(self, d_in: int, tokens_per_image: int) -> None:
        self.has_begun, self.tokens_per_image = True, tokens_per_image
        n_images = self.stream.n_images * self.stream.n_prompts
        config = scale_dead_thresholds(self.config, self.stream.n_prompts)
        self.trainings = SeedTrainings(self.run, config, d_in, n_images)
        capacity = reservoir_capacity(config, d_in, n_images * tokens_per_image)
        batch = config.batch_of(n_images * tokens_per_image * config.epochs)
        self.reservoir = Reservoir(capacity, batch, d_in, torch.Generator().manual_seed(config.sae_seed))
        self.closing = deque(maxlen=n_closing_batches(batch))

    def _prompts_as_bytes(self) -> torch.Tensor:
        return torch.tensor(list("\n".join(self.stream.shared_by).encode()), dtype=torch.uint8)
