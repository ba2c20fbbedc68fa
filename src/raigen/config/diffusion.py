"""How a model is loaded, and how its images are made."""

import math
from dataclasses import dataclass, fields

from raigen.config.fields import detail, need

DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")
MIN_IMAGES = 50  # fewer cannot show a rare attribute even twice


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """By which means a pipeline is loaded."""

    revision: str | None = None
    """Branch, tag or commit of a model on the Hub; None takes its main branch. The commit found is recorded."""
    variant: str | None = None
    """Of several files of weights those with this suffix, such as `fp16`; None takes the plain ones."""
    dtype: str = "auto"
    """Of the weights: `auto` (bfloat16 on a GPU, float32 on a CPU), `float32`, `bfloat16` or `float16`."""
    tiling: bool = False
    """Decodes images in overlapping tiles: needs less memory for large ones, changes them slightly."""
    offload: str = detail("none")
    """For a GPU too small for the whole pipeline: `model` keeps one part on it at a time, `sequential` one layer,
    which is far slower; `none` keeps all."""
    offline: bool = detail(False)
    """Takes a model of the Hub from the local cache only."""

    def __post_init__(self) -> None:
        need(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        need(self.offload in OFFLOADS, "offload", self.offload, f"one of {', '.join(OFFLOADS)}")


@dataclass(frozen=True)
class CaptureConfig(LoadConfig):
    """Which images are made, and where the denoiser is looked into."""

    prompt: str
    """The prompt to audit; not empty."""
    model: str = "portraits"
    """`portraits` or `portraits-transformer` (bundled), or a folder or Hub id of a diffusers pipeline."""
    n_images: int = 1000
    """Images to generate, at least 50. The rarest rate that shows ten examples is about 16 / n_images."""
    base_seed: int = 0
    """Image i has the seed base_seed + i; at least 0."""
    num_inference_steps: int | None = None
    """Denoising steps; None takes the model's own default."""
    guidance_scale: float | None = None
    """Classifier-free guidance; None takes the model's own default."""
    negative_prompt: str | None = None
    """What guidance leads away from; None takes the model's own default, mostly the empty text."""
    true_cfg_scale: float | None = None
    """Classifier-free guidance of models whose guidance_scale is another thing (Qwen-Image, FLUX); they need a
    negative_prompt, which may be a space. None takes the model's own default."""
    height: int | None = None
    """Pixels; None takes the model's own default."""
    width: int | None = None
    """Pixels; None takes the model's own default."""
    hookpoint: str | None = None
    """Dotted path of the module whose output is captured, one of `raigen hookpoints MODEL` or any other; None takes
    `unet.mid_block` or a block in the middle of the transformer."""
    store: bool = False
    """Keep the activations of all denoising steps on disk, to train many autoencoders on them. Otherwise the
    autoencoder is trained while the images are made, and only what scoring needs is kept: the last step."""
    batch_size: int = detail(16)
    """Images generated at once, at least 1. Changes no image."""
    device: str = detail("auto")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(bool(self.prompt.strip()), "prompt", self.prompt, "a text that is not empty")
        need(self.n_images >= MIN_IMAGES, "n_images", self.n_images,
              f"at least {MIN_IMAGES}: fewer images cannot show what is rare")  # fmt: skip
        need(self.base_seed >= 0, "base_seed", self.base_seed, "0 or more")
        need(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        need(self.num_inference_steps is None or self.num_inference_steps >= 1, "num_inference_steps",
              self.num_inference_steps, "1 or more")  # fmt: skip
        for name in ("guidance_scale", "true_cfg_scale"):
            value = getattr(self, name)
            need(value is None or 0 <= value < math.inf, name, value, "a number of 0 or more")


@dataclass(frozen=True)
class HookpointsConfig(LoadConfig):
    """For which images the hookpoints of a model are listed."""

    num_inference_steps: int | None = None
    """Denoising steps; None takes the model's own default."""
    height: int | None = None
    """Pixels; None takes the model's own default."""
    width: int | None = None
    """Pixels; None takes the model's own default."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""


@dataclass(frozen=True)
class SearchConfig(HookpointsConfig):
    """For which images the hookpoints of a model are listed, and by which they are compared."""

    prompt: str = "a photo of a doctor"
    """With --search: what the images are of; not empty. The best hookpoint may depend on it."""
    n_images: int = 300
    """With --search: images to generate, at least 50."""
    base_seed: int = 0
    """With --search: image i has the seed base_seed + i; at least 0."""
    guidance_scale: float | None = None
    """With --search: classifier-free guidance; None takes the model's own default."""
    batch_size: int = 16
    """With --search: images generated at once, at least 1."""
    embedder: str | None = None
    """With --search: a folder or Hub id of a CLIP model; None is the bundled one for `portraits`, else
    `openai/clip-vit-large-patch14`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.capture("portraits")  # which checks the rest

    def capture(self, model: str) -> CaptureConfig:
        """The same images, as the stage `capture` would be told to make them."""
        shared = {f.name for f in fields(CaptureConfig)}
        return CaptureConfig(model=model, **{f.name: getattr(self, f.name) for f in fields(self) if f.name in shared})
