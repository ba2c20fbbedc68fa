"""Collects the image tokens that one module puts out for the prompt, step by step, from the denoiser's calls alone."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raigen.errors import RaigenError
from raigen.hookpoint import Hookpoint

Sample = Tensor | list[Tensor]  # the noisy pictures a denoiser is given: one row, or one item, for each


class Layout(NamedTuple):
    """Where a module's outputs hold the image tokens of the prompt.

    In a step the denoiser sees each picture once or more: once for each *branch*, as in classifier-free guidance, where
    one is told the prompt and one is not. Branches are counted through the rows of a call and on through the calls of
    the step. `part` is the place among the tensors of an output, `start` that of the first image token in it; the
    tokens then run row by row over the `grid` of (rows, columns), each of width `d_in`.
    """

    branch: int
    part: int
    start: int
    grid: tuple[int, int]
    d_in: int

    def tokens(self, states: Tensor) -> Float[Tensor, "image token d_in"]:
        """The image tokens in rows of the chosen tensor, [row, token, d_in] or [row, channel, row, column]."""
        rows, columns = self.grid
        return as_tokens(states)[:, self.start : self.start + rows * columns]


def as_tokens(states: Tensor) -> Float[Tensor, "image token d_in"]:
    """[row, channel, row, column] as one token per position; what is tokens already stays."""
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of a module's output that can be maps or sequences of tokens."""
    parts = [output] if isinstance(output, Tensor) else output if isinstance(output, tuple) else []
    return [part for part in parts if isinstance(part, Tensor) and part.dim() in (3, 4)]


def sample_of(denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Sample:
    """The noisy sample in a call of the denoiser: its first argument, whatever that is called."""
    sample = args[0] if args else kwargs.get(_first_argument(denoiser))
    rows = [sample] if isinstance(sample, Tensor) else sample if isinstance(sample, list) else []
    if not rows or not all(isinstance(row, Tensor) and row.is_floating_point() for row in rows):
        raise RaigenError(f"hookpoint: {type(denoiser).__name__} is not called with noisy pictures; name a module of "
                          "the denoiser")  # fmt: skip
    return sample  # type: ignore[return-value]  # one of the two kinds, as just checked


def with_sample(
    denoiser: nn.Module, args: tuple, kwargs: dict[str, Any], sample: Sample
) -> tuple[tuple, dict[str, Any]]:
    """The same call of the denoiser with another sample."""
    return ((sample, *args[1:]), kwargs) if args else (args, kwargs | {_first_argument(denoiser): sample})


def _first_argument(denoiser: nn.Module) -> str:
    return next(iter(inspect.signature(denoiser.forward).parameters))


def same_rows(rows: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether two samples hold the same noisy pictures."""
    return len(rows) == len(others) and all(torch.equal(row, other) for row, other in zip(rows, others, strict=True))


class Listener:
    """Collects the tokens that one module puts out in one call of a pipeline.

    A step lasts as long as the denoiser's calls are given the same noisy pictures: the branches of guidance are, be
    they one call or several, while a scheduler that evaluates the model twice (Heun, PNDM) has moved the sample in
    between. So no pipeline has to tell its steps, and each evaluation counts as a step.
    """

    def __init__(self, hookpoint: Hookpoint, layout: Layout, seeds: Sequence[int], step_indices: Sequence[int] | None):
        self.hookpoint, self.layout, self.seeds = hookpoint, layout, seeds
        self.wanted = None if step_indices is None else frozenset(step_indices)
        self.step = -1
        self.n_branches = 0  # heard in this step
        self.n_rows = 0  # of the call that runs; 0 between calls
        self.heard = False  # in the call that runs
        self.sample: list[Tensor] = []
        self.kept: dict[int, Tensor] = {}

    @contextmanager
    def listening(self, denoiser: nn.Module) -> Iterator[None]:
        """Listens to the denoiser and to the module in it."""
        handles = [
            denoiser.register_forward_pre_hook(self._begin_call, with_kwargs=True),
            self.hookpoint.module.register_forward_hook(self._hear),
            denoiser.register_forward_hook(self._end_call),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def collected(self) -> tuple[Tensor, tuple[int, int], tuple[int, ...]]:
        """Activations [image, step, token, d_in], the grid and the steps."""
        self._end_step()
        missing = sorted((self.wanted or frozenset()) - self.kept.keys())
        if missing or not self.kept:
            raise RaigenError(f"step_indices: expected numbers from 0 to {self.step}; got {missing}")
        steps = tuple(sorted(self.kept))
        return torch.stack([self.kept[step] for step in steps], dim=1).float(), self.layout.grid, steps

    def _begin_call(self, denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        sample, n = sample_of(denoiser, args, kwargs), len(self.seeds)
        blocks = [list(sample[start : start + n]) for start in range(0, len(sample), n)]
        rows = blocks[-1]
        if not all(same_rows(block, rows) for block in blocks):
            raise RaigenError(f"hookpoint: {type(denoiser).__name__} is given the branches of guidance in an order "
                              "that cannot be told; set batch_size to 1, or guidance off")  # fmt: skip
        if not same_rows(rows, self.sample):
            if self.step >= 0:
                self._end_step()
            self.step, self.n_branches = self.step + 1, 0
            self.sample = [row.clone() for row in rows]  # a scheduler may move it in place
        self.n_rows, self.heard = len(sample), False

    def _end_call(self, denoiser: nn.Module, args: tuple, output: Any) -> None:
        self.n_rows = 0

    def _end_step(self) -> None:
        if self.n_branches == 0:
            raise RaigenError(f"hookpoint: {self.hookpoint.path} did not run in step {max(self.step, 0)}; name a "
                              "module of the denoiser")  # fmt: skip

    def _hear(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.heard:
            raise RaigenError(f"hookpoint: {self.hookpoint.path} ran more than once in step {self.step}; choose a "
                              "module that runs once per step")  # fmt: skip
        if not self.n_rows:
            return  # not part of a denoising step
        self.heard = True
        states, n = tensors_of(output)[self.layout.part], len(self.seeds)
        if len(states) != self.n_rows or len(states) % n:
            raise RaigenError(f"hookpoint: {self.hookpoint.path} puts out {len(states)} rows for {n} pictures; choose "
                              "a module that puts out one per picture")  # fmt: skip
        first, count = self.n_branches, len(states) // n
        self.n_branches += count
        if self.layout.branch >= first and (self.wanted is None or self.step in self.wanted):
            # Where a step leaves guidance out, its last branch is the prompt's; a later call of the step replaces it.
            block = min(self.layout.branch - first, count - 1)
            self._keep(states[block * n : (block + 1) * n])

    def _keep(self, states: Tensor) -> None:
        tokens = self.layout.tokens(states).detach().to("cpu", copy=True)
        finite = tokens.isfinite().flatten(1).all(1)
        if not finite.all():
            seed = self.seeds[int(finite.logical_not().nonzero()[0])]
            raise RaigenError(f"{self.hookpoint.path} put out a number that is not finite for seed {seed} in step "
                              f"{self.step}; the model breaks down there: try another guidance_scale, dtype or "
                              "device")  # fmt: skip
        self.kept[self.step] = tokens
