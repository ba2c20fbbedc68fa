"""Finds the fine neurons that fire within coarse ones: the children of a neuron in the Matryoshka dictionary."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array
from scipy.stats import false_discovery_control, hypergeom

FAINT = 0.25  # of the mean of the strongest codes: what is below fires too faintly to count; as in the scores
N_STRONGEST = 10  # as in the scores
WITHIN = 0.8  # of a child's pictures, in which the parent fires too; RAIGen's share for "these pictures share it"
LARGEST_Q = 0.05
FEWEST = 5  # pictures in which a fine neuron fires; fewer say nothing about where it fires
BLOCK = 1024  # fine neurons that are held as a dense matrix at once


class Child(NamedTuple):
    """A fine neuron whose pictures are nearly all among those of a coarse one, its `parent`.

    `frequency` is the share of all pictures in which the child fires, `within` that of these in which the parent fires,
    too, P(parent | child), and `covers` the other way round, P(child | parent); all in [0, 1]. `lift` is `within` over
    the frequency of the parent: 1 as by chance. `closest` is the coarse neuron of the highest lift among all in which
    the child is contained: the parent itself, or a narrower one. `q` is that of so many common pictures by chance, over
    all pairs of a listed and a fine neuron.
    """

    parent: int
    child: int
    frequency: float
    within: float
    covers: float
    lift: float
    closest: int
    q: float


def fires(codes: Float[np.ndarray, "image neuron"], score: str) -> Bool[np.ndarray, "image neuron"]:
    """In which pictures each neuron fires, as its `frequency` counts them: at least a quarter as strongly as in the
    mean of its ten strongest; for the published score at all.

    >>> fires(np.array([[8.0, 1.0], [1.0, 0.0]]), "coherent").tolist()
    [[True, True], [False, False]]
    """
    if score == "published":
        return codes > 0
    n_top = min(N_STRONGEST, len(codes))
    strongest = np.partition(codes, -n_top, axis=0)[-n_top:].mean(axis=0)
    return (codes > 0) & (codes >= FAINT * strongest)


def children(
    coarse: Bool[np.ndarray, "image coarse"],
    fine: csr_array,
    parents: Sequence[int],
    score: str,
) -> list[Child]:
    """The children of each of `parents`, those that cover most of it first.

    `coarse` says in which pictures each coarse neuron fires (none for those that do not count), `fine` holds the codes
    of the fine neurons, [image, fine]; neuron 0 of these has the index `coarse.shape[1]`. A fine neuron is a child when
    at least 80 % of the pictures in which it fires are the parent's, and so many are not to be expected by chance: q <=
    0.05 by Benjamini and Hochberg over the hypergeometric tails of all pairs. `within` and `lift` are the confidence
    (Agrawal et al. 1993) and the interest (Brin et al. 1997) of the rule "where the child fires, the parent does". They
    are about pictures: two things that always come together count as one within the other, wherever they are.
    """
    n_images, n_coarse = coarse.shape
    if not len(parents) or not fine.nnz:  # a dictionary of one group has no fine neurons
        return []
    rows, size = np.asarray(parents, dtype=int), coarse.sum(axis=0)
    counts = [_counted(coarse, block, rows) for block in _blocks(fine, score)]
    both, n, closest = (np.concatenate(parts, axis=-1) for parts in zip(*counts, strict=True))
    tested = np.flatnonzero(n >= FEWEST)
    if not len(tested):
        return []
    both, n, closest = both[:, tested], n[tested], closest[tested]
    tails = hypergeom.sf(both - 1, n_images, size[rows][:, None], n)
    q = false_discovery_control(tails.ravel().clip(0, 1)).reshape(tails.shape)
    found = []
    for row, parent in enumerate(rows.tolist()):
        within = both[row] / n
        places = np.flatnonzero((within >= WITHIN) & (q[row] <= LARGEST_Q))
        for place in places[np.argsort(-both[row, places], kind="stable")].tolist():
            found.append(Child(
                parent=parent,
                child=n_coarse + int(tested[place]),
                frequency=float(n[place] / n_images),
                within=float(within[place]),
                covers=float(both[row, place] / size[parent]),
                lift=float(within[place] * n_images / size[parent]),
                closest=int(closest[place]),
                q=float(q[row, place]),
            ))  # fmt: skip
    return found


def _blocks(fine: csr_array, score: str) -> Iterator[Bool[np.ndarray, "image block"]]:
    """In which pictures the fine neurons fire, some neurons at a time: all at once would fill the memory."""
    columns = csc_array(fine)
    for start in range(0, columns.shape[1], BLOCK):  # type: ignore[index]  # scipy's stubs know no shape
        yield fires(columns[:, start : start + BLOCK].toarray(), score)


def _counted(
    coarse: Bool[np.ndarray, "image coarse"],
    block: Bool[np.ndarray, "image block"],
    parents: Int[np.ndarray, " parent"],
) -> tuple[Int[np.ndarray, "parent block"], Int[np.ndarray, " block"], Int[np.ndarray, " block"]]:
    """In how many pictures a neuron of the block fires together with each parent, and at all; and the coarse neuron of
    the highest lift that holds it."""
    n, size = block.sum(axis=0), np.maximum(coarse.sum(axis=0), 1)
    # Counts are whole numbers, exact in float32 up to 16 million pictures.
    both = coarse.T.astype(np.float32) @ block.astype(np.float32)
    lift = np.where(both >= WITHIN * n, both / size[:, None], -1.0)  # but for factors that do not order parents
    return both[parents].astype(int), n, lift.argmax(axis=0)
