"""Runs text-to-image pipelines: images of a prompt, one seed each, and the activations of one module at each step."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float32
from PIL.Image import Image
from torch import Tensor

from raigen.config import CaptureConfig, object_of
from raigen.config.diffusion import HUGE
from raigen.config.fields import fits
from raigen.diffusion.batches import batch_size_of, memory_told
from raigen.diffusion.distilled import distilled_settings
from raigen.diffusion.hookpoints import Hookpoint, calling_hooks, denoiser_of
from raigen.diffusion.hooks import ActivationCollector, TokenHook, TokenLayout
from raigen.diffusion.layout import LayoutProbe
from raigen.diffusion.loading import arguments_of
from raigen.diffusion.relatives import Lineage, MovedNoise
from raigen.errors import RaigenError
from raigen.world.models import OWN_SETTINGS, model_path

PIXEL_MULTIPLE = 8  # every pipeline requires at least this of height and width

# Pipeline options that we switch off: one generates at another size and crops, one rewrites the prompt.
UNWANTED_DEFAULTS = ("use_resolution_binning", "clean_caption")

# What the layout probe found, so that it runs once for all batches of a run.
_layouts: WeakKeyDictionary[DiffusionPipeline, dict[tuple, TokenLayout]] = WeakKeyDictionary()


class Settings(NamedTuple):
    """How images are made; None if the pipeline does not take the setting. `height` and `width` are pixels."""

    num_inference_steps: int
    guidance_scale: float | None
    height: int
    width: int
    negative_prompt: str | None = None
    true_cfg_scale: float | None = None

    def summary(self) -> str:
        """The settings in a few words.

        >>> Settings(30, 5.0, 1024, 768).summary()
        '1024 x 768 pixels, 30 steps, guidance 5'
        """
        scales = {"guidance": self.guidance_scale, "true guidance": self.true_cfg_scale}
        said = [f", {name} {scale:g}" for name, scale in scales.items() if scale is not None]
        return f"{self.height} x {self.width} pixels, {self.num_inference_steps} steps{''.join(said)}"

    def with_guidance(self, scale: float | None) -> "Settings":
        """The same settings with another guidance scale; None changes nothing. Guidance of 1 or less is none, so that a
        negative prompt would have no effect. Raises RaigenError when the pipeline takes no guidance.

        >>> Settings(30, 5.0, 1024, 768, "blurry").with_guidance(1.0)[1:5]
        (1.0, 1024, 768, None)
        """
        if scale is None:
            return self
        name = "guidance_scale" if self.true_cfg_scale is None else "true_cfg_scale"
        if getattr(self, name) is None:
            raise RaigenError(f"discovery_guidance: this pipeline takes no guidance scale; got {scale:g}; leave it out")
        return self._replace(**{name: scale}, negative_prompt=self.negative_prompt if scale > 1 else None)


WHOLE_NUMBERS = ("num_inference_steps", "height", "width")
FILED = (*WHOLE_NUMBERS, "guidance_scale")  # the settings that raigen.json may hold


class Generated(NamedTuple):
    """Images, and the activations of the hookpoint for each.

    Tokens run row by row over a `grid` of (rows, columns). `step_indices` are the denoising steps that were kept; 0
    starts from pure noise. Without a hookpoint `activations` and `grid` are None and `step_indices` is empty.
    """

    images: list[Image]
    activations: Float32[Tensor, "image step token d_in"] | None
    grid: tuple[int, int] | None
    step_indices: tuple[int, ...]


def defaults(pipe: DiffusionPipeline, model: str | None, config: CaptureConfig | None = None) -> Settings:
    """The settings of `config`. Where it leaves one open, the model's own default applies.

    The model's own defaults are in `raigen.json` in its folder (keys `num_inference_steps`, `guidance_scale`, `height`,
    `width`, all optional). A distilled model takes few steps and no guidance (`distilled_settings`). The rest is in the
    signature of the pipeline's call. The default size is that of the
    denoiser's training. Raises RaigenError when a setting is known nowhere, is no number, or does not fit the pipeline.
    """
    accepted = arguments_of(type(pipe))
    values: dict[str, Any] = {name: getattr(accepted.get(name), "default", None) for name in Settings._fields}
    filed = {} if model is None else own_settings(model)
    distilled = {} if model is None else distilled_settings(pipe, model)
    for source in (distilled, filed, _chosen(config)):
        values |= source
    for name in ("guidance_scale", "negative_prompt", "true_cfg_scale"):
        if values[name] is not None and name not in accepted:
            raise RaigenError(f"{name}: {type(pipe).__name__} takes none; leave it out")
    if values["height"] is None or values["width"] is None:
        height, width = _native_size(pipe)
        values["height"], values["width"] = values["height"] or height, values["width"] or width
    for name in WHOLE_NUMBERS:
        if not isinstance(values[name], int):
            raise RaigenError(f"{name}: {type(pipe).__name__} has no default of its own; give a whole number")
    multiple = _size_multiple(pipe)
    for name in ("height", "width"):
        if values[name] < multiple or values[name] % multiple:
            raise RaigenError(
                f"{name}: {type(pipe).__name__} takes a multiple of {multiple} pixels; got {values[name]}"
            )
    if (values["true_cfg_scale"] or 0) > 1 and values["negative_prompt"] is None:
        values["negative_prompt"] = " "  # without one, the pipelines would generate without guidance
    return Settings(**values)


def own_settings(model: str) -> dict[str, Any]:
    """The settings in `raigen.json` in the folder of a model; empty without this file. Raises RaigenError for other
    ones."""
    return _read_defaults(Path(model_path(model)) / OWN_SETTINGS)


def generate(
    pipe: DiffusionPipeline,
    prompt: str,
    seeds: Sequence[int | Lineage],
    settings: Settings,
    hookpoint: Hookpoint | None = None,
    step_indices: Sequence[int] | None = None,
) -> Generated:
    """Makes one image of `prompt` per seed, and collects the outputs of the hookpoint at every denoising step.

    Each image has its own random generator, on the CPU, so the other seeds of a call change only the last bits. A seed
    can also be the lineage of a relative (see `raigen.diffusion.relatives`). A step is one evaluation of the denoiser
    on the noisy images; some schedulers need more than `num_inference_steps`.
    `step_indices` None keeps all steps. Under classifier-free guidance the branch that sees the prompt is kept, as
    published (RAIGen, arXiv 2602.06806). An output [image, channel, row, column] becomes one token per position. From a
    transformer's block the image tokens are taken, not the text tokens. A few calls of the denoiser for one image find
    out where they lie, before the first batch (see `LayoutProbe`).

    Raises RaigenError when the module does not run exactly once per step, when its output is no grid of tokens or holds
    a number that is not finite, and when the memory does not suffice.
    """
    if not seeds:
        raise RaigenError("seeds: expected at least one; got none")
    if hookpoint is None:
        return Generated(generate_with_hooks(pipe, prompt, seeds, settings, ()), None, None, ())
    layout = layout_of(pipe, prompt, settings, hookpoint)
    collector = ActivationCollector(hookpoint.path, seeds, step_indices)
    images = generate_with_hooks(pipe, prompt, seeds, settings, [TokenHook(hookpoint, layout, collector, len(seeds))])
    activations, steps = collector.collected()
    _check_steps(pipe, collector.n_steps)
    return Generated(images, activations, layout.grid, steps)


def generate_with_hooks(
    pipe: DiffusionPipeline, prompt: str, seeds: Sequence[int | Lineage], settings: Settings, hooks: Sequence[TokenHook]
) -> list[Image]:
    """Makes one image of `prompt` per seed while all `hooks`, which must be new, visit the outputs of their modules.

    Raises RaigenError as `generate` does.
    """
    with memory_told(pipe, len(seeds)), ExitStack() as registered:
        for hook in hooks:
            registered.enter_context(hook.registered(denoiser_of(pipe, hook.hookpoint)))
        images = _call(pipe, prompt, seeds, settings)
    for hook in hooks:
        hook.end_step()
    return images


def generate_images(
    pipe: DiffusionPipeline, prompt: str, seeds: Sequence[int], settings: Settings, batch_size: int | Literal["auto"]
) -> Iterator[list[Image]]:
    """Makes the images of `seeds` in their order, `batch_size` at a time, without any hook."""
    sizes = batch_size_of(pipe, settings, batch_size)
    for _, made in sizes.made(seeds, lambda batch: generate(pipe, prompt, batch, settings)):
        yield made.images


def layouts(
    pipe: DiffusionPipeline, prompt: str, settings: Settings, hookpoints: Sequence[Hookpoint]
) -> list[TokenLayout | RaigenError]:
    """Where the outputs of modules of one denoiser hold the image tokens of `prompt`, or why they cannot be captured.

    Runs the first denoising step of one image, once for all modules. Raises RaigenError when the memory does not
    suffice.
    """
    found: list[TokenLayout | RaigenError] = []
    is_perturbed = "pag_scale" in arguments_of(type(pipe))  # perturbed-attention guidance
    try:
        with memory_told(pipe, 1), calling_hooks(denoiser_of(pipe, hookpoints[0])):
            probe = LayoutProbe(
                lambda text: _call(pipe, text, [0], settings),
                denoiser_of(pipe, hookpoints[0]),
                hookpoints,
                prompt,
                (settings.height, settings.width),
                (lambda text: _call(pipe, text, [0], settings, pag_scale=0.0)) if is_perturbed else None,
            )
            for hookpoint in hookpoints:
                try:
                    found.append(probe.layout(hookpoint))
                except RaigenError as error:
                    found.append(error)
    finally:
        pipe.maybe_free_model_hooks()  # the pipeline was stopped midway, and offloaded parts are still on the GPU
    return found


def layout_of(pipe: DiffusionPipeline, prompt: str, settings: Settings, hookpoint: Hookpoint) -> TokenLayout:
    """Where the outputs of one module hold the image tokens of `prompt`; found once per pipeline and settings.

    Raises RaigenError when the module cannot be captured.
    """
    known = _layouts.setdefault(pipe, {})
    key = (hookpoint, prompt, settings)
    if key not in known:
        (found,) = layouts(pipe, prompt, settings, [hookpoint])
        if isinstance(found, RaigenError):
            raise found
        known[key] = found
    return known[key]


def _check_steps(pipe: DiffusionPipeline, n_steps: int) -> None:
    schedules = [getattr(part, "timesteps", ()) for name, part in pipe.components.items() if name.endswith("scheduler")]
    n_scheduled = max(map(len, schedules), default=0)
    if n_steps > n_scheduled:
        raise RaigenError(f"{type(pipe).__name__} called its denoiser on {n_steps} different noisy images in "
                          f"{n_scheduled} steps, as self-attention guidance does; which of them belong to the image "
                          "cannot be told. Take a pipeline without it")  # fmt: skip


def _call(
    pipe: DiffusionPipeline, prompt: str, seeds: Sequence[int | Lineage], settings: Settings, **more: float
) -> list[Image]:
    noise = MovedNoise([seed if isinstance(seed, tuple) else (seed,) for seed in seeds])
    has_relatives = any(isinstance(seed, tuple) and len(seed) > 1 for seed in seeds)
    options = {name: value for name, value in settings._asdict().items() if value is not None} | more
    options |= {name: False for name in UNWANTED_DEFAULTS if name in arguments_of(type(pipe))}
    try:
        with noise if has_relatives else nullcontext():  # plain images need no step, and no other work
            images = pipe(  # type: ignore[operator]  # every text-to-image pipeline can be called
                prompt=prompt, num_images_per_prompt=len(seeds), output_type="pil", generator=noise.generators,
                **options,
            ).images  # fmt: skip
    except (ValueError, RuntimeError, IndexError, ArithmeticError, MemoryError) as error:
        if isinstance(error, RaigenError | torch.OutOfMemoryError) or "not enough memory" in str(error):
            raise
        chosen = ", ".join(f"{name} {value}" for name, value in settings._asdict().items() if value is not None)
        raise RaigenError(
            f"{type(pipe).__name__} failed with {chosen}: {error}. Try the model's own settings"
        ) from error
    if images[0].size != (settings.width, settings.height):
        width, height = images[0].size
        raise RaigenError(
            f"height: {type(pipe).__name__} makes images of {height} x {width} pixels (height x width) where "
            f"{settings.height} x {settings.width} were requested; give height {height} and width {width}"
        )
    return images


def _read_defaults(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = object_of(path)
    values = {name: found[name] for name in FILED if found.get(name) is not None}
    for name, value in values.items():
        is_whole = name in WHOLE_NUMBERS
        if not fits(value, int if is_whole else float) or not is_whole <= value <= HUGE:
            kind = "whole number" if is_whole else "number"
            raise RaigenError(f"{path}: expected a {kind} from {is_whole:d} to {HUGE} for {name}; got {value!r}")
    return values


def _chosen(config: CaptureConfig | None) -> dict[str, Any]:
    values = {name: getattr(config, name, None) for name in Settings._fields}
    return {name: value for name, value in values.items() if value is not None}


def _size_multiple(pipe: DiffusionPipeline) -> int:
    """Of how many pixels height and width are multiples: for a transformer the pixels of one patch."""
    factor, transformer = getattr(pipe, "vae_scale_factor", None), pipe.components.get("transformer")
    if not isinstance(factor, int) or transformer is None:
        return PIXEL_MULTIPLE
    config = transformer.config
    latent = getattr(getattr(pipe.components.get("vae"), "config", None), "latent_channels", None)
    sides = [getattr(config, "patch_size", None), *getattr(config, "all_patch_size", ())]
    is_packed = latent is not None and getattr(config, "in_channels", None) == 4 * latent  # squares of 2 x 2
    patch = max((side for side in sides if isinstance(side, int)), default=1)
    return max(PIXEL_MULTIPLE, int(factor) * max(patch, 2 if is_packed else 1))


def _native_size(pipe: DiffusionPipeline) -> tuple[int, int]:
    denoiser = pipe.components.get("unet") or pipe.components.get("transformer")
    trained = getattr(getattr(denoiser, "config", None), "sample_size", None)
    sample = getattr(pipe, "default_sample_size", None) or trained
    factor = getattr(pipe, "vae_scale_factor", None)
    if sample is None or factor is None:
        raise RaigenError(f"{type(pipe).__name__} does not say how large its images are; give height and width")
    sides = (sample, sample) if isinstance(sample, int) else sample
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise RaigenError(f"{type(pipe).__name__}: expected a whole number or two as sample_size; got {sample!r}. Give "
                          "height and width")  # fmt: skip
    return sides[0] * factor, sides[1] * factor
