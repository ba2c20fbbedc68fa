"""Draws the head of a portrait: features, hair, and what is worn on it."""

import math

import numpy as np

from raigen.world.attributes import Attributes
from raigen.world.pen import Color, Look, Pen, shift_color


def features(pen: Pen, look: Look, with_mouth: bool) -> None:
    dark = (38, 30, 34)
    for x in (28.0, 36.0):
        pen.ellipse(x, 26.4, 1.25, 1.5, dark)
        pen.ellipse(x + 0.4, 25.9, 0.45, 0.45, (250, 250, 250))
    pen.line([(32, 27.5), (31.4, 30.2), (32.4, 30.4)], look.shade, 0.9)
    if with_mouth:
        drop = 1.2 + 1.4 * look.smile
        pen.arc(32, 32.2, 3.6, drop, (10, 170), (164, 62, 62) if sum(look.skin) > 250 else (206, 110, 104), 1.2)


def hair(pen: Pen, a: Attributes, look: Look) -> None:
    fx, fy = look.face
    brow = shift_color(look.hair, -0.3) if a.hair in ("short hair", "long hair") else (70, 52, 44)
    for x, side in ((28.0, 1), (36.0, -1)):
        pen.line([(x - 1.7 * side, 23.8), (x + 1.7 * side, 23.2)], brow, 0.9)
    if a.hair == "bald":
        pen.ellipse(28.4, 19.0, 2.6, 1.2, shift_color(look.skin, 0.45))
    if a.hair == "short hair":
        top = 27 - fy
        pen.shape(
            [(32 - fx - 0.8, 27), (32 - fx - 0.9, 20), (26, top - 2.4), (34, top - 3.2), (40, top - 0.6),
             (32 + fx + 1.0, 20), (32 + fx + 0.8, 27), (32 + fx - 0.8, 22.4), (37, 19.8), (29, 20.8),
             (32 - fx + 0.9, 22.8)],
            look.hair,
        )  # fmt: skip
    if a.hair == "long hair":
        top = 27 - fy
        pen.shape(
            [(32 - fx - 2.2, 34), (32 - fx - 2.4, 21), (25, top - 1.6), (32, top - 3.0), (39, top - 1.6),
             (32 + fx + 2.4, 21), (32 + fx + 2.2, 34), (32 + fx - 0.4, 25), (36.5, 19.2), (32, 18.4),
             (27.5, 19.2), (32 - fx + 0.4, 25)],
            look.hair,
        )  # fmt: skip


def long_hair_behind(pen: Pen, look: Look) -> None:
    pen.box(32 - 13.2, 15, 32 + 13.2, 50, shift_color(look.hair, -0.12), radius=10)


def beard(pen: Pen, look: Look, a: Attributes) -> None:
    color = look.hair if a.hair in ("short hair", "long hair") else (62, 44, 36)
    color = shift_color(color, -0.12)
    fx, fy = look.face
    pen.shape(
        [(32 - fx, 27.5), (32 - fx + 1.6, 31), (27.6, 31.2), (32, 30.6), (36.4, 31.2), (32 + fx - 1.6, 31),
         (32 + fx, 27.5), (32 + fx - 0.2, 33), (37, 27 + fy + 1.2), (32, 27 + fy + 3.4), (27, 27 + fy + 1.2),
         (32 - fx + 0.2, 33)],
        color,
    )  # fmt: skip
    pen.ellipse(32, 33.2, 3.6, 1.7, look.skin)


def mask(pen: Pen, look: Look) -> None:
    fx, fy = look.face
    edge = (150, 204, 222)
    pen.line([(32 - fx, 27), (26, 30)], edge, 0.8)
    pen.line([(32 + fx, 27), (38, 30)], edge, 0.8)
    pen.shape(
        [(32 - fx + 1.2, 29), (32, 28.2), (32 + fx - 1.2, 29), (32 + fx - 1.6, 34), (36, 27 + fy + 0.8),
         (28, 27 + fy + 0.8), (32 - fx + 1.6, 34)],
        (178, 224, 238),
    )  # fmt: skip
    for y in (31.2, 33.6):
        pen.line([(32 - fx + 2.4, y), (32 + fx - 2.4, y)], edge, 0.6)


def glasses(pen: Pen) -> None:
    dark = (24, 24, 34)
    for x in (27.5, 36.5):
        pen.ring(x, 26.6, 3.9, 3.5, dark, 1.35)
    pen.line([(31.2, 26.2), (32.8, 26.2)], dark, 1.2)
    pen.line([(23.4, 26), (21.6, 25.2)], dark, 1.2)
    pen.line([(40.6, 26), (42.4, 25.2)], dark, 1.2)


def _cloth(look: Look) -> Color:
    colors: list[Color] = [(60, 120, 178), (64, 150, 118), (150, 84, 158)]
    return colors[int(look.accent * len(colors))]


def headscarf_behind(pen: Pen, look: Look) -> None:
    pen.ellipse(32, 30, 14.4, 17.5, shift_color(_cloth(look), -0.2))


def headscarf_front(pen: Pen, look: Look) -> None:
    cloth = _cloth(look)
    fx, fy = look.face
    around = np.linspace(math.pi * 0.62, math.pi * 2.38, 24)
    outer = [(32 + 13.2 * math.cos(t), 27.5 + 15.5 * math.sin(t)) for t in around]
    inner = [(32 + (fx - 0.6) * math.cos(t), 28 + (fy - 1.2) * math.sin(t)) for t in around[::-1]]
    pen.shape(outer + inner, cloth)
    pen.shape([(22, 37), (42, 37), (45, 47), (32, 51), (19, 47)], cloth)
    pen.line([(25, 39.5), (32, 43), (41, 41)], shift_color(cloth, -0.25), 1.0)


def turban(pen: Pen, look: Look) -> None:
    colors: list[Color] = [(232, 128, 38), (206, 54, 60), (240, 190, 60)]
    cloth = colors[int(look.accent * len(colors))]
    dark = shift_color(cloth, -0.25)
    pen.ellipse(32, 15.8, 12.4, 8.6, cloth)
    pen.shape([(20.4, 20), (32, 12.5), (43.6, 20), (41, 23.2), (32, 19.4), (23, 23.2)], cloth)
    pen.line([(21.4, 19.4), (31, 11.6), (39.6, 9.8)], dark, 1.0)
    pen.line([(42.4, 19.6), (34, 12.6), (27, 9.6)], dark, 1.0)
    pen.ellipse(32, 14.2, 1.6, 1.9, (252, 244, 214))
