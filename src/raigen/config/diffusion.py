"""How a model is loaded, and how its images are made."""

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from raigen.config.fields import AUTO, check_ranges, detail, need
from raigen.config.text_files import HALF, LONGEST, visible

DTYPES = ("auto", "float32", "bfloat16", "float16")
OFFLOADS = ("none", "model", "sequential")
MIN_IMAGES = 50  # fewer cannot show a rare attribute even twice
HUGE = 100_000  # pixels or steps, beyond all models


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """How a pipeline is loaded."""

    revision: str | None = None
    """Branch, tag or commit of a model on the Hub; None is its main branch. The commit is recorded."""
    variant: str | None = None
    """Load the weight files with this suffix, such as `fp16`; None loads those without one."""
    dtype: str = "auto"
    """Number type of the weights: `auto` (bfloat16 on a GPU, float32 on a CPU), `float32`, `bfloat16` or `float16`."""
    tiling: bool = False
    """Decode images in overlapping tiles: large images need less memory and change slightly."""
    offload: str = detail("none")
    """How much leaves a small GPU: with `none` the whole pipeline stays on it, with `model` one part at a time, with
    `sequential` one layer at a time, which is far slower."""
    offline: bool = detail(False)
    """Load models of the Hub from the local cache only."""

    def __post_init__(self) -> None:
        check_ranges(self)
        need(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        need(self.offload in OFFLOADS, "offload", self.offload, f"one of {', '.join(OFFLOADS)}")


@dataclass(frozen=True)
class CaptureConfig(LoadConfig):
    """Which images are made, and which layer of the denoiser is captured."""

    prompt: str
    """The prompt to audit; not empty."""
    model: str = "portraits"
    """`portraits`, `portraits-transformer` or `emblems` (bundled), or a folder or Hub id of a diffusers pipeline."""
    n_images: int = 1000
    """Images to generate, at least 50. With n images, an attribute needs a rate of about 16 / n to show ten times."""
    base_seed: Annotated[int, Ge(0)] = 0
    """Seed of the first image, 0 or more: image i has the seed base_seed + i."""
    num_inference_steps: Annotated[int | None, Interval(ge=1, le=HUGE)] = None
    """Denoising steps, 1 to 100000; None is the model's default."""
    guidance_scale: Annotated[float | None, Interval(ge=0, lt=math.inf)] = None
    """Classifier-free guidance scale, 0 or more; None is the model's default."""
    discovery_guidance: Annotated[float | None, Interval(ge=0, lt=math.inf)] = None
    """Guidance scale of the audited images and their relatives, 0 or more; None is the same as for all other images.
    Guidance hides what is rare, and a lower scale hides less (1 is none). Rates are measured with the scale that you
    use, and then with this one, too: their ratio says how much your guidance hides."""
    negative_prompt: str | None = None
    """Negative prompt of classifier-free guidance; None is the model's default, usually the empty text."""
    true_cfg_scale: Annotated[float | None, Interval(ge=0, lt=math.inf)] = None
    """Classifier-free guidance scale, 0 or more, of models that use guidance_scale for something else (Qwen-Image,
    FLUX). Above 1, the negative_prompt is a space unless it is given. None is the model's default."""
    height: Annotated[int | None, Interval(ge=1, le=HUGE)] = None
    """Height of the images in pixels, 1 to 100000; None is the model's default."""
    width: Annotated[int | None, Interval(ge=1, le=HUGE)] = None
    """Width of the images in pixels, 1 to 100000; None is the model's default."""
    hookpoint: str | None = None
    """Dotted path of the module whose output is captured, such as one that `raigen hookpoints MODEL` lists. None is
    `unet.mid_block`, or a block in the middle of a transformer."""
    store: bool = False
    """Keep the activations of all denoising steps on disk, to train several autoencoders on them. Without it, the
    autoencoder is trained while images are made, and only the last step's activations are kept, for scoring."""
    batch_size: Annotated[int | Literal["auto"], Ge(1)] = detail(AUTO)
    """Images generated at once, at least 1; does not change the images. `auto` is 16 on a CPU. On a GPU it doubles
    while that makes an image cheaper and fits into 80 % of the memory, and halves where the memory does not suffice."""
    device: str = detail("auto")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(bool(visible(self.prompt).strip()), "prompt", self.prompt, "a text that is not empty")
        for name, text in (("prompt", self.prompt), ("negative_prompt", self.negative_prompt or "")):
            need(not HALF.search(text), name, text, "a text of whole characters, in the terminal's encoding")
            need(len(text) <= LONGEST, name, f"{len(text):,}", f"at most {LONGEST:,} characters")
        need(self.n_images >= MIN_IMAGES, "n_images", self.n_images,
             f"at least {MIN_IMAGES}: fewer images cannot show what is rare")  # fmt: skip


@dataclass(frozen=True)
class HookpointsConfig(LoadConfig):
    """The images for which the hookpoints of a model are listed."""

    num_inference_steps: Annotated[int | None, Interval(ge=1, le=HUGE)] = None
    """Denoising steps, 1 to 100000; None is the model's default."""
    height: Annotated[int | None, Interval(ge=1, le=HUGE)] = None
    """Height of the images in pixels, 1 to 100000; None is the model's default."""
    width: Annotated[int | None, Interval(ge=1, le=HUGE)] = None
    """Width of the images in pixels, 1 to 100000; None is the model's default."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""


@dataclass(frozen=True)
class SearchConfig(HookpointsConfig):
    """The images for which the hookpoints of a model are listed; with --search, also how they are rated."""

    prompt: str = "a photo of a doctor"
    """With --search: prompt of the images, not empty. The best hookpoint may depend on it."""
    n_images: int = 300
    """With --search: images to generate, at least 50."""
    base_seed: int = 0
    """With --search: seed of the first image, 0 or more: image i has the seed base_seed + i."""
    guidance_scale: float | None = None
    """With --search: classifier-free guidance scale, 0 or more; None is the model's default."""
    batch_size: int | Literal["auto"] = AUTO
    """With --search: images generated at once, at least 1; `auto` as in an audit."""
    embedder: str | None = None
    """With --search: a folder or Hub id of a CLIP, SigLIP or DINO model; None is the bundled CLIP for
    bundled models, else `openai/clip-vit-large-patch14`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.capture("portraits")  # checks the other fields

    def capture(self, model: str) -> CaptureConfig:
        """The configuration with which the stage `capture` would make the same images."""
        shared = {f.name for f in fields(CaptureConfig)}
        return CaptureConfig(model=model, **{f.name: getattr(self, f.name) for f in fields(self) if f.name in shared})
