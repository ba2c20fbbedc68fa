"""Trains the autoencoder of a run."""

from collections.abc import Generator
from functools import partial
from itertools import islice

import torch

from raigen.config import TrainConfig
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.sae.adopt import adopt, open_shared
from raigen.sae.fit import Training, fit
from raigen.sae.scaling import InputScaling
from raigen.sae.seeds import SeedTrainings, n_closing_batches
from raigen.sae.stream import ImageStream, train_on_stream

__all__ = ["Training", "fit", "open_shared", "train"]


def train(run: Run, config: TrainConfig, stream: ImageStream | None = None) -> Generator[Tick, None, Outcome]:
    """The stage: trains the autoencoder of a run and writes it, with metrics.jsonl.

    It trains on the stored activations of the run, or, with a `stream`, while the images are generated. The facts hold
    the shape (`d_in`, `d_sae`, `group_sizes`, `k`), `steps`, `tokens`, `n_dead`, `dead_share`, and, for the inference
    codes of random captured tokens, `fvu`, `fvu_per_prefix` and `l0`.

    With `config.sae` it trains nothing and takes over the autoencoder that is there (`raigen.sae.adopt`).

    Raises RaigenError when activations are missing or broken.
    """
    if config.sae is not None:
        return adopt(run, config.sae, config.sae_revision, stream)
    return _train_on_store(run, config) if stream is None else train_on_stream(run, config, stream)


def check_store_options(config: TrainConfig) -> None:
    """Raises RaigenError for settings with which an autoencoder cannot be trained on a store."""
    for name in ("steps_per_image", "tokens_per_step"):
        if getattr(config, name) is not None:
            raise RaigenError(f"{name}: expected none with a store, which trains on all of its tokens; got "
                              f"{getattr(config, name)}. Capture without --store")  # fmt: skip


def _train_on_store(run: Run, config: TrainConfig) -> Generator[Tick, None, Outcome]:
    """A training on the bundled model takes about a minute, so one that was interrupted starts over."""
    check_store_options(config)
    store = ActivationStore(run.activations_dir)
    trainings = SeedTrainings(run, config, store.d_in, store.n_images)
    size = config.batch_of(store.n_images * store.n_steps * store.n_tokens * config.epochs)
    total = store.n_batches(size, config.epochs)
    scaling = InputScaling.of(store.first_shard()) if config.input_scaling else None
    generator = torch.Generator().manual_seed(config.sae_seed)
    batches = partial(store.batches, size, generator=generator, prepared=scaling and scaling.scaled)
    for batch in batches(epochs=config.epochs):
        step = trainings.update(batch)
        yield Tick(step.step, total, step.summary())
    closing = islice(batches(epochs=1), n_closing_batches(size))
    return trainings.finish([batch.tokens for batch in closing], scaling)
