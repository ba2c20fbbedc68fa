"""Finds the modules of a pipeline's denoiser that can be hooked."""

import difflib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from raigen.errors import RaigenError

COMPILED = "_orig_mod"  # the attribute in which `torch.compile` keeps the module that it wraps
MAX_LISTED = 5  # candidates from one list of blocks, since neighboring blocks differ little


class Hookpoint(NamedTuple):
    """A module of a pipeline and its dotted path, such as `unet.mid_block`."""

    path: str
    module: nn.Module


def find_hookpoint(pipe: DiffusionPipeline, path: str | None = None) -> Hookpoint:
    """The module at a dotted `path` below the pipeline, such as `unet.mid_block`, compiled or not.

    None is the default: the middle block of a U-Net. In a transformer it is the middle one of `transformer_blocks`, or
    of its longest list of blocks. If `single_transformer_blocks` follow the joint `transformer_blocks`, it is the last
    joint block, as published for FLUX.1 (RAIGen, arXiv 2602.06806). Raises RaigenError, listing the nearest paths, when
    there is no such module.
    """
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    path = path or _default_path(pipe)
    known = {
        name.replace(f".{COMPILED}", ""): part
        for root, module in modules.items()
        for name, part in module.named_modules(prefix=root)
    }
    if path not in known:
        near = difflib.get_close_matches(path, known, n=5, cutoff=0.3)
        raise RaigenError(f"hookpoint: {type(pipe).__name__} has no module {path!r}; near it: {', '.join(near)}")
    return Hookpoint(path, known[path])


def denoiser_of(pipe: DiffusionPipeline, hookpoint: Hookpoint) -> nn.Module:
    """The component of the pipeline that contains the hookpoint."""
    return pipe.components[hookpoint.path.split(".")[0]]


def candidates(pipe: DiffusionPipeline) -> list[Hookpoint]:
    """The blocks of the denoiser, at most five from each list of blocks; the default hookpoint is among them."""
    default = find_hookpoint(pipe)
    name = default.path.split(".")[0]
    found = {}
    for child, module in uncompiled(pipe.components[name]).named_children():
        if child == "mid_block":
            found[f"{name}.{child}"] = module
    for child, blocks in _lists(pipe.components[name]).items():
        step = max(1, (len(blocks) - 1) / (MAX_LISTED - 1))
        places = sorted({round(place * step) for place in range(min(len(blocks), MAX_LISTED))})
        found |= {f"{name}.{child}.{place}": blocks[place] for place in places}
    found.setdefault(*default)
    return [Hookpoint(path, module) for path, module in found.items()]


def _default_path(pipe: DiffusionPipeline) -> str:
    if isinstance(getattr(pipe.components.get("unet"), "mid_block", None), nn.Module):
        return "unet.mid_block"
    lists = _lists(pipe.components.get("transformer"))
    if not lists:
        raise RaigenError(f"hookpoint: {type(pipe).__name__} has neither a U-Net nor a transformer with a list of "
                          "blocks; name the module to hook, such as prior.blocks.4")  # fmt: skip
    longest = max(lists, key=lambda name: len(lists[name]))
    name = "transformer_blocks" if "transformer_blocks" in lists else longest
    n_blocks = len(lists[name])
    is_joint = name == "transformer_blocks" and "single_transformer_blocks" in lists
    return f"transformer.{name}.{n_blocks - 1 if is_joint else n_blocks // 2}"


def _lists(denoiser: object) -> Mapping[str, nn.ModuleList]:
    children = uncompiled(denoiser).named_children() if isinstance(denoiser, nn.Module) else ()
    return {name: child for name, child in children if isinstance(child, nn.ModuleList) and len(child)}


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself."""
    return getattr(module, COMPILED, module)


def calling_hooks(denoiser: nn.Module) -> AbstractContextManager[Any]:
    """Runs a compiled denoiser eagerly: code compiled before a hook was registered may not call it (torch, "nn.Module
    hooks support")."""
    compiled = any(hasattr(part, COMPILED) or part._compiled_call_impl is not None for part in denoiser.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
