"""Visits the image tokens in the outputs of one module, step by step, from the calls of the denoiser alone."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raigen.diffusion.hookpoints import Hookpoint, calling_hooks, uncompiled
from raigen.diffusion.relatives import Lineage
from raigen.errors import RaigenError

NoisyInput = Tensor | list[Tensor]  # the noisy images that a denoiser gets: one row, or one item, for each


class TokenLayout(NamedTuple):
    """Where a module's outputs hold the image tokens of the prompt.

    In a step the denoiser sees each image once for each *branch*: classifier-free guidance has a branch with the prompt
    and one without. There are `n_branches`, counted through the rows of a call, and on through the calls of the step;
    `branch` is the index of the prompt's. An output can hold several tensors: `part` is the index of the right one,
    `start` the index of the first image token in it. From there the tokens, of width `d_in`, run row by row over the
    `grid` of (rows, columns).
    """

    branch: int
    part: int
    start: int
    grid: tuple[int, int]
    d_in: int
    n_branches: int = 1

    def tokens(self, states: Tensor) -> Float[Tensor, "image token d_in"]:
        """The image tokens in rows of the right tensor, [row, token, d_in] or [row, channel, row, column].

        A map of any size holds image tokens only.
        """
        rows, columns = self.grid
        return as_tokens(states) if states.dim() == 4 else states[:, self.start : self.start + rows * columns]


def as_tokens(states: Tensor) -> Float[Tensor, "image token d_in"]:
    """[row, channel, row, column] as one token per position. Tokens stay as they are."""
    return states.flatten(2).transpose(1, 2) if states.dim() == 4 else states


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of a module's output that can be maps or sequences of tokens."""
    parts = [output] if isinstance(output, Tensor) else output if isinstance(output, tuple) else []
    return [part for part in parts if isinstance(part, Tensor) and part.dim() in (3, 4)]


