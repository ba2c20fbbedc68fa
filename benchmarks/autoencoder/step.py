"""How fast is one training step?

Compares ours with the dense form and with other libraries: `python -m benchmarks.autoencoder.step`.

Ours and the dense form train the same autoencoder from the same weights. SAELens and dictionary_learning, if they are
installed (`pip install "raigen[neighbours]"`), train one of the same shape with their own public trainers, each with
its own initialization and loss. All get the same batches, in turn within each round, so that other load affects all of
them. It reports ratios of the medians, and the share of our step that the encoder's matrix product takes, which no
exact form can avoid.
"""

import json
import platform
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from benchmarks.common.results import RESULTS
from raigen.config import SAEConfig
from raigen.runs.files import write_text
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.seeds import placed


@dataclass(frozen=True)
class Options:
    """The step benchmark; the defaults are the published shape."""

    d_in: int = 1280
    """Width of a token."""
    d_sae: int = 20_480
    """Neurons in all; a tenth of them coarse."""
    k: int = 32
    """Mean active neurons per token."""
    tokens: int = 4096
    """Tokens per batch."""
    rounds: int = 3
    """Timed steps of each form."""
    n_dead: int = 0
    """Neurons that count as dead, for the auxiliary loss."""
    threads: int = 1
    """CPU threads."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    compiled: bool = False
    """Also times the dense form under torch.compile."""
    name: str = "sae_step"
    """The result's file in `results`, without its ending."""
    results: Path = RESULTS
    """Where the result goes."""


def dense_loss(sae: MatryoshkaSAE, x: Float[Tensor, "token d_in"], dead: Tensor) -> Tensor:
    """The loss from its definition: one flat top-k, dense codes, a dense product per prefix."""
    config = sae.config
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    values, places = pre.flatten().topk(config.k * len(x), sorted=False)
    codes = torch.zeros_like(pre).view(-1).scatter(0, places, values.relu()).view_as(pre)
    recons = [codes[:, :end] @ sae.W_dec[:end] + sae.b_dec for end in sae.group_bounds]
    total = torch.stack([(x - recon).square().sum(1).mean() for recon in recons]).mean()
    if dead.any():
        asked = pre[:, dead].relu()
        values, places = asked.topk(min(config.aux_k, asked.shape[1]), dim=1, sorted=False)
        explained = torch.zeros_like(asked).scatter(1, places, values) @ sae.W_dec[dead]
        total = total + config.aux_weight * ((x - recons[-1]).detach() - explained).square().sum(1).mean()
    return total


def step_of(sae: MatryoshkaSAE, loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], float]:
    """A whole training step with its optimizer, as `raigen.train.fit` does it; returns the loss."""
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=True)

    def step(x: Tensor) -> float:
        value = loss(x)
        optimizer.zero_grad()
        value.backward()
        sae.project_decoder_gradient()
        optimizer.step()
        sae.unit_norm_decoder()
        return value.item()

    return step


def compiled_step(dense: MatryoshkaSAE, dead: Tensor) -> Callable[[Tensor], float]:
    """The dense form under torch.compile, on an autoencoder of its own that starts alike."""
    twin = deepcopy(dense)
    loss = torch.compile(dense_loss)
    return step_of(twin, lambda x: loss(twin, x, dead))


def neighbors(options: Options) -> dict[str, Callable[[Tensor], float]]:
    """A whole training step of each installed library, at the same shape, without its logging."""
    coarse, found = options.d_sae // 10, {}
    if find_spec("sae_lens"):
        found["SAELens"] = _saelens_step(options, coarse)
    if find_spec("dictionary_learning"):
        found["dictionary_learning"] = _dictionary_learning_step(options, coarse)
    return found


def _saelens_step(options: Options, coarse: int) -> Callable[[Tensor], float]:
    saes, trainers, config = (import_module(f"sae_lens.{name}") for name in
                              ("saes.matryoshka_batchtopk_sae", "training.sae_trainer", "config"))  # fmt: skip
    shape = saes.MatryoshkaBatchTopKTrainingSAEConfig(
        d_in=options.d_in, d_sae=options.d_sae, k=options.k, matryoshka_widths=[coarse, options.d_sae],
        device=options.device,
    )  # fmt: skip
    settings = config.SAETrainerConfig(
        total_training_samples=10**9, train_batch_size_samples=options.tokens, lr_end=3e-4, device=options.device
    )
    trainer = trainers.SAETrainer(settings, saes.MatryoshkaBatchTopKTrainingSAE(shape), iter(()))
    return lambda x: float(trainer.step(x).loss.detach())


def _dictionary_learning_step(options: Options, coarse: int) -> Callable[[Tensor], float]:
    trainer = import_module("dictionary_learning.trainers.matryoshka_batch_top_k").MatryoshkaBatchTopKTrainer(
        steps=10**6, activation_dim=options.d_in, dict_size=options.d_sae, k=options.k, layer=0, lm_name="none",
        group_fractions=[coarse / options.d_sae, 1 - coarse / options.d_sae], device=options.device,
    )  # fmt: skip
    numbers = count(1)  # its step 0 also computes a geometric median
    return lambda x: trainer.update(next(numbers), x)


def main(options: Options) -> None:
    """Times the forms in turn, checks that they agree, prints and writes the ratios."""
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    coarse = options.d_sae // 10
    shape = SAEConfig(options.d_in, options.d_sae, (coarse, options.d_sae - coarse), options.k)
    ours, dense = placed(MatryoshkaSAE(shape), torch.device(options.device)), MatryoshkaSAE(shape).to(options.device)
    truth = torch.nn.functional.normalize(torch.randn(4096, options.d_in, generator=generator), dim=1)

    def tokens() -> Tensor:
        active = torch.rand(options.tokens, len(truth), generator=generator) < 20 / len(truth)
        noise = 0.1 * torch.randn(options.tokens, options.d_in, generator=generator)
        return (active.float() @ truth + noise).to(options.device)

    ours.initialize(tokens().cpu(), generator)
    dense.load_state_dict(ours.state_dict())
    dead = torch.arange(options.d_sae, device=options.device) >= options.d_sae - options.n_dead
    forms: dict[str, Callable[[Tensor], float]] = {
        "ours": step_of(ours.train(), lambda x: ours.loss(x, dead).total),
        "dense": step_of(dense, lambda x: dense_loss(dense, x, dead)),
        **({"dense, compiled": compiled_step(dense, dead)} if options.compiled else {}),
        "encoder alone": lambda x: float(ours.pre_activations(x)[0, 0]),
        **neighbors(options),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    losses: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(options.rounds + 1):  # the first warms up
        x = tokens()
        for name, step in forms.items():
            with torch.set_grad_enabled(name != "encoder alone"):
                seconds[name].append(_timed(step, x, losses[name], options.device))
    median = {name: float(np.median(times[1:])) for name, times in seconds.items()}
    result = {
        "machine": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "options": {name: value for name, value in asdict(options).items() if name != "results"},
        "seconds": median,
        **{f"{name} / ours": median[name] / median["ours"] for name in median if name not in ("ours", "encoder alone")},
        "share of the encoder": median["encoder alone"] / median["ours"],
        "largest relative difference of the losses": float(
            max(abs(a / b - 1) for a, b in zip(losses["ours"], losses["dense"], strict=True))
        ),
    }
    print(json.dumps(result, indent=1))
    write_text(options.results / f"{options.name}.json", json.dumps(result, indent=1) + "\n")


def _timed(step: Callable[[Tensor], float], x: Tensor, losses: list[float], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    losses.append(step(x))
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(tyro.cli(Options))
