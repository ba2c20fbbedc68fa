"""Turns arrays into pictures and into the geometry of charts."""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

# Ember, in OKLab (lightness, green-red, blue-yellow): violet, fire, straw. Evenly spaced there, so that equal steps of
# activation look like equal steps of color, and the lightness alone carries the order (for print and color blindness).
EMBER = np.array([(0.36, 0.08, -0.10), (0.51, 0.17, 0.00), (0.68, 0.135, 0.11), (0.92, -0.01, 0.13)])
DOT_BOX = 1000  # the square in which the path of the scatter's dots is drawn
HALF_DECADES = (1, 3)  # the marks of a logarithmic axis: 1 %, 3 %, 10 %, 30 % ...
PIXEL_ART = 96  # pictures up to this many pixels are enlarged by whole pixels, not smoothed
SMALL, LARGE = 256, 1664  # pixels of the longer side: what a vision-language model is shown at least, and at most
CAPTION = 28  # pixels of a line of text over a band of pictures


class Mark(NamedTuple):
    """A mark on an axis: where it is (percent of the axis, from its start) and what it says."""

    at: float
    text: str


class Pin(NamedTuple):
    """The place of one listed neuron, in percent of the chart from its left and from its top."""

    left: float
    top: float


class Scatter(NamedTuple):
    """Frequency (logarithmic, rare at the left) against distinctiveness (linear from 0, far at the top).

    `dots` is an SVG path of zero-length strokes, one for each neuron that is not listed, in a square of `DOT_BOX`;
    `pins` are the listed ones, in the order in which they came.
    """

    dots: str
    pins: tuple[Pin, ...]
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]


class Histogram(NamedTuple):
    """Bars over a linear axis from 0, as an SVG path in a square of `DOT_BOX`; `fullest` is the highest count."""

    bars: str
    marks: tuple[Mark, ...]
    fullest: int


class RateAxis(NamedTuple):
    """A linear axis from 0 to `end` (a share), with marks in percent."""

    end: float
    marks: tuple[Mark, ...]

    def at(self, rate: float) -> float:
        """Where `rate` lies on the axis, in percent of its length.

        >>> rate_axis([0.07]).at(0.05)
        62.5
        """
        return round(100 * min(rate / self.end, 1.0), 3)


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
    """Activations as a picture to lay over another: RGBA, of `size` (width, height), clear where nothing fires.

    Color rises with activation / `peak`, clipped to [0, 1]; opacity with its square root, so that weak activations can
    be seen. One `peak` for several pictures makes them comparable. The values are interpolated, not the colors, and
    never beyond the next cell. Without a peak (0) the picture is clear throughout.
    """
    share = np.clip(heatmap / peak, 0, 1) if peak > 0 else np.zeros_like(heatmap)
    smooth = Image.fromarray(np.ascontiguousarray(share, dtype=np.float32)).resize(size, Image.Resampling.BILINEAR)
    strength = np.asarray(smooth).clip(0, 1)
    colors = color_map()[(strength * 255).round().astype(int)]
    return Image.fromarray(np.dstack([colors, (np.sqrt(strength) * 255).round().astype(np.uint8)]))


