"""Compares amplification with its goals, from the judge's verdicts on each image (pure functions)."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from benchmarks.common.intervals import SHARE, interval_of, median_interval
from raigen.amplification.dose_response import PER_WANTED
from raigen.stats import rate_interval, ratio_interval

RARE = 0.05  # of fresh images, at most, for an attribute to count as rare
READABLE, RIGHT = 0.95, 0.90  # shares that steered images must keep
CURVES = ("contrast", "steer")  # methods with several strengths; the best one counts
REFERENCE = 1.0  # the strength at which controls are compared with steering


class Seen(NamedTuple):
    """The judge's verdicts on each image of a point: shows the attribute, is readable, shows the right profession."""

    shows: Bool[np.ndarray, " image"]
    readable: Bool[np.ndarray, " image"]
    right: Bool[np.ndarray, " image"]

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "Seen":
        """From the lists of 0 and 1 in a cell."""
        return cls(*(np.array(kept[name], bool) for name in cls._fields))

    def part(self, chosen: Bool[np.ndarray, " image"]) -> "Seen":
        """Some of the images."""
        return Seen(*(column[chosen] for column in self))

    @property
    def n(self) -> int:
        """The number of readable images; the others are unscored."""
        return int(self.readable.sum())

    @property
    def hits(self) -> int:
        """The number of readable images that show the attribute."""
        return int((self.shows & self.readable).sum())

    @property
    def presence(self) -> float:
        """The share of readable images that show the attribute; 0 where none is readable."""
        return self.hits / self.n if self.n else 0.0

    @property
    def keeps(self) -> bool:
        """Whether enough images are readable and, of these, of the right profession."""
        return self.readable.mean() >= READABLE and self.right[self.readable].mean() >= RIGHT


def at_best(base: Seen, points: Mapping[float, Seen]) -> tuple[Seen, list[float]]:
    """The images at the best strength, and that strength for each half of the images. The best strength shows the
    attribute most among those that keep readability and profession.

    It is chosen on the images at even places for those at odd places, and vice versa, so that no image is counted at a
    strength that it helped to choose. Where no strength keeps both, the unsteered images are taken, at strength 0.
    """
    even = np.arange(len(base.shows)) % 2 == 0
    chosen, parts = [], []
    for half in (even, ~even):
        kept = {strength: seen.part(half) for strength, seen in points.items() if seen.part(half).keeps}
        best = max(kept, key=lambda strength: kept[strength].presence, default=0.0)
        chosen.append(best)
        parts.append((points[best] if best else base).part(~half))
    return Seen(*(np.concatenate(columns) for columns in zip(*parts, strict=True))), chosen


def lift(seen: Seen, unsteered: tuple[int, int]) -> dict[str, float]:
    """How many times as often the attribute shows as in `unsteered` images (hits, n), with a 95 % interval.

    Where no unsteered image shows it, one is counted, so that the lift is a lower bound.
    """
    hits, n = unsteered
    low, high, _ = ratio_interval(seen.hits, max(1, seen.n), hits, n)
    return {"lift": seen.presence * n / max(1, hits), "low": low, "high": high}


def point_of(seen: Seen, unsteered: tuple[int, int]) -> dict[str, Any]:
    """One point as an entry of a table."""
    low, high, _ = rate_interval(seen.hits, seen.n)
    return {
        "presence": seen.presence, "low": low, "high": high, "n": seen.n, "lift": lift(seen, unsteered),
        "readable": float(seen.readable.mean()),
        "right profession": float(seen.right[seen.readable].mean()) if seen.n else math.nan,
    }  # fmt: skip


