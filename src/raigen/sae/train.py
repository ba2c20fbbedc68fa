"""Training a sparse autoencoder."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raigen.config import TrainConfig
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore, TokenBatch
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.sae.dead import DeadNeuronTracker
from raigen.sae.model import CHUNK, MatryoshkaSAE
from raigen.sae.scaling import InputScaling

METRICS_EVERY = 10  # steps
CLOSING_TOKENS = 16_384  # half of them set the threshold when training ends, the other half tell the quality


class TrainStep(NamedTuple):
    """One update: its number from 1, the loss before it, and `tokens` seen so far. `fvu` has one entry per prefix."""

    step: int
    loss: float
    fvu: list[float]
    l0: float
    n_dead: int
    tokens: int


class Training:
    """A training under way: the autoencoder, its optimizer, the dead clock, and what was counted.

    `fit` moves it on; `state` and `restore` stop it and let it go on to the same weights, bit for bit on a CPU.
    """

    def __init__(self, sae: MatryoshkaSAE, config: TrainConfig):
        self.sae, self.config = sae, config
        self.tracker = DeadNeuronTracker(sae.config.d_sae, config.dead_after_tokens, config.dead_after_images)
        self.dead = self.tracker.dead
        self.step, self.tokens, self.scale = 0, 0, 1.0
        self.optimizer: torch.optim.Adam | None = None

    def begin(self, tokens: Float[Tensor, "token d_in"]) -> None:
        """Takes the unit of the tokens from the first batch, and initializes weights that are still 0."""
        self.scale = float((tokens - tokens.mean(dim=0)).square().mean().sqrt())
        if self.scale == 0:
            raise RaigenError(f"step 1: expected tokens that differ; all {len(tokens)} are equal")
        if not self.sae.W_dec.any():
            self.sae.initialize(tokens, torch.Generator().manual_seed(self.config.sae_seed))
        self.optimizer = _optimizer(self.sae, self.config.lr, self.scale)

    def update(self, tokens: Float[Tensor, "token d_in"], images: Int[Tensor, " token"] | None) -> TrainStep:
        """One Adam step on one batch."""
        sae = self.sae
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
        """Everything as tensors."""
        counts = {"step": torch.tensor(self.step), "seen": torch.tensor(self.tokens),
                  "scale": torch.tensor(self.scale, dtype=torch.float64)}  # fmt: skip
        found = counts | {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        found |= {f"clock.{name}": value for name, value in self.tracker.state().items()}
        if self.optimizer is not None:
            for index, slots in self.optimizer.state_dict()["state"].items():
                found |= {f"adam.{index}.{name}": value for name, value in slots.items()}
        return {name: value.detach().clone() for name, value in found.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Becomes the training whose `state` this was."""
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

    Batches are tensors [token, d_in] or TokenBatch, in random order (a mixture of images in each). An `sae` whose
    weights are still 0 is initialized from the first batch with `config.sae_seed`; another is trained further. The
    learning rate is for tokens of standard deviation 1: biases, which share the unit of the tokens, learn at `lr` times
    the standard deviation of the first batch, so that rescaled tokens train the same autoencoder, rescaled. When the
    training ends, `sae.calibrate(tokens)` sets the threshold of its inference codes.

    Of `config`, `lr`, `sae_seed`, `dead_after_tokens` and `dead_after_images` count. `training`, made of the same `sae`
    and `config`, is moved on where it is given: its `state` can be kept between two steps. Raises RaigenError, naming
    the step, for tokens of another width than d_in, NaN or infinite tokens, or a first batch of equal tokens.

    >>> config = TrainConfig(d_sae=16, k=2)
    >>> sae = MatryoshkaSAE(config.sae_config(d_in=4))
    >>> tokens = torch.randn(100, 32, 4, generator=torch.Generator().manual_seed(0))
    >>> steps = list(fit(sae, tokens, config))
    >>> steps[-1].step, steps[-1].tokens, steps[-1].fvu[-1] < steps[0].fvu[-1]
    (100, 3200, True)
    """
    training = training or Training(sae, config)
    for batch in batches:
        tokens, images = batch if isinstance(batch, TokenBatch) else (batch, None)
        tokens = tokens.to(sae.W_enc.device, torch.float32)
        _check_tokens(tokens, sae.config.d_in, training.step + 1)
        yield training.update(tokens, images)


def train(run: Run, config: TrainConfig) -> Generator[Tick, None, Outcome]:
    """The stage: trains the autoencoder of a run on its stored activations and writes it, with metrics.jsonl.

    The facts hold the shape (`d_in`, `d_sae`, `group_sizes`, `k`), `steps`, `tokens`, `n_dead`, `dead_share`, and, for
    the inference codes of random captured tokens, `fvu`, `fvu_per_prefix` and `l0`. Takes about a minute for the
    bundled model, so a broken-off training starts over.

    Raises RaigenError when activations are missing or broken.
    """
    for name in ("steps_per_image", "tokens_per_step"):
        if getattr(config, name) is not None:
            raise RaigenError(f"{name}: expected none with a store, whose tokens are all read; got "
                              f"{getattr(config, name)}. Capture without --store")  # fmt: skip
    store = ActivationStore(run.activations_dir)
    training, *others = trainings_of(run, config, store.d_in, store.n_images)
    generator = torch.Generator().manual_seed(config.sae_seed)
    size = config.batch_of(store.n_images * store.n_steps * store.n_tokens * config.epochs)
    total = store.n_batches(size, config.epochs)
    metrics = []
    scaling = InputScaling.of(store.first_shard()) if config.input_scaling else None
    batches = partial(store.batches, size, generator=generator, prepared=scaling and scaling.scaled)
    for batch in batches(epochs=config.epochs):
        metrics += fit(training.sae, [batch], config, training)
        for other in others:
            list(fit(other.sae, [batch], config, other))
        yield Tick(metrics[-1].step, total, note_of(metrics[-1]))
    closing = islice(batches(epochs=1), n_closing_batches(size))
    return finished(run, training, metrics, [batch.tokens for batch in closing], others, scaling)


def n_closing_batches(tokens_per_batch: int) -> int:
    """How many batches `finished` needs."""
    return -(-CLOSING_TOKENS // tokens_per_batch)


def trainings_of(run: Run, config: TrainConfig, d_in: int, n_images: int) -> list[Training]:
    """Trainings that have not begun, one for each seed, for tokens of this width from so many images."""
    # With fewer images than the clock asks for, having seen them all is as much as can be asked.
    patience = min(config.dead_after_images, n_images)
    configs = [replace(config, dead_after_images=patience, sae_seed=config.sae_seed + i) for i in range(config.n_seeds)]
    return [Training(placed(MatryoshkaSAE(own.sae_config(d_in)), _device(run)), own) for own in configs]


def placed(sae: MatryoshkaSAE, device: torch.device) -> MatryoshkaSAE:
    """On a device, where it searches in bfloat16 if that is a GPU that computes in it: there the product with the
    encoder is nearly all of a step."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        sae.search_dtype = torch.bfloat16
    return sae.to(device)


