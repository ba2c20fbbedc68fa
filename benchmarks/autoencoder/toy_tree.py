"""Do neurons that fire rarely mean rare features? Features in a tree, as in the paper's toy experiment.

Run: `python -m benchmarks.autoencoder.toy_tree`. The paper reports, for 20 features, 300,000 samples and 20 seeds, a
Spearman correlation of .991 between the firing rate of a neuron and the frequency of its feature, and a probability of
.846, .960 and .981 that a neuron among the 10, 20 and 30 % that fire least means a feature among the same share of
rarest features. It does not give its tree; ours has four roots with four children each. An autoencoder with exactly as
many neurons as features gets stuck with duplicates; one with spare neurons, as in practice, is measured as well.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.common.intervals import CORRELATION, SHARE, interval_of, shown, without_nan
from benchmarks.common.results import RESULTS
from raigen.config import SAEConfig, TrainConfig
from raigen.runs.files import write_text
from raigen.sae.fit import fit
from raigen.sae.model import MatryoshkaSAE

N_ROOTS, N_CHILDREN = 4, 4
N_FEATURES = N_ROOTS * (1 + N_CHILDREN)
D_IN = 32
QUANTILES = (0.1, 0.2, 0.3)
WIDTHS = {"as many neurons as features": 1, "twice as many": 2}


@dataclass(frozen=True)
class Options:
    """The toy experiment."""

    seeds: int = 20
    """Number of seeds, each with its own tree, data set and autoencoder."""
    n_samples: int = 300_000
    """Tokens per seed."""
    results: Path = RESULTS
    """Where toy_tree.json goes."""


class Tree(NamedTuple):
    """`directions` of the features, of length 1; the probability of each root, and of each child given its root."""

    directions: Float[Tensor, "feature d_in"]
    root_rates: Float[Tensor, " root"]
    child_rates: Float[Tensor, "root child"]


def tree(generator: torch.Generator) -> Tree:
    """Random orthogonal directions; roots of 10-50 %, children of 2-50 % of their root."""
    directions = torch.linalg.qr(torch.randn(D_IN, N_FEATURES, generator=generator)).Q.T
    roots = 0.1 + 0.4 * torch.rand(N_ROOTS, generator=generator)
    low, high = np.log(0.02), np.log(0.5)
    children = (low + (high - low) * torch.rand(N_ROOTS, N_CHILDREN, generator=generator)).exp()
    return Tree(directions, roots, children)


def sample(tree: Tree, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "n d_in"], Bool[Tensor, "n feature"]]:
    """Tokens, and the features of each: the sum of the present directions with strengths 1 +- .2, plus faint noise."""
    roots = torch.rand(n, N_ROOTS, generator=generator) < tree.root_rates
    children = torch.rand(n, N_ROOTS, N_CHILDREN, generator=generator) < tree.child_rates
    present = torch.cat([roots, (children & roots[:, :, None]).flatten(1)], 1)
    strengths = present * (1 + 0.2 * torch.randn(n, N_FEATURES, generator=generator)).clamp(min=0.1)
    return strengths @ tree.directions + 0.02 * torch.randn(n, D_IN, generator=generator), present


def one_seed(seed: int, n_samples: int, width: int) -> dict[str, float]:
    """Trains `width` neurons per feature on one tree; returns the Spearman correlation and the probability at each
    quantile."""
    generator = torch.Generator().manual_seed(seed)
    grown = tree(generator)
    tokens, present = sample(grown, n_samples, generator)
    k = math.ceil(float(present.sum(1).float().mean()))
    coarse, fine = N_ROOTS * width, (N_FEATURES - N_ROOTS) * width
    sae = MatryoshkaSAE(SAEConfig(D_IN, coarse + fine, (coarse, fine), k))
    config = TrainConfig(sae_seed=seed, lr=3e-3, dead_after_tokens=50_000)
    for _ in fit(sae, (tokens[torch.randint(n_samples, (512,), generator=generator)] for _ in range(3000)), config):
        pass
    with torch.no_grad():
        firing = (sae.eval().encode(tokens) > 0).float().mean(0).numpy()
        cosine = (sae.W_dec @ grown.directions.T).numpy()
    neurons, features = linear_sum_assignment(cosine, maximize=True)
    true = present.float().mean(0).numpy()[features]
    result = {"spearman": float(spearmanr(firing[neurons], true)[0]),  # type: ignore[arg-type]
              "matched cosine": float(cosine[neurons, features].mean())}  # fmt: skip
    for q in QUANTILES:
        count = round(q * N_FEATURES)
        least, rarest = np.argsort(firing[neurons])[:count], np.argsort(true)[:count]
        result[f"P(rare | least active {q:g})"] = float(np.isin(least, rarest).mean())
    return result


def main(options: Options) -> None:
    """Prints and writes mean and 95 % interval over the seeds."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {"seeds": options.seeds}
    for name, width in WIDTHS.items():
        runs = [one_seed(seed, options.n_samples, width) for seed in range(options.seeds)]
        found = {key: [run[key] for run in runs] for key in runs[0]}
        result[name] = {
            key: interval_of(np.array(values), SHARE if key.startswith("P(") else CORRELATION) | {"values": values}
            for key, values in found.items()
        }
        print(name, *(f"{key}: {shown(value)}" for key, value in result[name].items()), sep="\n  ", flush=True)
    write_text(options.results / "toy_tree.json", json.dumps(without_nan(result), indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
