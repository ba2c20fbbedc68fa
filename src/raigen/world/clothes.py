"""Draws the clothes and tools of the ten professions."""

import math

from raigen.world.pen import Color, Look, Pen


def _torso(pen: Pen, color: Color) -> None:
    pen.box(12, 42.5, 52, 100, color, radius=11)


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
