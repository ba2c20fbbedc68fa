"""Which findings come together in the audited images, and which exclude each other."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.discovery.codes import fires
from raigen.runs.records import RareAttribute, Ratio
from raigen.stats import LEVEL, images_needed, p_independent, q_values, ratio_interval

MOST = 20  # relations that are shown


class Together(NamedTuple):
    """Two findings: how many audited images show one (`n_one`), the other, and both, by clear firing. `lift` says how
    many times as often images of one show the other as all other images do, with its interval."""

    one: RareAttribute
    other: RareAttribute
    n_one: int
    n_other: int
    n_both: int
    lift: Ratio
    q: float

    @property
    def exclude(self) -> bool:
        """Whether they come together less often than chance would bring them."""
        return (self.lift.ratio or self.lift.low) < 1


def together(
    attributes: Sequence[RareAttribute], codes: Float[np.ndarray, "image neuron"], confidence: float = 0.95
) -> list[Together]:
    """The pairs of findings that come together significantly more or less often than by chance, surest first.

    `codes` holds the images that are shown. The test is Fisher's, corrected for all pairs (Benjamini and Hochberg).
    """
    fire = dict(zip((a.neuron for a in attributes), fires(codes[:, [a.neuron for a in attributes]]).T, strict=True))
    pairs, p_values = list(combinations(attributes, 2)), []
    for one, other in pairs:
        a, b = fire[one.neuron], fire[other.neuron]
        p_values.append(p_independent(int((a & b).sum()), int(a.sum()), int(b.sum()), len(a)))
    found = []
    for (one, other), q in zip(pairs, q_values(p_values), strict=True):
        if q > LEVEL:
            continue
        a, b = fire[one.neuron], fire[other.neuron]
        counts = int((a & b).sum()), int(a.sum()), int((~a & b).sum()), int((~a).sum())
        low, high, _ = ratio_interval(*counts, confidence)
        hits, n, other_hits, other_n = counts
        ratio = (hits / n) / (other_hits / other_n) if other_hits else None
        lift = Ratio(ratio, low, high if np.isfinite(high) else None)
        found.append(Together(one, other, n, int(b.sum()), hits, lift, q))
    return sorted(found, key=lambda pair: pair.q)[:MOST]


def reach_rows(lines: Sequence[Any]) -> list[Mapping[str, Any]]:
    """What an audit of this size could have found, by rate (`raigen.discovery.reach.Reach`), each with the number of
    images of which one would show the thing with a chance of 95 %."""
    return [{**line._asdict(), "needed": images_needed(line.rate)} for line in lines]
