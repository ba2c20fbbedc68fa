"""Scores every neuron, drops look-alikes, and lists the rarest and most distinct."""

import csv
import io
import json
from collections.abc import Generator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float

from raigen.config import DiscoverConfig
from raigen.diffusion.loading import resolve_device
from raigen.discovery.embeddings import Embedder, default_embedder, thumbnails
from raigen.discovery.hierarchy import Relation, relations_of
from raigen.discovery.scores import (
    NeuronScores,
    coherence_scores,
    found_again,
    left_out,
    minority_scores,
    prune,
    strongest,
)
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore
from raigen.runs.files import write_tensors, write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.sae.model import MatryoshkaSAE

EMBED_BATCH = 64


def discover(run: Run, config: DiscoverConfig) -> Generator[Tick, None, Outcome]:
    """Lists the neurons with the highest minority score, each with the images in which it is strongest.

    Codes are taken at the last denoising step; of the positions of an image the largest counts. The published score
    takes their mean, and the coarse neurons only. Neurons that fire in fewer than `min_images` images are neither
    scored nor listed. Where there are autoencoders of other seeds, it is counted how many have a finding. Where fine
    neurons have codes, those that fire within a listed coarse one, or hold a listed fine one, are told in kin.jsonl.
    Writes codes, embeddings, neurons.csv, heatmaps and attributes.json. Yields progress in images.

    Raises RaigenError when activations, autoencoder or images are missing or broken, and when no neuron stands out.
    """
    capture, samples = run.config.capture, run.samples()
    store = ActivationStore(run.activations_dir)
    device = resolve_device(capture.device)
    sae, *others = (MatryoshkaSAE.load(folder).to(device) for folder in (run.sae_dir, *run.seed_dirs()))
    yield Tick(0, len(samples), "codes")
    shown = run.is_shown()
    codes = image_codes(store, sae, config.score) * shown[:, None]  # black images show nothing
    name = config.embedder or default_embedder(capture.model)
    embeddings, looking = yield from views_of(run, samples, Embedder(name, device))
    views = [embeddings[shown], looking[shown]]
    scores = eligible_scores(codes[shown], views, config.min_images, config.score)
    pruning = config.pruning(int(shown.sum()))
    listed = prune(scores, *pruning)[: config.n_attributes]
    count = min(config.n_top_images, len(samples))
    top = np.array([strongest(np.where(shown, codes[:, neuron], -1), count) for neuron in listed], int)
    top = top.reshape(len(listed), count)  # also of an empty list
    found_by = np.ones(len(listed), int)  # autoencoders
    for other in others:
        theirs = image_codes(store, other, config.score)[shown]
        again = eligible_scores(theirs, views, config.min_images, config.score)
        found_by += found_again(scores.centroids[listed], again, *pruning)
    attributes = [
        attribute_of(rank, int(neuron), scores, [samples[index].file for index in images], int(n) if others else None)
        for rank, (neuron, images, n) in enumerate(zip(listed, top, found_by, strict=True), 1)
    ]
    write_tensors(run.codes_path, {"image_codes": torch.from_numpy(codes)})
    write_tensors(run.embeddings_path, {"embeddings": torch.from_numpy(embeddings)}, {"embedder": name})
    write_tensors(run.heatmaps_path, {"heatmaps": heatmaps(store, sae, listed, top)})
    reasons = left_out(scores, listed.tolist(), *pruning)
    write_text(run.neurons_path, table(scores, (codes[shown] > 0).mean(0), listed, reasons, config.min_images))
    run.write_attributes(attributes)
    outputs = [run.codes_path, run.embeddings_path, run.heatmaps_path, run.neurons_path, run.attributes_path]
    if codes.shape[1] > sae.group_bounds[1]:
        kin = relations_of(codes[shown], sae.group_bounds[1], listed.tolist())
        write_text(run.kin_path, kin_lines(kin, codes, config.n_top_images, samples))
        outputs.append(run.kin_path)
    facts = {
        "embedder": name,
        "scoring_step": store.step_indices[-1],
        "n_neurons": len(scores.frequency),
        "n_live": int((codes > 0).any(0).sum()),
        "n_scored": int(scores.live.sum()),
        "n_listed": len(attributes),
        "n_black": int((~shown).sum()),
    }
    return Outcome(outputs, facts)


