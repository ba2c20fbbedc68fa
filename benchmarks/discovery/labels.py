"""Do labels predict where a neuron fires?

Scores the labels of a trained and of an untrained autoencoder: `python -m benchmarks.discovery.labels`.

It uses the cells of the discovery benchmark. CLIP names the listed neurons from their ten top images, as in an audit.
With the world's judge, it is then measured how well the label separates held-out images in which the neuron fires
strongly from others (`raigen.judging.detection`). As a control, the same label is scored on the images of the next
neuron that has another label.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.common.arms import coherent, longer
from benchmarks.common.cells import Cell, capture, cell_of, default_codes
from benchmarks.common.intervals import SHARE, interval_of, shown, without_nan
from benchmarks.common.measures import Listing, top_images
from benchmarks.common.results import RESULTS
from benchmarks.common.world import WORLD
from raigen.config import AnnotateConfig
from raigen.discovery.embeddings import Embedder
from raigen.judging.annotate import name_of, vocabulary
from raigen.judging.detection import HeldOut, detection, held_out
from raigen.judging.label_scores import FEWEST
from raigen.runs.files import write_text

INDEX_OF = {WORLD.phrase(name): index for index, name in enumerate(WORLD.value_names)}
AUTOENCODERS = ("matryoshka", "untrained")


@dataclass(frozen=True)
class Options:
    """The benchmark of labels."""

    work: Path = Path("bench-work")
    """Folder of the discovery benchmark, with its cells."""
    results: Path = RESULTS
    """Where labels.json goes."""
    prompts: tuple[str, ...] = field(default=WORLD.prompts)
    """Prompts of the world."""
    n_images: int = 1000
    """Images per prompt, as in the discovery benchmark."""
    n_attributes: int = 10
    """Neurons per prompt."""
    n_label_images: int = 20
    """Held-out images per side."""


def main(options: Options) -> None:
    """Scores the labels of every prompt, prints and writes the means with intervals over prompts."""
    embedder, found = Embedder(WORLD.embedder, "cpu"), {}
    for prompt in options.prompts:
        run = capture(options.work, prompt, 0, options.n_images)
        cell = cell_of(run, prompt, 0)
        codes = default_codes(run, cell)
        for name in AUTOENCODERS:
            clip, looks = cell.embeddings["clip"], cell.embeddings["pixels"]
            listing = coherent(codes[name].peak, clip, looks, max_frequency=longer(len(clip)))
            first = Listing(listing.activations[:, : options.n_attributes], listing.rates[: options.n_attributes])
            for key, value in scores(first, cell, embedder, options.n_label_images).items():
                found.setdefault(name, {}).setdefault(key, []).append(value)
    result = {name: {key: over_prompts(values) for key, values in by_key.items()} for name, by_key in found.items()}
    write_text(options.results / "labels.json", json.dumps(without_nan(result), indent=1) + "\n")
    for name, by_key in result.items():
        print(name, *(f"{key} {shown(value)}" for key, value in by_key.items()), sep="\n  ")


def scores(listing: Listing, cell: Cell, embedder: Embedder, count: int) -> dict[str, float]:
    """The shares of neurons with a name and with a score; mean balanced accuracy and AUROC of labels and of the
    control."""
    phrases = vocabulary("auto", WORLD.pipeline, cell.prompt)
    texts = embedder.texts([cell.prompt, *(f"{cell.prompt}, {phrase}" for phrase in phrases)])
    named: list[tuple[int, HeldOut]] = []  # value and held-out images of each neuron that has both
    n_named, clip = 0, cell.embeddings["clip"]
    for unit, top in enumerate(top_images(listing.activations)):
        naming = name_of(clip, top, texts[1:] - texts[0], phrases)
        if naming.auroc[0] < AnnotateConfig.min_auroc:
            continue
        n_named += 1
        chosen = held_out(listing.activations[:, unit], clip, np.isin(np.arange(len(clip)), top), count, unit)
        if min(len(chosen.active), len(chosen.hard) + len(chosen.random)) >= FEWEST:
            named.append((INDEX_OF[naming.phrases[0]], chosen))
    real = [score(cell.shows[:, value], held) for value, held in named]
    pairs = [(value, _next(named, place)) for place, (value, _) in enumerate(named)]
    control = [score(cell.shows[:, value], held) for value, held in pairs if held is not None]
    n = max(1, len(listing.rates))
    return {
        "named": n_named / n, "scored": len(real) / n,
        "balanced accuracy": _mean(real), "with another label": _mean(control),
    }  # fmt: skip


def score(shows: np.ndarray, held: HeldOut) -> float:
    """Balanced accuracy of the judge's verdicts on held-out images."""
    active, silent = shows[held.active], shows[np.concatenate([held.hard, held.random])]
    found = detection(active.astype(float), silent.astype(float))
    return found.balanced_accuracy if found else float("nan")


def over_prompts(values: list[float]) -> dict[str, Any]:
    """The mean share of the prompts that have one, with its interval and the share of every prompt."""
    return interval_of(np.array([value for value in values if np.isfinite(value)]), SHARE) | {"values": values}


def _next(named: list[tuple[int, HeldOut]], place: int) -> HeldOut | None:
    others = [held for value, held in (*named[place + 1 :], *named[:place]) if value != named[place][0]]
    return others[0] if others else None


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


if __name__ == "__main__":
    main(tyro.cli(Options))
