"""The planted worlds: what each can show, how it is drawn and judged, and which models show it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image

from raigen.world import attributes, draw, planted
from raigen.world import judge as portraits_judge
from raigen.world.attributes import Value
from raigen.world.emblems import attributes as emblem_attributes
from raigen.world.emblems import draw as emblem_draw
from raigen.world.emblems import judge as emblem_judge
from raigen.world.emblems import planted as emblem_planted
from raigen.world.judge import Judgment
from raigen.world.models import EMBLEMS, PORTRAITS, world_name


@dataclass(frozen=True)
class World:
    """Prompts whose images have known values, at planted rates, and who draws and judges them.

    `record` makes the attributes of an image, from a profession and one choice for each field of `choices`. It has
    these fields, and `shown()`: the names of all values that the image shows.
    """

    name: str
    professions: tuple[str, ...]
    prompts: tuple[str, ...]  # of the professions, in their order
    values: tuple[Value, ...]
    choices: Mapping[str, tuple[str, ...]]
    chosen_on: tuple[str, ...]
    """The prompts on which choices were made; all others are for reporting only."""
    record: Callable[..., Any]
    draw: Callable[[Any, np.random.Generator], Image]
    judge: Callable[[Sequence[Image]], Judgment]
    shares: Callable[[str], Mapping[str, float]]
    """What is planted for a profession, before any value hides another."""
    planted: Callable[[str], dict[str, float]]
    """The rate in [0, 1] at which each value should show in images of a prompt."""
    rare_values: Callable[[str], tuple[str, ...]]
    control_values: Callable[[str], tuple[str, ...]]
    sample: Callable[[str, np.random.Generator], Any]
    """Attributes by the planted rates of a prompt."""
    sample_balanced: Callable[[np.random.Generator], Any]

    @property
    def pipeline(self) -> str:
        """The bundled model."""
        return self.name

    @property
    def embedder(self) -> str:
        """The bundled CLIP."""
        return self.name

    @property
    def value_names(self) -> tuple[str, ...]:
        """The values, in the order of the columns of `judge`."""
        return tuple(value.name for value in self.values)

    def prompt_of(self, record: Any) -> str:
        """The bare prompt for an image with these attributes."""
        return self.prompts[self.professions.index(record.profession)]

    def phrase(self, name: str) -> str:
        """What a prompt says to request a value."""
        return next(value.phrase for value in self.values if value.name == name)


WORLDS = {
    PORTRAITS: World(
        PORTRAITS, attributes.PROFESSIONS, attributes.PROMPTS, attributes.VALUES, attributes.CHOICES,
        chosen_on=tuple(f"a photo of a {name}" for name in ("doctor", "nurse", "hairdresser", "manager")),
        record=attributes.Attributes, draw=draw.draw, judge=portraits_judge.judge,
        shares=lambda profession: planted.plan_of(profession).shares, planted=planted.rates,
        rare_values=planted.rare_values, control_values=planted.control_values,
        sample=planted.sample_attributes, sample_balanced=planted.sample_balanced,
    ),
    EMBLEMS: World(
        EMBLEMS, emblem_attributes.PROFESSIONS, emblem_attributes.PROMPTS, emblem_attributes.VALUES,
        emblem_attributes.CHOICES, chosen_on=emblem_attributes.PROMPTS[:6],
        record=emblem_attributes.Attributes, draw=emblem_draw.draw, judge=emblem_judge.judge,
        shares=lambda profession: emblem_planted.plan_of(profession).shares, planted=emblem_planted.rates,
        rare_values=emblem_planted.rare_values, control_values=emblem_planted.control_values,
        sample=emblem_planted.sample_attributes, sample_balanced=emblem_planted.sample_balanced,
    ),
}  # fmt: skip


def world_of(model: str) -> World | None:
    """The world whose images `model` generates, so that the world's judge, embedder and vocabulary apply; None for all
    other models. Raises RaigenError when the settings of a folder hold no JSON object."""
    name = world_name(model)
    return WORLDS[name] if name else None
