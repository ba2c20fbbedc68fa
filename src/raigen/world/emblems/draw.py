"""Draws one 64x64 image of the world `emblems`: a person before a plain background, perhaps with a companion."""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image

from raigen.world.emblems.attributes import Attributes
from raigen.world.emblems.pool import CELL, cells, companion_index, figure_index

SIZE = 64
BACKGROUND: dict[str, tuple[int, int, int]] = {
    "blue background": (168, 206, 240),
    "cream background": (246, 234, 200),
    "gray background": (176, 178, 182),
    "mint background": (166, 222, 182),
    "pink background": (244, 178, 206),
    "orange background": (242, 148, 60),
    "red background": (196, 52, 56),
    "navy background": (34, 44, 92),
}
PERSON, CLOSE, TILT, ASIDE = 46, 64, 20, -12  # pixels along each side, in a close-up too; degrees; pixels to the right
COMPANION, COMPANION_AT = 20, (42, 2)  # pixels along each side; its left upper corner
SHIFT, RISE = 2, 1  # at most so many pixels is a person moved, sideways and upright
TINT = 4.0  # standard deviation of the shade of a background, per channel


class Layer(NamedTuple):
    """Art on an empty canvas: its colors times its opacity, in [0, 255], and its opacity in [0, 1]."""

    color: Float32[np.ndarray, "64 64 3"]
    alpha: Float32[np.ndarray, "64 64 1"]

    def over(self, below: Float32[np.ndarray, "64 64 3"]) -> Float32[np.ndarray, "64 64 3"]:
        """This layer on top of an image."""
        return self.color + (1 - self.alpha) * below

    def moved(self, right: int, down: int) -> "Layer":
        """The layer, moved by whole pixels; what was at the edge is repeated beyond it, so a cropped body stays
        whole."""
        rows = np.clip(np.arange(SIZE) - down, 0, SIZE - 1)
        columns = np.clip(np.arange(SIZE) - right, 0, SIZE - 1)
        return Layer(self.color[rows][:, columns], self.alpha[rows][:, columns])


def draw(attributes: Attributes, rng: np.random.Generator) -> Image.Image:
    """Draws what `attributes` describes; `rng` moves the person and the companion by a few pixels, and varies the shade
    of the background.

    Returns an RGB image of 64x64 pixels.
    """
    a = attributes
    shade = BACKGROUND.get(a.background, BACKGROUND["gray background"])
    image = np.broadcast_to(np.array(shade) + rng.normal(0, TINT, 3), (SIZE, SIZE, 3)).astype(np.float32)
    skin = a.skin if a.skin.endswith(" skin") and not a.skin.startswith("no ") else "yellow skin"
    person = person_layer(figure_index(a.profession, a.hand, a.gender, skin), a.frame)
    image = person.moved(int(rng.integers(-SHIFT, SHIFT + 1)), int(rng.integers(-RISE, RISE + 1))).over(image)
    if a.companion != "no companion":
        companion = companion_layer(companion_index(a.hand, a.companion))
        image = companion.moved(int(rng.integers(-1, 2)), int(rng.integers(-1, 2))).over(image)
    drawn = Image.fromarray(image.round().clip(0, 255).astype(np.uint8))
    return drawn.convert("L").convert("RGB") if a.style == "black and white" else drawn


@cache
def person_layer(index: int, frame: str) -> Layer:
    """A figure where `frame` puts it: its feet at the lower edge."""
    art = _premultiplied(index)
    side = CLOSE if frame == "close-up" else PERSON
    if frame == "tilted":
        art = art.rotate(TILT, Image.Resampling.BICUBIC, expand=False)
    left = (SIZE - side) // 2 + (ASIDE if frame == "left of frame" else 0)
    return _placed(art, side, left, SIZE - side)


@cache
def companion_layer(index: int) -> Layer:
    """A companion in the right upper corner."""
    return _placed(_premultiplied(index), COMPANION, *COMPANION_AT)


def _premultiplied(index: int) -> Image.Image:
    return Image.fromarray(cells()[index]).convert("RGBa")  # so that no color of a clear pixel leaks when it is resized


def _placed(art: Image.Image, side: int, left: int, top: int) -> Layer:
    if side != CELL:
        art = art.resize((side, side), Image.Resampling.BOX if side * 2 <= CELL else Image.Resampling.BILINEAR)
    canvas = Image.new("RGBa", (SIZE, SIZE))
    canvas.paste(art, (left, top))
    pixels = np.asarray(canvas).astype(np.float32)
    return Layer(pixels[..., :3], pixels[..., 3:] / 255)