def views_of(
    run: Run, samples: Sequence[Sample], embedder: Embedder
) -> Generator[Tick, None, tuple[Float[np.ndarray, "image width"], Float[np.ndarray, "image pixel"]]]:
    """What the images mean, their embeddings, and how they look."""
    meaning, looking = [], []
    for start in range(0, len(samples), EMBED_BATCH):
        images = [run.read_image(sample) for sample in samples[start : start + EMBED_BATCH]]
        meaning.append(embedder.images(images))
        looking.append(thumbnails(images))
        yield Tick(start + len(images), len(samples), "embeddings")
    return np.concatenate(meaning), np.concatenate(looking)


@torch.inference_mode()
def image_codes(store: ActivationStore, sae: MatryoshkaSAE, score: str) -> Float[np.ndarray, "image neuron"]:
    """The code of each neuron at the last step: the largest over the positions of each image, for small things are in
    few of them. For the published score their mean, of the coarse neurons only."""
    found = []
    for chunk in store.step(store.step_indices[-1]):
        by_mean = score == "published"
        found.append(sae.mean_codes(chunk.activations, groups=1) if by_mean else sae.max_codes(chunk.activations))
    return torch.cat(found).float().cpu().numpy()


def kin_lines(
    found: Sequence[Relation], codes: Float[np.ndarray, "image neuron"], n_top: int, samples: Sequence[Sample]
) -> str:
    """kin.jsonl: a line per listed neuron and relative, with the files of the images in which the latter is
    strongest."""
    lines = []
    for kin in found:
        top = [index for index in strongest(codes[:, kin.other], n_top) if codes[index, kin.other] > 0]
        lines.append(json.dumps(kin._asdict() | {"top_images": [samples[index].file for index in top]}))
    return "".join(line + "\n" for line in lines)


def eligible_scores(
    codes: Float[np.ndarray, "image neuron"], views: Sequence[np.ndarray], min_images: int, score: str
) -> NeuronScores:
    """The scores of the neurons that fire in at least `min_images` images; the others count as dead. `views` are the
    CLIP embeddings and the looks of the images; the published score knows the first only.

    Raises RaigenError when no neuron does.
    """
    enough = (codes > 0).sum(0) >= min_images
    if not enough.any():
        raise RaigenError(
            f"no neuron fires in {min_images} images or more, of {len(codes)}: capture more images, or lower "
            "--min-images"
        )
    codes = codes * enough
    return minority_scores(codes, views[0]) if score == "published" else coherence_scores(codes, views)


@torch.inference_mode()
def heatmaps(
    store: ActivationStore, sae: MatryoshkaSAE, neurons: Sequence[int] | np.ndarray, top: np.ndarray
) -> torch.Tensor:
    """The codes of each neuron over the grid in each of its top images: [neuron, image, row, column], >= 0."""
    step, found = store.step_indices[-1], []
    for neuron, images in zip(neurons, top, strict=True):
        for tokens in store.images(
            [int(index) for index in images], step
        ):  # one by one, as in `MatryoshkaSAE.max_codes`
            found.append(sae.encode(tokens.to(sae.W_enc.device))[:, int(neuron)].float().cpu())
    return (
        torch.stack(found).unflatten(0, top.shape).unflatten(-1, store.grid)
        if found
        else torch.zeros(*top.shape, *store.grid)
    )


def attribute_of(
    rank: int, neuron: int, scores: NeuronScores, files: Sequence[str], found_by: int | None = None
) -> RareAttribute:
    """The list entry of a neuron, not named yet."""
    return RareAttribute(
        rank=rank,
        neuron=neuron,
        minority_score=float(scores.minority_score[neuron]),
        frequency=float(scores.frequency[neuron]),
        distinctiveness=float(scores.distinctiveness[neuron]),
        top_images=tuple(files),
        found_by=found_by,
    )


def table(
    scores: NeuronScores,
    frequency: Float[np.ndarray, " neuron"],
    listed: np.ndarray,
    reasons: Mapping[int, str],
    min_images: int,
) -> str:
    """neurons.csv: one line per neuron; those that fire in too few images have no scores, and as
    `frequency` the share of images in which they fire at all. `reasons` says of
    each scored neuron that is not listed why."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["neuron", "frequency", "distinctiveness", "minority_score", "listed", "left_out"])
    chosen = set(listed.tolist())
    too_few = f"fires in fewer than {min_images} pictures"
    for neuron, scored in enumerate(scores.live):
        numbers = [f"{values[neuron]:.6g}" for values in (scores.distinctiveness, scores.minority_score)]
        shown = numbers if scored else ["", ""]
        share = (scores.frequency if scored else frequency)[neuron]
        reason = reasons.get(neuron, "") if scored else too_few if frequency[neuron] else "never fires"
        writer.writerow([neuron, f"{share:.6g}", *shown, int(neuron in chosen), reason])
    return buffer.getvalue()
