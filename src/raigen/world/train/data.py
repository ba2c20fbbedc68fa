"""Draws the training sets of the world: images with their attributes, kept in the work folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raigen.config import PORTRAITS
from raigen.world.pen import SIZE
from raigen.world.worlds import WORLDS, World

_PORTRAITS = WORLDS[PORTRAITS]


class Images(NamedTuple):
    """`pixels` uint8 [image, row, column, 3]; `codes` uint8 [image, field], see `encode`; the `world` of both."""

    pixels: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    world: World = _PORTRAITS


def encode(attributes: Any, world: World = _PORTRAITS) -> list[int]:
    """A record as numbers: the profession's index, then for each field the index in the world's `choices`."""
    chosen = [names.index(getattr(attributes, field)) for field, names in world.choices.items()]
    return [world.professions.index(attributes.profession), *chosen]


def decode(codes: NDArray[np.uint8], world: World = _PORTRAITS) -> Any:
    """The record that `encode` turned into `codes`."""
    chosen = {field: names[code] for (field, names), code in zip(world.choices.items(), codes[1:], strict=True)}
    return world.record(world.professions[codes[0]], **chosen)


def images(work: Path, name: str, count: int, seed: int, *, balanced: bool, world: World = _PORTRAITS) -> Images:
    """Draws `count` images as `drawn` does, or reads them from `work`.

    Balanced images show every value often; the others follow the planted rates, the ten prompts in turn.
    """
    path = work / f"{name}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Images(stored["pixels"], stored["codes"], world)

    def sample(index: int, rng: np.random.Generator) -> Any:
        return world.sample_balanced(rng) if balanced else world.sample(world.prompts[index % len(world.prompts)], rng)

    made, partial = drawn(count, seed, sample, world), path.with_suffix(".part.npz")
    np.savez(partial, pixels=made.pixels, codes=made.codes)
    partial.rename(path)
    return made


def drawn(
    count: int, seed: int, sample: Callable[[int, np.random.Generator], Any], world: World = _PORTRAITS
) -> Images:
    """Draws `count` images. A generator seeded with (seed, i) draws image i and, by `sample`, its attributes."""
    pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
    codes = np.empty((count, 1 + len(world.choices)), np.uint8)
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        attributes = sample(index, rng)
        pixels[index] = np.asarray(world.draw(attributes, rng))
        codes[index] = encode(attributes, world)
    return Images(pixels, codes, world)
