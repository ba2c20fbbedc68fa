"""Codes of images: how strongly each neuron fires in each image, and where in the image."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raigen.diffusion.loading import resolve_device
from raigen.runs.activations import ActivationStore
from raigen.runs.run import Run
from raigen.sae.model import MatryoshkaSAE

N_STRONGEST = 10  # images by which a neuron is known
CLEARLY = 0.25  # of the typical peak; a weaker code is too faint to count


@torch.no_grad()
def image_codes(
    sae: MatryoshkaSAE, activations: Float[Tensor, "image token d_in"], score: str
) -> Float[Tensor, "image neuron"]:
    """One code of each neuron in each image, 0 or more: the largest over all positions, so that small things count.

    The published score takes the mean over the positions instead, and only the neurons of the coarse group.
    """
    return sae.mean_codes(activations, groups=1) if score == "published" else sae.max_codes(activations)


def stored_codes(store: ActivationStore, sae: MatryoshkaSAE, score: str) -> Float[np.ndarray, "image neuron"]:
    """`image_codes` of all images in a store, at its last step."""
    chunks = store.step(store.step_indices[-1])
    return torch.cat([image_codes(sae, chunk.activations, score).float().cpu() for chunk in chunks]).numpy()


def largest_codes(run: Run) -> Float[np.ndarray, "image neuron"]:
    """The largest code of each neuron in each audited image; black images have 0 everywhere.

    They are in codes.safetensors, unless discovery used the published score, which keeps means; then this encodes all
    activations again. Raises RaigenError before `discover` has run.
    """
    if run.config.discover.score != "published":
        return run.image_codes()
    sae = MatryoshkaSAE.load(run.sae_dir).to(resolve_device(run.config.capture.device))
    return stored_codes(ActivationStore(run.activations_dir), sae, "coherent") * run.is_shown()[:, None]


@torch.no_grad()
def heatmaps(
    sae: MatryoshkaSAE, activations: Float[Tensor, "image token d_in"], neuron: int
) -> Float[Tensor, "image token"]:
    """The code of one neuron at every position of each image, 0 or more, on the CPU.

    The neuron is encoded twice, as two columns: for one column torch calls a matrix-vector routine, and the last bits
    differ from `image_codes`. (For wide tokens they may differ anyway.)
    """
    pair = [neuron, neuron]
    maps = [sae.encode(tokens.to(sae.W_enc.device), pair)[:, 0].float().cpu() for tokens in activations]
    return torch.stack(maps)


def strongest(codes: Float[np.ndarray, " image"], count: int) -> Int[np.ndarray, " top"]:
    """The indices of the `count` images with the highest code, strongest first; ties in the order of images."""
    return np.argsort(-codes, kind="stable")[:count]


def typical_peak(codes: Float[np.ndarray, "image neuron"], count: int = N_STRONGEST) -> Float[np.ndarray, " neuron"]:
    """How strongly each neuron fires where it fires most: the mean of its `count` largest codes.

    >>> typical_peak(np.array([[4.0, 0.0], [2.0, 1.0], [0.0, 0.0]]), count=2).tolist()
    [3.0, 0.5]
    """
    # With torch: its last bits are part of the recipes under which steered images are kept.
    return torch.from_numpy(codes).topk(min(count, len(codes)), dim=0).values.mean(0).numpy()


def fires(codes: Float[np.ndarray, "image neuron"], share: float = CLEARLY) -> Bool[np.ndarray, "image neuron"]:
    """In which images each neuron fires clearly: with at least `share` of its typical peak.

    >>> fires(np.array([[8.0, 1.0], [1.0, 0.0]])).tolist()
    [[True, True], [False, False]]
    """
    return reaches(codes, clear_from(codes, share))


def reaches(
    codes: Float[np.ndarray, "image neuron"], least: Float[np.ndarray, " neuron"]
) -> Bool[np.ndarray, "image neuron"]:
    """In which images each neuron fires, and with a code of at least `least`. A code of 0 never counts."""
    return (codes > 0) & (codes >= least)


def clear_from(codes: Float[np.ndarray, "image neuron"], share: float = CLEARLY) -> Float[np.ndarray, " neuron"]:
    """The smallest code with which each neuron fires clearly: `share` of its typical peak."""
    return share * typical_peak(codes)
