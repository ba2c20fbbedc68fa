"""Finds one module of a pipeline, to hear what it puts out at every denoising step."""

import difflib
import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from raigen.errors import RaigenError

CONDITIONAL_FIRST = frozenset({"LuminaPipeline", "LuminaText2ImgPipeline", "ZImagePipeline"})  # all others: second half


class Hookpoint(NamedTuple):
    """A module of a pipeline and its dotted path, such as `unet.mid_block`."""

    path: str
    module: nn.Module


def find_hookpoint(pipe: DiffusionPipeline, path: str | None = None) -> Hookpoint:
    """The module at a dotted `path` below the pipeline, such as `unet.mid_block`.

    None is `unet.mid_block` for a U-Net, and the middle one of `transformer.transformer_blocks` for a transformer.
    Raises RaigenError, listing the nearest paths, when there is no such module.
    """
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    if path is None:
        path = "unet.mid_block"
        if "unet" not in modules:
            blocks = getattr(modules.get("transformer"), "transformer_blocks", None)
            if not isinstance(blocks, nn.ModuleList):
                raise RaigenError(f"hookpoint: {type(pipe).__name__} has neither a U-Net nor transformer_blocks; name "
                                  "the module to look into, such as transformer.layers.12")  # fmt: skip
            path = f"transformer.transformer_blocks.{len(blocks) // 2}"
    known = {name: part for root, module in modules.items() for name, part in module.named_modules(prefix=root)}
    if path not in known:
        near = difflib.get_close_matches(path, known, n=5, cutoff=0.3)
        raise RaigenError(f"hookpoint: {type(pipe).__name__} has no module {path!r}; near it: {', '.join(near)}")
    return Hookpoint(path, known[path])


class Listener:
    """Collects the tokens that one module puts out in one call of a pipeline."""

    def __init__(self, pipe: DiffusionPipeline, path: str, seeds: Sequence[int], aspect: float,
                 step_indices: Sequence[int] | None):  # fmt: skip
        self.pipe, self.path, self.seeds, self.aspect = pipe, path, seeds, aspect
        self.wanted = None if step_indices is None else frozenset(step_indices)
        self.step = 0
        self.heard = 0  # calls of the module in this step
        self.kept: dict[int, Tensor] = {}
        self.grid: tuple[int, int] | None = None

    def hear(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """The forward hook: keeps the prompt's half of one output."""
        self.heard += 1
        if self.heard > 1:
            raise RaigenError(f"hookpoint: {self.path} ran more than once in step {self.step}; choose a module that "
                              "runs once per step")  # fmt: skip
        if self.wanted is not None and self.step not in self.wanted:
            return
        tokens, self.grid = self._tokens(self._prompted(self._states(module, args, kwargs, output)))
        tokens = tokens.detach().to("cpu", copy=True)
        finite = tokens.isfinite().flatten(1).all(1)
        if not finite.all():
            seed = self.seeds[int(finite.logical_not().nonzero()[0])]
            raise RaigenError(f"{self.path} put out a number that is not finite for seed {seed} in step {self.step}; "
                              "the model breaks down there: try another guidance_scale or device")  # fmt: skip
        self.kept[self.step] = tokens

    def end_step(self, pipe: DiffusionPipeline, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's callback at the end of a step."""
        if self.heard == 0:
            raise RaigenError(f"hookpoint: {self.path} did not run in step {self.step}; name a module of the denoiser")
        self.step, self.heard = self.step + 1, 0
        return {}

    def collected(self) -> tuple[Tensor, tuple[int, int], tuple[int, ...]]:
        """Activations [image, step, token, d_in], the grid and the steps."""
        missing = sorted((self.wanted or frozenset()) - self.kept.keys())
        if missing or self.grid is None:
            raise RaigenError(f"step_indices: expected numbers from 0 to {self.step - 1}; got {missing}")
        steps = tuple(sorted(self.kept))
        return torch.stack([self.kept[step] for step in steps], dim=1).float(), self.grid, steps

    def _states(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Tensor:
        if isinstance(output, Tensor):
            return output
        tensors = [part for part in output if isinstance(part, Tensor)] if isinstance(output, tuple) else []
        if len(tensors) > 1:
            given = inspect.signature(module.forward).bind(*args, **kwargs).arguments.get("hidden_states")
            n_tokens = given.shape[1] if isinstance(given, Tensor) else None
            tensors = [part for part in tensors if part.dim() == 3 and part.shape[1] == n_tokens]
        if len(tensors) != 1:
            raise RaigenError(f"hookpoint: {self.path} puts out {type(output).__name__}, in which the image tokens "
                              "cannot be told apart; choose another module")  # fmt: skip
        return tensors[0]

    def _prompted(self, states: Tensor) -> Tensor:
        n = len(self.seeds)
        if len(states) == n:
            return states
        if len(states) == 2 * n and getattr(self.pipe, "do_classifier_free_guidance", True):
            return states[:n] if type(self.pipe).__name__ in CONDITIONAL_FIRST else states[n:]
        raise RaigenError(f"hookpoint: {self.path} puts out {len(states)} rows for {n} pictures; choose a module that "
                          "puts out one per picture")  # fmt: skip

    def _tokens(self, states: Tensor) -> tuple[Tensor, tuple[int, int]]:
        if states.dim() == 4:
            return states.flatten(2).transpose(1, 2), (states.shape[2], states.shape[3])
        if states.dim() == 3:
            rows = round(math.sqrt(states.shape[1] * self.aspect))
            columns = states.shape[1] // max(1, rows)
            if rows * columns == states.shape[1] and math.isclose(rows, columns * self.aspect):
                return states, (rows, columns)
        raise RaigenError(f"hookpoint: {self.path} puts out {list(states.shape)}, no grid of tokens with the "
                          "proportions of the picture; choose another module")  # fmt: skip
