"""Samples the attributes of a portrait: by the planted rates of a prompt, or balanced over all values."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from raigen.world.attributes import (
    BY_NAME,
    CHOICES,
    FIELDS,
    PLAIN,
    PROFESSIONS,
    PROMPTS,
    VALUE_NAMES,
    Attributes,
)

RARE_AT_MOST = 0.05  # planted rates of (0, 0.05] are rare
COMMON_AT_LEAST = 0.20


class Correlation(NamedTuple):
    """Where `given` is shown, `rare` is `times` as likely; the rate of `rare` over all images stays as planted."""

    rare: str
    given: str
    times: float


class Plan(NamedTuple):
    """The planted rates of one profession: the share in [0, 1] of every value, and the correlations."""

    shares: dict[str, float]
    correlations: tuple[Correlation, ...]


@cache
def plan_of(profession: str) -> Plan:
    """Reads the column of `profession` in `rates.toml`."""
    table = tomllib.loads(files("raigen.world").joinpath("rates.toml").read_text(encoding="utf-8"))
    column = table["professions"].index(profession)
    shares = {name: row[column] / 100 for name, row in table["percent"].items()}
    return Plan(shares, tuple(Correlation(**entry) for entry in table["correlated"][profession]))


def altered(plan: Plan, shares: Mapping[str, float]) -> Plan:
    """`plan` with new `shares` (in [0, 1], by value) of some values, and without the correlations of these values.

    In a field that always shows one of its values, the other shares are scaled so that the sum is 1. Raises ValueError
    for an unknown value, and where the shares of a field would add up to more than 1.

    >>> round(altered(plan_of("doctor"), {"dark skin": 0.51}).shares["light skin"], 6)
    0.19
    """
    if unknown := [name for name in shares if name not in BY_NAME]:
        raise ValueError(f"values are {', '.join(BY_NAME)}; got {unknown[0]!r}")
    found = plan.shares | dict(shares)
    for field in FIELDS:
        names = [name for name in CHOICES[field] if name in found]
        kept = [name for name in names if name not in shares]
        if not _has_plain(field) and len(kept) < len(names):
            left, before = 1 - sum(found[name] for name in names if name in shares), sum(found[name] for name in kept)
            found |= {name: found[name] * left / before for name in kept if before}
        if sum(found[name] for name in names) > 1 + 1e-6 or any(found[name] < 0 for name in names):
            raise ValueError(f"the shares of {field} come to more than 1: { ({n: found[n] for n in names}) }")
    correlations = (c for c in plan.correlations if c.rare not in shares and c.given not in shares)
    return Plan(found, tuple(correlations))


def profession_of(prompt: str) -> str:
    """The profession that a bare prompt names. Raises ValueError for any other text."""
    if prompt.strip() in PROMPTS:
        return PROFESSIONS[PROMPTS.index(prompt.strip())]
    raise ValueError(f"the portraits world has the prompts {', '.join(map(repr, PROMPTS))}; got {prompt!r}")


def rates(prompt: str, plan: Plan | None = None) -> dict[str, float]:
    """The planted share of images that show each value, for one of the ten prompts, by its own plan or by `plan`.

    Returns a dict from value name (see `raigen.world.attributes.VALUES`) to a share in [0, 1]. Values that headwear, a
    mask, held things or colorless styles hide do not count as shown. Raises ValueError for another prompt.

    >>> rates("a photo of a doctor")["field"], rates("a photo of a farmer")["field"]
    (0.02, 0.73)
    """
    share = dict((plan or plan_of(profession_of(prompt))).shares)
    bare_head = 1 - share["headscarf"] - share["turban"]
    color = 1 - share["black and white"] - share["sepia"]
    hidden_colors = (share["grey hair"] + share["pink hair"]) * (1 - color)
    with_hair = bare_head * (1 - share["bald"])
    share["grey hair"] *= color
    share["pink hair"] *= color
    share["black hair"] += hidden_colors
    for name in CHOICES["hair_color"][:-1]:
        share[name] *= with_hair
    for name in CHOICES["hair"][:-1]:
        share[name] *= bare_head
    share["beard"] *= 1 - share["surgical mask"]
    share["arms crossed"] *= 1 - sum(share[name] for name in CHOICES["held"][:-1])
    return share


def rare_among(names: Sequence[str], shares: Mapping[str, float]) -> tuple[str, ...]:
    """Those of some values that are planted as rare: above 0 and at most 5 %."""
    return tuple(name for name in names if 0 < shares[name] <= RARE_AT_MOST)


def common_elsewhere(
    names: Sequence[str], shares: Mapping[str, float], others: Iterable[Mapping[str, float]]
) -> tuple[str, ...]:
    """Those of some values that are never planted here, but are common (at least 20 %) in one of the others."""
    common = {name for other in others for name, share in other.items() if share >= COMMON_AT_LEAST}
    return tuple(name for name in names if shares[name] == 0 and name in common)


def rare_values(prompt: str) -> tuple[str, ...]:
    """The values planted as rare for `prompt`: above 0 and at most 5 % of its images, in the order of `VALUES`."""
    return rare_among(VALUE_NAMES, plan_of(profession_of(prompt)).shares)


def control_values(prompt: str) -> tuple[str, ...]:
    """The values that are never planted for `prompt`, but are common (at least 20 %) for another prompt: they must not
    be found."""
    every = {profession: plan_of(profession).shares for profession in PROFESSIONS}
    return common_elsewhere(VALUE_NAMES, every[profession_of(prompt)], every.values())


def sample_attributes(prompt: str, rng: np.random.Generator, plan: Plan | None = None) -> Attributes:
    """Samples the attributes of one image of `prompt`, by its planted rates or by `plan`. Raises ValueError for an
    unknown prompt."""
    profession = profession_of(prompt)
    plan = plan or plan_of(profession)
    chosen: dict[str, str] = {}
    for field in FIELDS:
        weights = {name: plan.shares.get(name, 0.0) for name in CHOICES[field]}
        for correlation in plan.correlations:
            if correlation.rare in weights:
                given = correlation.given in chosen.values()
                p = plan.shares[correlation.given]
                elsewhere = (1 - p * correlation.times) / (1 - p)
                weights[correlation.rare] *= correlation.times if given else elsewhere
        if _has_plain(field):
            weights[PLAIN[field]] = 1 - sum(weights.values())
        names, shares = list(weights), np.array(list(weights.values()))
        chosen[field] = names[rng.choice(len(names), p=shares / shares.sum())]
    return visible(Attributes(profession, **chosen))


def _has_plain(field: str) -> bool:
    """Whether a field can show none of its values by its own shares. Hair cannot; only other fields hide it."""
    return field in PLAIN and field not in ("hair", "hair_color")


def sample_balanced(rng: np.random.Generator) -> Attributes:
    """Samples attributes such that every value is common, for the training of the autoencoder, CLIP and the judge."""
    chosen = {}
    for field in FIELDS:
        names = [name for name in CHOICES[field] if name != "covered hair" and name != "no hair color"]
        weights = np.array([len(names) * 0.6 if name == PLAIN.get(field) else 1.0 for name in names])
        chosen[field] = names[rng.choice(len(names), p=weights / weights.sum())]
    return visible(Attributes(PROFESSIONS[rng.integers(len(PROFESSIONS))], **chosen))


def visible(a: Attributes) -> Attributes:
    """`a` without the attributes that other attributes hide."""
    if a.headwear != PLAIN["headwear"]:
        a = replace(a, hair=PLAIN["hair"], hair_color=PLAIN["hair_color"])
    if a.hair == "bald":
        a = replace(a, hair_color=PLAIN["hair_color"])
    if a.style != PLAIN["style"] and a.hair_color in ("grey hair", "pink hair"):
        a = replace(a, hair_color="black hair")
    if a.mask != PLAIN["mask"]:
        a = replace(a, beard=PLAIN["beard"])
    if a.held != PLAIN["held"] and a.gesture == "arms crossed":
        a = replace(a, gesture=PLAIN["gesture"])
    return a
