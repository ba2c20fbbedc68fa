"""Draws the places behind a portrait."""

import numpy as np

from raigen.world.pen import Color, Pen, jitter, shift_color


def _office(pen: Pen, rng: np.random.Generator) -> None:
    wall = jitter((222, 226, 224), rng)
    pen.box(-8, -8, 72, 72, wall)
    x = rng.uniform(2, 6)
    for left in (x, x + 40):
        pen.box(left, 6, left + 15, 30, (168, 208, 236))
        pen.line([(left + 7.5, 6), (left + 7.5, 30)], (248, 248, 248), 1.2)
        pen.line([(left, 18), (left + 15, 18)], (248, 248, 248), 1.2)
    pen.box(-8, 47, 72, 72, jitter((176, 138, 104), rng))
    pen.box(52, 38, 62, 48, (92, 96, 108), radius=1)


def _field(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, jitter((142, 206, 246), rng))
    pen.ellipse(rng.uniform(6, 58), 9, 5.5, 5.5, (255, 226, 92))
    pen.ellipse(14, 48, 34, 14, (118, 184, 82))
    pen.ellipse(54, 50, 34, 15, (96, 164, 66))
    pen.box(-8, 46, 72, 72, jitter((108, 176, 70), rng))
    for x in rng.uniform(0, 64, size=5):
        pen.ellipse(x, rng.uniform(50, 62), 1.2, 1.2, (250, 224, 96))


def _night_city(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, jitter((22, 26, 62), rng, 4))
    pen.ellipse(rng.uniform(48, 56), 8, 4.2, 4.2, (250, 244, 206))
    x = -6.0
    while x < 70:
        width, top = rng.uniform(9, 14), rng.uniform(12, 30)
        pen.box(x, top, x + width - 1, 72, (48, 52, 96))
        for wy in np.arange(top + 3, 60, 5):
            for wx in np.arange(x + 2, x + width - 3, 4):
                if rng.random() < 0.6:
                    pen.box(wx, wy, wx + 2, wy + 2.6, (252, 216, 104))
        x += width


def _snow(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, jitter((172, 198, 222), rng))
    for x in (6, 20, 46, 60):
        x += rng.uniform(-2, 2)
        pen.shape([(x - 7, 46), (x, 16 + rng.uniform(-3, 3)), (x + 7, 46)], (74, 118, 112))
        pen.shape([(x - 3, 28), (x, 16), (x + 3, 28)], (250, 252, 255))
    pen.box(-8, 44, 72, 72, (244, 248, 253))
    for _ in range(26):
        pen.ellipse(rng.uniform(0, 64), rng.uniform(0, 60), 1.1, 1.1, (255, 255, 255))


def _brick_wall(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, (226, 206, 190))
    brick = jitter((180, 84, 62), rng, 5)
    for row, y in enumerate(range(-6, 70, 7)):
        for x in range(-20 + (row % 2) * 7, 76, 14):
            pen.box(x, y, x + 12.6, y + 5.6, shift_color(brick, rng.uniform(-0.12, 0.08)))


def _library(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, jitter((98, 62, 38), rng, 4))
    covers: list[Color] = [
        (196, 62, 54), (54, 116, 172), (226, 176, 72), (74, 142, 92), (150, 92, 160), (232, 222, 200),
    ]  # fmt: skip
    for shelf in (0, 17, 34, 51):
        pen.box(-8, shelf + 14, 72, shelf + 16.4, (146, 98, 60))
        x = -6.0
        while x < 70:
            width, height = rng.uniform(3, 5), rng.uniform(9.5, 12.5)
            pen.box(x, shelf + 14 - height, x + width - 0.6, shelf + 14, covers[rng.integers(len(covers))])
            x += width


BACKGROUNDS = {
    "office": _office, "field": _field, "night city": _night_city, "snow": _snow, "brick wall": _brick_wall,
    "library": _library,
}  # fmt: skip
