"""What is each choice of the method worth?

Changes one choice at a time: `python -m benchmarks.discovery.ablations --help`.

Lists end at 5 % of images, so that more neurons are compared than by default. Two curves differ: the one that varies
this end, and the one that varies the number of images, which shows the defaults. It works in the folder of
`benchmarks.discovery`, on the images there. Points that change the training train their own autoencoders.
`benchmarks.discovery.hookpoint_search` measures the choice of the hookpoint.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.common.arms import coherent, longer, published
from benchmarks.common.cells import Cell, Codes, activations_of, capture, cell_of, codes_of, encode, trained
from benchmarks.common.figures import ablation_figure
from benchmarks.common.intervals import without_nan
from benchmarks.common.measures import Truth, measure
from benchmarks.common.results import RESULTS, as_csv, read_rows, summary
from benchmarks.common.world import WORLD
from raigen.config import TrainConfig
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.sae.model import MatryoshkaSAE


class Point(NamedTuple):
    """One point of a curve: the curve, its place on the curve, and what differs from the default."""

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
    streamed: bool = False
    """Whether tokens are mixed in a reservoir, as in an audit without a store."""
    by_paper: bool = False
    """Whether coarse neurons are ranked by the published score."""


@dataclass(frozen=True)
class Options:
    """The ablations."""

    work: Path = Path("bench-work")
    """Folder of the discovery benchmark."""
    results: Path = RESULTS
    """Where ablations.csv, .json and .svg go."""
    prompts: tuple[str, ...] = field(default=WORLD.prompts[:5])
    """Prompts of the world."""
    n_images: int = 1000
    """Images per prompt and generation seed, as in the discovery benchmark."""
    generation_seeds: int = 1
    """Sets of images per prompt; the curve over numbers of images joins five of them."""
    curves: tuple[str, ...] = ()
    """The curves to measure; empty for all."""


def points(n_steps: int) -> list[Point]:
    """Every point of every curve; each curve includes the default."""
    last = n_steps - 1
    coarse = (102, 205, 512, 820)
    return [
        *(Point("number of images", str(n), score={"max_frequency": None}, n_images=n) for n in (100, 300, 1000, 5000)),
        *(Point("number of images", f"{n}, published", n_images=n, by_paper=True) for n in (1000, 5000)),
        *(Point("scoring step", str(n_steps - back), scoring_step=-1 - back) for back in range(0, n_steps, 3)),
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
        *(Point("k", str(k), {"k": k}) for k in (2, 4, 8, 16, 32)),
        *(Point("coarse neurons", str(n), {"group_sizes": (n, 2048 - n)}) for n in coarse),
        *(Point("pruning distance", f"{d:g}", score={"distance": d}) for d in (0.1, 0.3, 0.5, 0.7)),
        *(Point("max frequency", f"{f:g}", score={"max_frequency": f})
          for f in (0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 1.0)),
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
    """Measures all points on all cells; finished ones are not repeated."""
    rows: list[dict] = []
    for seed in range(options.generation_seeds):
        for prompt in options.prompts:
            rows += list(rows_of(options, prompt, seed))
            print(f"{prompt}, seed {seed}", flush=True)
    write_results(options.results, rows)


def write_results(results: Path, rows: list[dict]) -> None:
    """Writes all rows as CSV, the means over prompts as JSON, and the figure."""
    write_text(results / "ablations.csv", as_csv(rows))
    result = summary(rows, {row["prompt"] for row in rows}, "prompts")
    write_text(results / "ablations.json", json.dumps(without_nan(result), indent=1) + "\n")
    ablation_figure(result, results / "ablations.svg")


def rows_of(options: Options, prompt: str, seed: int) -> Iterator[dict]:
    """The rows of one prompt and generation seed, from its folder if they are there."""
    run = capture(options.work, prompt, seed, options.n_images)
    n_steps = run.facts.capture.n_steps
    for point in points(n_steps):
        if options.curves and point.curve not in options.curves:
            continue
        if point.n_images is not None and point.n_images > options.n_images and seed:
            continue  # joins the images of all seeds: once per prompt
        path = run.dir / "ablations" / f"{point.curve} {point.place}.csv".replace(" ", "-").replace("/", "-")
        if not path.exists():
            values = measured(options, point, prompt, seed)
            place = {"prompt": prompt, "generation_seed": seed, "sae_seed": 0, "arm": f"{point.curve}: {point.place}"}
            write_text(path, as_csv(place | {"measure": name, "value": value} for name, value in values.items()))
        yield from read_rows(path)


def measured(options: Options, point: Point, prompt: str, seed: int) -> dict[str, float]:
    """Trains and scores one point on one cell."""
    n = point.n_images or options.n_images
    seeds = [seed] if n <= options.n_images else range(n // options.n_images)
    runs = [capture(options.work, prompt, s, options.n_images) for s in seeds]
    cell = joined([cell_of(run, prompt, s) for run, s in zip(runs, seeds, strict=True)], n)
    codes = _codes(point, cell, tuple(run.dir for run in runs), n, "" if n == options.n_images else f"-of-{n}")
    if point.by_paper:
        found = published(codes.mean[:, : codes.n_coarse], cell.embeddings["clip"])
    else:
        peaks = codes.peak[:, : codes.n_coarse] if point.coarse_only else codes.peak
        score = {"max_frequency": longer(len(peaks))} | point.score
        found = coherent(peaks, *(cell.embeddings[name] for name in point.views), **score)
    return measure(found, Truth(cell.shows, cell.controls)) | {"silent neurons": float((codes.peak.max(0) == 0).mean())}


def _codes(point: Point, cell: Cell, folders: tuple[Path, ...], n: int, suffix: str) -> Codes:
    """The codes of a point; those of the default autoencoder are cached and shared with the discovery benchmark."""
    width = cell.mid.shape[-1]
    config = _spelled_out(replace(TrainConfig(), **point.train), width)
    usual = config == _spelled_out(TrainConfig(), width) and not point.training_steps and not point.streamed
    if usual and point.scoring_step == -1:
        return codes_of(Run(folders[0]), cell, partial(_activations, folders, n), f"matryoshka-0{suffix}", config)
    sae = _trained(folders, n, config, point.training_steps, point.streamed)
    readable = torch.from_numpy(cell.readable)
    return encode(sae, _activations(folders, n)[readable, point.scoring_step].float().numpy())


@lru_cache(1)  # consecutive points often need the same
def _activations(folders: tuple[Path, ...], n: int) -> Tensor:
    return torch.cat([activations_of(Run(folder)) for folder in folders])[:n]


@lru_cache(1)
def _trained(folders: tuple[Path, ...], n: int, config: TrainConfig, steps: tuple[int, ...] | None, streamed: bool
             ) -> MatryoshkaSAE:  # fmt: skip
    activations = _activations(folders, n)
    return trained(activations if steps is None else activations[:, list(steps)], config, streamed=streamed)


def _spelled_out(config: TrainConfig, width: int) -> TrainConfig:
    """The same training with every None replaced by its value, so that equal trainings compare as equal."""
    shape = config.sae_config(width)
    return replace(config, d_sae=shape.d_sae, group_sizes=shape.group_sizes, k=shape.k)


def joined(cells: Iterable[Cell], n: int) -> Cell:
    """The first `n` images of several cells of one prompt, as one cell."""
    cells = list(cells)
    readable = np.concatenate([cell.readable for cell in cells])[:n]
    kept = int(readable.sum())
    return Cell(
        cells[0].prompt, cells[0].seed, readable, np.concatenate([cell.shows for cell in cells])[:kept],
        {name: np.concatenate([cell.embeddings[name] for cell in cells])[:kept] for name in cells[0].embeddings},
        np.concatenate([cell.mid for cell in cells])[:kept], cells[0].controls,
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
