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
LAYERS = 4  # of the dots of the scatter
# How far apart two numbers stand in the scatter at least, in percent of its width and height: about their own size in a
# narrow one (300 x 320 pixels).
APART = (5.5, 6.5)
CLEAR = 0.7  # of that distance, between a number and a true place that was left
ASIDE = 0.2  # of that distance: what was moved further has a line to its true place
ROUNDS = 200  # of moving them apart, at most
GOLDEN_ANGLE = math.pi * (3 - 5**0.5)  # turned by it again and again, no two directions are alike
HALF_DECADES = (1, 3)  # the marks of a logarithmic axis: 1 %, 3 %, 10 %, 30 % ...
PIXEL_ART = 96  # pictures up to this many pixels are enlarged by whole pixels, not smoothed
SMALL, LARGE = 256, 1664  # pixels of the longer side: what a vision-language model is shown at least, and at most
CAPTION = 28  # pixels of a line of text over a band of pictures


class Mark(NamedTuple):
    """A mark on an axis: where it is (percent of the axis, from its start) and what it says."""

    at: float
    text: str


class Pin(NamedTuple):
    """One listed neuron, in percent of the chart from its left and from its top: where its number stands, and its true
    place, from which the number was moved if it would hide another."""

    left: float
    top: float
    true_left: float
    true_top: float

    @property
    def is_aside(self) -> bool:
        """Whether the number was moved so far that its true place must be shown."""
        return math.hypot((self.left - self.true_left) / APART[0], (self.top - self.true_top) / APART[1]) > ASIDE


class Scatter(NamedTuple):
    """Frequency (logarithmic, rare at the left) against distinctiveness (linear from 0, far at the top).

    `dots` are SVG paths of zero-length strokes, one for each neuron that is not listed, in a square of `DOT_BOX`; in
    several layers, for what one path draws twice is no darker. `pins` are the listed ones, in the order in which they
    came.
    """

    dots: tuple[str, ...]
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
    dots = [f"M{x * scale:.0f} {y * scale:.0f}h.1" for x, y in zip(left[~listed], down[~listed], strict=True)]
    true = np.stack([left[listed], down[listed]], axis=1)
    places = np.concatenate([spread(true), true], axis=1).round(2).tolist()
    values = [digit * 10.0**power for power in range(math.floor(low), 1) for digit in HALF_DECADES]
    x_marks = tuple(
        Mark(round(100 * (math.log10(v) - low) / (0.05 - low), 2), f"{v * 100:g} %")
        for v in values
        if low < math.log10(v) <= 1e-9
    )
    layers, pins = tuple("".join(dots[layer::LAYERS]) for layer in range(LAYERS)), tuple(Pin(*at) for at in places)
    return Scatter(layers, pins, x_marks, tuple(Mark(100 * at / top, f"{at:g}") for at in y_marks))


def spread(places: Float[np.ndarray, "pin 2"]) -> Float[np.ndarray, "pin 2"]:
    """Moves pins apart, until no two are nearer than `APART` and none hides a true place from which one was moved, or
    `ROUNDS` are over. Places are percent from the left and from the top of the chart, which none leaves; what is alone
    stays, and the same places always move alike.

    >>> spread(np.array([[50.0, 50.0], [50.0, 50.0], [90.0, 10.0]])).round(1).tolist()
    [[53.8, 49.6], [46.9, 52.7], [90.0, 10.0]]
    """
    turns, box, true = GOLDEN_ANGLE * np.arange(len(places)), 100 / np.array(APART), places / APART
    # What coincides has no direction in which to part: every pin leans a hair towards one of its own.
    hair, at = 1e-9 * np.stack([np.cos(turns), np.sin(turns)], axis=1), true
    is_near = np.hypot(*np.moveaxis(true[:, None] - true, 2, 0)) < 1
    left = true[is_near.sum(axis=1) > 1]  # each is near itself
    for _ in range(ROUNDS):
        at = at + hair
        steps = np.concatenate([_steps(at, at, 1.0) / 2, _steps(at, left, CLEAR)], axis=1)
        far = np.hypot(steps[..., 0], steps[..., 1])
        if far.max(initial=0.0) < 0.02:
            break
        at = np.clip(at + steps.sum(axis=1) / np.maximum((far > 0).sum(axis=1, keepdims=True), 1), 0, box)
    moved = at * APART
    return np.where(np.abs(moved - places) < 0.01, places, moved)


def _steps(
    at: Float[np.ndarray, "pin 2"], others: Float[np.ndarray, "other 2"], least: float
) -> Float[np.ndarray, "pin other 2"]:
    """The step of each pin that would bring it `least` away from each of the others; 0 where it is."""
    gaps = at[:, None] - others
    far = np.maximum(np.hypot(gaps[..., 0], gaps[..., 1]), 1e-12)
    return (np.maximum(least - far, 0) / far)[..., None] * gaps


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
