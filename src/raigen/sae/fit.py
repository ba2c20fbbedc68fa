"""Trains an autoencoder on batches of tokens."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from raigen.config import TrainConfig
from raigen.errors import RaigenError
from raigen.runs.activations import TokenBatch
from raigen.sae.dead import DeadNeuronTracker
from raigen.sae.model import MatryoshkaSAE


class TrainStep(NamedTuple):
    """One update: its number from 1, the loss before it, and `tokens` seen so far. `fvu` has one entry per prefix."""

    step: int
    loss: float
    fvu: list[float]
    l0: float
    n_dead: int
    tokens: int

    def summary(self) -> str:
        """A few words for a progress bar."""
        return f"fvu {self.fvu[-1]:.3f}, {self.n_dead} dead"


class Training:
    """A training in progress: the autoencoder, its optimizer, its dead neurons, and counts of steps and tokens.

    `fit` advances it. A training that is restored from the `state` of another continues to the same weights, bit for
    bit on a CPU.
    """

    def __init__(self, sae: MatryoshkaSAE, config: TrainConfig):
        self.sae, self.config = sae, config
        self.tracker = DeadNeuronTracker(sae.config.d_sae, config.dead_after_tokens, config.dead_after_images)
        self.dead = self.tracker.dead
        self.step, self.tokens, self.scale = 0, 0, 1.0
        self.optimizer: torch.optim.Adam | None = None

    def begin(self, tokens: Float[Tensor, "token d_in"]) -> None:
        """Takes the scale of the tokens from the first batch, and initializes weights that are still 0."""
        self.scale = float((tokens - tokens.mean(dim=0)).square().mean().sqrt())
        if self.scale == 0:
            raise RaigenError(f"step 1: expected tokens that differ; all {len(tokens)} are equal")
        if not self.sae.W_dec.any():
            self.sae.initialize(tokens, torch.Generator().manual_seed(self.config.sae_seed))
        self.optimizer = _optimizer(self.sae, self.config.lr, self.scale)

    def update(self, batch: TokenBatch | Float[Tensor, "_ _"]) -> TrainStep:
        """One Adam step on one batch; raises as `fit` does."""
        sae = self.sae
        tokens, images = batch if isinstance(batch, TokenBatch) else (batch, None)
        tokens = tokens.to(sae.W_enc.device, torch.float32)
        _check_tokens(tokens, sae.config.d_in, self.step + 1)
        if self.optimizer is None:
            self.begin(tokens)
        assert self.optimizer is not None
        sae.train()
        loss = sae.loss(tokens, self.dead.to(tokens.device))
        self.optimizer.zero_grad()
        (loss.total / self.scale**2).backward()
        sae.project_decoder_gradient()
        self.optimizer.step()
        sae.unit_norm_decoder()
        sae.eval()
        self.tracker.update(loss.fired, len(tokens), images)
        self.dead = self.tracker.dead
        self.step, self.tokens = self.step + 1, self.tokens + len(tokens)
        total, l0, *fvu = torch.stack([loss.total.detach(), loss.l0, *loss.fvu]).tolist()
        return TrainStep(self.step, total, fvu, l0, int(self.dead.sum()), self.tokens)

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors."""
        counts = {"step": torch.tensor(self.step), "seen": torch.tensor(self.tokens),
                  "scale": torch.tensor(self.scale, dtype=torch.float64)}  # fmt: skip
        found = counts | {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        found |= {f"clock.{name}": value for name, value in self.tracker.state().items()}
        if self.optimizer is not None:
            for index, slots in self.optimizer.state_dict()["state"].items():
                found |= {f"adam.{index}.{name}": value for name, value in slots.items()}
        return {name: value.detach().clone() for name, value in found.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a `state` of a training with the same configuration."""
        self.step, self.tokens = int(state["step"]), int(state["seen"])
        self.scale = float(state["scale"])
        self.sae.load_state_dict(below(state, "sae."))
        self.tracker.restore(below(state, "clock."))
        self.dead = self.tracker.dead
        if slots := below(state, "adam."):
            self.optimizer = _optimizer(self.sae, self.config.lr, self.scale)
            packed = self.optimizer.state_dict()
            for name, value in slots.items():
                index, slot = name.split(".")
                packed["state"].setdefault(int(index), {})[slot] = value
            self.optimizer.load_state_dict(packed)


def fit(
    sae: MatryoshkaSAE,
    batches: Iterable[TokenBatch | Float[Tensor, "_ _"]],
    config: TrainConfig,
    training: Training | None = None,
) -> Iterator[TrainStep]:
    """Trains `sae` in place, one Adam step (betas 0.9, 0.99) per batch, and yields after each.

    Batches are tensors [token, d_in] or TokenBatch, in random order (each batch mixes images). An `sae` whose weights
    are still 0 is initialized from the first batch with `config.sae_seed`; any other is trained further. The learning
    rate is for tokens of standard deviation 1: biases, which have the unit of the tokens, learn at `lr` times the
    standard deviation of the first batch, so that rescaled tokens train the same autoencoder, rescaled. After the
    last batch, call `sae.calibrate(tokens)`: it sets the threshold of the inference codes.

    Only `lr`, `sae_seed`, `dead_after_tokens` and `dead_after_images` of `config` are used. To save and resume, pass a
    `training` made from the same `sae` and `config`, and keep its `state` between two steps. Raises RaigenError, naming
    the step, for tokens that are not d_in wide, NaN or infinite tokens, and a first batch of equal tokens.

    >>> config = TrainConfig(d_sae=16, k=2)
    >>> sae = MatryoshkaSAE(config.sae_config(d_in=4))
    >>> tokens = torch.randn(100, 32, 4, generator=torch.Generator().manual_seed(0))
    >>> steps = list(fit(sae, tokens, config))
    >>> steps[-1].step, steps[-1].tokens, steps[-1].fvu[-1] < steps[0].fvu[-1]
    (100, 3200, True)
    """
    training = training or Training(sae, config)
    for batch in batches:
        yield training.update(batch)


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _optimizer(sae: MatryoshkaSAE, lr: float, scale: float) -> torch.optim.Adam:
    weights = {"params": [sae.W_enc, sae.W_dec], "lr": lr, "eps": 1e-8}
    biases = {"params": [sae.b_enc, sae.b_dec], "lr": lr * scale, "eps": 1e-8 / scale}
    return torch.optim.Adam([weights, biases], betas=(0.9, 0.99), fused=True)


def _check_tokens(tokens: Float[Tensor, "token width"], d_in: int, step: int) -> None:
    if tokens.shape[1] != d_in:
        raise RaigenError(
            f"step {step}: expected tokens of width {d_in}, for which the autoencoder was made; got {tokens.shape[1]}"
        )
    if not tokens.isfinite().all():
        row = int((~tokens.isfinite()).any(dim=1).nonzero()[0])
        raise RaigenError(f"step {step}: expected finite tokens; token {row} of the batch holds NaN or infinity")
