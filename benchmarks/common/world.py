"""The world that the benchmarks of discovery measure: which prompts it has, and who knows the truth of its images."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float
from PIL.Image import Image

from raigen.world import portraits
from raigen.world.attributes import BY_NAME
from raigen.world.models import BUNDLED


class Judged(Protocol):
    """What some images show."""

    @property
    def shows(self) -> Bool[np.ndarray, "image value"]:
        """Whether an image shows a value; False in an image that is not readable."""
        ...

    @property
    def readable(self) -> Bool[np.ndarray, " image"]:
        """Whether an image counts at all."""
        ...

    @property
    def confidence(self) -> Float[np.ndarray, "image value"]:
        """The probability in [0, 1] of each verdict."""
        ...


class World(Protocol):
    """Prompts whose images have known values."""

    pipeline: str
    """The model: id or folder of a diffusers pipeline, or the name of a bundled one."""
    embedder: str
    """The CLIP model that the scores use."""
    prompts: tuple[str, ...]
    """The prompts; the last word of each names its folder."""
    chosen_on: tuple[str, ...]
    """The prompts on which choices were made; all others are held out."""
    value_names: tuple[str, ...]
    """The values, in the order of the columns of `judge`."""

    def judge(self, images: Sequence[Image], /) -> Judged:
        """Reads the values of images."""
        ...

    def phrase(self, value: str, /) -> str:
        """What a prompt says to ask for a value."""
        ...

    def planted(self, prompt: str, /) -> dict[str, float]:
        """The rate in [0, 1] at which each value should show."""
        ...

    def rare_values(self, prompt: str, /) -> tuple[str, ...]:
        """The values that are planted as rare."""
        ...

    def control_values(self, prompt: str, /) -> tuple[str, ...]:
        """The values that are never planted here, but are common under other prompts."""
        ...


class Portraits:
    """The world of the bundled models."""

    pipeline = embedder = BUNDLED
    prompts = portraits.PROMPTS
    chosen_on = tuple(f"a photo of a {name}" for name in ("doctor", "nurse", "hairdresser", "manager"))
    value_names = portraits.VALUE_NAMES
    judge = staticmethod(portraits.judge)
    planted = staticmethod(portraits.rates)
    rare_values = staticmethod(portraits.rare_values)
    control_values = staticmethod(portraits.control_values)

    def phrase(self, value: str) -> str:
        """The phrase of a value in a caption."""
        return BY_NAME[value].phrase


WORLD: World = Portraits()  # to measure another world, put it here
