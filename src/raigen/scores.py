"""Scores of neurons: how rarely they fire, how special the pictures are on which they do."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.covariance import ledoit_wolf

from raigen.errors import RaigenError
from raigen.measures import clarity


class NeuronScores(NamedTuple):
    """What a score found, one row per neuron; float64. A neuron that never fires is NaN but for `frequency`.

    `frequency` in [0, 1], `distinctiveness` in [0, 2], `minority_score` in [0, 1], `centroids` of length 1. What
    frequency and distinctiveness mean is said by the score that made them.
    """

    frequency: Float[np.ndarray, " neuron"]
    distinctiveness: Float[np.ndarray, " neuron"]
    minority_score: Float[np.ndarray, " neuron"]
    centroids: Float[np.ndarray, "neuron width"]

    @property
    def live(self) -> Bool[np.ndarray, " neuron"]:
        """Which neurons fire on at least one picture."""
        return self.frequency > 0


def minority_scores(image_codes: Shaped[Any, "image neuron"], embeddings: Shaped[Any, "row width"]) -> NeuronScores:
    """How rare and how distinct each neuron is over the pictures of one prompt (RAIGen, arXiv 2602.06806).

    With z_i(h) >= 0 the code of neuron i on picture h and x(h) its embedding, here set to length 1:
    frequency nu_i = share of pictures with z_i(h) > 0; centroid mu_i = sum z_i(h) x(h) / sum z_i(h), set to length 1;
    distinctiveness d_i = 1 - <mu_i, mu_D>, with mu_D the mean of x set to length 1. Both are min-max normalised over
    the neurons that fire at all, and minority_score = (1 - nu_i) d_i. A part that is the same for all of them counts as
    0, for nothing stands out in it. Give the coarse neurons only: fine ones split one concept into parts.

    Arrays of numpy or torch (on the CPU) will do. Raises RaigenError for fewer than two pictures, for shapes that do
    not match, for NaN, infinite or negative codes, for embeddings or centroids without direction, and when no neuron
    fires.

    >>> scores = minority_scores(np.array([[1.0, 0], [1, 0], [1, 2]]), np.array([[1.0, 0], [1, 0], [0, 1]]))
    >>> scores.frequency.round(2).tolist(), scores.minority_score.tolist()
    ([1.0, 0.33], [0.0, 1.0])
    """
    codes, directions = _checked(image_codes, embeddings)
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
    embeddings: Shaped[Any, "row width"],
    n_top: int = 10,
    firing: float = 0.25,
) -> NeuronScores:
    """How rare each neuron is, and how much alike the pictures are in which it is strongest.

    Embeddings are centred on the mean picture and whitened (covariance by Ledoit and Wolf 2004), so that a
    direction in which few pictures differ counts as much as one in which all do, and set to length 1. With T_i the
    `n_top` pictures of the highest code of neuron i: distinctiveness is their coherence, the mean cosine between
    two of them (their `clarity`), 0 as expected by chance (negative ones become 0); frequency nu_i is the share of
    pictures whose code is at least `firing` times the mean code of T_i, so that a faint code makes no neuron
    frequent; minority_score = coherence x log(1 / nu_i) / log(n_images), the surprise of the neuron as a share of
    the greatest there can be. It depends on no other neuron. `centroids` are the mean directions of T_i (0 where
    they cancel).

    Arrays of numpy or torch (on the CPU) will do. Raises RaigenError as `minority_scores` does.

    >>> codes, embeddings = np.eye(40)[:, :1] + np.eye(40)[:, 1:2], np.random.default_rng(0).normal(size=(40, 3))
    >>> embeddings[:2] = [9, 9, 0]
    >>> scores = coherence_scores(codes, embeddings, n_top=2)
    >>> scores.frequency.tolist(), scores.distinctiveness.round(2).tolist(), scores.minority_score.round(2).tolist()
    ([0.05], [1.0], [0.81])
    """
    codes, directions = _checked(image_codes, embeddings)
    live = _live(codes)
    n_top = min(n_top, len(codes))
    whitened = _whitened(directions)
    shape = codes.shape[1], directions.shape[1]
    frequency, coherence, centroids = np.zeros(shape[0]), np.full(shape[0], np.nan), np.full(shape, np.nan)
    for neuron in np.flatnonzero(live):
        code = codes[:, neuron]
        top = strongest(code, n_top)
        frequency[neuron] = (code >= firing * code[top].mean()).mean()
        coherence[neuron] = max(0.0, clarity(whitened[top]))
        centroids[neuron] = whitened[top].sum(axis=0)
    length = np.linalg.norm(centroids, axis=1, keepdims=True)
    centroids /= np.where(length > 0, length, 1.0)
    score = np.full(shape[0], np.nan)
    score[live] = coherence[live] * np.log(1 / frequency[live]) / np.log(len(codes))
    return NeuronScores(frequency, coherence, score, centroids)


def strongest(codes: Float[np.ndarray, " image"], count: int) -> Int[np.ndarray, " top"]:
    """The indices of the `count` pictures with the highest code, strongest first; ties in the order of pictures."""
    return np.argsort(-codes, kind="stable")[:count]


def prune(scores: NeuronScores, distance: float = 0.003, percentile: float = 90.0) -> np.ndarray:
    """The neurons worth listing, by falling minority score: those that stand out, one of each kind.

    Only scores above the `percentile` of all neurons that fire are kept. Of these, walking from the highest (the lower
    index first among equals), one is dropped when its centroid is nearer than `distance`, a cosine distance in [0, 2],
    to one kept before. The published values are 0.003 and 90, for the published score.

    Returns indices, int64. Raises RaigenError when no neuron fires, or when all that fire have the same score.

    >>> prune(minority_scores(np.eye(3), np.array([[1.0, 0], [1, 0], [0, 1]])), percentile=50.0).tolist()
    [2]
    """
    live = scores.minority_score[scores.live]
    if len(live) == 0:
        raise RaigenError(f"scores: expected a neuron that fires; none of {len(scores.frequency)} does")
    if np.ptp(live) == 0:
        raise RaigenError(
            f"scores: expected neurons that differ; all {len(live)} that fire have minority score {live[0]:.3g}, so "
            "none stands out. Capture more pictures, or train with more neurons"
        )
    standing_out = scores.live & (np.nan_to_num(scores.minority_score) > np.percentile(live, percentile))
    order = np.argsort(-scores.minority_score, kind="stable")
    kept: list[int] = []
    for neuron in order[standing_out[order]]:
        gaps = 1 - scores.centroids[kept] @ scores.centroids[neuron]
        if (gaps >= distance).all():
            kept.append(int(neuron))
    return np.array(kept, dtype=np.int64)


def left_out(
    scores: NeuronScores, listed: Sequence[int], distance: float = 0.003, percentile: float = 90.0
) -> dict[int, str]:
    """Why each neuron that fires is not among the `listed` ones, which are the first that `prune` kept.

    Raises RaigenError when no neuron fires.

    >>> left_out(minority_scores(np.eye(3), np.array([[1.0, 0], [1, 0], [0, 1]])), [2], percentile=50.0)
    {0: 'stands out too little', 1: 'stands out too little'}
    """
    cut = np.percentile(scores.minority_score[scores.live], percentile)
    reasons = {}
    for neuron in np.flatnonzero(scores.live).tolist():
        if neuron in listed:
            continue
        better = [other for other in listed if scores.minority_score[other] >= scores.minority_score[neuron]]
        gaps = 1 - scores.centroids[better] @ scores.centroids[neuron]
        if scores.minority_score[neuron] <= cut:
            reasons[neuron] = "stands out too little"
        elif (gaps < distance).any():
            reasons[neuron] = f"like neuron {better[int(gaps.argmin())]}"
        else:
            reasons[neuron] = f"behind the first {len(listed)} in rank"
    return reasons


def _checked(image_codes: Any, embeddings: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, embeddings of length 1."""
    codes, rows = (np.asarray(array, dtype=np.float64) for array in (image_codes, embeddings))
    if len(codes) != len(rows):
        raise RaigenError(f"expected one embedding per picture; got codes of {len(codes)}, embeddings of {len(rows)}")
    if len(codes) < 2:
        raise RaigenError(f"expected at least 2 pictures, to compare one with the rest; got {len(codes)}")
    for name, array, holds, expected in (
        ("image codes", codes, np.isfinite(codes) & (codes >= 0), "finite numbers of 0 or more"),
        ("embeddings", rows, np.isfinite(rows), "finite numbers"),
    ):
        if not holds.all():
            row, column = np.argwhere(~holds)[0]
            raise RaigenError(f"{name}: expected {expected}; got {array[row, column]} for picture {row}, [{column}]")
    return codes, _unit(rows, "the embedding of a picture")


