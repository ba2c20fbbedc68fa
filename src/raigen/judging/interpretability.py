"""How clear, redundant and polysemantic a neuron is, from embeddings alone: no label, no judge.

The three measures are from SemanticLens (Dreyer et al. 2025, "Mechanistic understanding and validation of large AI
models with SemanticLens"). Embeddings and centroids have length 1.
"""

import numpy as np
from jaxtyping import Float
from sklearn.cluster import KMeans

N_MEANINGS = 2
N_HALVES = 10  # random halvings, used when a cluster holds a single image


def clarity(embeddings: Float[np.ndarray, "image width"]) -> float:
    """The mean cosine between two of the images: 1 when all are alike. In [-1 / (images - 1), 1].

    Needs at least two images.

    >>> clarity(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).__round__(3)
    0.333
    """
    n = len(embeddings)
    return float(((embeddings.sum(0) ** 2).sum() - (embeddings**2).sum()) / (n * (n - 1)))


def redundancy(centroids: Float[np.ndarray, "neuron width"], neuron: int) -> float:
    """The cosine between the centroid of a neuron and the nearest other one: 1 when there is a twin. In [-1, 1].

    >>> redundancy(np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), 0)
    0.6
    """
    return float(np.delete(centroids @ centroids[neuron], neuron).max())


def polysemanticity(embeddings: Float[np.ndarray, "image width"], seed: int = 0) -> float:
    """How far apart the centers of the images' two clusters (k-means) point: 1 - their cosine, in [0, 2].

    It is 0 when there is one kind of image. A single odd image is not a second meaning: when a cluster holds fewer than
    two images, the measure is the mean over random halves instead. Needs at least four images.
    """
    fit = KMeans(N_MEANINGS, n_init=10, random_state=seed).fit(embeddings)  # type: ignore
    if np.bincount(fit.predict(embeddings), minlength=N_MEANINGS).min() >= 2:
        return _apart(fit.cluster_centers_)
    rng, half = np.random.default_rng(seed), len(embeddings) // 2
    orders = [rng.permutation(len(embeddings)) for _ in range(N_HALVES)]
    return float(np.mean([
        _apart(np.stack([embeddings[order[:half]].mean(0), embeddings[order[half:]].mean(0)])) for order in orders
    ]))  # fmt: skip


def _apart(centers: Float[np.ndarray, "2 width"]) -> float:
    one, other = centers / np.linalg.norm(centers, axis=1, keepdims=True)
    return float(1 - one @ other)
