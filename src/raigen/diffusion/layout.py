"""Finds out, in one denoising step, where the outputs of a module hold the image tokens of the prompt."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raigen.diffusion.hookpoints import Hookpoint, uncompiled
from raigen.diffusion.hooks import (
    NoisyInput,
    TokenLayout,
    as_tokens,
    noisy_input_of,
    same_rows,
    tensors_of,
    with_noisy_input,
)
from raigen.errors import RaigenError

TOUCH = 5.0  # added to one position of the noise, whose deviation is about 1: far out, yet no number overflows
# Smallest response to a changed prompt, relative to the difference between branches, that is not noise.
LEAST_RESPONSE = 0.01
WHOLE = ""  # the path of the denoiser itself
OTHER_PROMPTS = ("two gray elephants", "a red bicycle")  # one of them is not the prompt


class _Output(NamedTuple):
    """The output of a module: the tensors that may hold tokens, as 32-bit floats on the CPU, and its shape as text."""

    parts: list[Tensor]
    shape: str
    n_runs: int = 1


class _Call(NamedTuple):
    """A call of the denoiser, and the output of each module in it, by path."""

    args: tuple
    kwargs: dict[str, Any]
    sample: NoisyInput
    outputs: dict[str, _Output]

    @property
    def n_rows(self) -> int:
        return len(self.sample)


class _Span(NamedTuple):
    """Tokens in one tensor of an output; none if nothing responds to the noise."""

    part: int
    first: int
    n_tokens: int


class _EnoughError(Exception):
    """Stops a pipeline once its first step is over."""


class LayoutProbe:
    """Probes modules in one denoising step of one image.

    It tries what the model does and assumes nothing. The branch that responds to another prompt is the prompt's. The
    token that responds most to the first position of the noise is the first image token, and the one that responds most
    to the last position is the last. So it needs to know neither the class of the pipeline nor the order of texts and
    images.

    `run(prompt)` runs the pipeline for one image, always with the same seed; `image` is its (height, width). With
    perturbed-attention guidance two branches see the prompt, one of them with attention that is switched off.
    `unperturbed(prompt)` then runs the pipeline without it: the prompt's branch is the one that gets the same answer of
    the denoiser in both.
    """

    def __init__(self, run: Callable[[str], object], denoiser: nn.Module, hookpoints: Sequence[Hookpoint], prompt: str,
                 image: tuple[int, int], unperturbed: Callable[[str], object] | None = None):  # fmt: skip
        self.denoiser, self.hookpoints, self.image = denoiser, [*hookpoints, Hookpoint(WHOLE, denoiser)], image
        self.calls = self._first_step(run, prompt)
        plain = unperturbed or run
        self.plain = self._first_step(plain, prompt) if unperturbed else self.calls
        is_guided = sum(call.n_rows for call in self.plain) > 1
        other = next(text for text in OTHER_PROMPTS if text != prompt)
        self.others = self._first_step(plain, other) if is_guided else self.plain
        self._touched: dict[tuple[int, int], Mapping[str, _Output]] = {}

    def layout(self, hookpoint: Hookpoint) -> TokenLayout:
        """Where the module's outputs hold the image tokens of the prompt.

        Raises RaigenError when the module does not run once in each call of the denoiser, when its output has another
        number of rows than the denoiser gets, and when that is no grid of image tokens.
        """
        path = hookpoint.path
        if not self.calls or any(path not in call.outputs for call in self.calls):
            raise RaigenError(f"hookpoint: {path} did not run in step 0; name a module of the denoiser")
        for call in self.calls:
            parts, shape, n_runs = call.outputs[path]
            if n_runs > 1:
                raise RaigenError(f"hookpoint: {path} ran more than once in step 0; choose a module that runs once "
                                  "per step")  # fmt: skip
            if not parts:
                raise _no_grid(path, shape)
            if any(len(part) != call.n_rows for part in parts):
                raise RaigenError(f"hookpoint: {path} puts out {len(parts[0])} rows where the denoiser gets "
                                  f"{call.n_rows}; choose a module that puts out one per image")  # fmt: skip
            if not all(part.isfinite().all() for part in parts):
                raise RaigenError(f"{path} put out a number that is not finite in step 0; the model breaks down there: "
                                  "try another guidance_scale, dtype or device")  # fmt: skip
        places = [(index, row) for index, call in enumerate(self.calls) for row in range(call.n_rows)]
        branch = self._branch(path)
        if self.plain is not self.calls:
            branch = self._same_branch(branch)
        return self._image_tokens(path, *places[branch])._replace(branch=branch, n_branches=len(places))

    def _branch(self, path: str) -> int:
        """The branch in which the module responds most to another prompt; any branch if all are alike."""
        branches, others = (_rows_of(calls, path) for calls in (self.plain, self.others))
        answers = [_greatest_change(branch, other) for branch, other in zip(branches, others, strict=True)]
        best = answers.index(max(answers))
        apart = [change for change in (_greatest_change(branches[best], other) for other in branches) if change < 2]
        if answers.count(math.inf) > 1 or answers[best] < LEAST_RESPONSE * max(apart):
            raise RaigenError(f"hookpoint: which branch of guidance saw the prompt cannot be told from {path}; choose "
                              "another module")  # fmt: skip
        return best

    def _same_branch(self, branch: int) -> int:
        """Which branch gets the answer of the denoiser that this branch got without perturbed attention."""
        answer = _rows_of(self.plain, WHOLE)[branch]
        changes = [_greatest_change(found, answer) for found in _rows_of(self.calls, WHOLE)]
        nearest, *others = sorted(changes)
        if others and nearest >= LEAST_RESPONSE * others[0]:
            raise RaigenError("hookpoint: which branch saw the prompt cannot be told, because of perturbed-attention "
                              "guidance; take the model's pipeline without it")  # fmt: skip
        return changes.index(nearest)

    def _image_tokens(self, path: str, index: int, row: int) -> TokenLayout:
        """The layout in one row of one call."""
        parts, shape, _ = self.calls[index].outputs[path]
        is_map = len(parts) == 1 and parts[0].dim() == 4
        span = _Span(0, 0, parts[0][0, 0].numel()) if is_map else self._span(path, index, row)
        grids = self._grids(self.calls[index].sample[row], span.n_tokens)
        grid = next((grid for grid in grids if not is_map or grid == parts[0].shape[2:]), None)
        if grid is None:
            raise _no_grid(path, shape)
        return TokenLayout(0, span.part, span.first, grid, as_tokens(parts[span.part]).shape[2])

    def _span(self, path: str, index: int, row: int) -> _Span:
        """The image tokens: from the one that responds most to the first position of the noise to the one that responds
        most to the last."""
        parts = self.calls[index].outputs[path].parts
        starts, ends = (
            [
                _change(part, touched)[row]
                for part, touched in zip(parts, self._touch(index, place)[path].parts, strict=True)
            ]
            for place in (0, -1)
        )
        answers = [float(torch.minimum(start.max(), end.max())) for start, end in zip(starts, ends, strict=True)]
        part = answers.index(max(answers))
        if answers[part] == 0:
            return _Span(part, 0, 0)
        whole = parts[part].shape[1]
        if len(parts) == 1 and any(self._grids(self.calls[index].sample[row], whole)):
            return _Span(part, 0, whole)  # all tokens are image tokens
        first = int(starts[part].argmax())
        return _Span(part, first, int(ends[part].argmax()) - first + 1)

    def _grids(self, noise: Tensor, n_tokens: int) -> Iterator[tuple[int, int]]:
        """The grids of `n_tokens` tokens that patches of the noise can form. The noise is a map, [..., row, column], or
        packed into tokens already."""
        if noise.dim() > 2:
            height, width = noise.shape[-2:]
            sizes = range(1, max(height, width) + 1)
            grids = ((-(-height // size), -(-width // size)) for size in sizes)  # a stride rounds up
        else:
            # Packed tokens are squares of one size; as many as fit lie along each side of the image.
            height, width = self.image
            shapes = ((rows, n_tokens // rows) for rows in range(1, n_tokens + 1) if len(noise) % n_tokens == 0)
            grids = (
                (rows, columns)
                for rows, columns in shapes
                if columns and max(height / (rows + 1), width / (columns + 1)) < min(height / rows, width / columns)
            )
        return (grid for grid in grids if math.prod(grid) == n_tokens)

    def _touch(self, index: int, place: int) -> Mapping[str, _Output]:
        """The outputs of the modules in a call, after a change at the first (0) or last (-1) position of the noise."""
        if (index, place) not in self._touched:
            args, kwargs, sample, _ = self.calls[index]
            rows = [row.clone() for row in sample]
            for row in rows:
                row[(..., place, place) if row.dim() > 2 else place] += TOUCH
            touched = torch.stack(rows) if isinstance(sample, Tensor) else rows
            found = [_Call(args, kwargs, touched, {})]
            args, kwargs = with_noisy_input(self.denoiser, args, kwargs, touched)
            with torch.no_grad(), self._recording(found):
                self.denoiser(*args, **kwargs)
            self._touched[index, place] = found[0].outputs
        return self._touched[index, place]

    def _first_step(self, run: Callable[[str], object], prompt: str) -> list[_Call]:
        calls: list[_Call] = []

        def begin(denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            sample = noisy_input_of(denoiser, args, kwargs)
            if calls and not same_rows(list(sample[-1:]), list(calls[0].sample[-1:])):
                raise _EnoughError
            copied = sample.clone() if isinstance(sample, Tensor) else [row.clone() for row in sample]
            calls.append(_Call(args, kwargs, copied, {}))

        handle = self.denoiser.register_forward_pre_hook(begin, with_kwargs=True)
        try:
            with self._recording(calls), _attention_kept(self.denoiser):
                run(prompt)
        except _EnoughError:
            pass
        finally:
            handle.remove()
        return calls

    @contextmanager
    def _recording(self, calls: list[_Call]) -> Iterator[None]:
        """Notes the output of each module in the latest of `calls`."""

        def hook(path: str) -> Callable[[nn.Module, tuple, Any], None]:
            def record(module: nn.Module, args: tuple, output: Any) -> None:
                if not calls:
                    return  # not part of a denoising step
                earlier = calls[-1].outputs.get(path)
                parts = [part.detach().to("cpu", torch.float32, copy=True) for part in tensors_of(output)]
                shape = str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__
                calls[-1].outputs[path] = _Output(parts, shape, earlier.n_runs + 1 if earlier else 1)

            return record

        handles = [point.module.register_forward_hook(hook(point.path)) for point in self.hookpoints]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _attention_kept(denoiser: nn.Module) -> Iterator[None]:
    """Puts back what computes attention: a pipeline that exchanges it (perturbed-attention guidance) is stopped before
    it does so itself."""
    plain: Any = uncompiled(denoiser)
    before = dict(getattr(plain, "attn_processors", {}))
    try:
        yield
    finally:
        after = getattr(plain, "attn_processors", {})
        if any(after[name] is not processor for name, processor in before.items()):
            plain.set_attn_processor(before)


def _change(before: Tensor, after: Tensor) -> Tensor:
    """How far each token [row, token] moved: 0 is not at all, 1 as far as it can without a common direction.

    Infinite if the number of tokens changed. The measure is relative, because a few tokens of large norm move in
    absolute terms whenever anything does.
    """
    before, after = as_tokens(before), as_tokens(after)
    if before.shape != after.shape:
        return before.new_full(before.shape[:2], math.inf)
    tiny = torch.finfo(before.dtype).tiny
    return (after - before).norm(dim=-1) / (before.norm(dim=-1) + after.norm(dim=-1)).clamp_min(tiny)


def _rows_of(calls: Sequence[_Call], path: str) -> list[list[Tensor]]:
    """The outputs of a module for each branch, through the calls."""
    return [[part[row : row + 1] for part in call.outputs[path].parts] for call in calls for row in range(call.n_rows)]


def _greatest_change(parts: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The largest mean change of the tokens, over all tensors of an output."""
    return max(float(_change(part, other).mean()) for part, other in zip(parts, others, strict=True))


def _no_grid(path: str, shape: str) -> RaigenError:
    return RaigenError(f"hookpoint: {path} puts out {shape}, no grid of image tokens with the proportions of the "
                       "image; choose another module")  # fmt: skip
