"""Scores of neurons: how rarely they fire, and how special the images are in which they do."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from raigen.discovery.codes import strongest
from raigen.errors import RaigenError

MAX_DIRECTIONS = 64
IMAGES_PER_DIRECTION = 16


class NeuronScores(NamedTuple):
    """The scores of all neurons, one row each; float64. A neuron that never fires has frequency 0 and NaN elsewhere.

    `frequency` in [0, 1], `distinctiveness` in [0, 2], `minority_score` in [0, 1], `centroids` of length 1. See the
    function that made them for what frequency and distinctiveness mean.
    """

    frequency: Float[np.ndarray, " neuron"]
    distinctiveness: Float[np.ndarray, " neuron"]
    minority_score: Float[np.ndarray, " neuron"]
    centroids: Float[np.ndarray, "neuron width"]

    @property
    def live(self) -> Bool[np.ndarray, " neuron"]:
        """Which neurons fire in at least one image."""
        return self.frequency > 0


def minority_scores(image_codes: Shaped[Any, "image neuron"], embeddings: Shaped[Any, "row width"]) -> NeuronScores:
    """How rare and how distinct each neuron is over the images of one prompt (RAIGen, arXiv 2602.06806).

    With z_i(h) >= 0 the code of neuron i on image h and x(h) its embedding, here set to length 1:
    frequency nu_i = share of images with z_i(h) > 0; centroid mu_i = sum z_i(h) x(h) / sum z_i(h), set to length 1;
    distinctiveness d_i = 1 - <mu_i, mu_D>, with mu_D the mean of x set to length 1. Both are min-max normalized over
    the neurons that fire at all, and minority_score = (1 - nu_i) d_i. If all neurons have the same frequency, or the
    same distinctiveness, it is normalized to 0. Pass the coarse neurons only: fine ones split one concept into parts.

    Arrays may be of numpy or of torch on the CPU. Raises RaigenError for fewer than two images, for shapes that do not
    match, for NaN, infinite or negative codes, for embeddings or centroids of length 0, and when no neuron fires.

    >>> scores = minority_scores(np.array([[1.0, 0], [1, 0], [1, 2]]), np.array([[1.0, 0], [1, 0], [0, 1]]))
    >>> scores.frequency.round(2).tolist(), scores.minority_score.tolist()
    ([1.0, 0.33], [0.0, 1.0])
    """
    codes = _checked_codes(image_codes, len(embeddings))
    directions = _unit(_checked_embeddings(embeddings, len(codes)), "the embedding of an image")
    live, frequency = _live(codes), (codes > 0).mean(axis=0)
    centroids = np.full((codes.shape[1], directions.shape[1]), np.nan)
    strengths = codes[:, live] / codes[:, live].max(axis=0)  # the scale cancels; tiny codes would underflow
    centroids[live] = _unit(strengths.T @ directions, "the centroid of a neuron (row counted among those that fire)")
    distinctiveness = np.clip(1 - centroids @ _unit(directions.mean(axis=0), "the mean embedding"), 0, 2)
    score = np.full_like(frequency, np.nan)
    score[live] = (1 - _min_max(frequency[live])) * _min_max(distinctiveness[live])
    return NeuronScores(frequency, distinctiveness, score, centroids)


def coherence_scores(
    image_codes: Shaped[Any, "image neuron"],
    views: Sequence[Shaped[Any, "_ _"]],
    n_top: int = 10,
    reach: float = 0.3,
) -> NeuronScores:
    """How alike the images are in which a neuron is strongest, and how few other images are like them.

    `views` are embeddings of the images, one row each: what they mean (CLIP), and how they look
    (`raigen.discovery.embeddings.thumbnails`). Each view is centered and cut to its principal directions (one for every
    16 images, at most 64). All directions get the same variance, so that one in which few images differ counts as much
    as one in which all do. Then each row is set to length 1. With T_i the `n_top` images with the highest codes of
    neuron i and x(h) the view of image h:

    - an image's likeness to T_i is the cosine of x(h) and the mean of T_i; for an image of T_i, the mean of the others;
    - distinctiveness is the coherence c_i, the mean likeness of T_i itself: 0 by chance, and at least 0;
    - frequency r_i is the share of all images whose likeness is at least `reach` times c_i. A neuron that mixes
      frequent attributes therefore counts as frequent: all images with any of them are like its top images;
    - minority_score = c_i x log(1 / r_i) / log(n_images). The view with the highest score counts, with its c_i and r_i.

    The scores of a neuron depend on no other neuron. `centroids` are the mean directions of T_i in all views, side by
    side.

    Arrays may be of numpy or of torch on the CPU. Raises RaigenError as `minority_scores` does.

    >>> rng = np.random.default_rng(0)
    >>> looks, codes = rng.normal(size=(200, 12)), rng.random((200, 2))
    >>> looks[:8, 0], codes[:8, 1] = 9, 2
    >>> scores = coherence_scores(codes, [looks], n_top=8)
    >>> scores.frequency.round(2).tolist(), scores.minority_score.round(1).tolist()
    ([0.46, 0.06], [0.0, 0.4])
    """
    codes = _checked_codes(image_codes, len(views[0]))
    live = _live(codes)
    top = [strongest(codes[:, neuron], n_top) for neuron in np.flatnonzero(live)]
    all_rows = [_whitened(_checked_embeddings(view, len(codes))) for view in views]
    found = [list(zip(*(_likeness(rows, images, reach) for images in top), strict=True)) for rows in all_rows]
    shares, coherence = (np.array([in_view[part] for in_view in found]) for part in (0, 1))  # [view, live neuron]
    score = coherence * np.log(1 / shares) / np.log(len(codes))
    best = score.argmax(axis=0), np.arange(len(top))
    size, width = codes.shape[1], sum(rows.shape[1] for rows in all_rows)
    frequency, centroids = np.zeros(size), np.full((size, width), np.nan)
    distinctiveness, minority_score = np.full(size, np.nan), np.full(size, np.nan)
    frequency[live], distinctiveness[live], minority_score[live] = shares[best], coherence[best], score[best]
    centroids[live] = np.concatenate([np.array(in_view[2]) for in_view in found], axis=1) / np.sqrt(len(views))
    return NeuronScores(frequency, distinctiveness, minority_score, centroids)


def _likeness(
    rows: Float[np.ndarray, "image width"], top: Int[np.ndarray, " top"], reach: float
) -> tuple[float, float, Float[np.ndarray, " width"]]:
    """For one neuron in one view: the share of images like its top images, their coherence, their mean direction."""
    total = rows[top].sum(axis=0)
    direction = _unit_or_zero(total)
    likeness = rows @ direction
    likeness[top] = _likeness_of_each(rows[top], total)
    coherence = max(0.0, float(likeness[top].mean()))
    share = max(1 / len(rows), float((likeness >= reach * coherence).mean()))  # an image is always like itself
    return share, coherence, direction


def _likeness_of_each(top: Float[np.ndarray, "top width"], total: Float[np.ndarray, " width"]) -> np.ndarray:
    """The cosine of each row and the mean of the others; `total` is the sum of all."""
    return (top * _unit_or_zero(total - top)).sum(axis=1)


class SetScore(NamedTuple):
    """The score of a set of images, as `coherence_scores` gives it to the top images of a neuron."""

    minority_score: float
    frequency: float
    distinctiveness: float


def score_of_set(
    rows: Sequence[Float[np.ndarray, "image _"]], sets: Sequence[Float[np.ndarray, "member _"]], reach: float = 0.3
) -> SetScore:
    """The coherent score of images that need not be among the audited ones; see `coherence_scores`.

    `rows` holds the audited images in each view, whitened, and `sets` the images of the set in the same views. The best
    view counts.

    >>> rng = np.random.default_rng(0)
    >>> score = score_of_set([rng.normal(size=(500, 8))], [np.eye(8)[:1] + 0.1 * rng.normal(size=(10, 8))])
    >>> score.distinctiveness > 0.8, score.frequency < 0.4
    (True, True)
    """
    found = []
    for view, members in zip(rows, sets, strict=True):
        view, members = _unit_or_zero(view), _unit_or_zero(members)
        total = members.sum(axis=0)
        coherence = max(0.0, float(_likeness_of_each(members, total).mean()))
        share = float((view @ _unit_or_zero(total) >= reach * coherence).mean())
        share = max(1 / len(view), share)
        found.append(SetScore(coherence * float(np.log(1 / share) / np.log(len(view))), share, coherence))
    return max(found)


def prune(
    scores: NeuronScores, distance: float = 0.003, percentile: float = 90.0, max_frequency: float = 1.0
) -> np.ndarray:
    """The neurons worth listing, by falling minority score: they stand out, are rare, and differ from each other.

    A neuron is kept if its score is above the `percentile` of all neurons that fire, and its frequency at most
    `max_frequency`, in (0, 1]. From the highest score on (the lower index first among equals), a neuron is dropped if
    its centroid is nearer than `distance`, a cosine distance in [0, 2], to one kept before. There may be none left. The
    published values, for the published score, are 0.003, 90 and 1.

    Returns indices, int64. Raises RaigenError when no neuron fires, and when all that fire have the same score.

    >>> prune(minority_scores(np.eye(3), np.array([[1.0, 0], [1, 0], [0, 1]])), percentile=50.0).tolist()
    [2]
    """
    live = scores.minority_score[scores.live]
    if len(live) == 0:
        raise RaigenError(f"scores: expected a neuron that fires; none of {len(scores.frequency)} does")
    if np.ptp(live) == 0:
        raise RaigenError(
            f"scores: expected neurons that differ; all {len(live)} that fire have minority score {live[0]:.3g}, so "
            "none stands out. Capture more images, or train with more neurons"
        )
    order = np.argsort(-scores.minority_score, kind="stable")
    kept: list[int] = []
    for neuron in order[standing_out(scores, percentile, max_frequency)[order]]:
        gaps = 1 - scores.centroids[kept] @ scores.centroids[neuron]
        if (gaps >= distance).all():
            kept.append(int(neuron))
    return np.array(kept, dtype=np.int64)


def standing_out(scores: NeuronScores, percentile: float, max_frequency: float) -> Bool[np.ndarray, " neuron"]:
    """Which neurons score above the `percentile` of all that fire, with a frequency of at most `max_frequency`."""
    cut = np.percentile(scores.minority_score[scores.live], percentile)
    return scores.live & (np.nan_to_num(scores.minority_score) > cut) & (scores.frequency <= max_frequency)


def _checked_codes(image_codes: Any, n_embeddings: int) -> np.ndarray:
    """As float64."""
    codes = np.asarray(image_codes, dtype=np.float64)
    if len(codes) != n_embeddings:
        raise RaigenError(f"expected one embedding per image; got codes of {len(codes)}, embeddings of {n_embeddings}")
    if len(codes) < 2:
        raise RaigenError(f"expected at least 2 images, to compare one with the rest; got {len(codes)}")
    _check_numbers("image codes", codes, np.isfinite(codes) & (codes >= 0), "finite numbers of 0 or more")
    return codes


def _checked_embeddings(embeddings: Any, n_images: int) -> np.ndarray:
    """As float64."""
    rows = np.asarray(embeddings, dtype=np.float64)
    if len(rows) != n_images:
        raise RaigenError(f"expected one embedding per image; got codes of {n_images}, embeddings of {len(rows)}")
    _check_numbers("embeddings", rows, np.isfinite(rows), "finite numbers")
    return rows


def _check_numbers(name: str, array: np.ndarray, holds: np.ndarray, expected: str) -> None:
    if not holds.all():
        row, column = np.argwhere(~holds)[0]
        raise RaigenError(f"{name}: expected {expected}; got {array[row, column]} for image {row}, [{column}]")


def _live(codes: Float[np.ndarray, "image neuron"]) -> Bool[np.ndarray, " neuron"]:
    """Which neurons fire in at least one image."""
    live = np.asarray((codes > 0).any(axis=0))
    if not live.any():
        raise RaigenError(
            f"image codes: expected a neuron that fires; none of {codes.shape[1]} does on any of {len(codes)} "
            "images. Train longer: raigen train RUN --redo train --epochs 5"
        )
    return live


def _whitened(rows: Float[np.ndarray, "image width"]) -> Float[np.ndarray, "image direction"]:
    """The rows along their principal directions, centered, of equal variance; then of length 1, or 0 at the mean."""
    centered = rows - rows.mean(axis=0)
    left, spread, _ = np.linalg.svd(centered, full_matrices=False)
    return _unit_or_zero(left[:, : n_directions(spread, len(rows))])


def n_directions(spread: Float[np.ndarray, " direction"], n_images: int) -> int:
    """How many principal directions a view of this many images keeps, from its singular values."""
    return min(MAX_DIRECTIONS, max(2, n_images // IMAGES_PER_DIRECTION), int((spread > 1e-9 * spread[0]).sum()))


def _unit_or_zero(vectors: Float[np.ndarray, "*row width"]) -> Float[np.ndarray, "*row width"]:
    """Each vector divided by its length; a vector of length 0 stays."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def _unit(vectors: Float[np.ndarray, "*row width"], what: str) -> Float[np.ndarray, "*row width"]:
    """Each vector divided by its length."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not length.all():
        raise RaigenError(f"{what} has length 0 (row {int(np.argmin(length))}), so it has no direction to compare")
    return vectors / length


def _min_max(values: Float[np.ndarray, " neuron"]) -> Float[np.ndarray, " neuron"]:
    """Stretched to [0, 1]; all 0 when all are equal."""
    return (values - values.min()) / (np.ptp(values) or 1.0)
