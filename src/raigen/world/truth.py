"""Compares listed neurons with the judge's answers on the same images: hits, and recall by planted rate."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from raigen.config import PORTRAITS
from raigen.world.judge import Judgment
from raigen.world.worlds import WORLDS, World

_PORTRAITS = WORLDS[PORTRAITS]

RARE_SEEN_AT_MOST = 0.10  # of the audited images
SHARED_BY_AT_LEAST = 0.80  # of the top images


def truth_of(
    judgment: Judgment,
    top_images: Sequence[Sequence[int]],
    neurons: Sequence[int],
    prompt: str,
    n_audited: int,
    world: World = _PORTRAITS,
) -> dict[str, Any]:
    """The content of truth.json. `judgment` covers the `n_audited` audited images, then their relatives; `top_images`
    holds indices of them, per neuron.

    A neuron is a hit when at least 80 % of its readable top images share a value that is rare: shown by more than 0 and
    at most 10 % of all readable images. Of several such values, the one with the highest lift counts. Recall counts the
    values planted as rare, by their planted rate.
    """
    audited = Judgment(*(part[:n_audited] for part in judgment))
    rates = seen_rates(audited, world)
    attributes = [
        hit_of(judgment, images, rates) | {"neuron": int(neuron)}
        for neuron, images in zip(neurons, top_images, strict=True)
    ]
    found = {attribute["value"] for attribute in attributes}
    shares = world.shares(world.professions[world.prompts.index(prompt.strip())])
    planted: dict[float, list[str]] = {}
    for name in world.rare_values(prompt):
        planted.setdefault(shares[name], []).append(name)
    recall = [
        {
            "band": f"{100 * share:g} %",
            "planted": len(names),
            "found": len(found.intersection(names)),
            "missed": [name for name in names if name not in found],
        }
        for share, names in sorted(planted.items())
    ]
    return {
        "world": world.name,
        "values": rates,
        "attributes": attributes,
        "recall": recall,
        "n_hits": sum(attribute["hit"] for attribute in attributes),
        "n_unreadable": int((~audited.readable).sum()),
    }


def seen_rates(judgment: Judgment, world: World = _PORTRAITS) -> dict[str, float]:
    """The share of readable images that show each value."""
    n = max(1, int(judgment.readable.sum()))
    counts = zip(world.value_names, judgment.shows.sum(0), strict=True)
    return {name: round(float(count) / n, 5) for name, count in counts}


def hit_of(judgment: Judgment, images: Sequence[int], rates: dict[str, float]) -> dict[str, Any]:
    """The rare value with the highest lift that these images share, with its share and rate. Where they share none, the
    largest share of a rare value, as no hit. `rates` has all values, in the order of the judgment's columns."""
    readable = [index for index in images if judgment.readable[index]]
    share = judgment.shows[readable].mean(0) if readable else np.zeros(len(rates))
    rate = np.array(list(rates.values()))
    rare = (rate > 0) & (rate <= RARE_SEEN_AT_MOST)
    hits = rare & (share >= SHARED_BY_AT_LEAST)
    if not hits.any():
        return {"value": None, "share": round(float(share[rare].max(initial=0.0)), 3), "rate": None, "hit": False}
    best = int(np.where(hits, share / np.maximum(rate, 1e-9), -1.0).argmax())
    return {"value": list(rates)[best], "share": round(float(share[best]), 3), "rate": float(rate[best]), "hit": True}