def note_of(step: TrainStep) -> str:
    """A few words about an update."""
    return f"fvu {step.fvu[-1]:.3f}, {step.n_dead} dead"


def finished(
    run: Run,
    training: Training,
    metrics: list[TrainStep],
    closing: Iterable[Float[Tensor, "_ d_in"]],
    others: Sequence[Training] = (),
    scaling: InputScaling | None = None,
) -> Outcome:
    """Sets the threshold on every other token of the `closing` batches, and writes the autoencoder and metrics.jsonl;
    the facts hold its quality on the tokens between. Those of other seeds are written beside it.

    Of `scaling`, the closing tokens are scaled ones, and what is written is folded."""
    sae, last = training.sae, metrics[-1]
    tokens = torch.cat(list(closing)).to(sae.b_dec.device)
    saes, outputs = (sae, *(other.sae for other in others)), []
    for each in saes:
        each.calibrate(tokens[::2])
    quality = inference_quality(sae, tokens[1::2])
    for number, each in enumerate(saes):
        if scaling:
            scaling.fold(each)
        outputs += each.save(run.seed_dir(number))
    kept = [step for step in metrics if step.step % METRICS_EVERY == 0 or step is last]
    write_text(run.metrics_path, "".join(json.dumps(step._asdict()) + "\n" for step in kept))
    facts = {
        **{name: value for name, value in asdict(sae.config).items() if not name.startswith("aux")},
        "group_sizes": list(sae.config.group_sizes),
        "steps": last.step,
        "tokens": last.tokens,
        "n_seeds": 1 + len(others),
        "n_dead": last.n_dead,
        "dead_share": last.n_dead / sae.config.d_sae,
    }
    return Outcome([*outputs, run.metrics_path], facts | quality)


@torch.no_grad()
def inference_quality(sae: MatryoshkaSAE, tokens: Float[Tensor, "token d_in"]) -> dict[str, Any]:
    """`fvu` (all neurons), `fvu_per_prefix` and `l0` of the inference codes of some tokens."""
    variance = float((tokens - tokens.mean(dim=0)).square().sum())
    squared, n_active = [0.0] * len(sae.group_bounds), 0
    for chunk in tokens.split(CHUNK):
        codes = sae.encode(chunk)
        n_active += int((codes > 0).sum())
        for groups in range(len(squared)):
            squared[groups] += float((chunk - sae.decode(codes, groups)).square().sum())
    fvu = [error / variance for error in squared]
    return {"fvu": fvu[-1], "fvu_per_prefix": fvu, "l0": n_active / len(tokens)}


def _device(run: Run) -> torch.device:
    """The first GPU where there is one, unless the images were to be made on the CPU."""
    capture = run.manifest["stages"].get("capture")
    on_cpu = capture is not None and capture["config"]["device"] == "cpu"
    return torch.device("cuda" if torch.cuda.is_available() and not on_cpu else "cpu")


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _optimizer(sae: MatryoshkaSAE, lr: float, scale: float) -> torch.optim.Adam:
    weights = {"params": [sae.W_enc, sae.W_dec], "lr": lr, "eps": 1e-8}
    biases = {"params": [sae.b_enc, sae.b_dec], "lr": lr * scale, "eps": 1e-8 / scale}
    return torch.optim.Adam([weights, biases], betas=(0.9, 0.99), fused=True)


def _check_tokens(tokens: Float[Tensor, "token width"], d_in: int, step: int) -> None:
    if tokens.shape[1] != d_in:
        raise RaigenError(
            f"step {step}: expected tokens of width {d_in}, as the autoencoder was made for; got {tokens.shape[1]}"
        )
    if not tokens.isfinite().all():
        row = int((~tokens.isfinite()).any(dim=1).nonzero()[0])
        raise RaigenError(f"step {step}: expected finite tokens; token {row} of the batch holds NaN or infinity")