def image_grid(images: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """Lays pictures of one size into rows of `columns`, on white, `gap` pixels apart.

    >>> image_grid([Image.new("RGB", (8, 8))] * 3, columns=2, gap=4).size
    (20, 20)
    """
    if not images or any(image.size != images[0].size for image in images):
        sizes = ", ".join(sorted({f"{image.width}x{image.height}" for image in images})) or "none"
        raise ValueError(f"expected pictures of one size; got {sizes}")
    width, height = images[0].size
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    grid = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for index, image in enumerate(images):
        grid.paste(image, (index % columns * (width + gap), index // columns * (height + gap)))
    return grid


def thumbnail(image: Image.Image, max_side: int) -> Image.Image:
    """`image` made to fit a square of `max_side` pixels; smaller pictures stay as they are."""
    if max(image.size) <= max_side:
        return image
    scale = max_side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def sized(image: Image.Image) -> Image.Image:
    """`image` as a vision-language model is to see it: RGB, small ones enlarged by whole pixels, large ones reduced.

    >>> sized(Image.new("L", (64, 48))).size, sized(Image.new("RGB", (3200, 800))).size
    ((256, 192), (1664, 416))
    """
    factor = SMALL // max(image.size)
    if factor > 1:
        size = (image.width * factor, image.height * factor)
        return image.convert("RGB").resize(size, Image.Resampling.NEAREST)
    return thumbnail(image.convert("RGB"), LARGE)


def sheet(bands: Sequence[tuple[str, Sequence[Image.Image]]], columns: int = 5) -> Image.Image:
    """Bands of pictures below each other, each under a caption, every picture in a square cell of `SMALL` pixels."""
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


def scatter(
    frequency: Float[np.ndarray, " neuron"],
    distinctiveness: Float[np.ndarray, " neuron"],
    listed: Bool[np.ndarray, " neuron"],
) -> Scatter:
    """Places live neurons (frequency above 0) in a chart; the listed ones become pins.

    Raises ValueError when a frequency is not in (0, 1].
    """
    if frequency.size and not (frequency.min() > 0 and frequency.max() <= 1):
        raise ValueError(f"expected frequencies in (0, 1]; got {frequency.min():g} to {frequency.max():g}")
    low = math.log10(frequency.min() if frequency.size else 0.01) - 0.15  # room for half a pin
    top, y_marks = linear_axis(float(distinctiveness.max(initial=0.0)) or 1.0)
    left = 100 * (np.log10(np.maximum(frequency, 1e-12)) - low) / (0.05 - low)  # ends a little after 100 %
    down = 100 * (1 - distinctiveness / top)
    scale = DOT_BOX / 100
    dots = "".join(f"M{x * scale:.0f} {y * scale:.0f}h.1" for x, y in zip(left[~listed], down[~listed], strict=True))
    pins = tuple(Pin(round(float(x), 2), round(float(y), 2)) for x, y in zip(left[listed], down[listed], strict=True))
    values = [digit * 10.0**power for power in range(math.floor(low), 1) for digit in HALF_DECADES]
    x_marks = tuple(
        Mark(round(100 * (math.log10(v) - low) / (0.05 - low), 2), f"{v * 100:g} %")
        for v in values
        if low < math.log10(v) <= 1e-9
    )
    return Scatter(dots, pins, x_marks, tuple(Mark(100 * at / top, f"{at:g}") for at in y_marks))


def histogram(values: Float[np.ndarray, " value"], n_bins: int = 20) -> Histogram:
    """How many of the `values` (above 0) fall into each of `n_bins` equal parts of an axis from 0 to beyond them all.

    >>> histogram(np.array([0.1, 0.1, 0.9]), n_bins=2).bars
    'M0 1000v-1000h500v1000zM500 1000v-500h500v500z'
    """
    end, values_marked = linear_axis(float(values.max(initial=0.0)) or 1.0)
    counts = np.histogram(values, n_bins, (0, end))[0]
    fullest, width = int(counts.max(initial=0)), DOT_BOX / n_bins
    bars = "".join(
        f"M{index * width:g} {DOT_BOX}v-{(high := count / fullest * DOT_BOX):.4g}h{width:g}v{high:.4g}z"
        for index, count in enumerate(counts)
        if count
    )
    return Histogram(bars, tuple(Mark(round(100 * at / end, 3), f"{at:g}") for at in values_marked), fullest)


def rate_axis(rates: Sequence[float]) -> RateAxis:
    """An axis from 0 that ends at or a little above the greatest of `rates` (shares), marked in percent.

    >>> rate_axis([0.004, 0.07]).end
    0.08
    """
    end, values = linear_axis(100 * max(rates, default=0.0) or 100.0, n_steps=4)  # more would touch in a narrow column
    end = min(end, 100.0)
    return RateAxis(end / 100, tuple(Mark(round(100 * v / end, 3), f"{v:g} %") for v in values if v <= end))


def linear_axis(greatest: float, n_steps: int = 5) -> tuple[float, list[float]]:
    """The round end of an axis that holds 0 to `greatest`, and round values on it, at most `n_steps` above 0."""
    greatest = max(greatest, 1e-300)  # a fifth of the least numbers would be 0
    raw = greatest / n_steps
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * (1 - 1e-9))
    count = math.ceil(greatest / step - 1e-9)
    return count * step, [float(f"{n * step:.6g}") for n in range(count + 1)]
