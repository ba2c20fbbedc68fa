"""Draws on images: heatmaps over them, grids of them, thumbnails."""

import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

# Colors in OKLab (lightness, green-red, blue-yellow), from violet over red and orange to straw. Equal steps of
# activation look like equal steps of color. Lightness alone shows the order (for print and color blindness).
EMBER = np.array([(0.36, 0.08, -0.10), (0.51, 0.17, 0.00), (0.68, 0.135, 0.11), (0.92, -0.01, 0.13)])
PIXEL_ART = 96  # images up to this many pixels are enlarged by whole pixels, not smoothed
SMALL, LARGE = 256, 1664  # pixels of the longer side of an image for a vision-language model, at least and at most
CAPTION = 28  # pixels of a line of text over a band of images


def color_map(levels: int = 256) -> UInt8[np.ndarray, "level 3"]:
    """The RGB colors of `EMBER` from weakest to strongest, at equal distances along its path through OKLab.

    OKLab: B. Ottosson, "A perceptual color space for image processing", 2020.

    >>> color_map(3).shape
    (3, 3)
    """
    path = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(EMBER, axis=0), axis=1))])
    steps = np.linspace(0.0, path[-1], levels)
    lab = np.stack([np.interp(steps, path, EMBER[:, channel]) for channel in range(3)], axis=1)
    to_lms = np.array([(1, 0.3963377774, 0.2158037573), (1, -0.1055613458, -0.0638541728),
                       (1, -0.0894841775, -1.2914855480)])  # fmt: skip
    to_rgb = np.array([(4.0767416621, -3.3077115913, 0.2309699292), (-1.2684380046, 2.6097574011, -0.3413193965),
                       (-0.0041960863, -0.7034186147, 1.7076147010)])  # fmt: skip
    linear = ((lab @ to_lms.T) ** 3 @ to_rgb.T).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (srgb * 255).round().astype(np.uint8)


def heatmap_overlay(heatmap: Float[np.ndarray, "row column"], size: tuple[int, int], peak: float) -> Image.Image:
    """Activations as an overlay for an image: RGBA, of `size` (width, height), transparent where nothing fires.

    The color follows activation / `peak`, clipped to [0, 1]. The opacity follows its square root, so that weak
    activations can be seen. Images with the same `peak` can be compared. Values are interpolated between neighboring
    cells, not colors. With a `peak` of 0 the overlay is fully transparent.
    """
    share = np.clip(heatmap / peak, 0, 1) if peak > 0 else np.zeros_like(heatmap)
    smooth = Image.fromarray(np.ascontiguousarray(share, dtype=np.float32)).resize(size, Image.Resampling.BILINEAR)
    strength = np.asarray(smooth).clip(0, 1)
    colors = color_map()[(strength * 255).round().astype(int)]
    return Image.fromarray(np.dstack([colors, (np.sqrt(strength) * 255).round().astype(np.uint8)]))


def image_grid(images: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """Lays images of one size into rows of `columns`, on white, `gap` pixels apart.

    >>> image_grid([Image.new("RGB", (8, 8))] * 3, columns=2, gap=4).size
    (20, 20)
    """
    if not images or any(image.size != images[0].size for image in images):
        sizes = ", ".join(sorted({f"{image.width}x{image.height}" for image in images})) or "none"
        raise ValueError(f"expected images of one size; got {sizes}")
    width, height = images[0].size
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    grid = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for index, image in enumerate(images):
        grid.paste(image, (index % columns * (width + gap), index // columns * (height + gap)))
    return grid


def thumbnail(image: Image.Image, max_side: int) -> Image.Image:
    """`image` reduced to fit a square of `max_side` pixels; smaller images stay as they are."""
    if max(image.size) <= max_side:
        return image
    scale = max_side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def sized(image: Image.Image) -> Image.Image:
    """`image` for a vision-language model: RGB, small images enlarged by a whole factor, large ones reduced.

    >>> sized(Image.new("L", (64, 48))).size, sized(Image.new("RGB", (3200, 800))).size
    ((256, 192), (1664, 416))
    """
    factor = SMALL // max(image.size)
    if factor > 1:
        size = (image.width * factor, image.height * factor)
        return image.convert("RGB").resize(size, Image.Resampling.NEAREST)
    return thumbnail(image.convert("RGB"), LARGE)


def sheet(bands: Sequence[tuple[str, Sequence[Image.Image]]], columns: int = 5) -> Image.Image:
    """Bands of images, one below the other, each under its caption, with every image in a square of `SMALL` pixels."""
    font = ImageFont.load_default(CAPTION - 8)
    grids = [(text, image_grid([_cell(image) for image in images], columns)) for text, images in bands]
    width = max(grid.width for _, grid in grids)
    page = Image.new("RGB", (width, sum(CAPTION + grid.height for _, grid in grids)), "white")
    at = 0
    for text, grid in grids:
        ImageDraw.Draw(page).text((4, at), text, fill="black", font=font)
        page.paste(grid, (0, at + CAPTION))
        at += CAPTION + grid.height
    return page


def _cell(image: Image.Image) -> Image.Image:
    smooth = Image.Resampling.NEAREST if max(image.size) <= PIXEL_ART else Image.Resampling.LANCZOS
    return ImageOps.pad(image.convert("RGB"), (SMALL, SMALL), smooth, color="white")


def webp(image: Image.Image, quality: int = 90) -> bytes:
    """`image` as a WebP file; transparency is kept."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
