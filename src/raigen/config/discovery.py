"""How neurons are scored, which of them are listed, and how raigen looks around odd images."""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge, Interval

from raigen.config.fields import check_ranges, need


class Pruning(NamedTuple):
    """The limits by which neurons are dropped: too near to a better one, scored too low, too frequent. See
    `raigen.scores.prune`."""

    distance: float
    percentile: float
    max_frequency: float


@dataclass(frozen=True)
class DiscoverConfig:
    """How neurons are scored, pruned and listed."""

    score: Literal["coherent", "published"] = "coherent"
    """The score that ranks the neurons: `coherent` (`raigen.scores.coherence_scores`) or `published`
    (`raigen.scores.minority_scores`)."""
    distance: Annotated[float | None, Interval(ge=0, le=2)] = None
    """A neuron is dropped if its centroid is nearer than this cosine distance, in [0, 2], to that of a better neuron.
    None is 0.5, or 0.003 for the published score, whose centroids are neither centered nor whitened."""
    percentile: Annotated[float | None, Interval(ge=0, lt=100)] = None
    """Only neurons with a score above this percentile are listed; in [0, 100). None is 0, or 90 for the published
    score."""
    max_frequency: Annotated[float | None, Interval(gt=0, le=1)] = None
    """Only neurons with at most this frequency are listed; in (0, 1]. None is 0.03, or 30 images' share if that is
    more; for the published score it is 1."""
    n_attributes: Annotated[int, Ge(1)] = 10
    """Most neurons to list, at least 1."""
    n_top_images: Annotated[int, Ge(2)] = 10
    """Images of each neuron that are shown and from which it is named, at least 2."""
    min_images: Annotated[int, Ge(1)] = 10
    """A neuron is listed only if it fires in at least this many images, 1 or more (published: 1). Fewer than 10 do not
    fill a row of top images, and claims about them cannot be tested."""
    embedder: str | None = None
    """Model that embeds images and texts: a folder or Hub id of a CLIP or SigLIP model; or of a DINO model (v2 or v3),
    which knows no texts, so that names and rates must come from others. None is the bundled CLIP for bundled models,
    else `openai/clip-vit-large-patch14`."""
    second_view: str = "looks"
    """By what else images are compared: `looks` (colors at 16 x 16 pixels), or a folder or Hub id of a second embedder,
    such as a DINO model for photographs. The published score has no second view."""

    def __post_init__(self) -> None:
        check_ranges(self)
        need(self.score in ("coherent", "published"), "score", self.score, "coherent or published")
        need(self.score == "coherent" or self.second_view == "looks", "second_view", self.second_view,
             "looks with the published score, which has one view")  # fmt: skip

    def pruning(self, n_images: int) -> Pruning:
        """The limits for this many images: those that are given, and the score's defaults for the others."""
        published = Pruning(0.003, 90.0, 1.0)
        ours = Pruning(0.5, 0.0, min(1.0, max(0.03, 30 / n_images)))  # of few images, ten alike are already many
        default = published if self.score == "published" else ours
        chosen = (self.distance, self.percentile, self.max_frequency)
        return Pruning(*(given if own is None else own for own, given in zip(chosen, default, strict=True)))


@dataclass(frozen=True)
class LookConfig:
    """How raigen looks around odd images, for attributes that too few audited images show."""

    n_look_images: Annotated[int | None, Ge(0)] = None
    """Relatives of odd images to make, 0 or more; with 0, raigen looks at nothing. None is half as many as there are
    audited images."""
    n_families: Annotated[int, Ge(0)] = 10
    """Most families to list beside the neurons, 0 or more."""
    first_step: Annotated[float, Interval(gt=0, lt=1)] = 0.4
    """How far the first relatives of an image move from its noise, in (0, 1): 0 is the same image, 1 is any other. The
    steps of later relatives adapt."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def n_relatives(self, n_images: int) -> int:
        """How many relatives to make beside this many audited images."""
        return n_images // 2 if self.n_look_images is None else self.n_look_images
