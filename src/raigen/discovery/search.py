"""Ranks the hookpoints of a model by the neurons that small autoencoders find there, without any label."""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float
from PIL.Image import Image
from scipy.stats import rankdata

from raigen.config import DiscoverConfig, SearchConfig, TrainConfig
from raigen.diffusion.batches import batch_size_of
from raigen.diffusion.generation import Settings, defaults, generate_with_hooks, layouts
from raigen.diffusion.hookpoints import Hookpoint, candidates, find_hookpoint
from raigen.diffusion.hooks import TokenHook, TokenLayout
from raigen.diffusion.loading import load_pipeline
from raigen.discovery.codes import heatmaps, image_codes
from raigen.discovery.embeddings import Embedder, default_embedder, thumbnails
from raigen.discovery.listing import NeuronList, list_neurons, near_any
from raigen.discovery.samples import ActivationSample, SampledActivations
from raigen.errors import RaigenError
from raigen.runs.activations import TokenBatch
from raigen.runs.device import resolve_device
from raigen.runs.records import HookpointRating
from raigen.runs.steps import Step, Tick, timed
from raigen.sae.fit import fit
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.seeds import placed

N_LISTED = 10  # neurons of each list that count
N_COMPARED = 20  # neurons of each list, among which the other autoencoder's neurons are looked for
SAE_SEEDS = (0, 1)
NEURONS_PER_CHANNEL = 8  # half as many as in an audit
TRAINING_TOKENS = 100_000  # of each hookpoint, about
TOKENS_PER_BATCH = 128  # small batches, so that these tokens still give about 800 steps
CALIBRATION_TOKENS = 8192
RANKED_BY = ("score", "stability", "concentration")


class Reading(NamedTuple):
    """What one autoencoder found: the codes of the last step (the largest over the positions), its list of at most
    twenty neurons, how concentrated their heatmaps are, and the share of all neurons that are dead."""

    max_codes: Float[np.ndarray, "image neuron"]
    listing: NeuronList
    concentration: Float[np.ndarray, " listed"]
    dead_share: float


def search(model: str, config: SearchConfig | None = None) -> Generator[Step, None, list[HookpointRating]]:
    """Rates all candidate hookpoints of `model` on the same images; returns them, the best first.

    The images of `config.prompt` are made once, with hooks at all candidates. For each candidate two small autoencoders
    are trained, with seeds 0 and 1, and their neurons are listed as `discover` does. Yields progress. Raises
    RaigenError when the model or the embedder cannot be loaded or run, and when no hookpoint can be tried.
    """
    return ranked((yield from try_hookpoints(model, config or SearchConfig())))


