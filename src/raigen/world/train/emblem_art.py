"""Renders the art of the world `emblems`: the people and companions of three sets of emoji, as one image.

The sets are npm packages, as JSON with one SVG body for each emoji. Needs `resvg-py`, which raigen does not.
"""

import io
import json
from pathlib import Path

from PIL import Image

from raigen.world.emblems.attributes import COMPANIONS, GENDERS, HANDS, PROFESSIONS, SKINS
from raigen.world.emblems.pool import CELL, COLUMNS, POOL

PACKAGES = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji-flat"}  # below @iconify-json/
ICONS = dict(zip(COMPANIONS, ("cat-face", "sunflower", "soccer-ball", "umbrella", "green-apple", "red-heart", "fish",
                              "snowman"), strict=True))  # fmt: skip


def icon_of(hand: str, profession: str, gender: str, skin: str) -> str:
    """The name of a person's emoji in a set.

    >>> icon_of("noto", "office worker", "woman", "dark"), icon_of("fluent", "judge", "person", "medium-dark")
    ('woman-office-worker-dark-skin-tone', 'judge-medium-dark')
    """
    who = ("" if gender == "person" else f"{gender}-") + profession.replace(" ", "-")
    if skin == "yellow":
        return who
    return f"{who}-{skin}" if hand == "fluent" else f"{who}-{skin}-skin-tone"


def rendered(icons: dict, name: str) -> Image.Image:
    """One emoji of an icon set, as RGBA of 64x64."""
    import resvg_py  # type: ignore[import-not-found]  # only whoever renders the art again needs it

    icon = icons["icons"][icons.get("aliases", {}).get(name, {}).get("parent", name)]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{CELL}" '
           f'height="{CELL}" viewBox="0 0 {width} {height}">{icon["body"]}</svg>')  # fmt: skip
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def write_pool(art: Path) -> None:
    """Renders all figures and companions from the packages below `art` into `pool.webp`, in the order of
    `raigen.world.emblems.pool`."""
    cells = []
    sets = {hand: json.loads((art / package / "icons.json").read_text(encoding="utf-8"))
            for hand, package in PACKAGES.items()}  # fmt: skip
    for profession in PROFESSIONS:
        for hand in HANDS:
            cells += [rendered(sets[hand], icon_of(hand, profession, gender, skin))
                      for gender in GENDERS for skin in SKINS]  # fmt: skip
    cells += [rendered(sets[hand], ICONS[name]) for hand in HANDS for name in COMPANIONS]
    atlas = Image.new("RGBA", (CELL * COLUMNS, CELL * -(-len(cells) // COLUMNS)))
    for index, cell in enumerate(cells):
        atlas.paste(cell, (CELL * (index % COLUMNS), CELL * (index // COLUMNS)))
    atlas.save(POOL, lossless=True, quality=100, method=6)
