"""Draws shapes, in portrait units, on a supersampled image."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64  # pixels of the finished portrait, and units of every coordinate below
SCALE = 4  # supersampling
Color = tuple[int, int, int]
Point = tuple[float, float]


class Pen:
    """Draws in portrait units onto a supersampled image, through one affine map (scale about `pivot`, then shift)."""

    def __init__(self, image: Image.Image, scale: float = 1.0, pivot: Point = (32, 26), shift: Point = (0, 0)):
        self._draw = ImageDraw.Draw(image)
        self._scale, self._pivot, self._shift = scale, pivot, shift

    def _map(self, points: list[Point]) -> list[Point]:
        (px, py), (sx, sy) = self._pivot, self._shift
        return [
            ((px + (x - px) * self._scale + sx) * SCALE, (py + (y - py) * self._scale + sy) * SCALE) for x, y in points
        ]

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        (x0, y0), (x1, y1) = self._map([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.ellipse((x0, y0, x1, y1), fill=fill)

    def ring(self, x: float, y: float, rx: float, ry: float, color: Color, width: float) -> None:
        (x0, y0), (x1, y1) = self._map([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.ellipse((x0, y0, x1, y1), outline=color, width=self._width(width))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Color, radius: float = 0.0) -> None:
        (a, b), (c, d) = self._map([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle((a, b, c, d), radius=radius * self._scale * SCALE, fill=fill)

    def shape(self, points: list[Point], fill: Color) -> None:
        self._draw.polygon(self._map(points), fill=fill)

    def line(self, points: list[Point], color: Color, width: float) -> None:
        self._draw.line(self._map(points), fill=color, width=self._width(width), joint="curve")
        radius = width / 2
        for x, y in (points[0], points[-1]):  # round ends
            self.ellipse(x, y, radius, radius, color)

    def arc(self, x: float, y: float, rx: float, ry: float, degrees: tuple[float, float], color: Color,
            width: float) -> None:  # fmt: skip
        (x0, y0), (x1, y1) = self._map([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.arc((x0, y0, x1, y1), degrees[0], degrees[1], fill=color, width=self._width(width))

    def _width(self, width: float) -> int:
        return max(1, round(width * self._scale * SCALE))


class Look(NamedTuple):
    """The colors and small variations of one portrait that no attribute names."""

    skin: Color
    shade: Color
    hair: Color
    face: Point  # half width and half height of the face
    smile: float
    accent: float  # 0..1, picks shades of clothing and cloth


def shift_color(color: Color, amount: float) -> Color:
    """Makes `color` lighter (amount > 0) or darker (amount < 0), by that share of the way to white or black."""
    target = 255 if amount > 0 else 0
    return tuple(round(channel + (target - channel) * abs(amount)) for channel in color)  # type: ignore[return-value]


def jitter(color: Color, rng: np.random.Generator, spread: float = 7.0) -> Color:
    noise = rng.normal(0.0, spread, size=3) * 0.5 + rng.normal(0.0, spread) * 0.5
    return tuple(int(np.clip(channel + n, 0, 255)) for channel, n in zip(color, noise, strict=True))  # type: ignore
