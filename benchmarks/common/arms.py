"""The arms of the benchmark: methods that find units in the images of a prompt, and order them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from benchmarks.common.cells import Cell, Codes
from benchmarks.common.measures import Listing
from raigen.config import DiscoverConfig
from raigen.discovery.scores import NeuronScores, coherence_scores, minority_scores, prune
from raigen.world.truth import RARE_SEEN_AT_MOST as RARE_AT_MOST

N_LISTED = 50
MIN_IMAGES = 10


def published(codes: Float[np.ndarray, "image neuron"], embeddings: np.ndarray, *, min_images: int = 1,
              distance: float = 0.003, percentile: float = 90.0) -> Listing:  # fmt: skip
    """The published minority score with its pruning."""
    scores = minority_scores(eligible(codes, min_images), embeddings)
    return listing(codes, prune(scores, distance, percentile))


def coherent(codes: np.ndarray, *views: np.ndarray, max_frequency: float | None = None, distance: float | None = None,
             **options) -> Listing:  # fmt: skip
    """The score of raigen: coherence of the top images times the rarity of similar images."""
    scores = coherence_scores(eligible(codes, MIN_IMAGES), views, **options)
    pruning = DiscoverConfig(distance=distance, max_frequency=max_frequency).pruning(len(codes))
    neurons = prune(scores, *pruning)[:N_LISTED]
    return Listing(codes[:, neurons], scores.frequency[neurons])


def by_part(codes: np.ndarray, embeddings: np.ndarray, part: str, seed: int) -> Listing:
    """Neurons ordered by one part of the score alone, or at random; pruned by centroid as published."""
    codes = eligible(codes, MIN_IMAGES)
    scores = minority_scores(codes, embeddings)
    alone = {
        "random": np.random.default_rng(seed).random(len(scores.frequency)),
        "frequency": 1 - scores.frequency,
        "distinctiveness": scores.distinctiveness,
    }[part]
    alone = np.where(scores.live, alone, np.nan)
    return listing(codes, prune(NeuronScores(scores.frequency, scores.distinctiveness, alone, scores.centroids),
                                percentile=0.0))  # fmt: skip


def clip_clusters(embeddings: np.ndarray, seed: int, k: int = 50) -> Listing:
    """k-means on CLIP embeddings, smallest clusters first; a unit is active where an image is near the center."""
    model = KMeans(k, random_state=seed)  # one run of k-means++, the default
    sizes = np.bincount(model.fit_predict(embeddings), minlength=k)
    order = np.argsort(sizes, kind="stable")[:N_LISTED]
    return Listing(-model.transform(embeddings)[:, order], sizes[order] / len(embeddings))


def clip_directions(embeddings: np.ndarray) -> Listing:
    """Principal directions of CLIP embeddings, both signs, by the variance they explain."""
    width = min(N_LISTED // 2, *embeddings.shape)
    scores = PCA(width, svd_solver="full").fit_transform(embeddings)
    both = np.stack([scores, -scores], -1).reshape(len(scores), -1)
    return Listing(both, np.full(both.shape[1], np.nan))


def clip_outliers(embeddings: np.ndarray, neighbors: int = 10) -> Listing:
    """Images far from their nearest neighbors in CLIP space; each is a unit, active in similar images."""
    distances, near = NearestNeighbors(n_neighbors=neighbors + 1).fit(embeddings).kneighbors(embeddings)
    chosen, covered = [], set()
    for image in np.argsort(-distances[:, -1], kind="stable"):
        if image not in covered:
            chosen.append(image)
            covered.update(near[image].tolist())
        if len(chosen) == N_LISTED:
            break
    similarity = embeddings @ embeddings[chosen].T
    return Listing(similarity, np.full(len(chosen), np.nan))


def look_components(looks: Float[np.ndarray, "image width"], seed: int) -> Listing:
    """FastICA of thumbnails, in as many principal directions as the score uses; the most skewed first."""
    width = min(64, max(2, len(looks) // 16))
    whitened = PCA(width, whiten=True, random_state=seed).fit_transform(looks)
    model = FastICA(width, whiten="unit-variance", max_iter=200, tol=1e-3, random_state=seed)
    sources = np.asarray(model.fit_transform(whitened))
    skew = ((sources - sources.mean(0)) ** 3).mean(0) / sources.std(0) ** 3
    order = np.argsort(-abs(skew), kind="stable")[:N_LISTED]
    return Listing(sources[:, order] * np.sign(skew[order]), np.full(len(order), np.nan))


def told(cell: Cell, seed: int, folds: int = 5) -> Listing:
    """An upper bound that knows the truth: for each rare value, a ridge regression on the activations of all positions,
    applied to held-out images; the most frequent value first. No list without labels can be expected to do better."""
    rates = cell.shows.mean(0)
    rare = np.flatnonzero((rates > 0) & (rates <= RARE_AT_MOST))
    rare = rare[np.argsort(-rates[rare], kind="stable")]
    rows = cell.mid.reshape(len(cell.mid), -1).astype(np.float64)
    rows = (rows - rows.mean(0)) / rows.std()
    split = KFold(folds, shuffle=True, random_state=seed)
    scores = cross_val_predict(Ridge(alpha=100.0), rows, cell.shows[:, rare].astype(np.float64), cv=split)
    return Listing(np.asarray(scores), rates[rare])


def as_codes(tokens: Float[np.ndarray, "image token unit"], k: int) -> Float[np.ndarray, "image unit"]:
    """Image codes of signed units: both signs, centered and scaled; on average, the k largest of each token stay."""
    spread = tokens.std((0, 1))
    scaled = (tokens - tokens.mean((0, 1))) / np.maximum(spread, 1e-9)
    both = np.concatenate([scaled, -scaled], -1)
    floor = np.quantile(both[:: max(1, len(both) // 200)], 1 - k / both.shape[-1])
    return np.where(both > floor, both, 0).mean(1)


def independent_components(mid: Float[np.ndarray, "image token d_in"], seed: int) -> np.ndarray:
    """FastICA of tokens: [image, token, component]."""
    flat = mid.reshape(-1, mid.shape[-1])
    rows = np.random.default_rng(seed).choice(len(flat), min(len(flat), 20_000), replace=False)
    model = FastICA(64, whiten="unit-variance", max_iter=100, tol=1e-2, random_state=seed).fit(flat[rows])
    return model.transform(flat).reshape(*mid.shape[:2], -1)


def arms_of(cell: Cell, codes: dict[str, Codes], k: int, seed: int) -> dict[str, Callable[[], Listing]]:
    """Every arm by its name; `codes` of the autoencoders `matryoshka`, `batchtopk` and `untrained`."""
    clip, looks = cell.embeddings["clip"], cell.embeddings["pixels"]
    coarse = {name: c.mean[:, : c.n_coarse] for name, c in codes.items()}
    ours = codes["matryoshka"]
    channels = as_codes(cell.mid, k)
    components = as_codes(independent_components(cell.mid, seed), k)
    return {
        "coherent": lambda: coherent(ours.peak, clip, looks),
        "coherent, to 5 %": lambda: coherent(ours.peak, clip, looks, max_frequency=longer(len(looks))),
        "coherent, to 10 %": lambda: coherent(ours.peak, clip, looks, max_frequency=0.1),
        "coherent, no limit": lambda: coherent(ours.peak, clip, looks, max_frequency=1.0),
        "coherent, CLIP alone": lambda: coherent(ours.peak, clip),
        "coherent, looks alone": lambda: coherent(ours.peak, looks),
        "coherent, coarse neurons": lambda: coherent(ours.peak[:, : ours.n_coarse], clip, looks),
        "coherent, plain BatchTopK": lambda: coherent(codes["batchtopk"].peak, clip, looks),
        "coherent, untrained autoencoder": lambda: coherent(codes["untrained"].peak, clip, looks),
        "coherent, raw channels": lambda: coherent(channels, clip, looks),
        "coherent, ICA": lambda: coherent(components, clip, looks),
        "random order": lambda: by_part(coarse["matryoshka"], clip, "random", seed),
        "frequency only": lambda: by_part(coarse["matryoshka"], clip, "frequency", seed),
        "distinctiveness only": lambda: by_part(coarse["matryoshka"], clip, "distinctiveness", seed),
        "published": lambda: published(coarse["matryoshka"], clip),
        "published, ten images": lambda: published(coarse["matryoshka"], clip, min_images=MIN_IMAGES),
        "plain BatchTopK": lambda: published(coarse["batchtopk"], clip, min_images=MIN_IMAGES),
        "untrained autoencoder": lambda: published(coarse["untrained"], clip, min_images=MIN_IMAGES),
        "raw channels": lambda: published(channels, clip, min_images=MIN_IMAGES),
        "ICA": lambda: published(components, clip, min_images=MIN_IMAGES),
        "CLIP clusters": lambda: clip_clusters(clip, seed),
        "CLIP directions": lambda: clip_directions(clip),
        "ICA of looks": lambda: look_components(looks, seed),
        "CLIP outliers": lambda: clip_outliers(clip),
        "told the truth": lambda: told(cell, seed),
    }


def longer(n_images: int) -> float:
    """The frequency at which longer lists end: 5 %, or the default for this number of images if that is higher."""
    return max(0.05, DiscoverConfig().pruning(n_images).max_frequency)


def eligible(codes: np.ndarray, min_images: int) -> np.ndarray:
    """The codes, with 0 for neurons that fire in fewer than `min_images` images."""
    return codes * ((codes > 0).sum(0) >= min_images)


def listing(codes: np.ndarray, neurons: np.ndarray) -> Listing:
    """The first of these neurons; how often they fire is the estimate of their rate."""
    neurons = neurons[:N_LISTED]
    return Listing(codes[:, neurons], (codes[:, neurons] > 0).mean(0))
