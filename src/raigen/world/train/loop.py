"""The training loop of all parts: AdamW, warm-up and cosine decay, averaged weights, resumable checkpoints."""

import copy
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


class Recipe(NamedTuple):
    """A training schedule: `steps` updates, peak learning rate `lr`, `warmup` steps, `ema` decay of the average.

    At step `restart` (0: none), warm-up and decay of learning rate and average start again.
    """

    steps: int
    lr: float
    warmup: int = 100
    ema: float = 0.999
    weight_decay: float = 0.0
    floor: float = 0.02  # share of `lr` left at the last step
    seed: int = 0
    save_every: int = 200
    restart: int = 0


class Progress(NamedTuple):
    """One update: its number from 1, its loss, the averaged module so far."""

    step: int
    loss: float
    average: nn.Module


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up to `lr`, then a cosine down to `floor` x `lr`; the same again from `restart` on."""
    begin, end = (recipe.restart, recipe.steps) if step >= recipe.restart else (0, recipe.restart)
    if step - begin < recipe.warmup:
        return recipe.lr * (step - begin + 1) / recipe.warmup
    share = (step - begin - recipe.warmup) / max(1, end - begin - recipe.warmup)
    return recipe.lr * (recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def fit(module: nn.Module, loss_at: Callable[[torch.Generator], Tensor], recipe: Recipe, checkpoint: Path
        ) -> Iterator[Progress]:  # fmt: skip
    """Trains `module` in place and yields after every update; resumes from `checkpoint` where there is one.

    `loss_at(generator)` computes the loss of one batch. The generator is seeded with the step, so a resumed training
    sees the same batches as an uninterrupted one.
    """
    device = next(module.parameters()).device
    average = copy.deepcopy(module).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad], lr=recipe.lr, betas=(0.9, 0.99),
        weight_decay=recipe.weight_decay, fused=True,
    )  # fmt: skip
    start = _load(checkpoint, module, average, optimizer) if checkpoint.exists() else 0
    for step in range(start, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        loss = loss_at(generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        since = step - recipe.restart if step >= recipe.restart else step
        decay = min(recipe.ema, (1 + since) / (10 + since))
        with torch.no_grad():
            for mean, value in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            _save(checkpoint, step + 1, module, average, optimizer)
        yield Progress(step + 1, loss.item(), average)
    if start >= recipe.steps:
        yield Progress(start, math.nan, average.to(device))


def followed(name: str, progress: Iterator[Progress], recipe: Recipe, every: int = 50) -> nn.Module:
    """Runs a training to its end, reports progress on stderr, and returns the averaged module."""
    smooth, started, average = None, time.monotonic(), None
    for step, loss, average in progress:  # noqa: B007
        smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
        if step % every == 0 or step == recipe.steps:
            seconds = time.monotonic() - started
            print(f"{name} {step}/{recipe.steps} loss {smooth:.4f} {seconds:.0f} s", file=sys.stderr, flush=True)
    assert average is not None
    return average


def _save(path: Path, step: int, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    tensors = {f"module.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    partial = path.with_suffix(".part")
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, partial, {"step": str(step)})
    partial.rename(path)


def _load(path: Path, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    with safe_open(path, "pt") as stored:
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        step = int(stored.metadata()["step"])
    module.load_state_dict({k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")})
    average.load_state_dict({k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")})
    packed, parameters = optimizer.state_dict(), [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            like = parameters[int(index)]  # fused Adam walks parameter and state side by side in memory
            packed["state"].setdefault(int(index), {})[name] = (
                torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            )
    optimizer.load_state_dict(packed)
    return step
