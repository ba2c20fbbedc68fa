"""Are rare features learned at all? Thousands of features, with rates that fall by Zipf's law.

Run: `python -m benchmarks.autoencoder.synthetic`. As in SynthSAEBench, tokens are sums of feature directions; rates
fall from common to 5e-4; features have parents (a child needs its parent) and co-occur within an image (tokens of one
image share most of their features). For every tenth of the features, from the most to the least frequent, it reports
how many the autoencoder recovers.

Arms, on the same tokens: the published setting (batches of four images, a neuron is dead after 20 batches, learning
rate 3e-4, bfloat16 weights), the same in float32, and ours (batches mixed from many images, a neuron is dead after
tokens and images, 1e-3, float32).
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.common.results import RESULTS
from raigen.config import SAEConfig, TrainConfig
from raigen.runs.activations import TokenBatch
from raigen.runs.files import write_text
from raigen.sae.fit import fit
from raigen.sae.model import MatryoshkaSAE

RAREST = 5e-4
MEAN_ACTIVE = 25
TOKENS_PER_IMAGE = 256
RECOVERED = 0.8  # cosine of a matched neuron and its feature


@dataclass(frozen=True)
class Options:
    """The long-tail experiment."""

    n_features: int = 2048
    """True features."""
    d_in: int = 384
    """Width of a token."""
    d_sae: int = 1536
    """Neurons: fewer than features, as in SynthSAEBench."""
    n_images: int = 24_576
    """Images of 256 tokens, which are held in memory in float16."""
    seed: int = 0
    """Seed of the features, the tokens and the autoencoders."""
    results: Path = RESULTS
    """Where synthetic.json goes."""


class Features(NamedTuple):
    """`directions` of length 1; `rates` over tokens, falling; `parents`, the index of each feature's parent, or its own
    index for a root."""

    directions: Float[Tensor, "feature d_in"]
    rates: Float[Tensor, " feature"]
    parents: Int[Tensor, " feature"]


def features(options: Options, generator: torch.Generator) -> Features:
    """Zipf rates from the common down to 5e-4, scaled so that 25 are active per token; half have a parent that is more
    common."""
    n = options.n_features
    rank = torch.arange(1, n + 1).double()
    exponents = torch.linspace(0.2, 2.5, 400).double()
    rates = torch.stack([RAREST * (n / rank) ** exponent for exponent in exponents]).clamp(max=0.5)
    rates = rates[(rates.sum(1) - MEAN_ACTIVE).abs().argmin()].float()
    parents = torch.arange(n)
    for child in range(n // 20, n):
        if torch.rand((), generator=generator) < 0.5:
            parents[child] = torch.randint(0, child // 2, (), generator=generator)
    parents = torch.where(parents[parents] == parents, parents, torch.arange(n))  # one level of children
    directions = torch.nn.functional.normalize(torch.randn(n, options.d_in, generator=generator), dim=1)
    return Features(directions, rates, parents)


def image(made: Features, generator: torch.Generator) -> tuple[Float[Tensor, "token d_in"], Bool[Tensor, "token f"]]:
    """The tokens of one image and the features of each.

    A feature belongs to the image with probability sqrt(rate), and then to each token with sqrt(rate) again, so that it
    occurs in few images, but there in many tokens. A child also needs its parent; its own rate is raised to make up for
    that."""
    n = len(made.rates)
    root = made.parents == torch.arange(n)
    own = torch.where(root, made.rates, (made.rates / made.rates[made.parents]).clamp(max=0.9)).sqrt()
    here = torch.rand(n, generator=generator) < own
    present = (torch.rand(TOKENS_PER_IMAGE, n, generator=generator) < own) & here
    present &= present[:, made.parents]
    strengths = present * (1 + 0.25 * torch.randn(present.shape, generator=generator)).clamp(min=0.2)
    noise = 0.05 * torch.randn(TOKENS_PER_IMAGE, made.directions.shape[1], generator=generator)
    return strengths @ made.directions + noise, present


def mixed(tokens: Float[Tensor, "image token d_in"], size: int, generator: torch.Generator) -> Iterator[TokenBatch]:
    """Every token once, batches drawn from all images."""
    flat = tokens.flatten(0, 1)
    for rows in torch.randperm(len(flat), generator=generator).split(size):
        yield TokenBatch(flat[rows].float(), rows // tokens.shape[1])


def image_by_image(tokens: Float[Tensor, "image token d_in"], size: int) -> Iterator[TokenBatch]:
    """Every token once, batches of a few whole images."""
    per_batch = size // tokens.shape[1]
    for first in range(0, len(tokens), per_batch):
        batch = tokens[first : first + per_batch]
        images = torch.arange(first, first + len(batch)).repeat_interleave(tokens.shape[1])
        yield TokenBatch(batch.flatten(0, 1).float(), images)


def main(options: Options) -> None:
    """Trains all arms on the same tokens, prints and writes recall by tenth."""
    generator = torch.Generator().manual_seed(options.seed)
    made = features(options, generator)
    tokens = torch.empty(options.n_images, TOKENS_PER_IMAGE, options.d_in, dtype=torch.float16)
    rates = torch.zeros(options.n_features)
    for row in tokens:
        row[:], present = image(made, generator)
        rates += present.float().mean(0) / options.n_images
    held_out = [image(made, generator) for _ in range(64)]
    coarse = options.d_sae // 10
    shape = SAEConfig(options.d_in, options.d_sae, (coarse, options.d_sae - coarse), MEAN_ACTIVE)
    size = 4 * TOKENS_PER_IMAGE
    ours = TrainConfig(sae_seed=options.seed, dead_after_tokens=20_000 * MEAN_ACTIVE)
    theirs = TrainConfig(sae_seed=options.seed, lr=3e-4, dead_after_tokens=20 * size, dead_after_images=1)
    arms = {
        "published": (theirs, image_by_image(tokens, size), True),
        "published, float32": (theirs, image_by_image(tokens, size), False),
        "ours": (ours, mixed(tokens, size, generator), False),
    }
    result: dict[str, Any] = {"mean active": float(rates.sum())}
    for name, (config, batches, half) in arms.items():
        started = time.monotonic()
        sae = MatryoshkaSAE(shape)
        for step in fit(sae, batches, config):
            if half:
                to_bfloat16(sae)
            if step.step % 200 == 0:
                print(f"{name} step {step.step}: fvu {step.fvu[-1]:.3f}, {step.n_dead} dead", flush=True)
        result[name] = quality(sae.eval(), made, rates, held_out) | {"seconds": round(time.monotonic() - started)}
        print(name, json.dumps(result[name]), flush=True)
    write_text(options.results / "synthetic.json", json.dumps(result, indent=1) + "\n")


@torch.no_grad()
def to_bfloat16(sae: MatryoshkaSAE) -> None:
    """Rounds weights, biases and threshold, as training in bfloat16 does after every step."""
    for value in (*sae.parameters(), sae.threshold):
        value.copy_(value.bfloat16())


@torch.no_grad()
def quality(sae: MatryoshkaSAE, made: Features, rates: Float[Tensor, " feature"], held_out: list) -> dict:
    """MCC, F1 of the matched neurons on held-out tokens, and recall for each tenth of the features."""
    cosine = (torch.nn.functional.normalize(sae.W_dec, dim=1) @ made.directions.T).numpy()
    neurons, matched = linear_sum_assignment(cosine, maximize=True)
    values = cosine[neurons, matched]
    codes = torch.cat([sae.encode(tokens) > 0 for tokens, _ in held_out])[:, neurons]
    present = torch.cat([present for _, present in held_out])[:, matched]
    both = (codes & present).sum(0).float()
    f1 = 2 * both / (codes.sum(0) + present.sum(0)).clamp(min=1)
    recovered = np.zeros(len(rates), bool)
    recovered[matched[values >= RECOVERED]] = True
    tenths = np.array_split(rates.argsort(descending=True).numpy(), 10)
    return {
        "MCC": float(values.mean()),
        "F1": float(f1[present.any(0)].mean()),
        "recall by tenth": [round(float(recovered[tenth].mean()), 4) for tenth in tenths],
        "rate by tenth": [round(float(rates[tenth].mean()), 6) for tenth in tenths],
    }


if __name__ == "__main__":
    main(tyro.cli(Options))