def noisy_input_of(denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> NoisyInput:
    """The noisy images in a call of the denoiser: its first argument, whatever its name.

    Raises RaigenError when that is no tensor of numbers.
    """
    sample = args[0] if args else kwargs.get(_first_argument(denoiser))
    rows = [sample] if isinstance(sample, Tensor) else sample if isinstance(sample, list) else []
    if not rows or not all(isinstance(row, Tensor) and row.is_floating_point() for row in rows):
        raise RaigenError(f"hookpoint: {type(denoiser).__name__} is not called with noisy images; name a module of "
                          "the denoiser")  # fmt: skip
    return sample  # type: ignore[return-value]  # one of the two kinds, as just checked


def with_noisy_input(
    denoiser: nn.Module, args: tuple, kwargs: dict[str, Any], sample: NoisyInput
) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a call of the denoiser, with other noisy images."""
    return ((sample, *args[1:]), kwargs) if args else (args, kwargs | {_first_argument(denoiser): sample})


def _first_argument(denoiser: nn.Module) -> str:
    return next(iter(inspect.signature(uncompiled(denoiser).forward).parameters))


def same_rows(rows: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether both hold the same noisy images."""
    return len(rows) == len(others) and all(torch.equal(row, other) for row, other in zip(rows, others, strict=True))


def put_tokens(states: Tensor, layout: TokenLayout, tokens: Float[Tensor, "image token d_in"]) -> Tensor:
    """A copy of `states` with other image tokens; the reverse of `TokenLayout.tokens`."""
    if states.dim() == 4:
        return tokens.transpose(1, 2).unflatten(2, states.shape[2:])
    changed = states.clone()
    changed[:, layout.start : layout.start + tokens.shape[1]] = tokens
    return changed


def n_images_in(sample: NoisyInput) -> int:
    """How many images a call of the denoiser makes: with guidance it gets each of them two or three times."""
    for branches in (3, 2):
        n, rest = divmod(len(sample), branches)
        if not rest and all(same_rows(list(sample[:n]), list(sample[n * b : n * (b + 1)])) for b in range(1, branches)):
            return n
    return len(sample)


Visit = Callable[[int, Float[Tensor, "image token d_in"]], Tensor | None]


class TokenHook:
    """Visits the image tokens of the prompt in the outputs of one module, in every denoising step of a pipeline.

    A step lasts as long as the denoiser gets the same noisy images. All branches of guidance get the same ones, in one
    call or in several. A scheduler that evaluates the model twice (Heun, PNDM) changes the images in between, so each
    evaluation counts as a step. Therefore no pipeline has to announce its steps.

    `visit(step, tokens)` may return other tokens, which then replace these. If a step has no guidance, its last branch
    is the prompt's. If the prompt comes in a later call, the step is visited twice, and the second visit is the right
    one. With `exact`, the prompt's own branch is visited only, and a step with other branches than the layout's is an
    error. With `every_branch`, all branches are visited. `n_images` is the number of images per call; None finds it
    out, if no two images start from equal noise.
    """

    def __init__(self, hookpoint: Hookpoint, layout: TokenLayout, visit: Visit, n_images: int | None = None, *,
                 exact: bool = False, every_branch: bool = False):  # fmt: skip
        self.hookpoint, self.layout, self.visit = hookpoint, layout, visit
        self.n_images, self.exact, self.every_branch = n_images, exact, every_branch
        self.step = -1
        self.n_branches = 0  # branches seen in this step
        self.n_rows = 0  # rows of the current call; 0 between calls
        self.n = 0  # images of the current call
        self.has_run = False  # whether the module ran in the current call
        self.noisy: list[Tensor] = []

    @contextmanager
    def registered(self, denoiser: nn.Module) -> Iterator[None]:
        """Registers hooks at the denoiser and at the module, and removes them in the end. A compiled denoiser runs
        eagerly meanwhile."""
        handles = [
            denoiser.register_forward_pre_hook(self._begin_call, with_kwargs=True),
            self.hookpoint.module.register_forward_hook(self._visit_output),
            denoiser.register_forward_hook(self._end_call),
        ]
        try:
            with calling_hooks(denoiser):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def begin_pipeline(self) -> None:
        """Counts steps from 0 again. Raises RaigenError as `end_step` does."""
        if self.step >= 0:
            self.end_step()
        self.step, self.n_branches, self.noisy = -1, 0, []

    def end_step(self) -> None:
        """Raises RaigenError if the module has not run in the step that ends, or with other branches than it must."""
        self._check_branches(self.n_branches < self.layout.n_branches)
        if self.n_branches == 0:
            raise RaigenError(f"hookpoint: {self.hookpoint.path} did not run in step {max(self.step, 0)}; name a "
                              "module of the denoiser")  # fmt: skip

    def _begin_call(self, denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        sample = noisy_input_of(denoiser, args, kwargs)
        self.n = n = self.n_images or n_images_in(sample)
        blocks = [list(sample[start : start + n]) for start in range(0, len(sample), n)]
        rows = blocks[-1]
        if not all(same_rows(block, rows) for block in blocks):
            raise RaigenError(f"hookpoint: {type(denoiser).__name__} gets the branches of guidance in an unknown "
                              "order; set batch_size to 1, or turn guidance off")  # fmt: skip
        if not same_rows(rows, self.noisy):
            if self.step >= 0:
                self.end_step()
            self.step, self.n_branches = self.step + 1, 0
            self.noisy = [row.clone() for row in rows]  # a scheduler may change it in place
        self.n_rows, self.has_run = len(sample), False

    def _end_call(self, denoiser: nn.Module, args: tuple, output: Any) -> None:
        self.n_rows = 0

    def _visit_output(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if self.has_run:
            raise RaigenError(f"hookpoint: {self.hookpoint.path} ran more than once in step {self.step}; choose a "
                              "module that runs once per step")  # fmt: skip
        if not self.n_rows:
            return None  # not part of a denoising step
        self.has_run = True
        states, n = tensors_of(output)[self.layout.part], self.n
        if len(states) != self.n_rows or len(states) % n:
            raise RaigenError(f"hookpoint: {self.hookpoint.path} puts out {len(states)} rows for {n} images; choose "
                              "a module that puts out one per image")  # fmt: skip
        blocks = list(states.split(n))
        chosen = self._chosen(len(blocks))
        visited = [(block, self.visit(self.step, self.layout.tokens(blocks[block]))) for block in chosen]
        self.n_branches += len(blocks)
        self._check_branches(self.n_branches > self.layout.n_branches)
        if all(tokens is None for _, tokens in visited):
            return None
        for block, tokens in visited:
            if tokens is not None:
                blocks[block] = put_tokens(blocks[block], self.layout, tokens)
        return _replaced(output, states, torch.cat(blocks))

    def _check_branches(self, is_wrong: bool) -> None:
        if is_wrong and self.n_branches and self.exact and not self.every_branch:
            raise RaigenError(f"branches of guidance in step {self.step}: this call has {self.n_branches}, with "
                              f"`settings` it has {self.layout.n_branches}. Give settings= with the call's "
                              "guidance_scale, or every_branch=True")  # fmt: skip

    def _chosen(self, count: int) -> Sequence[int]:
        """Which of the `count` branches in this call to visit."""
        if self.every_branch:
            return range(count)
        place = self.layout.branch - self.n_branches
        return [min(place, count - 1)] if place >= 0 and (place < count or not self.exact) else []


class ActivationCollector:
    """Keeps the tokens that a hook visits, on the CPU: of all steps, or of the steps in `step_indices`."""

    def __init__(self, path: str, seeds: Sequence[int | Lineage], step_indices: Sequence[int] | None):
        self.path, self.seeds = path, seeds
        self.wanted = None if step_indices is None else frozenset(step_indices)
        self.kept: dict[int, Tensor] = {}
        self.n_steps = 0

    def __call__(self, step: int, tokens: Float[Tensor, "image token d_in"]) -> None:
        """Keeps the tokens of a step. Raises RaigenError when they are not finite."""
        self.n_steps = step + 1
        if self.wanted is not None and step not in self.wanted:
            return
        kept = tokens.detach().to("cpu", copy=True)
        finite = kept.isfinite().flatten(1).all(1)
        if not finite.all():
            seed = self.seeds[int(finite.logical_not().nonzero()[0])]
            raise RaigenError(f"{self.path} put out a number that is not finite for seed {seed} in step {step}; the "
                              "model breaks down there: try another guidance_scale, dtype or device")  # fmt: skip
        self.kept[step] = kept

    def collected(self) -> tuple[Float[Tensor, "image step token d_in"], tuple[int, ...]]:
        """The activations and their steps. Raises RaigenError if one of `step_indices` never came."""
        missing = sorted((self.wanted or frozenset()) - self.kept.keys())
        if missing or not self.kept:
            raise RaigenError(f"step_indices: expected numbers from 0 to {self.n_steps - 1}; got {missing}")
        steps = tuple(sorted(self.kept))
        return torch.stack([self.kept[step] for step in steps], dim=1).float(), steps


def _replaced(output: Any, old: Tensor, new: Tensor) -> Any:
    """A module's output with one of its tensors replaced."""
    return new if output is old else tuple(new if part is old else part for part in output)
