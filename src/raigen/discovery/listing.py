"""Makes the list: which neurons are scored, which are listed, and why every other one is left out."""

import csv
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from raigen.config import DiscoverConfig
from raigen.discovery.codes import strongest
from raigen.discovery.scores import NeuronScores, coherence_scores, minority_scores, prune, standing_out
from raigen.errors import RaigenError
from raigen.runs.files import csv_text
from raigen.runs.run import Run

COLUMNS = ("neuron", "frequency", "distinctiveness", "minority_score", "listed", "left_out")


class LeftOut(NamedTuple):
    """Why a scored neuron is not listed: its score is too low, it is too much like the listed neuron `like`, too
    frequent, or there was no room left."""

    reason: Literal["low", "alike", "frequent", "no room"]
    like: int | None = None


class NeuronList(NamedTuple):
    """What one autoencoder's list is made of: the scores of all neurons, the listed neurons, best first, and the
    indices of their top images, strongest first."""

    scores: NeuronScores
    neurons: Int[np.ndarray, " listed"]
    top: Int[np.ndarray, "listed top"]

    @property
    def centroids(self) -> Float[np.ndarray, "listed width"]:
        """The centroids of the listed neurons."""
        return self.scores.centroids[self.neurons]


def list_neurons(
    codes: Float[np.ndarray, "image neuron"],
    shown: Bool[np.ndarray, " image"],
    views: Sequence[Float[np.ndarray, "image _"]],
    config: DiscoverConfig,
) -> NeuronList:
    """Scores the neurons, drops look-alikes and frequent ones, and lists the first `config.n_attributes`.

    `views` are the embeddings and the thumbnails of the images. Only images that are `shown` count. Raises RaigenError
    when no neuron fires often enough, or none stands out.
    """
    scores = eligible_scores(codes[shown], [view[shown] for view in views], config.min_images, config.score)
    neurons = prune(scores, *config.pruning(int(shown.sum())))[: config.n_attributes]
    count = min(config.n_top_images, len(codes))
    top = [strongest(np.where(shown, codes[:, neuron], -1), count) for neuron in neurons]
    return NeuronList(scores, neurons, np.array(top, int).reshape(len(neurons), count))  # also of an empty list


def eligible_scores(
    codes: Float[np.ndarray, "image neuron"], views: Sequence[np.ndarray], min_images: int, score: str
) -> NeuronScores:
    """The scores of the neurons that fire in at least `min_images` images; the others count as dead.

    `views` are the embeddings and the thumbnails of the images; the published score reads the embeddings only. Raises
    RaigenError when no neuron fires in that many images.
    """
    enough = (codes > 0).sum(0) >= min_images
    if not enough.any():
        raise RaigenError(
            f"no neuron fires in {min_images} images or more, of {len(codes)}: capture more images, or lower "
            "--min-images"
        )
    codes = codes * enough
    return minority_scores(codes, views[0]) if score == "published" else coherence_scores(codes, views)


def found_again(
    listed: Float[np.ndarray, "listed width"],
    other: NeuronScores,
    distance: float = 0.003,
    percentile: float = 90.0,
    max_frequency: float = 1.0,
) -> Bool[np.ndarray, " listed"]:
    """Which of these centroids of listed neurons another autoencoder has, too.

    It has one if a neuron of its own passes the `percentile` and `max_frequency` of `prune`, and its centroid is nearer
    than `distance`. Both autoencoders must be scored on the same images.

    >>> scores = minority_scores(np.eye(3), np.array([[1.0, 0], [1, 0], [0, 1]]))
    >>> found_again(np.array([[0.0, 1.0], [1.0, 0.0]]), scores, percentile=50.0).tolist()
    [True, False]
    """
    return near_any(listed, other.centroids[standing_out(other, percentile, max_frequency)], distance)


def near_any(
    centroids: Float[np.ndarray, "one width"], others: Float[np.ndarray, "other width"], distance: float
) -> Bool[np.ndarray, " one"]:
    """Which centroids are nearer than `distance`, a cosine distance, to one of the others. All False if there are no
    others."""
    return np.asarray((1 - centroids @ others.T < distance).any(axis=1))


