"""What each choice of the method is worth: one choice changed at a time. `python -m benchmarks.ablations --help`.

Works in the folder of `benchmarks.discovery`, on the pictures that are there. Every point trains autoencoders of its
own where the choice is one of training.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.arms import coherent, published
from benchmarks.cells import Cell, activations_of, capture, cell_of, codes_of, encode, trained
from benchmarks.discovery import RESULTS, as_csv, summary
from benchmarks.figures import ablation_figure
from benchmarks.intervals import without_nan
from benchmarks.measures import Truth, measure
from raigen.config import TrainConfig
from raigen.files import write_text
from raigen.world.attributes import PROMPTS

HOOKPOINTS = ("unet.down_blocks.1", "unet.mid_block", "unet.up_blocks.0")


class Point(NamedTuple):
    """One point of a curve: its curve, its place on it, and what differs from the default."""

    curve: str
    place: str
    train: dict[str, Any] = {}
    """Fields of TrainConfig."""
    score: dict[str, Any] = {}
    """Arguments of the score."""
    views: tuple[str, ...] = ("clip", "pixels")
    coarse_only: bool = False
    n_images: int | None = None
    scoring_step: int = -1
    training_steps: tuple[int, ...] | None = None
    hookpoint: str | None = None
    streamed: bool = False
    """Mixed while pictures come, as an audit without a store does."""
    by_paper: bool = False
    """The published score of the coarse neurons."""

    @property
    def trains_as_usual(self) -> bool:
        """Whether the autoencoder is the default one for so many pictures."""
        usual = Point(self.curve, self.place, score=self.score, views=self.views, coarse_only=self.coarse_only,
                      n_images=self.n_images, by_paper=self.by_paper)  # fmt: skip
        return self == usual


@dataclass(frozen=True)
class Options:
    """The ablations."""

    work: Path = Path("bench-work")
    """Folder of the discovery benchmark."""
    results: Path = RESULTS
    """Where ablations.csv, .json and .svg go."""
    prompts: tuple[str, ...] = field(default=PROMPTS[:5])
    """Prompts of the portraits world."""
    n_images: int = 1000
    """Pictures per prompt and generation seed, as in the discovery benchmark."""
    generation_seeds: int = 1
    """Sets of pictures per prompt; the curve of numbers of images joins five of them."""
    curves: tuple[str, ...] = ()
    """Only these curves; empty for all."""


def points(n_steps: int) -> list[Point]:
    """Every point of every curve; the default stands on each."""
    last = n_steps - 1
    coarse = (102, 205, 410, 820)
    return [
        *(Point("number of images", str(n), n_images=n) for n in (100, 300, 1000, 5000)),
        *(Point("number of images", f"{n}, published", n_images=n, by_paper=True) for n in (1000, 5000)),
        *(Point("scoring step", str(step + 1), scoring_step=step) for step in range(0, n_steps, 3)),
        Point("training steps", "all"),
        Point("training steps", "last", training_steps=(last,)),
        Point("training steps", "last half", training_steps=tuple(range(n_steps // 2, n_steps))),
        Point("training steps", "every third", training_steps=tuple(range(last % 3, n_steps, 3))),
        Point("stream", "store"),
        Point("stream", "stream", streamed=True),
        *(Point("stream", f"{n} of 64 positions", {"tokens_per_step": n}, streamed=True) for n in (32, 16)),
        Point("stream", "5 of 10 steps", {"steps_per_image": 5}, streamed=True),
        Point("input", "as it is"),
        Point("input", "scaled by step", {"input_scaling": True}),
        *(Point("hookpoint", path, hookpoint=path) for path in HOOKPOINTS),
        *(Point("k", str(k), {"k": k}) for k in (2, 4, 8, 16, 32)),
        *(Point("coarse neurons", str(n), {"group_sizes": (n, 2048 - n)}) for n in coarse),
        *(Point("pruning distance", f"{d:g}", score={"distance": d}) for d in (0.1, 0.3, 0.5, 0.7)),
        *(Point("max frequency", f"{f:g}", score={"max_frequency": f}) for f in (0.02, 0.04, 0.05, 0.07, 0.1, 1.0)),
        *(Point("reach", f"{r:g}", score={"reach": r}) for r in (0.1, 0.2, 0.3, 0.5, 0.7)),
        *(Point("views", " + ".join(names), views=names)
          for names in (("clip",), ("tower",), ("pixels",), ("clip", "pixels"))),
        Point("neurons", "all"),
        Point("neurons", "coarse", coarse_only=True),
        Point("dead clock", "tokens and images"),
        Point("dead clock", "20 batches", {"dead_after_tokens": 20 * 2048, "dead_after_images": 1}),
        *(Point("learning rate", f"{lr:g}", {"lr": lr}) for lr in (3e-4, 1e-3, 2e-3, 4e-3)),
        *(Point("epochs", str(n), {"epochs": n}) for n in (1, 2, 5)),
    ]  # fmt: skip


def main(options: Options) -> None:
    """Goes through all points and cells; what is there is not done again."""
    rows: list[dict] = []
    for seed in range(options.generation_seeds):
        for prompt in options.prompts:
            rows += list(rows_of(options, prompt, seed))
            print(f"{prompt}, seed {seed}", flush=True)
    write_text(options.results / "ablations.csv", as_csv(rows))
    result = summary(rows, options.prompts, "prompts")
    write_text(options.results / "ablations.json", json.dumps(without_nan(result), indent=1) + "\n")
    ablation_figure(result, options.results / "ablations.svg")


def rows_of(options: Options, prompt: str, seed: int) -> Iterator[dict]:
    """The rows of one prompt and generation seed, from its folder where they are."""
    run = capture(options.work, prompt, seed, options.n_images)
    n_steps = run.facts_of("capture")["n_steps"]
    for point in points(n_steps):
        if options.curves and point.curve not in options.curves:
            continue
        if point.n_images is not None and point.n_images > options.n_images and seed:
            continue  # joins the pictures of all seeds: once per prompt
        path = run.dir / "ablations" / f"{point.curve} {point.place}.csv".replace(" ", "-").replace("/", "-")
        if not path.exists():
            values = measured(options, point, prompt, seed)
            place = {"prompt": prompt, "generation_seed": seed, "sae_seed": 0, "arm": f"{point.curve}: {point.place}"}
            write_text(path, as_csv(place | {"measure": name, "value": value} for name, value in values.items()))
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def measured(options: Options, point: Point, prompt: str, seed: int) -> dict[str, float]:
    """Trains and scores one point on one cell."""
    cell, activations = _material(options, point, prompt, seed)
    config = replace(TrainConfig(), **point.train)
    if point.trains_as_usual:
        run = capture(options.work, prompt, seed, options.n_images)
        of = "" if point.n_images in (None, options.n_images) else f"-of-{point.n_images}"
        codes = codes_of(
            run, cell, activations, f"matryoshka-0{of}", config
        )  # matryoshka-0: of the discovery benchmark
    else:
        used = activations if point.training_steps is None else activations[:, list(point.training_steps)]
        readable = torch.from_numpy(cell.readable)
        sae = trained(used, config, streamed=point.streamed)
        codes = encode(sae, activations[readable, point.scoring_step].float().numpy())
    if point.by_paper:
        found = published(codes.mean[:, : codes.n_coarse], cell.embeddings["clip"])
    else:
        peaks = codes.peak[:, : codes.n_coarse] if point.coarse_only else codes.peak
        found = coherent(peaks, *(cell.embeddings[name] for name in point.views), **point.score)
    return measure(found, Truth(cell.shows, cell.controls)) | {"silent neurons": float((codes.peak.max(0) == 0).mean())}


def _material(options: Options, point: Point, prompt: str, seed: int) -> tuple[Cell, Tensor]:
    """The cell and its activations, cut down or joined to the number of images of the point."""
    if point.hookpoint is not None:
        work = options.work / "hookpoints" / point.hookpoint
        run = capture(work, prompt, seed, options.n_images, hookpoint=point.hookpoint)
        return cell_of(run, prompt, seed), activations_of(run)
    n = point.n_images or options.n_images
    seeds = [seed] if n <= options.n_images else range(n // options.n_images)
    runs = [capture(options.work, prompt, s, options.n_images) for s in seeds]
    cells = [cell_of(run, prompt, s) for run, s in zip(runs, seeds, strict=True)]
    return joined(cells, n), torch.cat([activations_of(run) for run in runs])[:n]


def joined(cells: Iterable[Cell], n: int) -> Cell:
    """The first `n` pictures of several cells of one prompt, as one cell."""
    cells = list(cells)
    readable = np.concatenate([cell.readable for cell in cells])[:n]
    kept = int(readable.sum())
    return Cell(
        cells[0].prompt, cells[0].seed, readable, np.concatenate([cell.shows for cell in cells])[:kept],
        {name: np.concatenate([cell.embeddings[name] for cell in cells])[:kept] for name in cells[0].embeddings},
        np.concatenate([cell.mid for cell in cells])[:kept],
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
