"""The art of the world `emblems`: the rendered emoji, each as RGBA of 64x64, in one image.

18 figures (three genders of six skins) for each profession and hand, then the companions of each hand.
"""

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from raigen.world.emblems.attributes import COMPANIONS, GENDERS, HANDS, PROFESSIONS, SKINS

POOL = Path(__file__).parent / "pool.webp"
CELL, COLUMNS = 64, 18
N_FIGURES = len(PROFESSIONS) * len(HANDS) * len(GENDERS) * len(SKINS)


@cache
def cells() -> UInt8[np.ndarray, "cell 64 64 4"]:
    """All figures and companions."""
    with Image.open(POOL) as image:
        atlas = np.asarray(image.convert("RGBA"))
    rows = atlas.shape[0] // CELL
    return atlas.reshape(rows, CELL, COLUMNS, CELL, 4).transpose(0, 2, 1, 3, 4).reshape(-1, CELL, CELL, 4)


def figure_index(profession: str, hand: str, gender: str, skin: str) -> int:
    """The cell of a person. `skin` is a name such as `dark skin`."""
    row = PROFESSIONS.index(profession) * len(HANDS) + HANDS.index(hand)
    return (row * len(GENDERS) + GENDERS.index(gender)) * len(SKINS) + SKINS.index(skin.removesuffix(" skin"))


def companion_index(hand: str, name: str) -> int:
    """The cell of a companion."""
    return N_FIGURES + HANDS.index(hand) * len(COMPANIONS) + COMPANIONS.index(name)
