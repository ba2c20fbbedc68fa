"""Do labels say anything?

Their scores for a trained and an untrained autoencoder: `python -m benchmarks.discovery.labels`.

On the cells of the discovery benchmark: the listed neurons are named by CLIP from their ten top images, as an audit
does; the world's judge then tells whether the label tells held-out images in which the neuron fires strongly from
others (`raigen.judging.detection`). For control the same label is scored on the images of the next neuron with
another one.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from benchmarks.common.arms import coherent, longer
from benchmarks.common.cells import Cell, capture, cell_of, default_codes
from benchmarks.common.intervals import interval_of, shown, without_nan
from benchmarks.common.measures import Listing, top_images
from raigen.config import AnnotateConfig
from raigen.discovery.embeddings import Embedder
from raigen.judging.annotate import name_of, vocabulary
from raigen.judging.detection import HeldOut, detection, held_out
from raigen.judging.label_scores import FEWEST
from raigen.runs.files import write_text
from raigen.world.attributes import PROMPTS, VALUES

INDEX_OF = {value.phrase: index for index, value in enumerate(VALUES)}
AUTOENCODERS = ("matryoshka", "untrained")


@dataclass(frozen=True)
class Options:
    """The benchmark of labels."""

    work: Path = Path("bench-work")
    """Where the discovery benchmark keeps its cells."""
    results: Path = Path(__file__).parents[1] / "results"
    """Where labels.json goes."""
    prompts: tuple[str, ...] = field(default=PROMPTS)
    """Prompts of the portraits world."""
    n_images: int = 1000
    """Images per prompt, as in the discovery benchmark."""
    n_attributes: int = 10
    """Neurons per prompt."""
    n_label_images: int = 20
    """Held-out images per side."""


def main(options: Options) -> None:
    """Scores the labels of every prompt, prints and writes the means with intervals over prompts."""
    embedder, found = Embedder("portraits", "cpu"), {}
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
    result = {
        name: {key: interval_of(np.array([v for v in values if np.isfinite(v)])) for key, values in by_key.items()}
        for name, by_key in found.items()
    }
    write_text(options.results / "labels.json", json.dumps(without_nan(result), indent=1) + "\n")
    for name, by_key in result.items():
        print(name, *(f"{key} {shown(value)}" for key, value in by_key.items()), sep="\n  ")


def scores(listing: Listing, cell: Cell, embedder: Embedder, count: int) -> dict[str, float]:
    """The shares of neurons that got a name and a score; mean balanced accuracy and AUROC of labels and of control."""
    phrases = vocabulary("portraits", "portraits", cell.prompt)
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
    """Balanced accuracy of what the judge says, on held-out images."""
    active, silent = shows[held.active], shows[np.concatenate([held.hard, held.random])]
    found = detection(active.astype(float), silent.astype(float))
    return found.balanced_accuracy if found else float("nan")


def _next(named: list[tuple[int, HeldOut]], place: int) -> HeldOut | None:
    others = [held for value, held in (*named[place + 1 :], *named[:place]) if value != named[place][0]]
    return others[0] if others else None


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


if __name__ == "__main__":
    main(tyro.cli(Options))
