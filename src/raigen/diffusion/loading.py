"""Loads text-to-image pipelines, from a folder or from the Hub."""

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import nn
from transformers import PreTrainedTokenizerBase, dynamic_module_utils
from transformers.utils import logging as transformers_logging
from yaml import YAMLError

from raigen.config import LoadConfig, object_of
from raigen.errors import RaigenError
from raigen.runs.device import resolve_device
from raigen.runs.files import sha256
from raigen.world.models import model_path

NEEDED_ARGUMENTS = frozenset({"prompt", "num_inference_steps", "generator", "num_images_per_prompt"})
FOREIGN_ARGUMENTS = {"strength": "images to start from", "mask_image": "an image with a hole", "num_frames": "video",
                     "control_image": "an image to follow",
                     "sag_scale": "self-attention guidance, which denoises other images beside"}  # fmt: skip
N_SAMPLED = 64  # values of a tensor that go into the fingerprint of a model: all of a small one
MOST_SAID = 1000  # characters of what a library says


class Origin(NamedTuple):
    """Which model was loaded: its commit on the Hub, and a hash of its weights that is the same whatever number type
    they were loaded as."""

    revision: str | None
    weights: str | None


_origins: WeakKeyDictionary[DiffusionPipeline, Origin] = WeakKeyDictionary()


class Source(NamedTuple):
    """Where a pipeline is: its folder or Hub id, the local path of its model_index.json, and its commit on the Hub.
    A folder has no commit."""

    path: str
    index_path: Path
    commit: str | None


def find_source(model: str, config: LoadConfig | None = None) -> Source:
    """Finds the pipeline of `model`. From the Hub it fetches model_index.json, unless `config.offline`.

    Raises RaigenError when the model is missing, gated, has no such revision or cannot be reached, and when it is no
    diffusers pipeline; the message says which.
    """
    config = config or LoadConfig()
    path = model_path(model)
    if Path(path).is_dir():
        if config.revision is not None:
            raise RaigenError(f"revision: {path} is a folder, which has none; leave it out, or give a Hub id")
        index = Path(path) / "model_index.json"
        if not index.is_file():
            raise RaigenError(f"{path}: expected a diffusers pipeline; it has no model_index.json")
        return Source(path, index, None)
    try:
        index = Path(_fetched(path, "model_index.json", config))
    except GatedRepoError as error:  # before its parent class, RepositoryNotFoundError
        raise RaigenError(f"{path}: the Hub requires you to accept the license of this model; do so at "
                          f"https://huggingface.co/{path}, then run: hf auth login") from error  # fmt: skip
    except RepositoryNotFoundError as error:
        raise RaigenError(f"{path}: the Hub has no such model, or it is private; check the spelling, or run: "
                          "hf auth login") from error  # fmt: skip
    except RevisionNotFoundError as error:
        raise RaigenError(f"{path}: the Hub has no revision {config.revision!r} of it; give a branch, a tag or a "
                          "commit, or leave it out") from error  # fmt: skip
    except LocalEntryNotFoundError as error:  # before its parent class, EntryNotFoundError
        remedy = "run it once without --offline" if config.offline else "check the spelling and the connection"
        raise RaigenError(f"{path}: no such folder, not in the local cache, and the Hub cannot be reached; {remedy}, "
                          "or give the folder of a downloaded pipeline") from error  # fmt: skip
    except EntryNotFoundError as error:
        raise RaigenError(f"{path}: expected a diffusers pipeline; the Hub has no model_index.json for it") from error
    except (OSError, HFValidationError) as error:
        raise RaigenError(f"{path}: no such folder, and the Hub does not have it: {error}") from error
    return Source(path, index, index.parent.name)


