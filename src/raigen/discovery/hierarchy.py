"""Finds which fine neurons fire within which coarse neurons: parents and children in the Matryoshka dictionary."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control, hypergeom

from raigen.discovery.codes import fires

WITHIN = 0.8  # share of a child's images in which the parent fires, too; RAIGen's share for "these images share it"
LEAST_LIFT = 2  # a parent that fires in more than half of all images holds much of everything
LARGEST_Q = 0.05
FEWEST = 5  # images in which a neuron fires; fewer say nothing about relations
BLOCK = 1024  # neurons handled at once


class Relation(NamedTuple):
    """A coarse neuron, the `parent`, fires in nearly all images of a fine neuron, the `child`. One of the two is the
    listed `neuron`.

    Three shares, in [0, 1]: `frequency`, of all images in which the other neuron fires; `within`, of the child's images
    in which the parent fires, P(parent | child); `covers`, of the parent's images in which the child fires,
    P(child | parent). `lift` is `within` divided by the parent's share of all images; 1 is chance. `q` is the p-value
    that so many common images are chance, adjusted for all tried pairs.
    """

    neuron: int
    parent: int
    child: int
    frequency: float
    within: float
    covers: float
    lift: float
    q: float

    @property
    def other(self) -> int:
        """The relative of `neuron`."""
        return self.parent if self.neuron == self.child else self.child


def relations_of(codes: Float[np.ndarray, "image neuron"], n_coarse: int, listed: Sequence[int]) -> list[Relation]:
    """The children of each listed coarse neuron, the ones that cover most of it first, and the narrowest parent of each
    listed fine neuron. In the order of `listed`; the first `n_coarse` neurons are the coarse ones.

    A fine neuron is a child under three conditions. The parent fires in at least 80 % of the child's images. This share
    is at least twice the parent's share of all images. And chance does not explain it: q <= 0.05 by Benjamini and
    Hochberg over the hypergeometric tails of all pairs. `within` and `lift` are the confidence (Agrawal et al. 1993)
    and the interest (Brin et al. 1997) of the rule "where the child fires, the parent does". They are about images: two
    things that always come together count as one within the other, wherever in the image they are.
    """
    chosen, n_images = np.asarray(listed, dtype=int), len(codes)
    ours, counts, sizes = fires(codes[:, chosen]).T.astype(np.float32), [], []
    for start in range(0, codes.shape[1], BLOCK):  # all at once would double the memory
        block = fires(codes[:, start : start + BLOCK])
        counts.append(ours @ block.astype(np.float32))  # whole numbers, exact up to 16 million images
        sizes.append(block.sum(axis=0))
    both, size = np.concatenate(counts, axis=1), np.concatenate(sizes)
    is_coarse, enough = np.arange(codes.shape[1]) < n_coarse, size >= FEWEST
    rows, others = np.nonzero((is_coarse[chosen][:, None] != is_coarse) & enough & enough[chosen][:, None])
    if not len(rows):  # a dictionary of one group
        return []
    of_coarse, common = is_coarse[chosen[rows]], both[rows, others]
    parents = np.where(of_coarse, chosen[rows], others)
    kids = np.where(of_coarse, others, chosen[rows])
    within, covers = common / size[kids], common / size[parents]
    lift = within * n_images / size[parents]
    q = false_discovery_control(hypergeom.sf(common - 1, n_images, size[parents], size[kids]).clip(0, 1))
    order = np.lexsort((-np.where(of_coarse, covers, lift), rows))
    found: list[Relation] = []
    holds = (within >= WITHIN) & (lift >= LEAST_LIFT) & (q <= LARGEST_Q)
    for at in order[holds[order]].tolist():
        neuron = int(chosen[rows[at]])
        if of_coarse[at] or not any(kin.neuron == neuron for kin in found):  # only the narrowest parent
            shares = (size[others[at]] / n_images, within[at], covers[at], lift[at], q[at])
            found.append(Relation(neuron, int(parents[at]), int(kids[at]), *map(float, shares)))
    return found
