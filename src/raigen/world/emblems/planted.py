"""Samples the attributes of an image of `emblems`: by the planted rates of a prompt, or balanced over all values."""

import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raigen.world.emblems.attributes import (
    CHOICES,
    FIELDS,
    PLAIN,
    PROFESSIONS,
    PROMPTS,
    VALUE_NAMES,
    VALUES,
    Attributes,
)
from raigen.world.planted import common_elsewhere, rare_among

NO_COLOR = ("skin", "background")  # the fields that black and white hides


class Together(NamedTuple):
    """Two values and the share in [0, 1] of images that are planted with both."""

    first: str
    second: str
    share: float


class Plan(NamedTuple):
    """What is planted for one profession: the share in [0, 1] of every value, and of some pairs."""

    shares: dict[str, float]
    together: tuple[Together, ...]


@cache
def plan_of(profession: str) -> Plan:
    """Reads the column of `profession` in `rates.toml`."""
    table = tomllib.loads(Path(__file__).with_name("rates.toml").read_text(encoding="utf-8"))
    column = table["professions"].index(profession)
    shares = {name: row[column] / 100 for name, row in table["percent"].items()}
    pairs = [(*pair["of"], pair["percent"] / 100) for pair in table["together"][profession]]
    return Plan(shares, tuple(Together(first, second, share) for first, second, share in pairs))


def profession_of(prompt: str) -> str:
    """The profession that a bare prompt names. Raises ValueError for any other text."""
    if prompt.strip() in PROMPTS:
        return PROFESSIONS[PROMPTS.index(prompt.strip())]
    raise ValueError(f"the emblems world has the prompts {', '.join(map(repr, PROMPTS))}; got {prompt!r}")


def rates(prompt: str) -> dict[str, float]:
    """The planted share of images that show each value, for one of the ten prompts.

    Returns a dict from value name (see `raigen.world.emblems.attributes.VALUES`) to a share in [0, 1]. Skin and
    background do not count as shown in black and white. Raises ValueError for another prompt.

    >>> rates("a singer")["close-up"], rates("a pilot")["close-up"]
    (0.25, 0.02)
    """
    shares = dict(plan_of(profession_of(prompt)).shares)
    for value in VALUES:
        if value.field in NO_COLOR:
            shares[value.name] *= 1 - shares["black and white"]
    return shares


def rare_values(prompt: str) -> tuple[str, ...]:
    """The values planted as rare for `prompt`: above 0 and at most 5 % of its images, in the order of `VALUES`."""
    return rare_among(VALUE_NAMES, plan_of(profession_of(prompt)).shares)


def control_values(prompt: str) -> tuple[str, ...]:
    """The values that are never planted for `prompt`, but are common (at least 20 %) for another prompt: they must not
    be found."""
    every = {profession: plan_of(profession).shares for profession in PROFESSIONS}
    return common_elsewhere(VALUE_NAMES, every[profession_of(prompt)], every.values())


def sample_attributes(prompt: str, rng: np.random.Generator) -> Attributes:
    """Samples the attributes of one image of `prompt`, by its planted rates. Raises ValueError for an unknown
    prompt."""
    profession = profession_of(prompt)
    plan = plan_of(profession)
    chosen: dict[str, str] = {}
    for field in FIELDS:
        weights = {name: plan.shares[name] for name in CHOICES[field] if name in plan.shares}
        if field in PLAIN and field not in NO_COLOR:
            weights[PLAIN[field]] = 1 - sum(weights.values())
        for first, second, share in plan.together:
            if second in weights:
                given, before = plan.shares[first], weights[second]
                after = share / given if first in chosen.values() else (before - share) / (1 - given)
                weights = {name: weight * (1 - after) / (1 - before) for name, weight in weights.items()}
                weights[second] = after
        names, shares = list(weights), np.array(list(weights.values()))
        chosen[field] = names[rng.choice(len(names), p=shares / shares.sum())]
    return visible(Attributes(profession, **chosen))


def sample_balanced(rng: np.random.Generator) -> Attributes:
    """Samples attributes such that every value is common, for the training of the autoencoder and CLIP."""
    chosen = {}
    for field in FIELDS:
        names = [name for name in CHOICES[field] if field not in NO_COLOR or name != PLAIN[field]]
        weights = np.array([len(names) * (1.5 if field == "style" else 0.5) if name == PLAIN.get(field) else 1.0
                            for name in names])  # fmt: skip
        chosen[field] = names[rng.choice(len(names), p=weights / weights.sum())]
    return visible(Attributes(PROFESSIONS[rng.integers(len(PROFESSIONS))], **chosen))


def visible(a: Attributes) -> Attributes:
    """`a` without the attributes that black and white hides."""
    return a if a.style == PLAIN["style"] else replace(a, **{field: PLAIN[field] for field in NO_COLOR})
