"""Mixes prompts so that attributes reach target rates: which share of the images each prompt gets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog

TOLERANCE = 1e-6  # cost of every prompt but the first: it decides only between equally good mixtures


class Mixture(NamedTuple):
    """`shares` [prompt] are 0 or more and sum to 1; `rates` [attribute] are the rates that they should give."""

    shares: Float[np.ndarray, " prompt"]
    rates: Float[np.ndarray, " attribute"]


def mix(rates: Float[np.ndarray, "prompt attribute"], targets: Float[np.ndarray, " attribute"]) -> Mixture:
    """The shares w of the prompts with sum_p w_p rates[p, a] = targets[a] for every attribute a.

    If no shares reach all targets, the sum of the distances to the targets is smallest; compare `Mixture.rates`. Among
    equally good mixtures, the one with most of the first prompt is returned. Solved exactly, by linear programming.

    >>> mix(np.array([[0.0, 0.0], [0.8, 0.0], [0.0, 0.5]]), np.array([0.1, 0.2])).shares.round(3).tolist()
    [0.475, 0.125, 0.4]
    """
    n_prompts, n_attributes = rates.shape
    missed = np.hstack([np.eye(n_attributes), -np.eye(n_attributes)])
    equal = np.vstack([np.hstack([rates.T, missed]), np.hstack([np.ones(n_prompts), np.zeros(2 * n_attributes)])])
    prefer = np.full(n_prompts, TOLERANCE)
    prefer[0] = 0
    found = linprog(np.hstack([prefer, np.ones(2 * n_attributes)]), A_eq=equal, b_eq=[*targets, 1])
    shares = found.x[:n_prompts].clip(0)
    shares /= shares.sum()
    return Mixture(shares, shares @ rates)


def assign_prompts(
    shares: Float[np.ndarray, " prompt"] | Sequence[float], n: int, seed: int = 0
) -> Int[np.ndarray, " image"]:
    """The prompt of each of `n` images: counts as near to the shares as possible (largest remainders), shuffled.

    >>> np.bincount(assign_prompts([0.5, 0.25, 0.25], 8)).tolist()
    [4, 2, 2]
    """
    wanted = np.asarray(shares, float) * n
    counts = np.floor(wanted + 1e-9).astype(int)
    for place in np.argsort(counts - wanted, kind="stable")[: n - counts.sum()]:
        counts[place] += 1
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
