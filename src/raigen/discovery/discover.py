"""Scores every neuron, drops look-alikes, and lists the rarest and most distinct."""

import json
from collections.abc import Callable, Generator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image

from raigen.config import CaptureConfig, DiscoverConfig
from raigen.discovery.codes import heatmaps, stored_codes, strongest
from raigen.discovery.embeddings import LOOKS, Embedder, default_embedder, thumbnails
from raigen.discovery.hierarchy import Relation, relations_of
from raigen.discovery.listing import NeuronList, eligible_scores, found_again, list_neurons, neurons_csv
from raigen.runs.activations import ActivationStore
from raigen.runs.device import resolve_device
from raigen.runs.files import write_tensors, write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.sae.model import MatryoshkaSAE

EMBED_BATCH = 64  # images
View = Callable[[Sequence[Image]], np.ndarray]  # one row for each image


def discover(run: Run, config: DiscoverConfig) -> Generator[Tick, None, Outcome]:
    """Lists the neurons with the highest minority score, each with the images in which it is strongest.

    Codes are taken at the last denoising step; the largest over the positions of an image counts. The published score
    takes the mean instead, and the coarse neurons only. Neurons that fire in fewer than `min_images` images are neither
    scored nor listed. If there are autoencoders of other seeds, `found_by` counts how many of them have a finding. If
    fine neurons have codes, kin.jsonl says which of them fire within a listed coarse neuron, and within which coarse
    neuron a listed fine one fires. Black images count for nothing.

    Writes codes, embeddings, neurons.csv, heatmaps and attributes.json. Yields progress in images.

    Raises RaigenError when activations, autoencoder or images are missing or broken, and when no neuron stands out.
    """
    capture, samples, shown = run.config.capture, run.samples(), run.is_shown()
    store, device = ActivationStore(run.activations_dir), resolve_device(capture.device)
    sae, *others = (MatryoshkaSAE.load(folder).to(device) for folder in (run.sae_dir, *run.seed_dirs()))
    yield Tick(0, len(samples), "codes")
    codes = stored_codes(store, sae, config.score) * shown[:, None]  # black images show nothing
    embedder = Embedder(config.embedder or default_embedder(capture.model), device, offline=capture.offline)
    views = yield from views_of(run, samples, (embedder.images, second_view(config, capture)))
    listing = list_neurons(codes, shown, views, config)
    found_by = None
    if others:
        other_codes = [stored_codes(store, other, config.score) for other in others]
        found_by = 1 + np.sum([_found_by(listing, each, shown, views, config) for each in other_codes], axis=0)
    run.write_attributes(attributes_of(listing, samples, found_by))
    run.write_attributes([], run.aside_path)
    write_tensors(run.codes_path, {"image_codes": torch.from_numpy(codes)})
    write_tensors(run.embeddings_path, {"embeddings": torch.from_numpy(views[0])}, {"embedder": embedder.name})
    write_tensors(run.heatmaps_path, {"heatmaps": heatmaps_of(listing, store, sae)})
    write_text(run.neurons_path, neurons_csv(listing, codes[shown], config))
    outputs = [run.codes_path, run.embeddings_path, run.heatmaps_path, run.neurons_path, run.attributes_path,
               run.aside_path]  # fmt: skip
    if codes.shape[1] > sae.group_bounds[1]:
        kin = relations_of(codes[shown], sae.group_bounds[1], listing.neurons.tolist())
        write_text(run.kin_path, kin_lines(kin, codes, config.n_top_images, samples))
        outputs.append(run.kin_path)
    facts = {
        "embedder": embedder.name,
        "second_view": config.second_view,
        "scoring_step": store.step_indices[-1],
        "n_neurons": codes.shape[1],
        "n_live": int((codes > 0).any(0).sum()),
        "n_scored": int(listing.scores.live.sum()),
        "n_listed": len(listing.neurons),
        "n_black": int((~shown).sum()),
    }
    return Outcome(outputs, facts)


def second_view(config: DiscoverConfig, capture: CaptureConfig) -> View:
    """What sees images in the second view: thumbnails, or another model."""
    if config.second_view == LOOKS:
        return thumbnails
    return Embedder(config.second_view, resolve_device(capture.device), offline=capture.offline).images


def views_of(
    run: Run, samples: Sequence[Sample], views: Sequence[View], stage: str = "capture"
) -> Generator[Tick, None, list[Float[np.ndarray, "image _"]]]:
    """The images, which `stage` made, in each view. Every image is read once."""
    found: list[list[np.ndarray]] = [[] for _ in views]
    for start in range(0, len(samples), EMBED_BATCH):
        images = [run.read_image(sample, stage) for sample in samples[start : start + EMBED_BATCH]]
        for rows, view in zip(found, views, strict=True):
            rows.append(view(images))
        yield Tick(start + len(images), len(samples), "embeddings")
    return [np.concatenate(rows) for rows in found]


def heatmaps_of(
    listing: NeuronList, store: ActivationStore, sae: MatryoshkaSAE
) -> Float[torch.Tensor, "neuron image row column"]:
    """The codes of each listed neuron over the grid of each of its top images, 0 or more, at the last step."""
    step, top = store.step_indices[-1], listing.top
    if not len(top):
        return torch.zeros(*top.shape, *store.grid)
    maps = [heatmaps(sae, store.images(images, step), neuron)
            for neuron, images in zip(listing.neurons.tolist(), top.tolist(), strict=True)]  # fmt: skip
    return torch.stack(maps).unflatten(-1, store.grid)


def attributes_of(
    listing: NeuronList, samples: Sequence[Sample], found_by: Int[np.ndarray, " listed"] | None
) -> list[RareAttribute]:
    """The entries of the list, not named yet."""
    scores = listing.scores
    return [
        RareAttribute(
            rank=place + 1,
            neuron=neuron,
            minority_score=float(scores.minority_score[neuron]),
            frequency=float(scores.frequency[neuron]),
            distinctiveness=float(scores.distinctiveness[neuron]),
            top_images=tuple(samples[index].file for index in listing.top[place]),
            found_by=None if found_by is None else int(found_by[place]),
        )
        for place, neuron in enumerate(listing.neurons.tolist())
    ]


def kin_lines(
    found: Sequence[Relation], codes: Float[np.ndarray, "image neuron"], n_top: int, samples: Sequence[Sample]
) -> str:
    """kin.jsonl: a line for each relation of a listed neuron, with the files of the images in which its relative is
    strongest."""
    lines = []
    for kin in found:
        top = [index for index in strongest(codes[:, kin.other], n_top) if codes[index, kin.other] > 0]
        lines.append(json.dumps(kin._asdict() | {"top_images": [samples[index].file for index in top]}))
    return "".join(line + "\n" for line in lines)


def _found_by(
    listing: NeuronList,
    codes: Float[np.ndarray, "image neuron"],
    shown: Bool[np.ndarray, " image"],
    views: Sequence[np.ndarray],
    config: DiscoverConfig,
) -> Int[np.ndarray, " listed"]:
    """1 for each listed neuron that another autoencoder, which has these codes, has too; else 0."""
    scores = eligible_scores(codes[shown], [view[shown] for view in views], config.min_images, config.score)
    return found_again(listing.centroids, scores, *config.pruning(int(shown.sum()))).astype(int)
