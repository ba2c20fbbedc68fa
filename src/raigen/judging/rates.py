"""From verdicts to rates: how often an attribute shows, how far judges agree, what a suggested prompt changes."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.judging.calibration import calibrated
from raigen.judging.protocol import Verdicts
from raigen.judging.weighted_rates import weighted_rate
from raigen.runs.records import Presence, Ratio
from raigen.stats import krippendorff_alpha, rate_interval, ratio_interval

BROADER = 2.0  # times the frequency; less can be the frequency's own error, which is estimated from similarity


class Rates(NamedTuple):
    """The rate of one attribute by each judge. `alpha` (Krippendorff) says how far the judges agree; None for one."""

    presences: tuple[Presence, ...]
    alpha: float | None


def presence_of(verdicts: Verdicts, confidence: float) -> Presence:
    """The rate of the attribute with its interval; unscored images are not in the denominator. Where the judge knows
    its errors, the rate is estimated: corrected for them, and the interval holds their uncertainty."""
    if verdicts.chances is not None:
        return _sampled(verdicts, verdicts.chances, confidence)
    scored = ~np.isnan(verdicts.shows)
    hits, n = int(verdicts.shows[scored].sum()), int(scored.sum())
    interval = rate_interval(hits, n, confidence)
    raw = Presence(
        rate=hits / n if n else 0.0, low=interval.low, high=interval.high,
        hits=hits, n=n, unscored=int((~scored).sum()),
        judge=verdicts.judge, interval=f"{100 * confidence:g} % {interval.method}",
    )  # fmt: skip
    return raw if verdicts.errors is None else calibrated(raw, verdicts.errors, confidence, "estimated") or raw


def _sampled(verdicts: Verdicts, chances: Float[np.ndarray, " image"], confidence: float) -> Presence:
    """The rate where the judge saw the images that were drawn with these `chances`; 0 for one that was not drawn."""
    scored = ~np.isnan(verdicts.shows) & (chances > 0)
    found = weighted_rate(verdicts.shows[scored], chances[scored], len(chances), confidence)
    n_drawn = int((chances > 0).sum())
    return Presence(
        rate=found.rate, low=found.low, high=found.high, hits=int(verdicts.shows[scored].sum()), n=int(scored.sum()),
        unscored=n_drawn - int(scored.sum()), judge=verdicts.judge,
        interval=f"{100 * confidence:g} % weighted Clopper-Pearson, judged {n_drawn:,} of {len(chances):,}",
        mode="sampled", effective_n=found.effective_n,
    )  # fmt: skip


def rates_of(found: Sequence[Verdicts], confidence: float) -> Rates:
    """The rate by each judge, and Krippendorff's alpha where there are two or more judges and it is defined."""
    alpha = krippendorff_alpha(np.stack([verdicts.shows for verdicts in found])) if len(found) > 1 else None
    return Rates(tuple(presence_of(verdicts, confidence) for verdicts in found), alpha)


def ratio_of(suggested: Presence, bare: Presence, confidence: float) -> Ratio | None:
    """How many times as often the attribute shows with the suggested prompt; None where a rate was not measured."""
    if not suggested.n or not bare.n:
        return None
    low, high, _ = ratio_interval(*suggested.counts, *bare.counts, confidence)
    return Ratio(suggested.rate / bare.rate if bare.hits else None, low, None if math.isinf(high) else high)


def covers_more(presence: Presence, frequency: float, fires: float, n_images: int, confidence: float) -> bool | None:
    """Whether a label shows in more images than its neuron stands for; None if no image was judged.

    That is so if the presence is surely above `fires`, the share of the `n_images` audited images in which the neuron
    fires clearly, or surely more than `BROADER` times its `frequency`.
    """
    if not presence.n:
        return None
    limits = ((fires, 1.0), (frequency, BROADER))
    return any(
        ratio_interval(*presence.counts, round(share * n_images), n_images, confidence).low > times
        for share, times in limits
    )


def unscored_by_reason(verdicts: Iterable[Verdicts]) -> dict[str, int]:
    """How many verdicts are missing, by judge and reason."""
    counts: dict[str, int] = {}
    for verdict in verdicts:
        for reason in (verdict.why or {}).values():
            short = f"{verdict.judge}: {reason.split(':')[0]}"  # what follows a colon differs from case to case
            counts[short] = counts.get(short, 0) + 1
    return counts