def license_of(source: Source, config: LoadConfig | None = None) -> str | None:
    """The license in the model's card (its README.md), for example `openrail++`; None if the card names none, or
    cannot be read."""
    card = source.index_path.parent / "README.md"
    if source.commit is not None and not card.is_file():
        pinned = LoadConfig(revision=source.commit, offline=(config or LoadConfig()).offline)
        try:
            card = Path(_fetched(source.path, "README.md", pinned))
        except (EntryNotFoundError, OSError):
            return None
    if not card.is_file():
        return None
    try:
        data = ModelCard(card.read_text(encoding="utf-8", errors="replace"), ignore_metadata_errors=True).data
    except (YAMLError, ValueError):
        return None
    named = data.get("license_name") or data.get("license")
    return str(named) if named else None


def load_pipeline(model: str, device: str = "auto", config: LoadConfig | None = None) -> DiffusionPipeline:
    """Loads the text-to-image pipeline of `model`, ready to run, with the settings of `config`.

    A U-Net is laid out channels-last, which measured 5 % faster on a CPU. A safety checker of the model is kept. Raises
    RaigenError when the model cannot be found, reached or read, when it does not make images from text alone, and for a
    device that is not there.
    """
    config = config or LoadConfig()
    target = resolve_device(device)
    if config.offload != "none" and target.type != "cuda":
        raise RaigenError(f"offload: {config.offload!r} keeps parts of the model off a GPU, but the device is "
                          f"{target.type}; leave it out")  # fmt: skip
    source = find_source(model, config)
    _check_text_to_image(source)
    pipe = _read(source, resolve_dtype(config.dtype, target), config)
    modules = {name: part.eval() for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    _check_tokenizers(source, pipe)
    _origins[pipe] = Origin(source.commit, _fingerprint(modules))  # now: an offloaded model has its weights elsewhere
    lacking = [f"{name}.{key}" for name, part in modules.items() for key, p in part.named_parameters() if p.is_meta]
    if lacking:
        raise RaigenError(f"{source.path}: expected a whole diffusers pipeline; it lacks the weights "
                          f"{', '.join(lacking[:5])}")  # fmt: skip
    if "unet" in modules:
        modules["unet"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    vae: Any = pipe.components.get("vae")
    if target.type == "cuda" and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()  # decodes one image at a time: a batch of 1024 px needs tens of GB
    if config.tiling:
        if not hasattr(vae, "enable_tiling"):
            raise RaigenError(f"tiling: the decoder of {type(pipe).__name__} cannot work in tiles; leave it out")
        vae.enable_tiling()
    return _placed(pipe, target, config)


def origin_of(pipe: DiffusionPipeline) -> Origin:
    """Which model a pipeline is; not known for one that `load_pipeline` did not load."""
    return _origins.get(pipe, Origin(None, None))


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a GPU and 32-bit floats on a CPU.

    >>> resolve_dtype("auto", torch.device("cpu"))
    torch.float32
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, dtype)


def arguments_of(pipeline_class: type) -> Mapping[str, inspect.Parameter]:
    """The parameters of a call of the pipeline, by name."""
    return inspect.signature(pipeline_class.__call__).parameters


def _fetched(path: str, file: str, config: LoadConfig) -> str:
    return hf_hub_download(path, file, revision=config.revision, local_files_only=config.offline)


def _read(source: Source, dtype: torch.dtype, config: LoadConfig) -> DiffusionPipeline:
    pinned = {} if source.commit is None else {"revision": source.commit, "local_files_only": config.offline}
    variant = {} if config.variant is None else {"variant": config.variant}
    hint = f" with the variant {config.variant!r}" if config.variant else ""
    variants = {path.name.split(".")[-2] for path in source.index_path.parent.glob("*/*.*.safetensors")}
    found = sorted(name for name in variants - {config.variant} if not re.match(r"\d|.*-\d", name))
    remedy = f". It has *.{found[0]}.safetensors: add --variant {found[0]}" if found else ""
    with explained(f"{source.path}: expected a whole diffusers pipeline{hint}; it cannot be loaded", remedy):
        return DiffusionPipeline.from_pretrained(source.path, dtype=dtype, **pinned, **variant)


@contextmanager
def explained(what: str, remedy: str = "") -> Iterator[None]:
    """For code that loads a model: no progress bars, no question whether code of the model may run (it may not), and
    RaigenError for whatever the library raises. It has `what`, what the library says, and the `remedy`."""
    try:
        with _quiet(), _unasked():
            yield
    except RaigenError:
        raise
    except Exception as error:  # a folder of somebody's makes these libraries raise anything
        kind = "" if isinstance(error, OSError | ValueError | ImportError) else f"{type(error).__name__}: "
        said = f"{kind}{error}"
        said = said if len(said) <= MOST_SAID else f"{said[:MOST_SAID]} ..."  # transformers may list all that it knows
        raise RaigenError(f"{what}: {said}{remedy}") from error


def _fingerprint(modules: Mapping[str, nn.Module]) -> str:
    """Samples every tensor evenly. As bfloat16, a value is the same whether its module was loaded as that or not."""
    parts = []
    for name, module in sorted(modules.items()):
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not tensor.is_meta:
                flat = tensor.flatten()
                some = flat[:: max(1, len(flat) // N_SAMPLED)].to("cpu", torch.bfloat16).float().tolist()
                parts.append(f"{name}.{key} {tuple(tensor.shape)} {some}")
    return sha256("\n".join(parts).encode())


def _check_tokenizers(source: Source, pipe: DiffusionPipeline) -> None:
    """Without its files, transformers makes a tokenizer of a few marks, for which all prompts are alike."""
    for name, part in pipe.components.items():
        if isinstance(part, PreTrainedTokenizerBase) and len(part) <= len(set(part.all_special_ids)) + 1:
            raise RaigenError(f"{source.path}: expected a whole diffusers pipeline; its {name} knows {len(part)} "
                              "words. Fetch the model again")  # fmt: skip


def _placed(pipe: DiffusionPipeline, target: torch.device, config: LoadConfig) -> DiffusionPipeline:
    if config.offload == "model":
        pipe.enable_model_cpu_offload(device=target)
    elif config.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=target)
    else:
        try:
            pipe = pipe.to(target)
        except torch.OutOfMemoryError as error:
            raise RaigenError(f"the model does not fit into the memory of {target}; add --offload model, or --offload "
                              f"sequential, which needs least. ({error})") from error  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _check_text_to_image(source: Source) -> None:
    name = object_of(source.index_path, "_class_name")["_class_name"]
    pipeline_class = _imported(name) if isinstance(name, str) else None
    if pipeline_class is None:
        raise RaigenError(f"{source.path}: diffusers {diffusers.__version__} has no pipeline {name!r}; upgrade it. A "
                          "model's own code is not run")  # fmt: skip
    arguments = arguments_of(pipeline_class)
    missing = NEEDED_ARGUMENTS - arguments.keys()
    foreign = [name for name in FOREIGN_ARGUMENTS if name in arguments]
    if missing or foreign:
        reason = f"wants {foreign[0]}: {FOREIGN_ARGUMENTS[foreign[0]]}" if foreign else f"takes no {min(missing)}"
        raise RaigenError(f"{source.path}: expected a text-to-image pipeline; {name} is none (it {reason})")


def _imported(name: str) -> type | None:
    """A pipeline of diffusers, loaded without its advice to install torchvision, which nothing here needs."""
    with no_advice():
        found = getattr(diffusers, name, None)
    return found if isinstance(found, type) and issubclass(found, DiffusionPipeline) else None


@contextmanager
def no_advice() -> Iterator[None]:
    """Hides the warnings that transformers logs, such as the one about a text that is too long."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


@contextmanager
def _unasked() -> Iterator[None]:
    seconds = dynamic_module_utils.TIME_OUT_REMOTE_CODE  # that transformers waits for an answer in the terminal
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the progress bars of loading."""
    loggers = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in loggers:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in loggers:
            log.enable_progress_bar()
