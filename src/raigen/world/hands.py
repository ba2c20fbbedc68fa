"""Draws the arms of a portrait: gestures, and what a hand holds."""

import math

from raigen.world.pen import Color, Look, Pen, shift_color


def waving_arm(pen: Pen, look: Look, sleeve: Color) -> None:
    pen.line([(46, 52), (54.5, 48), (55, 36)], sleeve, 5.6)
    pen.ellipse(55.2, 31.5, 3.6, 3.9, look.skin)
    for dx, dy in ((-3.2, -3.4), (-1.1, -5.0), (1.3, -5.0), (3.4, -3.2)):
        pen.line([(55.2 + dx * 0.6, 30), (55.2 + dx, 30 + dy)], look.skin, 1.7)


def crossed_arms(pen: Pen, look: Look, sleeve: Color) -> None:
    dark = shift_color(sleeve, -0.28)
    pen.line([(12, 55), (22, 59.5), (43, 52)], dark, 7.6)
    pen.line([(12, 55), (22, 59.5), (43, 52)], sleeve, 6.2)
    pen.line([(52, 55), (42, 59.5), (22, 53)], dark, 7.6)
    pen.line([(52, 55), (42, 59.5), (22, 53)], sleeve, 6.2)
    pen.ellipse(21, 52.4, 3.3, 2.8, look.skin)
    pen.ellipse(43.4, 51.4, 3.3, 2.6, look.skin)


def _flower(pen: Pen, look: Look) -> None:
    pen.line([(14.5, 52), (13.5, 41)], (54, 138, 62), 1.6)
    pen.shape([(14, 47), (18.6, 43.6), (17.4, 47.2)], (70, 160, 74))
    petal: Color = (232, 52, 78) if look.accent < 0.5 else (250, 212, 62)
    for k in range(6):
        angle = k * math.pi / 3 + 0.3
        pen.ellipse(13.2 + 3.4 * math.cos(angle), 37.6 + 3.4 * math.sin(angle), 2.5, 2.5, petal)
    pen.ellipse(13.2, 37.6, 2.1, 2.1, (122, 66, 30))


def _cat(pen: Pen, look: Look) -> None:
    fur: Color = (238, 148, 62) if look.accent < 0.5 else (92, 92, 104)
    pen.ellipse(14.6, 49, 7.0, 7.4, fur)
    pen.line([(8.6, 53), (4.4, 48), (5.6, 43)], fur, 2.2)
    pen.ellipse(14.6, 40.4, 5.8, 5.0, fur)
    pen.shape([(9.2, 39.5), (9.4, 32.6), (13.6, 36.2)], fur)
    pen.shape([(20.0, 39.5), (19.8, 32.6), (15.6, 36.2)], fur)
    for x in (12.4, 16.8):
        pen.ellipse(x, 39.8, 1.2, 1.4, (226, 240, 120))
        pen.ellipse(x, 39.9, 0.5, 1.0, (20, 24, 20))
    pen.ellipse(14.6, 42.4, 1.0, 0.7, (250, 170, 170))


def _book(pen: Pen, look: Look) -> None:
    cover: Color = (178, 40, 48) if look.accent < 0.5 else (34, 92, 160)
    pen.shape([(5.0, 39.4), (13.8, 41.4), (13.8, 54.4), (5.0, 52)], cover)
    pen.shape([(22.6, 39.4), (13.8, 41.4), (13.8, 54.4), (22.6, 52)], shift_color(cover, -0.2))
    pen.line([(5.6, 38.8), (13.8, 40.8), (22.0, 38.8)], (250, 246, 232), 1.6)
    pen.box(7.2, 44.2, 11.4, 45.8, (244, 216, 130))


def _balloon(pen: Pen, look: Look) -> None:
    color: Color = (230, 44, 60) if look.accent < 0.5 else (66, 132, 240)
    pen.line([(14.5, 50), (12.5, 38), (10.4, 27)], (90, 90, 96), 0.8)
    pen.ellipse(9.8, 17.5, 7.2, 8.8, color)
    pen.shape([(8.2, 28.2), (9.9, 25.6), (11.8, 28.2)], color)
    pen.ellipse(7.2, 14, 1.7, 2.4, shift_color(color, 0.6))


HELD = {"flower": _flower, "cat": _cat, "book": _book, "balloon": _balloon}