def row_of(cells: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """One attribute of one prompt, from its cells by method, without what no cell has measured. At least one cell holds
    the unsteered images."""
    first = next(cell for cell in cells.values() if "base" in cell)
    base, fresh = Seen.of(first["base"]), (first["fresh"]["hits"], first["fresh"]["n"])
    unsteered = fresh[0] + base.hits, fresh[1] + base.n
    row: dict[str, Any] = {name: first[name] for name in ("prompt", "rank", "neuron", "label", "named by", "top share")}
    row |= {"fresh": fresh[0] / fresh[1], "unsteered": unsteered[0] / unsteered[1], "n unsteered": unsteered[1]}
    row["points"] = points = {}
    for method in ("prompt", "set", "random-direction", "random-neuron", "random-pattern", "random-contrast", *CURVES):
        for point in cells.get(method, {}).get("points", []):
            name = f"{method} {point['strength']:g}" if method in CURVES else method
            points[name] = point_of(Seen.of(point), unsteered)
    for method in CURVES:
        if method not in cells:
            continue
        seen, strengths = at_best(base, {point["strength"]: Seen.of(point) for point in cells[method]["points"]})
        points[f"{method}, best"] = point_of(seen, unsteered) | {"strengths": strengths}
    if "identity" in cells:
        row["identical at 0"] = cells["identity"]["identical"]
    if cells.get("select", {}).get("points"):
        points["select"] = selected(cells["select"], unsteered)
    return row


def selected(cell: dict[str, Any], unsteered: tuple[int, int]) -> dict[str, Any]:
    """The result and the cost of selection. `predicted` is the number of images generated per kept image: 2 / rate in
    fresh images, unless `capped`. `cost` is the number of images generated per kept image that shows the attribute.
    `found` is the share of the hits in the pool that were kept (of as many as could be kept)."""
    (point,) = cell["points"]
    seen, predicted, fresh = Seen.of(point), point["strength"], cell["fresh"]
    cost = point["n_made"] / seen.hits if seen.hits else math.inf
    in_pool = min(cell["pool_hits"], len(seen.shows))
    return point_of(seen, unsteered) | {
        "n made": point["n_made"], "cost": cost, "predicted": predicted, "made / predicted": cost / predicted,
        "found": seen.hits / in_pool if in_pool else math.nan,
        "capped": predicted < PER_WANTED * fresh["n"] / fresh["hits"],
    }  # fmt: skip


def mixed(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """The target and the result for each attribute of a mixture; `hit`: the target lies in the interval."""
    return [
        {"prompt": cell["prompt"], "label": part["label"], "target": part["target"], "expected": part["expected"],
         "presence": part["presence"]["rate"], "low": part["presence"]["low"], "high": part["presence"]["high"],
         "hit": part["presence"]["low"] <= part["target"] <= part["presence"]["high"]}
        for part in cell["attributes"]
    ]  # fmt: skip


def distinct(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first row of each label under each prompt: two neurons with one name are one attribute."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        found.setdefault((row["prompt"], row["label"]), row)
    return list(found.values())


def goals(rows: Sequence[dict[str, Any]], mixtures: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each goal with its target, the result, the 95 % interval, the sample size, and whether it was met.

    Medians are over attributes, with the interval of order statistics; shares are over prompts (each the mean of its
    attributes), with Student's interval. Except for selection and mixtures, only attributes in at most 5 % of fresh
    images count.
    """
    rare = [row for row in rows if row["fresh"] <= RARE]
    found = {
        "prompt: median presence": median(values(rare, "prompt", "presence"), ">= .60", lambda m: m >= 0.6),
        **{name: held for method in CURVES for name, held in _of_curve(rare, method).items()},
        "random pattern at 1: median lift": median(lifts(rare, "random-pattern"), "<= 1.5", lambda m: m <= 1.5),
        "contrast of a random neuron at 1: median lift": median(lifts(rare, "random-contrast"), "", None),
        "steer at 1: median lift": median(lifts(rare, f"steer {REFERENCE:g}"), "", None),
        "set at 1: median lift": median(lifts(rare, "set"), "", None),
        "random direction at 1: median lift": median(lifts(rare, "random-direction"), "<= 1.5", lambda m: m <= 1.5),
        "random neuron at 1: median lift": median(lifts(rare, "random-neuron"), "", None),
        "identical at strength 0": share([row["identical at 0"] for row in rows if "identical at 0" in row], 1.0),
    }
    free = [row for row in rows if not row["points"].get("select", {}).get("capped", True)]
    found |= {
        "select: median presence": median(values(free, "select", "presence"), "1.00", lambda m: m >= 0.995),
        "select: median cost made / predicted": median(
            values(free, "select", "made / predicted"), ".80 to 1.20", lambda m: 0.8 <= m <= 1.2
        ),
        "select: median share found in the pool": median(values(free, "select", "found"), "", None),
        "mix: targets within the interval": share([mixture["hit"] for mixture in mixtures], 0.95),
    }
    return found


def _of_curve(rare: Sequence[dict[str, Any]], method: str) -> dict[str, dict[str, Any]]:
    """The goals of a method at its best strength."""
    best = f"{method}, best"
    return {
        f"{method}: median lift at the best strength": median(lifts(rare, best), ">= 8", lambda m: m >= 8),
        f"{method}: median presence there": median(values(rare, best, "presence"), "", None),
        f"{method}: readable": mean(rare, best, "readable", ">= .95", lambda m: m >= READABLE),
        f"{method}: right profession": mean(rare, best, "right profession", ">= .90", lambda m: m >= RIGHT),
    }


def values(rows: Iterable[dict[str, Any]], name: str, field: str) -> list[float]:
    """One number of every attribute that has it."""
    return [row["points"][name][field] for row in rows if name in row["points"]]


def lifts(rows: Iterable[dict[str, Any]], name: str) -> list[float]:
    """The lift of each attribute at one point."""
    return [point["lift"] for point in values(rows, name, "lift")]  # type: ignore[index]


Meets = Callable[[float], bool] | None


def median(found: Sequence[float], wanted: str, meets: Meets) -> dict[str, Any]:
    """Compares a median with a goal; without a goal `met` is None."""
    return _held(median_interval(np.array([value for value in found if not math.isnan(value)])), wanted, meets)


def mean(rows: Iterable[dict[str, Any]], name: str, field: str, wanted: str, meets: Meets) -> dict[str, Any]:
    """Compares a mean over prompts with a goal."""
    by_prompt: dict[str, list[float]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], []).extend(values([row], name, field))
    means = [np.nanmean(found) for found in by_prompt.values() if len(found)]
    return _held(interval_of(np.array(means), SHARE), wanted, meets)


def share(flags: Sequence[bool], at_least: float) -> dict[str, Any]:
    """Compares a share with a goal."""
    low, high, _ = rate_interval(sum(flags), len(flags))
    found = {"mean": sum(flags) / len(flags) if flags else math.nan, "low": low, "high": high, "n": len(flags)}
    return _held(found, f">= {at_least:g}", lambda m: m >= at_least)


def _held(found: dict[str, float], wanted: str, meets: Meets) -> dict[str, Any]:
    known = meets is not None and not math.isnan(found["mean"])
    return {"wanted": wanted, **found, "met": bool(meets(found["mean"])) if known and meets else None}
