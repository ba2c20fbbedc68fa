"""The chance to be found, by how many images show a thing: `python -m benchmarks.discovery.reach`.

Reads the lists of `benchmarks.discovery.looking` for both planted worlds, and takes the prompts on which nothing was
chosen. Prints the lines that `raigen.discovery.reach` holds.
"""

import json
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.common.intervals import SHARE, interval_of
from benchmarks.common.results import RESULTS
from raigen.discovery.reach import MEASURED_WITH, SEEN, Chance
from raigen.stats import rate_interval
from raigen.world.worlds import WORLDS

FILES = ("looking", "looking_emblems")
ARMS = ("watched", "looked")


def measured(arm: str) -> tuple[Chance, ...]:
    """For each band of `SEEN`: the share of values that the lists of this arm have; means over seeds first, then over
    prompts, with intervals over prompts. Rounded to two digits."""
    by_prompt: dict[str, list[list[float | None]]] = {}
    chosen_on = {prompt for world in WORLDS.values() for prompt in world.chosen_on}
    for name in FILES:
        for one in json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["lists"]:
            if one["arm"] == arm and one["prompt"] not in chosen_on:
                by_prompt.setdefault(one["prompt"], []).append(_found(one))
    found = []
    for band in range(len(SEEN) - 1):
        means = [[share for one in lists if (share := one[band]) is not None] for lists in by_prompt.values()]
        found.append(_chance([one for one in means if one]))
    return tuple(found)


def _chance(shares: list[list[float]]) -> Chance:
    """The mean share, rounded. If nothing was found, the interval is that of no hit among as many lists."""
    one = interval_of(np.array([np.mean(of_prompt) for of_prompt in shares]), SHARE)
    high = one["high"] if one["mean"] else rate_interval(0, sum(map(len, shares))).high
    return Chance(round(one["mean"], 2), round(one["low"], 2) if one["mean"] else 0.0, round(high, 2))


def _found(one: dict[str, Any]) -> list[float | None]:
    """The share of found values in each band; None where no value is in the band."""
    values = {entry["value"] for entry in one["entries"]}
    counts = {value: round(rate * MEASURED_WITH) for value, rate in one["rates"].items()}
    bands = [[value in values for value, n in counts.items() if least < n <= most] for least, most in pairwise(SEEN)]
    return [float(np.mean(band)) if band else None for band in bands]


if __name__ == "__main__":
    for arm in ARMS:
        print(arm, *measured(arm), sep="\n  ")
