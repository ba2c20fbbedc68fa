"""Writes captions: half of them name the profession only, half also one to three attributes."""

from typing import Any

import numpy as np

from raigen.config import PORTRAITS
from raigen.world.worlds import WORLDS, World


def caption(
    attributes: Any, rng: np.random.Generator, *, bare: float = 0.5, most: int = 3, naming: str | None = None,
    world: World = WORLDS[PORTRAITS],
) -> str:  # fmt: skip
    """Writes one caption: the bare prompt with probability `bare`, else with one to `most` of the shown attributes.

    Attributes that are unusual for the profession are named more often, as people do. `naming` is always named.

    >>> from raigen.world.attributes import Attributes
    >>> caption(Attributes("doctor", place="snow"), np.random.default_rng(0), bare=1.0)
    'a photo of a doctor'
    """
    prompt = world.prompt_of(attributes)
    if rng.random() < bare:
        return prompt
    shown = attributes.shown()
    shares = world.shares(attributes.profession)
    weights = np.array([(shares[name] + 0.02) ** -0.5 for name in shown])
    count = min(int(rng.integers(1, most + 1)), len(shown))
    named = [shown[i] for i in rng.choice(len(shown), size=count, replace=False, p=weights / weights.sum())]
    if naming is not None and naming not in named:
        named[0] = naming
    return ", ".join([prompt, *(world.phrase(name) for name in named)])