def try_hookpoints(
    model: str, config: SearchConfig, viewers: Sequence[Callable[[list[Image]], object]] = ()
) -> Generator[Step, None, list[HookpointRating]]:
    """`search`, without ranking the result. Each of `viewers` is called with every batch of images."""
    pipe, device = load_pipeline(model, config.device, config), resolve_device(config.device)
    name = config.embedder or default_embedder(model)
    embedder = Embedder(name, device, offline=config.offline)  # fails before any image is made
    settings = defaults(pipe, model, config.capture(model))
    points, default = candidates(pipe), find_hookpoint(pipe)
    per_step = -(-TRAINING_TOKENS // (config.n_images * settings.num_inference_steps))
    sources: dict[Hookpoint, ActivationSample | RaigenError] = {
        point: ActivationSample(layout, per_step) if isinstance(layout, TokenLayout) else layout
        for point, layout in zip(points, layouts(pipe, config.prompt, settings, points), strict=True)
    }
    samples = {point: source for point, source in sources.items() if isinstance(source, ActivationSample)}
    embeddings: list[np.ndarray] = []
    looks: list[np.ndarray] = []
    ours = [lambda images: embeddings.append(embedder.images(images)), lambda images: looks.append(thumbnails(images))]
    yield from timed("images", _sampled(pipe, config, settings, samples, [*ours, *viewers]))
    del pipe  # the autoencoders may need its memory
    views = [np.concatenate(embeddings), np.concatenate(looks)]
    rated = yield from timed("layers", _rated(sources, default, views, device))
    if not any(rating.readings for rating in rated):
        first = rated[0]
        raise RaigenError(f"hookpoint: none of {len(rated)} candidates can be tried; {first.path}: {first.reason}")
    return rated


def _sampled(
    pipe: DiffusionPipeline, config: SearchConfig, settings: Settings, samples: Mapping[Hookpoint, ActivationSample],
    viewers: Sequence[Callable[[list[Image]], object]],
) -> Generator[Tick, None, None]:  # fmt: skip
    """Makes the images once, and samples the activations of all hookpoints meanwhile."""
    seeds = range(config.base_seed, config.base_seed + config.n_images)

    def make(batch: Sequence[int]) -> list[Image]:
        for sample in samples.values():
            sample.begin(batch)
        hooks = [TokenHook(point, sample.layout, sample, len(batch)) for point, sample in samples.items()]
        return generate_with_hooks(pipe, config.prompt, batch, settings, hooks)

    for batch, images in batch_size_of(pipe, settings, config.batch_size).made(seeds, make):
        for view in viewers:
            view(images)
        for point, sample in samples.items():
            sample.end(point.path)
        yield Tick(batch[-1] + 1 - config.base_seed, len(seeds))


def _rated(
    sources: Mapping[Hookpoint, ActivationSample | RaigenError], default: Hookpoint,
    views: Sequence[np.ndarray], device: torch.device,
) -> Generator[Tick, None, list[HookpointRating]]:  # fmt: skip
    """Trains and reads the autoencoders of each hookpoint. An error there is the reason why it has no readings."""
    rated = []
    for done, (point, source) in enumerate(sources.items()):
        yield Tick(done, len(sources), point.path)
        try:
            if isinstance(source, RaigenError):
                raise source
            kept = source.kept()
            readings = [reading(kept, views, seed, device) for seed in SAE_SEEDS]
            rated.append(rating_of(point.path, point == default, readings))
        except RaigenError as error:
            rated.append(HookpointRating(point.path, point == default, reason=str(error)))
    yield Tick(len(sources), len(sources))
    return rated


def reading(kept: SampledActivations, views: Sequence[np.ndarray], sae_seed: int, device: torch.device) -> Reading:
    """Trains an autoencoder on the tokens and lists its neurons by the default score, from the images' `views`.

    Frequent neurons are listed, too: among few images hardly any neuron is rare enough for `discover` to list it. Black
    images count for nothing. Raises RaigenError when no neuron fires often enough.
    """
    config = DiscoverConfig(max_frequency=1.0, n_attributes=N_COMPARED)
    shown, width = np.asarray(views[-1].any(axis=1)), kept.last.shape[2]
    train = TrainConfig(d_sae=NEURONS_PER_CHANNEL * width, tokens_per_batch=TOKENS_PER_BATCH, sae_seed=sae_seed)
    sae = trained(kept, train, device)
    chunks = [image_codes(sae, chunk.float(), config.score) for chunk in kept.last.split(64)]
    max_codes = torch.cat(chunks).cpu().numpy() * shown[:, None]
    listing = list_neurons(max_codes, shown, views, config)
    maps = [heatmaps(sae, kept.last[images].float(), neuron).double().numpy()
            for neuron, images in zip(listing.neurons.tolist(), listing.top, strict=True)]  # fmt: skip
    concentrated = np.array([concentration(each) for each in maps])
    return Reading(max_codes, listing, concentrated, float((max_codes == 0).all(axis=0).mean()))


def trained(kept: SampledActivations, config: TrainConfig, device: torch.device) -> MatryoshkaSAE:
    """An autoencoder, trained on each token once, in random order."""
    sae = placed(MatryoshkaSAE(config.sae_config(kept.tokens.shape[1])), device)
    order = torch.randperm(len(kept.tokens), generator=torch.Generator().manual_seed(config.sae_seed))
    batches = order.chunk(-(-len(order) // config.batch_of(len(order))))
    for _ in fit(sae, (TokenBatch(kept.tokens[rows], kept.images[rows]) for rows in batches), config):
        pass
    sae.calibrate(kept.tokens[order[:CALIBRATION_TOKENS]].float().to(device))
    return sae.eval()


def concentration(maps: Float[np.ndarray, "image position"]) -> float:
    """On how few positions heatmaps lie: 1 minus the share of positions that a heatmap fills, the mean over images.

    A heatmap z, 0 or more, fills (sum z)^2 / sum z^2 positions. That is all of them if z is the same everywhere.

    >>> concentration(np.array([[1.0, 1, 1, 1], [0, 0, 2, 0]]))
    0.375
    """
    maps = maps[maps.any(axis=1)]
    filled = maps.sum(axis=1) ** 2 / (maps**2).sum(axis=1)
    return float(np.mean(1 - filled / maps.shape[1]))


def rating_of(path: str, is_default: bool, readings: Sequence[Reading]) -> HookpointRating:
    """The rating of a hookpoint, not ranked yet: each measure is the mean over its autoencoders."""
    lists = [one.listing for one in readings]
    firsts = [one.centroids[:N_LISTED] for one in lists]
    stability = [shared(first, other.centroids) for first, own in zip(firsts, lists, strict=True)
                 for other in lists if other is not own]  # fmt: skip
    scores = [one.scores.minority_score[one.neurons[:N_LISTED]].sum() / N_LISTED for one in lists]
    concentrated = [one.concentration[:N_LISTED].mean() if len(one.concentration) else 0 for one in readings]
    return HookpointRating(
        path,
        is_default,
        score=float(np.mean(scores)),
        concentration=float(np.mean(concentrated)),
        stability=float(np.mean(stability)),
        dead_share=float(np.mean([one.dead_share for one in readings])),
        n_listed=float(np.mean([min(N_LISTED, len(one.neurons)) for one in lists])),
        readings=readings,
    )


def shared(centroids: Float[np.ndarray, "listed width"], others: Float[np.ndarray, "other width"]) -> float:
    """The share of centroids nearer to one of `others` than two neurons of one list may be; 0 if there are none.

    >>> shared(np.eye(2), np.array([[0.8, 0.6]]))
    1.0
    """
    found = near_any(centroids, others, DiscoverConfig().pruning(1).distance)
    return float(found.mean()) if len(found) else 0.0


def ranked(ratings: Sequence[HookpointRating]) -> list[HookpointRating]:
    """The best first: by the mean of the ranks in score, stability and concentration, then by score.

    Equal values share the mean of their ranks. Hookpoints that could not be tried come last.
    """
    tried = [rating for rating in ratings if rating.reason is None]
    ranks = np.sum([rankdata([-getattr(rating, name) for rating in tried]) for name in RANKED_BY], axis=0)
    order = sorted(range(len(tried)), key=lambda index: (ranks[index], -tried[index].score))
    best_first = [tried[index]._replace(rank=rank) for rank, index in enumerate(order, 1)]
    return best_first + [rating for rating in ratings if rating.reason is not None]
