"""Trains an autoencoder while images are made, so that the training set touches no disk."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from raigen.config import TrainConfig
from raigen.runs.activations import CapturedBatch, TokenBatch, as_half
from raigen.runs.files import write_tensors
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.sae.reservoir import Reservoir
from raigen.sae.scaling import InputScaling
from raigen.sae.train import Training, TrainStep, below, finished, fit, n_closing_batches, note_of, trainings_of

CHECKPOINT_SECONDS = 60.0  # at least, between two
Source = Callable[[Sequence[int]], Iterator[CapturedBatch]]


def train_on_stream(
    run: Run, config: TrainConfig, n_images: int, source: Source, prompts: Sequence[str] = ("",)
) -> Generator[Tick, None, Outcome]:
    """The stage `train` on activations as they come; `source([i])` gives those of all images from the i-th on.

    With several `prompts`, each of a run of so many images, the autoencoder is that of all of them, kept in the first
    `run`: `source` takes as many first images and gives parts of all runs in turns. A neuron of one prompt is asked
    for so much more seldom, and the dead clock waits so much longer.

    Tokens pass through a reservoir of bounded memory, each once per epoch; from the second epoch on, the images are
    made again from their seeds. Every minute, between two batches of images, everything is written down; stopped at
    any point and started again with the same batches, it comes to the same weights, bit for bit on a CPU.
    """
    stream = _Stream(run, config, n_images, prompts)
    first_epoch, firsts = stream.restore()
    written = time.monotonic()
    for epoch in range(first_epoch, config.epochs):
        for part in source(tuple(firsts)):
            if part.activations is not None:
                stream.take(part)
                firsts[part.run] = part.indices[-1] + 1
                if time.monotonic() - written > CHECKPOINT_SECONDS:
                    stream.keep(epoch, firsts)
                    written = time.monotonic()
            note = note_of(stream.metrics[-1]) if stream.metrics else "mixing"
            yield Tick(part.tick.done, part.tick.total, f"{part.tick.note}, {note}" if part.tick.note else note)
        firsts = [0] * len(prompts)
    n_all = n_images * len(prompts)
    for step in stream.drain():
        yield Tick(n_all, n_all, note_of(step))
    outcome = stream.end()
    run.checkpoint_path.unlink(missing_ok=True)
    return outcome


def reservoir_capacity(config: TrainConfig, d_in: int, n_tokens: int) -> int:
    """How many of `n_tokens` tokens are mixed at a time.

    Of few, a quarter: holding all of them would put off the training until all images are made.
    """
    batch = config.batch_of(n_tokens * config.epochs)
    return max(batch, min(config.reservoir_mb * 2**20 // bytes_per_token(d_in), n_tokens // 4))


def bytes_per_token(d_in: int) -> int:
    """What a token takes in the reservoir: float16, and the index of its image."""
    return 2 * d_in + 8


def drawn(part: CapturedBatch, config: TrainConfig, scaling: InputScaling | None = None) -> TokenBatch:
    """The tokens of a part that are trained on, float16: steps and positions drawn anew for every image, from its
    index and `sae_seed`."""
    assert part.activations is not None
    half = as_half(part.activations, part.indices[0], part.step_indices)
    half = scaling.scaled(half) if scaling else half
    if config.steps_per_image is None and config.tokens_per_step is None:
        tokens = half.flatten(0, 2)
    else:
        tokens = torch.cat([_drawn(image, index, config) for image, index in zip(half, part.indices, strict=True)])
    return TokenBatch(tokens, torch.tensor(part.indices).repeat_interleave(len(tokens) // len(part.indices)))


def patient(config: TrainConfig, n_prompts: int) -> TrainConfig:
    """With a dead clock that waits `n_prompts` times as long."""
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


class _Stream:
    """The trainings, one for each seed, and the reservoir before them; all are made when the first part tells the width
    of a token."""

    def __init__(self, run: Run, config: TrainConfig, n_images: int, prompts: Sequence[str]):
        self.run, self.config, self.n_images, self.prompts = run, config, n_images, prompts
        self.metrics: list[TrainStep] = []
        self.trainings: list[Training] = []
        self.reservoir: Reservoir | None = None
        self.scaling: InputScaling | None = None  # told by the first part
        # Filled by `drain` alone, which no checkpoint interrupts: so it need not be written down.
        self.closing: deque[torch.Tensor] = deque()
        self.seconds = 0.0  # of training alone, in this start

    def take(self, part: CapturedBatch) -> None:
        """Trains on what a part pushes out of the reservoir."""
        assert part.activations is not None
        if self.reservoir is None and self.config.input_scaling:
            self.scaling = InputScaling.of(part.activations)
        batch = drawn(part, self.config, self.scaling)
        images = batch.images + part.run * self.n_images
        if self.reservoir is None:
            self._begin(batch.tokens.shape[1], len(batch.tokens) // len(part.indices))
        assert self.reservoir is not None
        for _ in self._train(self.reservoir.add(batch.tokens, images)):
            pass

    def drain(self) -> Iterator[TrainStep]:
        """Trains on what is left; its last batches are kept for `end`."""
        assert self.reservoir is not None  # a run has images
        for batch in self.reservoir.drain():
            self.closing.append(batch.tokens)
            yield from self._train(iter([batch]))

    def end(self) -> Outcome:
        """Writes the autoencoder."""
        first, *others = self.trainings
        outputs, facts = finished(self.run, first, self.metrics, self.closing, others, self.scaling)
        return Outcome(outputs, facts | {"training_seconds": round(self.seconds, 2)})

    def keep(self, epoch: int, firsts: Sequence[int]) -> None:
        """Writes down where the training stands: `firsts` are the next images of each run."""
        assert self.reservoir is not None
        tensors = {}
        for number, training in enumerate(self.trainings):
            tensors |= {f"training-{number}.{name}": value for name, value in training.state().items()}
        tensors |= {f"reservoir.{name}": value for name, value in self.reservoir.state().items()}
        if self.scaling:
            tensors |= {f"scaling.{name}": value for name, value in self.scaling._asdict().items()}
        tensors["place"] = torch.tensor([epoch, *firsts])
        tensors["prompts"] = self._prompts_as_bytes()
        tensors["tokens_per_image"] = torch.tensor(self.tokens_per_image)
        tensors["metrics"] = torch.tensor([[*step[:2], *step.fvu, *step[3:]] for step in self.metrics]).double()
        write_tensors(self.run.checkpoint_path, tensors)

    def restore(self) -> tuple[int, list[int]]:
        """Goes back to what was written down; returns the epoch and the next images. From the start where nothing, a
        broken file, or one of other prompts is there."""
        start = 0, [0] * len(self.prompts)
        try:
            kept = load_file(self.run.checkpoint_path)
        except (FileNotFoundError, SafetensorError):
            return start
        if not torch.equal(kept.get("prompts", torch.empty(0, dtype=torch.uint8)), self._prompts_as_bytes()):
            return start
        self._begin(kept["reservoir.tokens"].shape[1], int(kept["tokens_per_image"]))
        assert self.reservoir is not None
        for number, training in enumerate(self.trainings):
            training.restore(below(kept, f"training-{number}."))
        self.reservoir.restore(below(kept, "reservoir."))
        self.scaling = InputScaling.restored(below(kept, "scaling."))
        for step, loss, *fvu, l0, n_dead, tokens in kept["metrics"].tolist():
            self.metrics.append(TrainStep(int(step), loss, fvu, l0, int(n_dead), int(tokens)))
        epoch, *firsts = kept["place"].tolist()
        return epoch, firsts

    def _begin(self, d_in: int, tokens_per_image: int) -> None:
        self.tokens_per_image = tokens_per_image
        n_images = self.n_images * len(self.prompts)
        self.trainings = trainings_of(self.run, patient(self.config, len(self.prompts)), d_in, n_images)
        generator = torch.Generator().manual_seed(self.config.sae_seed)
        capacity = reservoir_capacity(self.config, d_in, n_images * tokens_per_image)
        batch = self.config.batch_of(n_images * tokens_per_image * self.config.epochs)
        self.reservoir = Reservoir(capacity, batch, d_in, generator)
        self.closing = deque(maxlen=n_closing_batches(batch))

    def _prompts_as_bytes(self) -> torch.Tensor:
        return torch.tensor(list("\n".join(self.prompts).encode()), dtype=torch.uint8)

    def _train(self, batches: Iterator[TokenBatch]) -> Iterator[TrainStep]:
        for batch in batches:
            started = time.perf_counter()
            steps = [list(fit(each.sae, [batch], self.config, each)) for each in self.trainings]
            self.metrics += steps[0]
            self.seconds += time.perf_counter() - started
            yield self.metrics[-1]
