"""Says which judges can judge a run, and counts rates from what they say."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raigen.config import CaptureConfig
from raigen.errors import RaigenError
from raigen.judges import CLIP, Verdicts
from raigen.models import WORLD, makes_portraits
from raigen.records import Presence
from raigen.stats import krippendorff_alpha, rate_interval
from raigen.world.attributes import PROMPTS


class Rates(NamedTuple):
    """The rate of one attribute by each judge, and how far the judges agree, where there are two or more."""

    presences: tuple[Presence, ...]
    alpha: float | None


def is_in_world(capture: CaptureConfig) -> bool:
    """Whether the run's pictures are of the planted world, whose own judge can read them."""
    return makes_portraits(capture.model) and capture.prompt in PROMPTS


def judges_of(names: Sequence[str], capture: CaptureConfig) -> list[str]:
    """The names of the judges, each once, `auto` resolved. Raises RaigenError where one cannot judge this run."""
    found = [(WORLD if is_in_world(capture) else CLIP) if name == "auto" else name for name in names]
    if WORLD in found and not is_in_world(capture):
        raise RaigenError(
            f"judge: expected clip or a vision-language model; {WORLD!r} can judge only pictures of the planted world "
            f"and its prompts, this run is {capture.model!r} with {capture.prompt!r}"
        )
    return list(dict.fromkeys(found))


def presence_of(verdicts: Verdicts, confidence: float) -> Presence:
    """The rate of the attribute with its interval; unscored pictures are not in the denominator."""
    scored = ~np.isnan(verdicts.shows)
    hits, n = int(verdicts.shows[scored].sum()), int(scored.sum())
    interval = rate_interval(hits, n, confidence)
    return Presence(
        rate=hits / n if n else 0.0,
        low=interval.low,
        high=interval.high,
        hits=hits,
        n=n,
        unscored=int((~scored).sum()),
        judge=verdicts.judge,
        interval=f"{100 * confidence:g} % {interval.method}",
    )


def rates_of(found: Sequence[Verdicts], confidence: float) -> Rates:
    """The rate by each judge, and Krippendorff's alpha where there are two or more and it is defined."""
    alpha = krippendorff_alpha(np.stack([verdicts.shows for verdicts in found])) if len(found) > 1 else None
    return Rates(tuple(presence_of(verdicts, confidence) for verdicts in found), alpha)
