"""Families of images: an odd image, and its relatives that share what is odd about it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

from raigen.diffusion.relatives import Lineage
from raigen.discovery.scores import n_directions

SEEDS_FROM = 3_000_000_000  # beyond audited and fresh seeds
SEEDS_PER_FAMILY = 1_000
FIRST, NEXT = 6, 8  # relatives in the first generation, and in each later one
N_PARENTS = 4  # of a later generation: the relatives with the most of the oddity
N_GENERATIONS = 4
KEPT = 0.5  # of the ancestor's oddity: a relative with this much of it has kept it
ENOUGH = 12  # images that kept the oddity, after which a family is complete
FEW_CHILDREN, MANY_CHILDREN = 0.25, 0.6  # shares that keep the oddity, beyond which the next step is smaller or larger
SMALLER, LARGER, LARGEST = 0.65, 1.35, 0.7  # factors of the step's size, and its limit
FEWEST_KEPT, FEWEST_LOST = 3, 3  # images that the contrast within a family needs
SAME = 0.3  # cosine of the directions of two families that share an oddity


class Views:
    """How far images lie from the common, in several views of them.

    Each view has one row per audited image. It is centered and cut to its principal directions, and all of these get
    variance 1 over the images that are not black (`shown` holds their indices). A typical image then has length
    sqrt(directions). An image with a rare trait lies far out, because few images give the trait's direction its
    variance. `rows` are the audited images, with all views side by side.
    """

    def __init__(self, views: Sequence[Float[np.ndarray, "image _"]], shown: Bool[np.ndarray, " image"]):
        self.shown = np.flatnonzero(shown)
        seen = [view[self.shown].astype(np.float64) for view in views]
        self._centers = [view.mean(axis=0) for view in seen]
        self._maps = [_whitening(view - center) for view, center in zip(seen, self._centers, strict=True)]
        ends = np.cumsum([0, *(a_map.shape[1] for a_map in self._maps)])
        self.parts = [slice(start, end) for start, end in pairwise(ends.tolist())]
        self.rows = self.place(views)

    def place(self, views: Sequence[Float[np.ndarray, "image _"]]) -> Float[np.ndarray, "image direction"]:
        """Where other images lie, from the same views of them."""
        centered = [view - center for view, center in zip(views, self._centers, strict=True)]
        return np.concatenate([view @ a_map for view, a_map in zip(centered, self._maps, strict=True)], axis=1)

    def direction(self, row: Float[np.ndarray, " direction"]) -> Float[np.ndarray, " direction"]:
        """The direction of a row: each view counts the same, and the whole has length 1."""
        parts = [row[part] / max(float(np.linalg.norm(row[part])), 1e-12) for part in self.parts]
        return np.concatenate(parts) / np.sqrt(len(parts))

    def along(self, direction: Float[np.ndarray, " direction"]) -> Float[np.ndarray, " image"]:
        """How far out each audited image lies in a direction; 0 for those that are not shown."""
        far = np.zeros(len(self.rows))
        far[self.shown] = self.rows[self.shown] @ direction
        return far

    def odd_first(self) -> Int[np.ndarray, " shown"]:
        """The indices of the images that are shown, the oddest first: by the view in which an image lies farthest out,
        compared with the others."""
        ranks = [rankdata(-(self.rows[self.shown, part] ** 2).sum(axis=1)) for part in self.parts]
        return self.shown[np.argsort(np.min(ranks, axis=0), kind="stable")]


class Relative(NamedTuple):
    """A member of a family: where it comes from, its place in `Run.index_of`, and where it lies in the views. The first
    member is the odd image."""

    lineage: Lineage
    place: int
    row: Float[np.ndarray, " direction"]


class Family:
    """The relatives of one audited image, generation by generation.

    `oddity` says how much each member has of what is odd about the first one. First this is the first one's own
    direction in the views. As soon as some relatives kept it and others lost it, it is what tells the two apart: all
    that relatives have in common otherwise cancels out.
    """

    def __init__(self, views: Views, image: int, seed: int, step: float):
        self.views, self.image = views, image
        self.members = [Relative((seed,), image, views.rows[image])]
        self.direction = views.direction(views.rows[image])
        self.step = step
        self.n_generations = 0
        self._next_seed = SEEDS_FROM + seed * SEEDS_PER_FAMILY

    @property
    def places(self) -> Int[np.ndarray, " member"]:
        """The places of the members in `Run.index_of`."""
        return np.array([member.place for member in self.members])

    @property
    def rows(self) -> Float[np.ndarray, "member direction"]:
        """Where the members lie in the views."""
        return np.array([member.row for member in self.members])

    @property
    def oddity(self) -> Float[np.ndarray, " member"]:
        """How much each member has of the oddity: 1 for the first."""
        along = self.rows @ self.direction
        return along / along[0]

    @property
    def has_kept(self) -> Bool[np.ndarray, " member"]:
        """Which members have kept the oddity."""
        return self.oddity >= KEPT

    @property
    def n_kept(self) -> int:
        """How many members have kept the oddity, with the first."""
        return int(self.has_kept.sum())

    @property
    def goes_on(self) -> bool:
        """Whether a further generation is worth its images: some relatives keep the oddity, and not yet enough."""
        needed = 2 if self.n_generations <= 1 else 3
        return self.n_generations < N_GENERATIONS and (self.n_generations == 0 or needed <= self.n_kept < ENOUGH)

    def next_generation(self) -> list[Lineage]:
        """The lineages of the next relatives. Each is a small step from one of the members with the most oddity."""
        count = NEXT if self.n_generations else FIRST
        best = [index for index in np.argsort(-self.oddity, kind="stable") if self.has_kept[index]][:N_PARENTS]
        parents = [self.members[best[place % len(best)]] for place in range(count)]
        lineages = [(*parent.lineage, (self.step, self._next_seed + place)) for place, parent in enumerate(parents)]
        self._next_seed += count
        return lineages

    def add(self, generation: Sequence[Relative]) -> None:
        """Takes in the relatives of `next_generation`, and adapts direction and step."""
        self.members += generation
        self.n_generations += 1
        kept, rows = self.has_kept, self.rows
        share = float(kept[-len(generation) :].mean())
        if kept.sum() >= FEWEST_KEPT and (~kept).sum() >= FEWEST_LOST:
            self.direction = self.views.direction(rows[kept].mean(axis=0) - rows[~kept].mean(axis=0))
        if share < FEW_CHILDREN:
            self.step *= SMALLER
        elif share > MANY_CHILDREN:
            self.step = min(LARGEST, self.step * LARGER)

    def is_like(self, direction: Float[np.ndarray, " direction"]) -> bool:
        """Whether a family or an image in this direction has the same oddity."""
        return are_alike(self.direction, direction)


def are_alike(one: Float[np.ndarray, " direction"], other: Float[np.ndarray, " direction"]) -> bool:
    """Whether two directions are those of the same oddity."""
    return float(one @ other) > SAME


def begin_families(
    views: Views,
    order: Sequence[int],
    known: Sequence[Family],
    tried: set[int],
    seeds: Sequence[int],
    step: float,
    count: int,
) -> list[Family]:
    """New families of up to `count` images: the first in `order` that were not `tried`, and that no family is like.

    `seeds` holds the seed of each audited image. Adds the images to `tried`.
    """
    found: list[Family] = []
    for image in order:
        if len(found) == count:
            break
        direction = views.direction(views.rows[image])
        if image not in tried and not any(family.is_like(direction) for family in (*known, *found)):
            tried.add(image)
            found.append(Family(views, image, seeds[image], step))
    return found


def _whitening(centered: Float[np.ndarray, "image width"]) -> Float[np.ndarray, "width direction"]:
    """The map onto the principal directions, each with variance 1 over these images."""
    _, spread, directions = np.linalg.svd(centered, full_matrices=False)
    count = n_directions(spread, len(centered))
    return directions[:count].T / spread[:count] * np.sqrt(len(centered))