def _live(codes: Float[np.ndarray, "image neuron"]) -> Bool[np.ndarray, " neuron"]:
    """Which neurons fire on at least one picture."""
    live = np.asarray((codes > 0).any(axis=0))
    if not live.any():
        raise RaigenError(
            f"image codes: expected a neuron that fires; none of {codes.shape[1]} does on any of {len(codes)} "
            "pictures. Train longer: raigen train RUN --redo train --epochs 5"
        )
    return live


def _whitened(rows: Float[np.ndarray, "image width"]) -> Float[np.ndarray, "image width"]:
    """Centred, of the same variance in every direction, each of length 1."""
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(ledoit_wolf(centred, assume_centered=True)[0])
    values = np.maximum(values, values.max() * np.finfo(float).eps)  # no variance at all in some direction
    return _unit(centred @ vectors / np.sqrt(values), "the embedding of a picture, less their mean,")


def _unit(vectors: Float[np.ndarray, "*row width"], what: str) -> Float[np.ndarray, "*row width"]:
    """Each vector divided by its length."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not length.all():
        raise RaigenError(f"{what} has length 0 (row {int(np.argmin(length))}), so no direction to compare")
    return vectors / length


def _min_max(values: Float[np.ndarray, " neuron"]) -> Float[np.ndarray, " neuron"]:
    """Stretched to [0, 1]; all 0 when all are equal."""
    return (values - values.min()) / (np.ptp(values) or 1.0)
