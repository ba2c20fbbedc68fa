"""Are neurons that count as dead really dead? On planted truth: `python -m benchmarks.autoencoder.dead`.

On the cells of the discovery benchmark, an autoencoder is trained twice: with the default rule (dead after silence for
a number of tokens and a number of images) and with the published rule (dead after 20 silent batches). Every tenth step
records which neurons count as dead. Neurons that mean a rare value in the end (at least 80 % of their ten top images
show it) were rare, not dead.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro

from benchmarks.common.cells import activations_of, capture, cell_of, encode, trained
from benchmarks.common.intervals import COUNT, interval_of, shown, without_nan
from benchmarks.common.measures import Listing, Truth, verdicts
from benchmarks.common.results import RESULTS
from benchmarks.common.world import WORLD
from raigen.config import TrainConfig
from raigen.runs.files import write_text
from raigen.sae.fit import Training

EVERY = 10  # steps
PUBLISHED_BATCHES = 20


@dataclass(frozen=True)
class Options:
    """The benchmark of rules for dead neurons."""

    work: Path = Path("bench-work")
    """Folder of the discovery benchmark, with its cells."""
    results: Path = RESULTS
    """Where dead.json goes."""
    prompts: tuple[str, ...] = field(default=WORLD.prompts[:3])
    """Prompts of the world."""
    n_images: int = 1000
    """Images per prompt, as in the discovery benchmark."""


def main(options: Options) -> None:
    """Trains, counts, prints and writes the means with intervals over prompts."""
    found: dict[str, dict[str, list[float]]] = {}
    for prompt in options.prompts:
        run = capture(options.work, prompt, 0, options.n_images)
        cell, activations = cell_of(run, prompt, 0), activations_of(run)
        batch = TrainConfig().batch_of(activations[..., 0].numel())
        clocks = {
            "tokens and images": TrainConfig(),
            "20 batches": replace(TrainConfig(), dead_after_tokens=PUBLISHED_BATCHES * batch, dead_after_images=1),
        }
        for name, config in clocks.items():
            at_times: list[np.ndarray] = []

            def note(training: Training, at_times: list[np.ndarray] = at_times) -> None:
                if training.step % EVERY == 0:
                    at_times.append(training.dead.numpy().copy())

            codes = encode(trained(activations, config, watch=note), cell.mid).peak
            called = np.array(at_times)
            hit = verdicts(Listing(codes, np.zeros(codes.shape[1])), Truth(cell.shows, cell.controls)).hit >= 0
            hit &= (codes > 0).sum(0) >= 10
            counts = {"called dead at some time": called.any(0).sum(), "in the end": called[-1].sum(),
                      "of the first, stand for a rare value": (called.any(0) & hit).sum(),
                      "neurons that stand for a rare value": hit.sum()}  # fmt: skip
            for key, value in counts.items():
                found.setdefault(name, {}).setdefault(key, []).append(float(value))
        print(prompt, {name: {key: values[-1] for key, values in by.items()} for name, by in found.items()}, flush=True)
    result = {
        name: {key: interval_of(np.array(v), COUNT) | {"values": v} for key, v in by.items()}
        for name, by in found.items()
    }
    write_text(options.results / "dead.json", json.dumps(without_nan(result), indent=1) + "\n")
    for name, by_key in result.items():
        print(name, *(f"{key} {shown(value)}" for key, value in by_key.items()), sep="\n  ")


if __name__ == "__main__":
    main(tyro.cli(Options))
