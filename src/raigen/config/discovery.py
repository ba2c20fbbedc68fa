"""How neurons are scored, and which of them are listed."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from raigen.config.fields import need


class Pruning(NamedTuple):
    """Which neurons are too much alike, which scores too low, which too frequent: see `raigen.scores.prune`."""

    distance: float
    percentile: float
    max_frequency: float


@dataclass(frozen=True)
class DiscoverConfig:
    """How neurons are scored, pruned and listed."""

    score: Literal["coherent", "published"] = "coherent"
    """Which score orders the neurons: `coherent` (`raigen.scores.coherence_scores`) or `published`."""
    distance: float | None = None
    """A neuron whose centroid is nearer than this (cosine) to a better one is dropped; in [0, 2]. None is .5, or .003
    for the published score, whose centroids are neither centerd nor whitened."""
    percentile: float | None = None
    """Only scores above this percentile are listed; in [0, 100). None is 0 (published: 90)."""
    max_frequency: float | None = None
    """Only neurons of at most this frequency are listed; in (0, 1]. None is .03, or what 30 images are where that is
    more (published: 1)."""
    n_attributes: int = 10
    """Neurons to list at most, at least 1."""
    n_top_images: int = 10
    """Images shown and named per neuron, at least 2."""
    min_images: int = 10
    """A neuron is listed only if it fires in at least this many images, 1 or more (published: 1). Fewer than ten
    cannot fill a row of top images, and nothing about them can be checked."""
    embedder: str | None = None
    """Image and text embedding: a folder or Hub id of a CLIP model; None is the bundled one for `portraits`, else
    `openai/clip-vit-large-patch14`."""

    def __post_init__(self) -> None:
        need(self.score in ("coherent", "published"), "score", self.score, "coherent or published")
        need(self.distance is None or 0 <= self.distance <= 2, "distance", self.distance, "a cosine distance in [0, 2]")
        need(self.percentile is None or 0 <= self.percentile < 100, "percentile", self.percentile,
              "a percentile in [0, 100)")  # fmt: skip
        need(self.max_frequency is None or 0 < self.max_frequency <= 1, "max_frequency", self.max_frequency,
              "a share in (0, 1]")  # fmt: skip
        need(self.n_attributes >= 1, "n_attributes", self.n_attributes, "1 or more")
        need(self.n_top_images >= 2, "n_top_images", self.n_top_images, "2 or more")
        need(self.min_images >= 1, "min_images", self.min_images, "1 or more")

    def pruning(self, n_images: int) -> Pruning:
        """`distance`, `percentile` and `max_frequency`, or what belongs to the score and to this many images."""
        published = Pruning(0.003, 90.0, 1.0)
        ours = Pruning(0.5, 0.0, min(1.0, max(0.03, 30 / n_images)))  # of few images, ten alike are already many
        default = published if self.score == "published" else ours
        chosen = (self.distance, self.percentile, self.max_frequency)
        return Pruning(*(given if own is None else own for own, given in zip(chosen, default, strict=True)))
