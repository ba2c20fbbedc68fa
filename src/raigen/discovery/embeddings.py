"""Turns images and texts into vectors: embeddings, and thumbnails."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from PIL.Image import Image
from PIL.Image import new as new_image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, ViTImageProcessorPil

from raigen.diffusion.loading import explained, no_advice, resolve_device
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.world.models import BUNDLE, CLIPS, TRAINED_BY, world_name

THUMBNAIL_SIDE = 16  # pixels along each side
WITH_TEXTS = ("clip", "siglip", "siglip2")
WITHOUT_TEXTS = ("dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext")
LOOKS = "looks"  # the view of an image that is its thumbnail
PUBLISHED = "openai/clip-vit-large-patch14"  # with which RAIGen (arXiv 2602.06806) measures distinctiveness


def default_embedder(model: str) -> str:
    """The embedder for the images of `model`: the bundled CLIP of its planted world, or else the published one.

    >>> default_embedder("stabilityai/sdxl-turbo")
    'openai/clip-vit-large-patch14'
    """
    return world_name(model) or PUBLISHED


def thumbnails(images: Sequence[Image]) -> Float32[np.ndarray, "image 768"]:
    """How images look from afar: their colors at 16 x 16 pixels, from 0 to 255, row by row.

    Raises RaigenError for an image that cannot be read.
    """
    small = [_readable(image, index).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE)) for index, image in enumerate(images)]
    return np.array([np.asarray(image, np.float32).ravel() for image in small]).reshape(-1, 3 * THUMBNAIL_SIDE**2)


class Embedder:
    """A CLIP, SigLIP or DINO model, with its image processor and its tokenizer. DINO (v2 and v3) knows no texts.

    `name` is `portraits` or `emblems` (bundled), a folder, or an id on the Hub. Pillow prepares the images, so
    embeddings do not depend on which other image libraries are installed. `offline` looks for it in the local cache
    only. Raises RaigenError when the model is missing, cannot be read or is of another kind.

        embedder = Embedder("portraits", "cpu")
        embedder.images(images) @ embedder.texts(["wearing glasses"]).T
    """

    def __init__(self, name: str, device: str | torch.device, batch_size: int = 64, offline: bool = False):
        self.name = name
        self.device = torch.device(device)
        self.batch_size = batch_size
        path = embedder_path(name)
        kinds = "a CLIP, SigLIP or DINO model in a folder or on the Hub"
        with explained(f"embedder: expected {kinds}; {path} cannot be loaded"):
            self._load(path, offline)

    def _load(self, path: str, offline: bool) -> None:
        options: dict[str, Any] = {"local_files_only": offline}
        kind = self.kind = AutoConfig.from_pretrained(path, **options).model_type
        if kind not in (*WITH_TEXTS, *WITHOUT_TEXTS):
            raise RaigenError(f"embedder: expected a CLIP, SigLIP or DINO model; {path} is {kind!r}")
        loaded: Any = AutoModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True, **options)
        model, report = loaded
        if report["missing_keys"]:  # transformers would draw them at random
            raise RaigenError(f"embedder: {path} lacks the weights {', '.join(sorted(report['missing_keys']))}")
        self.model = model.to(self.device).eval()
        if kind.startswith("dinov3"):  # its own processor needs torchvision; that of ViT does the same with Pillow
            self.processor = ViTImageProcessorPil.from_pretrained(path, local_files_only=offline)
        else:
            self.processor = AutoImageProcessor.from_pretrained(path, backend="pil", **options)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, **options) if kind in WITH_TEXTS else None

    def prove(self) -> None:
        """Embeds a plain image, and a word if the model knows texts. Raises RaigenError where that fails, or gives no
        numbers."""
        with explained(f"embedder: expected a model that embeds images; {self.name} fails with a plain one"):
            rows = [self.images([new_image("RGB", (64, 64), "gray")])]
            rows += [self.texts(["a hat"])] if self.tokenizer else []
        if not all(np.isfinite(row).all() for row in rows):
            raise RaigenError(f"embedder: expected numbers of {self.name}; some are not finite. Fetch the model again")

    @property
    def d_embed(self) -> int:
        """The width of an embedding."""
        config = self.model.config
        if self.kind in WITH_TEXTS:
            return config.projection_dim if self.kind == "clip" else config.vision_config.hidden_size
        return config.hidden_sizes[-1] if self.kind == "dinov3_convnext" else config.hidden_size

    def images(self, images: Sequence[Image]) -> Float32[np.ndarray, "image d_embed"]:
        """One unit vector per image. Raises RaigenError for an image that cannot be read."""
        batches = [self._image_batch(images[start : start + self.batch_size], start)
                   for start in range(0, len(images), self.batch_size)]  # fmt: skip
        return np.concatenate([np.zeros((0, self.d_embed), np.float32), *batches])

    @property
    def n_tokens(self) -> int:
        """The most tokens that the model reads of a text, with the marks at its ends: 77 in published models."""
        return self.model.text_model.embeddings.position_embedding.num_embeddings

    def cut_texts(self, texts: Sequence[str]) -> list[bool]:
        """Which texts have more tokens than the model reads, so that `texts` would cut off their ends. Raises
        RaigenError as `texts` does."""
        self.need_texts()
        with no_advice():
            found = self.tokenizer(list(texts)).input_ids if texts else []
        return [len(tokens) > self.n_tokens for tokens in found]

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d_embed"]:
        """One unit vector per text. A longer text than `n_tokens` is cut: ask `cut_texts` first.

        Raises RaigenError for a model that knows no texts.
        """
        self.need_texts()
        batches, whole = [], True if self.kind == "clip" else "max_length"  # SigLIP was trained on full lengths
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            tokens = self.tokenizer(
                batch, padding=whole, truncation=True, max_length=self.n_tokens, return_tensors="pt"
            )
            with torch.no_grad():
                batches.append(_unit(self.model.get_text_features(**tokens.to(self.device))))
        return np.concatenate([np.zeros((0, self.d_embed), np.float32), *batches])

    @property
    def knows_texts(self) -> bool:
        """Whether it embeds texts, too."""
        return self.kind in WITH_TEXTS

    def need_texts(self) -> None:
        """Raises RaigenError for a model that knows no texts."""
        if not self.knows_texts:
            raise RaigenError(f"embedder: expected one that knows texts, for names and rates by CLIP; {self.name} is "
                              f"{self.kind!r}. Give a CLIP or SigLIP model, or --annotator and --judge with a "
                              "vision-language model; --second-view takes one without texts")  # fmt: skip

    def _image_batch(self, images: Sequence[Image], first: int) -> Float32[np.ndarray, "image d_embed"]:
        images = [_readable(image, index) for index, image in enumerate(images, start=first)]
        pixels = self.processor(images=images, return_tensors="pt").to(self.device)
        with torch.no_grad():
            return _unit(self.model.get_image_features(**pixels) if self.tokenizer else self.model(**pixels))


def embedder_of(run: Run, device: str | None = None) -> Embedder:
    """The embedder that discovery used, on the device of the run, unless another is given.

    Raises RaigenError before `discover` has run.
    """
    capture = run.config.capture
    return Embedder(run.facts.discover.embedder, resolve_device(device or capture.device), offline=capture.offline)


def embedder_path(name: str) -> str:
    """Where the model is: the bundled folder for `portraits` or `emblems`, or else a folder or an id on the Hub.

    Raises RaigenError when the bundled folder is missing.
    """
    if name not in CLIPS:
        return name
    folder = BUNDLE / CLIPS[name]
    if not (folder / "config.json").is_file():
        raise RaigenError(f"{folder}: expected the weights of the bundled CLIP; they are missing. "
                          f"Train them with: python -m {TRAINED_BY[name]}")  # fmt: skip
    return str(folder)


def _readable(image: Image, index: int) -> Image:
    try:
        return image.convert("RGB")  # reads the file, where the image is not in memory yet
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        name = getattr(image, "filename", "") or f"image {index}"
        raise RaigenError(f"{name}: expected a whole image; it cannot be read ({error})") from error


def _unit(features: object) -> Float32[np.ndarray, "row d_embed"]:
    # transformers 4 returns the projected features, transformers 5 puts them into an output object
    rows = features if isinstance(features, Tensor) else features.pooler_output  # type: ignore[attr-defined]
    return torch.nn.functional.normalize(rows.float(), dim=-1).cpu().numpy()
