"""Ranks the hookpoints of a model by what small autoencoders find there, without any label."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float, Int
from PIL.Image import Image
from scipy.stats import rankdata
from torch import Tensor

from raigen.config import DiscoverConfig, SearchConfig, TrainConfig
from raigen.diffusion.generation import Settings, defaults, generate_with_hooks, layouts
from raigen.diffusion.hookpoints import Hookpoint, candidates, find_hookpoint
from raigen.diffusion.hooks import TokenHook, TokenLayout
from raigen.diffusion.loading import load_pipeline, resolve_device
from raigen.discovery.discover import eligible_scores
from raigen.discovery.embeddings import Embedder, default_embedder, thumbnails
from raigen.discovery.samples import ActivationSample, SampledActivations
from raigen.discovery.scores import NeuronScores, near_any, prune, strongest
from raigen.errors import RaigenError
from raigen.runs.activations import TokenBatch
from raigen.runs.records import HookpointRating
from raigen.runs.steps import Step, Tick, mapped
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.train import fit, placed

T = TypeVar("T")
N_LISTED = 10  # neurons of each autoencoder that count
N_COMPARED = 20  # of each list, in which the other autoencoder's are looked for
SAE_SEEDS = (0, 1)
NEURONS_PER_CHANNEL = 8  # half of what an audit takes
TRAINING_TOKENS = 100_000  # kept of each hookpoint, about
TOKENS_PER_BATCH = 128  # few, so that few tokens still make some 800 steps
CALIBRATION_TOKENS = 8192
RANKED_BY = ("score", "stability", "concentration")


class Reading(NamedTuple):
    """What one autoencoder found: the codes of the last step (the largest over the places), the scores of all neurons,
    those listed, at most twenty, how concentrated the heatmaps of these are, and the share of neurons that is dead."""

    max_codes: Float[np.ndarray, "image neuron"]
    scores: NeuronScores
    listed: Int[np.ndarray, " listed"]
    concentration: Float[np.ndarray, " listed"]
    dead_share: float

    @property
    def centroids(self) -> Float[np.ndarray, "listed width"]:
        """Of the listed neurons."""
        return self.scores.centroids[self.listed]


class TriedHookpoint(NamedTuple):
    """A hookpoint and what each autoencoder found there; or why it could not be tried."""

    path: str
    is_default: bool
    readings: list[Reading]
    reason: str | None = None


def search(model: str, config: SearchConfig | None = None) -> Generator[Step, None, list[HookpointRating]]:
    """Rates all candidate hookpoints of `model` on the same images; returns them, the best first.

    The images of `config.prompt` are made once, while all candidates are listened to. For each, two small
    autoencoders are trained, with seeds 0 and 1, and their neurons listed as `discover` does. Yields progress. Raises
    RaigenError when the model or the embedder cannot be loaded or run, and when no hookpoint can be tried.
    """
    tried = yield from try_hookpoints(model, config or SearchConfig(), lambda images: None)
    return ranked([rating_of(each) for each in tried])


def try_hookpoints(
    model: str, config: SearchConfig, see: Callable[[list[Image]], object]
) -> Generator[Step, None, list[TriedHookpoint]]:
    """What a search rates; `see` is shown the images as they are made."""
    pipe = load_pipeline(model, config.device, config)
    device = resolve_device(config.device)
    views = Views(Embedder(config.embedder or default_embedder(model), device))  # fails before anything is made
    settings = defaults(pipe, model, config.capture(model))
    points, default = candidates(pipe), find_hookpoint(pipe)
    found = dict(zip(points, layouts(pipe, config.prompt, settings, points), strict=True))
    reasons = {point.path: str(layout) for point, layout in found.items() if isinstance(layout, RaigenError)}
    per_step = -(-TRAINING_TOKENS // (config.n_images * settings.num_inference_steps))
    ears = {
        point: ActivationSample(layout, per_step) for point, layout in found.items() if isinstance(layout, TokenLayout)
    }
    yield from _timed("images", _listen(pipe, config, settings, ears, (views.see, see)))
    del pipe  # the autoencoders may need its memory
    tried = yield from _timed("layers", _tried(points, default, ears, reasons, views, resolve_device(config.device)))
    if not any(each.readings for each in tried):
        first = tried[0]
        raise RaigenError(f"hookpoint: none of {len(tried)} candidates can be tried; {first.path}: {first.reason}")
    return tried


class Views:
    """How the images look and what they mean, without the images; wholly black ones show nothing."""

    def __init__(self, embedder: Embedder):
        self.embedder = embedder
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def see(self, images: list[Image]) -> None:
        """Takes the next images in."""
        self.parts.append((self.embedder.images(images), thumbnails(images)))

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """The embeddings and the looks of all images."""
        meant, seen = zip(*self.parts, strict=True)
        return np.concatenate(meant), np.concatenate(seen)


def _listen(
    pipe: DiffusionPipeline, config: SearchConfig, settings: Settings, ears: Mapping[Hookpoint, ActivationSample],
    sights: Sequence[Callable[[list[Image]], object]],
) -> Generator[Tick, None, None]:  # fmt: skip
    """Makes the images once, with all ears open."""
    seeds = range(config.base_seed, config.base_seed + config.n_images)
    for start in range(0, len(seeds), config.batch_size):
        batch = seeds[start : start + config.batch_size]
        for ear in ears.values():
            ear.begin(batch)
        listeners = [TokenHook(point, ear.layout, ear, len(batch)) for point, ear in ears.items()]
        images = generate_with_hooks(pipe, config.prompt, batch, settings, listeners)
        for see in sights:
            see(images)
        for point, ear in ears.items():
            ear.end(point.path)
        yield Tick(start + len(batch), len(seeds))


def _tried(
    points: Sequence[Hookpoint], default: Hookpoint, ears: Mapping[Hookpoint, ActivationSample],
    reasons: Mapping[str, str], views: Views, device: torch.device,
) -> Generator[Tick, None, list[TriedHookpoint]]:  # fmt: skip
    """Trains and reads the autoencoders of each hookpoint; whatever fails there is its reason."""
    found = []
    for done, point in enumerate(points):
        yield Tick(done, len(points), point.path)
        read, reason = [], reasons.get(point.path)
        if reason is None:
            try:
                kept = ears[point].kept()
                read = [reading(kept, views.all(), seed, device) for seed in SAE_SEEDS]
            except RaigenError as error:
                reason = str(error)
        found.append(TriedHookpoint(point.path, point == default, read, reason))
    yield Tick(len(points), len(points))
    return found


def reading(kept: SampledActivations, views: Sequence[np.ndarray], sae_seed: int, device: torch.device) -> Reading:
    """Trains an autoencoder on the tokens and lists its neurons by the default score, from the images' `views`.

    However frequent: among few images hardly any neuron is rare enough for `discover` to list it, and an empty list
    tells nothing. Wholly black images, which show nothing, are left out. Raises RaigenError when no neuron fires
    often enough.
    """
    config, shown, width = DiscoverConfig(max_frequency=1.0), np.asarray(views[-1].any(axis=1)), kept.last.shape[2]
    train = TrainConfig(d_sae=NEURONS_PER_CHANNEL * width, tokens_per_batch=TOKENS_PER_BATCH, sae_seed=sae_seed)
    sae = trained(kept, train, device)
    with torch.inference_mode():
        max_codes = torch.cat([sae.max_codes(chunk.float()) for chunk in kept.last.split(64)]).cpu().numpy()
    max_codes = max_codes * shown[:, None]
    scores = eligible_scores(max_codes[shown], [view[shown] for view in views], config.min_images, config.score)
    listed = prune(scores, *config.pruning(int(shown.sum())))[:N_COMPARED]
    top = [strongest(max_codes[:, neuron], config.n_top_images) for neuron in listed]
    heatmaps = [_heatmaps(sae, kept.last[images], neuron) for neuron, images in zip(listed.tolist(), top, strict=True)]
    concentrated = np.array([concentration(maps) for maps in heatmaps])
    return Reading(max_codes, scores, listed, concentrated, float((max_codes == 0).all(axis=0).mean()))


def trained(kept: SampledActivations, config: TrainConfig, device: torch.device) -> MatryoshkaSAE:
    """An autoencoder that has seen each token once, in random order."""
    sae = placed(MatryoshkaSAE(config.sae_config(kept.tokens.shape[1])), device)
    order = torch.randperm(len(kept.tokens), generator=torch.Generator().manual_seed(config.sae_seed))
    batches = order.chunk(-(-len(order) // config.batch_of(len(order))))
    for _ in fit(sae, (TokenBatch(kept.tokens[rows], kept.images[rows]) for rows in batches), config):
        pass
    sae.calibrate(kept.tokens[order[:CALIBRATION_TOKENS]].float().to(device))
    return sae.eval()


def concentration(heatmaps: Float[np.ndarray, "image place"]) -> float:
    """On how few places heatmaps of at least 0 lie: 1 less the share of places they fill, in the mean over images.

    The places that z fills count as (sum z)^2 / sum z^2: as many as there are when z is the same on all of them.

    >>> concentration(np.array([[1.0, 1, 1, 1], [0, 0, 2, 0]]))
    0.375
    """
    heatmaps = heatmaps[heatmaps.any(axis=1)]
    filled = heatmaps.sum(axis=1) ** 2 / (heatmaps**2).sum(axis=1)
    return float(np.mean(1 - filled / heatmaps.shape[1]))


def rating_of(tried: TriedHookpoint) -> HookpointRating:
    """The measures of a hookpoint, each the mean over its autoencoders."""
    if not tried.readings:
        return HookpointRating(tried.path, tried.is_default, reason=tried.reason)
    read = tried.readings
    pairs = [(one, other) for one in read for other in read if one is not other]
    return HookpointRating(
        tried.path,
        tried.is_default,
        score=float(np.mean([one.scores.minority_score[one.listed[:N_LISTED]].sum() / N_LISTED for one in read])),
        concentration=float(np.mean([one.concentration[:N_LISTED].mean() if len(one.listed) else 0 for one in read])),
        stability=float(np.mean([shared(one.centroids[:N_LISTED], other.centroids) for one, other in pairs])),
        dead_share=float(np.mean([one.dead_share for one in read])),
        n_listed=float(np.mean([min(N_LISTED, len(one.listed)) for one in read])),
    )


def shared(centroids: Float[np.ndarray, "listed width"], others: Float[np.ndarray, "other width"]) -> float:
    """The share of centroids that are nearer to one of the others than two neurons of one list may be; 0 of none.

    >>> shared(np.eye(2), np.array([[0.8, 0.6]]))
    1.0
    """
    found = near_any(centroids, others, DiscoverConfig().pruning(1).distance)
    return float(found.mean()) if len(found) else 0.0


def ranked(ratings: Sequence[HookpointRating]) -> list[HookpointRating]:
    """The best first: by the mean of the ranks in score, stability and concentration, then by score.

    Equal values share the mean of their ranks. Those that could not be tried come last.
    """
    tried = [rating for rating in ratings if rating.reason is None]
    ranks = np.sum([rankdata([-getattr(rating, name) for rating in tried]) for name in RANKED_BY], axis=0)
    order = sorted(range(len(tried)), key=lambda index: (ranks[index], -tried[index].score))
    best_first = [tried[index]._replace(rank=rank) for rank, index in enumerate(order, 1)]
    return best_first + [rating for rating in ratings if rating.reason is not None]


def _heatmaps(sae: MatryoshkaSAE, last: Float[Tensor, "image place d_in"], neuron: int) -> np.ndarray:
    with torch.inference_mode():
        found = [sae.encode(tokens.float().to(sae.W_enc.device))[:, neuron].cpu() for tokens in last]
    return torch.stack(found).double().numpy()


def _timed(stage: str, ticks: Generator[Tick, None, T]) -> Generator[Step, None, T]:
    """A stage of the search as steps."""
    started = time.monotonic()
    yield Step(stage, "begun")
    result = yield from mapped(ticks, lambda tick: Step(stage, "running", tick))
    yield Step(stage, "finished", seconds=time.monotonic() - started)
    return result
