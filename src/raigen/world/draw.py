"""Draws one 64x64 portrait from its attributes."""

import numpy as np
from PIL import Image

from raigen.world import clothes, hands, head, places
from raigen.world.attributes import Attributes
from raigen.world.pen import SCALE, SIZE, Color, Look, Pen, jitter, shift_color

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


def draw(attributes: Attributes, rng: np.random.Generator) -> Image.Image:
    """Draws the portrait that `attributes` describes; `rng` varies pose, shades and background a little.

    Returns an RGB image of 64x64 pixels, drawn at 256x256 and reduced with a box filter.
    """
    image = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE))
    places.BACKGROUNDS[attributes.place](Pen(image, shift=(rng.uniform(-2, 2), 0)), rng)
    skin = jitter(SKIN[attributes.skin], rng, 4)
    look = Look(
        skin=skin,
        shade=shift_color(skin, -0.18),
        hair=jitter(HAIR.get(attributes.hair_color, (112, 66, 34)), rng, 5),
        face=(rng.uniform(8.4, 9.6), rng.uniform(10.4, 11.6)),
        smile=rng.uniform(0.2, 1.0),
        accent=rng.random(),
    )
    scale, shift = rng.uniform(0.96, 1.04), (rng.uniform(-1.5, 1.5), rng.uniform(-1.0, 1.0))
    if attributes.composition == "left of frame":
        scale, shift = scale * 0.8, (shift[0] - 12.0, shift[1] + 6.0)
    elif attributes.composition == "close-up":
        scale, shift = scale * 1.36, (shift[0], shift[1] + 3.0)
    pen = Pen(image, scale, (32, 26), shift)
    _person(pen, attributes, look)
    image = image.reduce(SCALE)
    return _styled(image, attributes.style)


def _styled(image: Image.Image, style: str) -> Image.Image:
    if style == "black and white":
        return image.convert("L").convert("RGB")
    if style == "sepia":
        gray = np.asarray(image.convert("L"), dtype=np.float32) / 255
        tone = np.stack([gray**0.8 * 244 + 8, gray**0.95 * 206 + 4, gray**1.15 * 150], axis=-1)
        return Image.fromarray(tone.clip(0, 255).astype(np.uint8))
    return image


def _person(pen: Pen, a: Attributes, look: Look) -> None:
    if a.hair == "long hair":
        head.long_hair_behind(pen, look)
    if a.headwear == "headscarf":
        head.headscarf_behind(pen, look)
    if a.profession in clothes.BEHIND:
        clothes.BEHIND[a.profession](pen)
    pen.box(27.6, 32, 36.4, 44, look.shade, radius=3)  # neck
    clothes.CLOTHES[a.profession](pen, look)
    sleeve = clothes.SLEEVES[a.profession]
    if a.gesture == "waving":
        hands.waving_arm(pen, look, sleeve)
    pen.ellipse(32 - look.face[0], 28, 1.9, 2.6, look.shade)  # ears
    pen.ellipse(32 + look.face[0], 28, 1.9, 2.6, look.shade)
    pen.ellipse(32, 27, *look.face, look.skin)
    if a.beard == "beard":
        head.beard(pen, look, a)
    head.features(pen, look, with_mouth=a.mask != "surgical mask")
    head.hair(pen, a, look)
    if a.headwear == "headscarf":
        head.headscarf_front(pen, look)
    if a.mask == "surgical mask":
        head.mask(pen, look)
    if a.glasses == "glasses":
        head.glasses(pen)
    if a.headwear == "turban":
        head.turban(pen, look)
    if a.profession in clothes.ON_HEAD:
        clothes.ON_HEAD[a.profession](pen, look)
    if a.gesture == "arms crossed":
        hands.crossed_arms(pen, look, sleeve)
    if a.held in hands.HELD:
        hands.HELD[a.held](pen, look)
        pen.ellipse(14.5, 50.5, 3.4, 3.0, look.skin)  # the hand that holds
        pen.line([(14, 53), (17, 63)], sleeve, 5.0)
