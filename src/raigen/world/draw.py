"""Draws one 64x64 portrait from its attributes."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from raigen.world.attributes import Attributes

SIZE = 64  # pixels of the finished portrait, and units of every coordinate below
SCALE = 4  # supersampling
Color = tuple[int, int, int]
Point = tuple[float, float]

SKIN: dict[str, Color] = {
    "very light skin": (252, 226, 208),
    "light skin": (240, 194, 160),
    "tan skin": (208, 152, 108),
    "brown skin": (152, 98, 62),
    "dark skin": (88, 56, 40),
}
HAIR: dict[str, Color] = {
    "black hair": (34, 28, 32),
    "brown hair": (112, 66, 34),
    "blonde hair": (236, 198, 96),
    "grey hair": (176, 180, 188),
    "pink hair": (250, 96, 176),
}


class Pen:
    """Draws in portrait units onto a supersampled picture, through one affine map (scale about `pivot`, then shift)."""

    def __init__(self, picture: Image.Image, scale: float = 1.0, pivot: Point = (32, 26), shift: Point = (0, 0)):
        self._draw = ImageDraw.Draw(picture)
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
    """The colors and small accidents of one portrait that no attribute names."""

    skin: Color
    shade: Color
    hair: Color
    face: Point  # half width and half height of the face
    smile: float
    accent: float  # 0..1, picks shades of clothing and cloth


def shift_color(color: Color, amount: float) -> Color:
    """`color` made lighter (amount > 0) or darker (amount < 0), by a share of the way to white or black."""
    target = 255 if amount > 0 else 0
    return tuple(round(channel + (target - channel) * abs(amount)) for channel in color)  # type: ignore[return-value]


def _jitter(color: Color, rng: np.random.Generator, spread: float = 7.0) -> Color:
    noise = rng.normal(0.0, spread, size=3) * 0.5 + rng.normal(0.0, spread) * 0.5
    return tuple(int(np.clip(channel + n, 0, 255)) for channel, n in zip(color, noise, strict=True))  # type: ignore


def draw(attributes: Attributes, rng: np.random.Generator) -> Image.Image:
    """Draws the portrait that `attributes` describes; `rng` decides its small accidents (pose, shades, background).

    Returns an RGB picture of 64x64 pixels, drawn at 256x256 and reduced with a box filter.
    """
    picture = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE))
    BACKGROUNDS[attributes.place](Pen(picture, shift=(rng.uniform(-2, 2), 0)), rng)
    skin = _jitter(SKIN[attributes.skin], rng, 4)
    look = Look(
        skin=skin,
        shade=shift_color(skin, -0.18),
        hair=_jitter(HAIR.get(attributes.hair_color, (112, 66, 34)), rng, 5),
        face=(rng.uniform(8.4, 9.6), rng.uniform(10.4, 11.6)),
        smile=rng.uniform(0.2, 1.0),
        accent=rng.random(),
    )
    scale, shift = rng.uniform(0.96, 1.04), (rng.uniform(-1.5, 1.5), rng.uniform(-1.0, 1.0))
    if attributes.composition == "left of frame":
        scale, shift = scale * 0.8, (shift[0] - 12.0, shift[1] + 6.0)
    elif attributes.composition == "close-up":
        scale, shift = scale * 1.36, (shift[0], shift[1] + 3.0)
    pen = Pen(picture, scale, (32, 26), shift)
    _person(pen, attributes, look)
    picture = picture.reduce(SCALE)
    return _styled(picture, attributes.style)


def _styled(picture: Image.Image, style: str) -> Image.Image:
    if style == "black and white":
        return picture.convert("L").convert("RGB")
    if style == "sepia":
        gray = np.asarray(picture.convert("L"), dtype=np.float32) / 255
        tone = np.stack([gray**0.8 * 244 + 8, gray**0.95 * 206 + 4, gray**1.15 * 150], axis=-1)
        return Image.fromarray(tone.clip(0, 255).astype(np.uint8))
    return picture


def _person(pen: Pen, a: Attributes, look: Look) -> None:
    if a.hair == "long hair":
        _long_hair_behind(pen, look)
    if a.headwear == "headscarf":
        _headscarf_behind(pen, look)
    if a.profession in BEHIND:
        BEHIND[a.profession](pen)
    pen.box(27.6, 32, 36.4, 44, look.shade, radius=3)  # neck
    CLOTHES[a.profession](pen, look)
    sleeve = SLEEVES[a.profession]
    if a.gesture == "waving":
        _waving_arm(pen, look, sleeve)
    pen.ellipse(32 - look.face[0], 28, 1.9, 2.6, look.shade)  # ears
    pen.ellipse(32 + look.face[0], 28, 1.9, 2.6, look.shade)
    pen.ellipse(32, 27, *look.face, look.skin)
    if a.beard == "beard":
        _beard(pen, look, a)
    _features(pen, look, with_mouth=a.mask != "surgical mask")
    _hair(pen, a, look)
    if a.headwear == "headscarf":
        _headscarf_front(pen, look)
    if a.mask == "surgical mask":
        _mask(pen, look)
    if a.glasses == "glasses":
        _glasses(pen)
    if a.headwear == "turban":
        _turban(pen, look)
    if a.profession in ON_HEAD:
        ON_HEAD[a.profession](pen, look)
    if a.gesture == "arms crossed":
        _crossed_arms(pen, look, sleeve)
    if a.held in HELD:
        HELD[a.held](pen, look)
        pen.ellipse(14.5, 50.5, 3.4, 3.0, look.skin)  # the hand that holds
        pen.line([(14, 53), (17, 63)], sleeve, 5.0)


# --- head -------------------------------------------------------------------------------------------------------------


def _features(pen: Pen, look: Look, with_mouth: bool) -> None:
    dark = (38, 30, 34)
    for x in (28.0, 36.0):
        pen.ellipse(x, 26.4, 1.25, 1.5, dark)
        pen.ellipse(x + 0.4, 25.9, 0.45, 0.45, (250, 250, 250))
    pen.line([(32, 27.5), (31.4, 30.2), (32.4, 30.4)], look.shade, 0.9)
    if with_mouth:
        drop = 1.2 + 1.4 * look.smile
        pen.arc(32, 32.2, 3.6, drop, (10, 170), (164, 62, 62) if sum(look.skin) > 250 else (206, 110, 104), 1.2)


def _hair(pen: Pen, a: Attributes, look: Look) -> None:
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


def _long_hair_behind(pen: Pen, look: Look) -> None:
    pen.box(32 - 13.2, 15, 32 + 13.2, 50, shift_color(look.hair, -0.12), radius=10)


def _beard(pen: Pen, look: Look, a: Attributes) -> None:
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


def _mask(pen: Pen, look: Look) -> None:
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


def _glasses(pen: Pen) -> None:
    dark = (24, 24, 34)
    for x in (27.5, 36.5):
        pen.ring(x, 26.6, 3.9, 3.5, dark, 1.35)
    pen.line([(31.2, 26.2), (32.8, 26.2)], dark, 1.2)
    pen.line([(23.4, 26), (21.6, 25.2)], dark, 1.2)
    pen.line([(40.6, 26), (42.4, 25.2)], dark, 1.2)


def _cloth(look: Look) -> Color:
    colors: list[Color] = [(60, 120, 178), (64, 150, 118), (150, 84, 158)]
    return colors[int(look.accent * len(colors))]


def _headscarf_behind(pen: Pen, look: Look) -> None:
    pen.ellipse(32, 30, 14.4, 17.5, shift_color(_cloth(look), -0.2))


def _headscarf_front(pen: Pen, look: Look) -> None:
    cloth = _cloth(look)
    fx, fy = look.face
    around = np.linspace(math.pi * 0.62, math.pi * 2.38, 24)
    outer = [(32 + 13.2 * math.cos(t), 27.5 + 15.5 * math.sin(t)) for t in around]
    inner = [(32 + (fx - 0.6) * math.cos(t), 28 + (fy - 1.2) * math.sin(t)) for t in around[::-1]]
    pen.shape(outer + inner, cloth)
    pen.shape([(22, 37), (42, 37), (45, 47), (32, 51), (19, 47)], cloth)
    pen.line([(25, 39.5), (32, 43), (41, 41)], shift_color(cloth, -0.25), 1.0)


def _turban(pen: Pen, look: Look) -> None:
    colors: list[Color] = [(232, 128, 38), (206, 54, 60), (240, 190, 60)]
    cloth = colors[int(look.accent * len(colors))]
    dark = shift_color(cloth, -0.25)
    pen.ellipse(32, 15.8, 12.4, 8.6, cloth)
    pen.shape([(20.4, 20), (32, 12.5), (43.6, 20), (41, 23.2), (32, 19.4), (23, 23.2)], cloth)
    pen.line([(21.4, 19.4), (31, 11.6), (39.6, 9.8)], dark, 1.0)
    pen.line([(42.4, 19.6), (34, 12.6), (27, 9.6)], dark, 1.0)
    pen.ellipse(32, 14.2, 1.6, 1.9, (252, 244, 214))


# --- arms and hands ---------------------------------------------------------------------------------------------------


def _waving_arm(pen: Pen, look: Look, sleeve: Color) -> None:
    pen.line([(46, 52), (54.5, 48), (55, 36)], sleeve, 5.6)
    pen.ellipse(55.2, 31.5, 3.6, 3.9, look.skin)
    for dx, dy in ((-3.2, -3.4), (-1.1, -5.0), (1.3, -5.0), (3.4, -3.2)):
        pen.line([(55.2 + dx * 0.6, 30), (55.2 + dx, 30 + dy)], look.skin, 1.7)


def _crossed_arms(pen: Pen, look: Look, sleeve: Color) -> None:
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

# --- clothes ----------------------------------------------------------------------------------------------------------


def _torso(pen: Pen, color: Color, width: float = 20.0) -> None:
    pen.box(32 - width, 42.5, 32 + width, 100, color, radius=11)


def _collar(pen: Pen, color: Color, depth: float = 50.0) -> None:
    pen.shape([(26.4, 42), (37.6, 42), (32, depth)], color)


def _doctor(pen: Pen, look: Look) -> None:
    _torso(pen, (246, 248, 250))
    _collar(pen, (88, 160, 208), 56)
    pen.line([(26.4, 42.6), (32, 57), (37.6, 42.6)], (196, 204, 212), 1.1)
    pen.line([(32, 57), (32, 64)], (196, 204, 212), 1.0)
    pen.line([(25.4, 42), (25.6, 50), (29, 55.4)], (54, 58, 70), 1.5)  # stethoscope
    pen.line([(38.6, 42), (39.4, 50), (38.6, 54)], (54, 58, 70), 1.5)
    pen.ellipse(38.6, 56.4, 2.6, 2.6, (54, 58, 70))
    pen.ellipse(38.6, 56.4, 1.4, 1.4, (210, 216, 224))


def _nurse(pen: Pen, look: Look) -> None:
    _torso(pen, (52, 178, 170))
    _collar(pen, look.skin, 51)
    pen.line([(26.2, 42.4), (32, 51.5), (37.8, 42.4)], (32, 134, 130), 1.8)
    pen.box(36.4, 53.2, 46, 62.8, (250, 250, 250), radius=1.4)
    pen.box(40.2, 54.6, 42.2, 61.4, (226, 38, 50))
    pen.box(37.8, 57.0, 44.6, 59.0, (226, 38, 50))


def _farmer(pen: Pen, look: Look) -> None:
    _torso(pen, (208, 66, 54))
    for x in range(14, 52, 6):
        pen.box(x, 44, x + 1.4, 64, (160, 40, 40))
    for y in (47, 53, 59):
        pen.box(12.5, y, 51.5, y + 1.2, (160, 40, 40))
    pen.box(22.5, 51, 41.5, 100, (58, 98, 172), radius=2)
    pen.line([(22.6, 43.4), (24.4, 52)], (58, 98, 172), 3.4)
    pen.line([(41.4, 43.4), (39.6, 52)], (58, 98, 172), 3.4)
    for x in (24.6, 39.4):
        pen.ellipse(x, 53, 1.4, 1.4, (248, 208, 80))


def _pitchfork(pen: Pen) -> None:
    pen.line([(58, 64), (58, 34)], (134, 92, 50), 1.8)
    pen.line([(54, 24), (54, 33), (58, 35), (62, 33), (62, 24)], (104, 110, 120), 1.4)
    pen.line([(58, 24), (58, 35)], (104, 110, 120), 1.4)


def _sheriff(pen: Pen, look: Look) -> None:
    _torso(pen, (190, 156, 100))
    pen.shape([(25.4, 42), (38.6, 42), (36.6, 48.6), (32, 44.6), (27.4, 48.6)], (158, 124, 74))
    pen.shape([(30.6, 45), (33.4, 45), (34.2, 60), (32, 63), (29.8, 60)], (62, 42, 32))
    points = []
    for k in range(10):
        radius = 5.4 if k % 2 == 0 else 2.4
        angle = -math.pi / 2 + k * math.pi / 5
        points.append((42 + radius * math.cos(angle), 55 + radius * math.sin(angle)))
    pen.shape(points, (252, 206, 48))


def _ceo(pen: Pen, look: Look) -> None:
    _torso(pen, (38, 42, 62))
    _collar(pen, (248, 248, 250), 58)
    pen.shape([(30.8, 44), (33.2, 44), (34.6, 55), (32, 59), (29.4, 55)], (204, 32, 46))
    pen.shape([(26, 42), (22.6, 49), (32, 62), (28, 48)], (58, 64, 88))
    pen.shape([(38, 42), (41.4, 49), (32, 62), (36, 48)], (58, 64, 88))
    pen.shape([(41.4, 52.6), (46.4, 51.6), (46.2, 55.6), (41.4, 55.6)], (250, 212, 84))


def _hairdresser(pen: Pen, look: Look) -> None:
    _torso(pen, (244, 156, 178))
    _collar(pen, look.skin, 47)
    pen.line([(25.2, 43), (24.4, 50)], (52, 46, 56), 2.4)
    pen.line([(38.8, 43), (39.6, 50)], (52, 46, 56), 2.4)
    pen.box(19.5, 49, 44.5, 100, (52, 46, 56), radius=2.5)
    pen.line([(36.2, 51.4), (40.6, 58.4)], (222, 228, 236), 1.3)  # scissors
    pen.line([(41.0, 51.4), (36.4, 58.4)], (222, 228, 236), 1.3)
    for x in (35.4, 41.6):
        pen.ring(x, 60.2, 1.9, 1.9, (250, 190, 60), 1.0)
    pen.box(24.2, 53, 26.4, 63, (252, 128, 70))  # comb
    for y in (54.2, 56.4, 58.6, 60.8):
        pen.box(26.4, y, 28.6, y + 1.0, (252, 128, 70))


def _manager(pen: Pen, look: Look) -> None:
    _torso(pen, (172, 206, 240))
    pen.shape([(25.6, 42), (38.4, 42), (37, 47.4), (32, 44.4), (27, 47.4)], (228, 240, 252))
    pen.shape([(30.9, 45), (33.1, 45), (34.2, 58), (32, 62), (29.8, 58)], (36, 66, 134))
    pen.line([(24.4, 43), (21.6, 54)], (240, 150, 40), 1.3)
    pen.box(17.4, 53.4, 25.2, 62.6, (252, 252, 252), radius=0.8)
    pen.box(18.8, 55, 21.6, 58.6, (96, 104, 120))
    pen.box(18.8, 60, 23.8, 61, (150, 156, 168))


def _cleaner(pen: Pen, look: Look) -> None:
    _torso(pen, (96, 176, 76))
    pen.shape([(26, 42), (38, 42), (36.4, 47), (32, 44.4), (27.6, 47)], (66, 140, 54))
    pen.box(23.5, 51, 40.5, 100, (250, 226, 84), radius=2.5)
    pen.line([(25, 43.2), (25.4, 52)], (250, 226, 84), 2.0)
    pen.line([(39, 43.2), (38.6, 52)], (250, 226, 84), 2.0)


def _broom(pen: Pen) -> None:
    pen.line([(57.5, 64), (57.5, 30)], (160, 112, 62), 1.8)
    pen.shape([(54.6, 31), (60.4, 31), (63, 18), (52, 18)], (236, 178, 70))
    for x in (55, 57.5, 60):
        pen.line([(57.5 + (x - 57.5) * 0.6, 29), (x, 19)], (190, 130, 44), 0.7)
    pen.box(54.2, 29.6, 60.8, 32.2, (204, 60, 56))


def _attendant(pen: Pen, look: Look) -> None:
    _torso(pen, (32, 52, 112))
    _collar(pen, (248, 250, 252), 52)
    pen.shape([(26, 41.4), (38, 41.4), (34.4, 46.6), (37.4, 53), (32, 50), (26.6, 53), (29.6, 46.6)], (246, 126, 44))
    pen.shape([(38, 55), (43.4, 52.6), (42.4, 56), (48.4, 52.6), (44.6, 58.4), (39.4, 58)], (250, 214, 92))


def _assistant(pen: Pen, look: Look) -> None:
    _torso(pen, (182, 160, 224))
    _collar(pen, (250, 250, 252), 48)
    pen.line([(26.2, 42.4), (32, 49), (37.8, 42.4)], (140, 116, 192), 2.0)
    for y in (54, 58.5, 63):
        pen.ellipse(32, y, 1.1, 1.1, (120, 96, 172))


def _headset(pen: Pen, look: Look) -> None:
    fx = look.face[0]
    dark: Color = (44, 44, 54)
    pen.arc(32, 24, fx + 2.6, 13.4, (182, 358), dark, 1.9)
    pen.box(32 - fx - 3.6, 23.6, 32 - fx + 0.2, 31, dark, radius=1.6)
    pen.box(32 + fx - 0.2, 23.6, 32 + fx + 3.6, 31, dark, radius=1.6)
    pen.line([(32 - fx - 1.6, 30.6), (24.6, 36.6), (28.6, 37)], dark, 1.2)
    pen.ellipse(28.8, 36.8, 1.6, 1.2, (226, 60, 60))


CLOTHES = {
    "doctor": _doctor, "nurse": _nurse, "farmer": _farmer, "sheriff": _sheriff, "CEO": _ceo,
    "hairdresser": _hairdresser, "manager": _manager, "cleaner": _cleaner, "attendant": _attendant,
    "assistant": _assistant,
}  # fmt: skip
BEHIND = {"farmer": _pitchfork, "cleaner": _broom}
ON_HEAD = {"assistant": _headset}
SLEEVES: dict[str, Color] = {
    "doctor": (232, 236, 242), "nurse": (44, 158, 152), "farmer": (190, 54, 48), "sheriff": (176, 142, 88),
    "CEO": (50, 56, 80), "hairdresser": (232, 140, 164), "manager": (154, 190, 228), "cleaner": (84, 160, 66),
    "attendant": (42, 64, 128), "assistant": (166, 144, 210),
}  # fmt: skip

# --- places -----------------------------------------------------------------------------------------------------------


def _office(pen: Pen, rng: np.random.Generator) -> None:
    wall = _jitter((222, 226, 224), rng)
    pen.box(-8, -8, 72, 72, wall)
    x = rng.uniform(2, 6)
    for left in (x, x + 40):
        pen.box(left, 6, left + 15, 30, (168, 208, 236))
        pen.line([(left + 7.5, 6), (left + 7.5, 30)], (248, 248, 248), 1.2)
        pen.line([(left, 18), (left + 15, 18)], (248, 248, 248), 1.2)
    pen.box(-8, 47, 72, 72, _jitter((176, 138, 104), rng))
    pen.box(52, 38, 62, 48, (92, 96, 108), radius=1)


def _field(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, _jitter((142, 206, 246), rng))
    pen.ellipse(rng.uniform(6, 58), 9, 5.5, 5.5, (255, 226, 92))
    pen.ellipse(14, 48, 34, 14, (118, 184, 82))
    pen.ellipse(54, 50, 34, 15, (96, 164, 66))
    pen.box(-8, 46, 72, 72, _jitter((108, 176, 70), rng))
    for x in rng.uniform(0, 64, size=5):
        pen.ellipse(x, rng.uniform(50, 62), 1.2, 1.2, (250, 224, 96))


def _night_city(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, _jitter((22, 26, 62), rng, 4))
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
    pen.box(-8, -8, 72, 72, _jitter((172, 198, 222), rng))
    for x in (6, 20, 46, 60):
        x += rng.uniform(-2, 2)
        pen.shape([(x - 7, 46), (x, 16 + rng.uniform(-3, 3)), (x + 7, 46)], (74, 118, 112))
        pen.shape([(x - 3, 28), (x, 16), (x + 3, 28)], (250, 252, 255))
    pen.box(-8, 44, 72, 72, (244, 248, 253))
    for _ in range(26):
        pen.ellipse(rng.uniform(0, 64), rng.uniform(0, 60), 1.1, 1.1, (255, 255, 255))


def _brick_wall(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, (226, 206, 190))
    brick = _jitter((180, 84, 62), rng, 5)
    for row, y in enumerate(range(-6, 70, 7)):
        for x in range(-20 + (row % 2) * 7, 76, 14):
            pen.box(x, y, x + 12.6, y + 5.6, shift_color(brick, rng.uniform(-0.12, 0.08)))


def _library(pen: Pen, rng: np.random.Generator) -> None:
    pen.box(-8, -8, 72, 72, _jitter((98, 62, 38), rng, 4))
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