def left_out(
    scores: NeuronScores,
    listed: Sequence[int],
    distance: float = 0.003,
    percentile: float = 90.0,
    max_frequency: float = 1.0,
) -> dict[int, LeftOut]:
    """Why each scored neuron is not among the `listed` ones, which are the first that `prune` returned.

    Raises RaigenError when no neuron fires.

    >>> left_out(minority_scores(np.eye(3), np.array([[1.0, 0], [1, 0], [0, 1]])), [2], percentile=50.0)[0]
    LeftOut(reason='low', like=None)
    """
    cut = np.percentile(scores.minority_score[scores.live], percentile)
    reasons = {}
    for neuron in np.flatnonzero(scores.live).tolist():
        if neuron in listed:
            continue
        better = [other for other in listed if scores.minority_score[other] >= scores.minority_score[neuron]]
        gaps = 1 - scores.centroids[better] @ scores.centroids[neuron]
        if scores.minority_score[neuron] <= cut:
            reasons[neuron] = LeftOut("low")
        elif (gaps < distance).any():
            reasons[neuron] = LeftOut("alike", better[int(gaps.argmin())])
        elif scores.frequency[neuron] > max_frequency:
            reasons[neuron] = LeftOut("frequent")
        else:
            reasons[neuron] = LeftOut("no room")
    return reasons


def sentence(why: LeftOut, n_listed: int, max_frequency: float) -> str:
    """The reason as neurons.csv has it.

    >>> sentence(LeftOut("alike", 12), 10, 0.03)
    'like neuron 12'
    """
    return {
        "low": "stands out too little",
        "alike": f"like neuron {why.like}",
        "frequent": f"not rare: frequency above {max_frequency:.3g}",
        "no room": f"behind the first {n_listed} in rank",
    }[why.reason]


def sentence_of_kind(text: str) -> str:
    """A reason from neurons.csv without the number of the neuron, so that equal reasons can be counted."""
    return "like one that is listed" if text.startswith("like neuron ") else text


def neurons_csv(listing: NeuronList, codes: Float[np.ndarray, "image neuron"], config: DiscoverConfig) -> str:
    """neurons.csv: one line per neuron, from the codes of the images that show anything.

    A neuron that fires in too few images has no scores; its frequency is the share of images in which it fires at all.
    """
    scores, listed, rows = listing.scores, listing.neurons.tolist(), []
    pruning, fired = config.pruning(len(codes)), (codes > 0).mean(0)
    reasons = left_out(scores, listed, *pruning)
    for neuron, scored in enumerate(scores.live):
        if scored:
            row: dict[str, object] = {name: f"{getattr(scores, name)[neuron]:.6g}" for name in COLUMNS[1:4]}
            why = sentence(reasons[neuron], len(listed), pruning.max_frequency) if neuron in reasons else ""
        else:
            row = {"frequency": f"{fired[neuron]:.6g}"}
            why = f"fires in fewer than {config.min_images} pictures" if fired[neuron] else "never fires"
        rows.append(row | {"neuron": neuron, "listed": int(neuron in listed), "left_out": why})
    return csv_text(COLUMNS, rows)


def neuron_rows(run: Run) -> list[dict[str, str]]:
    """The rows of neurons.csv. Raises RaigenError when the file is missing or no table."""
    text = run.read_text(run.neurons_path, "discover")
    with run.shaped(run.neurons_path, "discover"):
        return list(csv.DictReader(text.split("\n")))


def next_frequency(run: Run) -> float | None:
    """The smallest `max_frequency` that would list one more distinct neuron, rounded up to 0.01.

    None if no neuron was left out as too frequent, or the list is full already.
    """
    if len(run.attributes) >= run.config.discover.n_attributes:
        return None
    rows = neuron_rows(run)
    with run.shaped(run.neurons_path, "discover"):
        frequencies = [float(row["frequency"]) for row in rows if (row.get("left_out") or "").startswith("not rare")]
    return math.ceil(100 * min(frequencies)) / 100 if frequencies else None
