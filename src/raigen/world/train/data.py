"""Draws the training sets of the world: images with their attributes, kept in the work folder."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raigen.world.attributes import CHOICES, FIELDS, PROFESSIONS, PROMPTS, Attributes
from raigen.world.draw import draw
from raigen.world.pen import SIZE
from raigen.world.planted import sample_attributes, sample_balanced


class Images(NamedTuple):
    """`pixels` uint8 [image, row, column, 3]; `codes` uint8 [image, field], see `encode`."""

    pixels: NDArray[np.uint8]
    codes: NDArray[np.uint8]


def encode(attributes: Attributes) -> list[int]:
    """A record as numbers: the profession's index, then for each of `FIELDS` the index in `CHOICES`."""
    return [PROFESSIONS.index(attributes.profession)] + [
        CHOICES[field].index(getattr(attributes, field)) for field in FIELDS
    ]


def decode(codes: NDArray[np.uint8]) -> Attributes:
    """The record that `encode` turned into `codes`."""
    chosen = {field: CHOICES[field][code] for field, code in zip(FIELDS, codes[1:], strict=True)}
    return Attributes(PROFESSIONS[codes[0]], **chosen)


def images(work: Path, name: str, count: int, seed: int, *, balanced: bool) -> Images:
    """Draws `count` images as `drawn` does, or reads them from `work`.

    Balanced images show every value often; the others follow the planted rates, the ten prompts in turn.
    """
    path = work / f"{name}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Images(stored["pixels"], stored["codes"])

    def sample(index: int, rng: np.random.Generator) -> Attributes:
        return sample_balanced(rng) if balanced else sample_attributes(PROMPTS[index % len(PROMPTS)], rng)

    made, partial = drawn(count, seed, sample), path.with_suffix(".part.npz")
    np.savez(partial, pixels=made.pixels, codes=made.codes)
    partial.rename(path)
    return made


def drawn(count: int, seed: int, sample: Callable[[int, np.random.Generator], Attributes]) -> Images:
    """Draws `count` images. A generator seeded with (seed, i) draws image i and, by `sample`, its attributes."""
    pixels = np.empty((count, SIZE, SIZE, 3), np.uint8)
    codes = np.empty((count, 1 + len(FIELDS)), np.uint8)
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        attributes = sample(index, rng)
        pixels[index] = np.asarray(draw(attributes, rng))
        codes[index] = encode(attributes)
    return Images(pixels, codes)
