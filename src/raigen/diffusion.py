"""Runs text-to-image pipelines: pictures of a prompt, one seed each, beside what one module put out at every step."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from jaxtyping import Float32
from PIL.Image import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from raigen.config import CaptureConfig
from raigen.errors import RaigenError
from raigen.hookpoint import Hookpoint, Listener

BUNDLED = "portraits"
NEEDED_ARGUMENTS = frozenset({"prompt", "num_inference_steps", "generator", "num_images_per_prompt"})
FOREIGN_ARGUMENTS = frozenset({"strength", "mask_image", "num_frames", "control_image"})  # edits, inpainting, video
PIXEL_MULTIPLE = 8  # what pipelines ask of height and width at least


class Settings(NamedTuple):
    """How pictures are made. `guidance_scale` is None for a pipeline without; `height` and `width` are pixels."""

    num_inference_steps: int
    guidance_scale: float | None
    height: int
    width: int


class Generated(NamedTuple):
    """Pictures, and what the hookpoint put out for each.

    Tokens run row by row over a `grid` of (rows, columns); `step_indices` are the denoising steps kept, from 0 (pure
    noise) up. Without a hookpoint `activations` and `grid` are None and `step_indices` is empty.
    """

    images: list[Image]
    activations: Float32[Tensor, "image step token d_in"] | None
    grid: tuple[int, int] | None
    step_indices: tuple[int, ...]


def model_path(model: str) -> str:
    """Where the pipeline of `model` lies: the bundled folder for `portraits`, else a folder or an id on the Hub.

    Raises RaigenError when the folder is missing, and for a text that can be neither.

    >>> model_path("stabilityai/sdxl-turbo")
    'stabilityai/sdxl-turbo'
    """
    if model == BUNDLED:
        folder = Path(str(files("raigen.world"))) / "bundle" / "pipeline"
        if not (folder / "model_index.json").is_file():
            raise RaigenError(f"{folder}: expected the weights of the bundled model; they are missing. "
                              "Train them with: python -m raigen.world.train")  # fmt: skip
        return str(folder)
    if Path(model).expanduser().is_dir():
        return str(Path(model).expanduser())
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model):
        raise RaigenError(f"model: expected {BUNDLED!r}, a folder with a diffusers pipeline, or a Hub id such as "
                          f"'stabilityai/sdxl-turbo'; there is no folder {model!r}")  # fmt: skip
    return model


def revision(model: str) -> str | None:
    """The commit of a model from the Hub, once it has been fetched; None for a folder. Raises as `load_pipeline`."""
    path = model_path(model)
    return None if Path(path).is_dir() else _index_path(path).parent.name


def load_pipeline(model: str, device: str = "auto") -> DiffusionPipeline:
    """The text-to-image pipeline of `model`, ready to run: 32-bit floats on a CPU, bfloat16 on a GPU.

    A U-Net is laid out channels-last, which measured 5 % faster on a CPU. A safety checker that comes with the model
    stays. Raises RaigenError when the model cannot be found, reached or read, or makes no pictures from texts alone,
    and for a device that is not there.
    """
    target = resolve_device(device)
    path = model_path(model)
    index = _index_path(path)
    _check_text_to_image(path, index)
    dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    pinned = {} if Path(path).is_dir() else {"revision": index.parent.name}
    try:
        with _quiet():
            pipe = DiffusionPipeline.from_pretrained(path, dtype=dtype, **pinned)
    except (OSError, ValueError, ImportError, AttributeError, SafetensorError) as error:
        raise RaigenError(f"{path}: expected a whole diffusers pipeline; it cannot be loaded: {error}") from error
    modules = {name: part.eval() for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    lacking = [f"{name}.{key}" for name, part in modules.items() for key, p in part.named_parameters() if p.is_meta]
    if lacking:
        raise RaigenError(f"{path}: expected a whole diffusers pipeline; it lacks the weights {', '.join(lacking[:5])}")
    pipe = pipe.to(target)
    pipe.set_progress_bar_config(disable=True)
    if "unet" in modules:
        modules["unet"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if target.type == "cuda" and hasattr(pipe.components.get("vae"), "enable_slicing"):
        pipe.components["vae"].enable_slicing()  # decodes one picture at a time: a batch of 1024 px needs tens of GB
    return pipe


def resolve_device(device: str) -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU. Raises RaigenError for a device that is not there.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if n_gpus else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise RaigenError(f"device: expected auto, cpu, cuda or cuda:N; got {device!r}")
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= n_gpus:
        raise RaigenError(f"device: {device!r} was asked for, but torch sees {n_gpus} GPUs here; use auto or cpu")
    return found


def defaults(pipe: DiffusionPipeline, model: str, config: CaptureConfig | None = None) -> Settings:
    """What `config` asks for; where it leaves a setting open, the model's own.

    The model's own are those of `raigen.json` in its folder (keys `num_inference_steps`, `guidance_scale`, `height`,
    `width`, all optional), else the defaults of the pipeline's call; the size is that of the denoiser's training.
    Raises RaigenError when a setting is known nowhere, is no number, or does not fit the pipeline.
    """
    accepted = _arguments(type(pipe))
    values: dict[str, Any] = {name: getattr(accepted.get(name), "default", None) for name in Settings._fields}
    path = Path(model_path(model)) / "raigen.json"
    for source in (_read_defaults(path), _chosen(config)):
        values |= source
    if values["guidance_scale"] is not None and "guidance_scale" not in accepted:
        raise RaigenError(f"guidance_scale: {type(pipe).__name__} takes none; leave it out")
    if values["height"] is None or values["width"] is None:
        height, width = _native_size(pipe)
        values["height"], values["width"] = values["height"] or height, values["width"] or width
    for name in ("num_inference_steps", "height", "width"):
        if not isinstance(values[name], int):
            raise RaigenError(f"{name}: {type(pipe).__name__} has no default of its own; give a whole number")
    for name in ("height", "width"):
        if values[name] < PIXEL_MULTIPLE or values[name] % PIXEL_MULTIPLE:
            raise RaigenError(f"{name}: expected a multiple of {PIXEL_MULTIPLE} pixels; got {values[name]}")
    return Settings(**values)


def generate(
    pipe: DiffusionPipeline,
    prompt: str,
    seeds: Sequence[int],
    settings: Settings,
    hookpoint: Hookpoint | None = None,
    step_indices: Sequence[int] | None = None,
) -> Generated:
    """Makes one picture of `prompt` per seed, and collects what the hookpoint puts out at every denoising step.

    Each picture has a random generator of its own, on the CPU, so the other seeds of a call change nothing but the
    last bits. A step is one call of the scheduler (some schedulers take more than `num_inference_steps`);
    `step_indices` None keeps them all. Under classifier-free guidance the half of the batch that saw the prompt is
    kept, as published (RAIGen, arXiv 2602.06806). An output [image, channel, row, column] becomes one token per
    position; of a tuple the one tensor is taken, or the one with as many tokens as the module's `hidden_states` (the
    joint blocks of transformers also return their text tokens).

    Raises RaigenError when the module does not run exactly once per step, puts out something that is no grid of
    tokens, or a number that is not finite; and when the memory does not suffice.
    """
    if not seeds:
        raise RaigenError("seeds: expected at least one; got none")
    options: dict[str, Any] = settings._asdict()
    if settings.guidance_scale is None:
        del options["guidance_scale"]
    listener = None
    handle = None
    if hookpoint is not None:
        if "callback_on_step_end" not in _arguments(type(pipe)):
            raise RaigenError(f"hookpoint: {type(pipe).__name__} does not tell its steps; nothing can be captured")
        listener = Listener(pipe, hookpoint.path, seeds, settings.height / settings.width, step_indices)
        options["callback_on_step_end"] = listener.end_step
        handle = hookpoint.module.register_forward_hook(listener.hear, with_kwargs=True)
    try:
        images = pipe(  # type: ignore[operator]  # every text-to-image pipeline can be called
            prompt=prompt, num_images_per_prompt=len(seeds), output_type="pil",
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds], **options,
        ).images  # fmt: skip
    except torch.OutOfMemoryError as error:
        raise RaigenError(f"{len(seeds)} pictures at once do not fit into the memory of {pipe.device}; "
                          f"give a smaller batch_size. ({error})") from error  # fmt: skip
    finally:
        if handle is not None:
            handle.remove()
    if listener is None:
        return Generated(images, None, None, ())
    return Generated(images, *listener.collected())


def make_pictures(
    pipe: DiffusionPipeline, prompt: str, seeds: Sequence[int], settings: Settings, batch_size: int
) -> Iterator[list[Image]]:
    """Makes the pictures of `seeds` in their order, `batch_size` at a time, without looking inside."""
    for start in range(0, len(seeds), batch_size):
        yield generate(pipe, prompt, seeds[start : start + batch_size], settings).images


def _index_path(path: str) -> Path:
    if Path(path).is_dir():
        index = Path(path) / "model_index.json"
        if not index.is_file():
            raise RaigenError(f"{path}: expected a diffusers pipeline; it has no model_index.json")
        return index
    try:
        return Path(hf_hub_download(path, "model_index.json"))
    except LocalEntryNotFoundError as error:  # before its parent class, EntryNotFoundError
        raise RaigenError(f"{path}: no such folder, and the Hub cannot be reached; check the spelling and the "
                          "connection, or give the folder of a downloaded pipeline") from error  # fmt: skip
    except EntryNotFoundError as error:
        raise RaigenError(f"{path}: expected a diffusers pipeline; the Hub has no model_index.json for it") from error
    except (OSError, HFValidationError) as error:
        raise RaigenError(f"{path}: no such folder, and the Hub does not give it out: {error}") from error


def _check_text_to_image(path: str, index: Path) -> None:
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (json.JSONDecodeError, KeyError) as error:
        raise RaigenError(f"{index}: expected JSON with a _class_name; {error!r}. Fetch the model again") from error
    pipeline_class = _imported(name) if isinstance(name, str) else None
    if pipeline_class is None:
        raise RaigenError(f"{path}: diffusers {diffusers.__version__} has no pipeline {name!r}; upgrade it. A model's "
                          "own code is not run")  # fmt: skip
    arguments = _arguments(pipeline_class)
    missing, foreign = NEEDED_ARGUMENTS - arguments.keys(), FOREIGN_ARGUMENTS & arguments.keys()
    if missing or foreign:
        reason = f"takes no {min(missing)}" if missing else f"wants {min(foreign)}"
        raise RaigenError(f"{path}: expected a text-to-image pipeline; {name} is none (it {reason})")


def _imported(name: str) -> type | None:
    """A class of diffusers, loaded on demand; without the advice to install torchvision, which nothing here needs."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        return getattr(diffusers, name, None)
    finally:
        transformers_logging.set_verbosity(verbosity)


def _arguments(pipeline_class: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(pipeline_class.__call__).parameters


def _read_defaults(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RaigenError(f"{path}: expected JSON; {error}") from error
    values = {name: found[name] for name in Settings._fields if found.get(name) is not None}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float if name == "guidance_scale" else int):
            raise RaigenError(f"{path}: expected a number for {name}; got {value!r}")
    return values


def _chosen(config: CaptureConfig | None) -> dict[str, Any]:
    values = {name: getattr(config, name, None) for name in Settings._fields}
    return {name: value for name, value in values.items() if value is not None}


def _native_size(pipe: DiffusionPipeline) -> tuple[int, int]:
    denoiser = pipe.components.get("unet") or pipe.components.get("transformer")
    trained = getattr(getattr(denoiser, "config", None), "sample_size", None)
    sample = getattr(pipe, "default_sample_size", None) or trained
    factor = getattr(pipe, "vae_scale_factor", None)
    if sample is None or factor is None:
        raise RaigenError(f"{type(pipe).__name__} does not say how large its pictures are; give height and width")
    rows, columns = (sample, sample) if isinstance(sample, int) else sample
    return rows * factor, columns * factor


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars that loading draws."""
    loggers = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in loggers:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in loggers:
            log.enable_progress_bar()
