"""Measures discovery against planted truth: every arm, prompt and seed. `python -m benchmarks.discovery --help`."""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.common.arms import arms_of
from benchmarks.common.cells import capture, cell_of, default_codes
from benchmarks.common.figures import recall_figure
from benchmarks.common.intervals import Summary, without_nan
from benchmarks.common.measures import Truth, measure
from benchmarks.common.results import RESULTS, as_csv, read_rows, summary, table
from benchmarks.common.world import WORLD
from raigen.config import TrainConfig
from raigen.errors import RaigenError
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.world.worlds import WORLDS, World, world_of

DRAWN = (
    "told the truth", "coherent", "coherent, to 10 %", "published", "published, ten images", "random order",
    "CLIP clusters", "ICA of looks",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The discovery benchmark."""

    model: str = WORLD.pipeline
    """A model of a planted world. Give any other than the first its own `work` and `name`."""
    work: Path = Path("bench-work")
    """Folder for images, activations and codes; what is there is used."""
    results: Path = RESULTS
    """Where the tables and figures go."""
    name: str = "discovery"
    """Name of the files in `results`."""
    prompts: tuple[str, ...] = ()
    """Prompts of the model's world; all of them by default."""
    n_images: int = 1000
    """Images per prompt and generation seed."""
    generation_seeds: int = 5
    """Sets of images per prompt."""
    sae_seeds: int = 1
    """Autoencoders per set of images."""
    workers: int = 2
    """Processes, each with its share of the cores and one cell at a time: two processes with a core each are a third
    faster than one with two cores."""


def main(options: Options) -> None:
    """Fills the table cell by cell, then writes it, its summary and the figure."""
    options = replace(options, prompts=options.prompts or world_shown_by(options.model).prompts)
    cells = list(product(range(options.generation_seeds), options.prompts))
    threads = max(1, (os.cpu_count() or 1) // options.workers)
    with ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        found = list(pool.map(partial(rows_of, options), cells))
    for title, result in write_results(options, list(chain.from_iterable(found))).items():
        print(f"\n{title}\n{table(result)}")


def world_shown_by(model: str) -> World:
    """The planted world of a model. Raises RaigenError for a model of none."""
    world = world_of(model)
    if world is None:
        raise RaigenError(f"model: expected one of a planted world ({', '.join(WORLDS)}); got {model!r}")
    return world


def rows_of(options: Options, cell: tuple[int, str]) -> list[dict]:
    """The measures of all arms for one generation seed and prompt, cached in its folder."""
    (seed, prompt), rows, started = cell, [], time.monotonic()
    for sae_seed in range(options.sae_seeds):
        path = options.work / prompt.split()[-1] / f"g{seed}" / f"rows-{sae_seed}.csv"
        if not path.exists():
            run = capture(options.work, prompt, seed, options.n_images, model=options.model)
            write_text(path, as_csv(measured(run, prompt, seed, sae_seed, world_shown_by(options.model))))
        rows += read_rows(path)
    print(f"{prompt}, seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    return rows


def measured(run: Run, prompt: str, seed: int, sae_seed: int, world: World = WORLD) -> list[dict]:
    """One row for each arm and measure."""
    cell = cell_of(run, prompt, seed, world)
    codes = default_codes(run, cell, sae_seed)
    truth = Truth(cell.shows, cell.controls)
    place = {"prompt": prompt, "generation_seed": seed, "sae_seed": sae_seed}
    return [
        place | {"arm": arm, "measure": name, "value": value}
        for arm, make in arms_of(cell, codes, TrainConfig().sae_config(cell.mid.shape[-1]).k, sae_seed).items()
        for name, value in measure(make(), truth).items()
    ]


def write_results(options: Options, rows: list[dict]) -> dict[str, Summary]:
    """Writes all rows as CSV, the summaries as JSON, and the figure; returns the summaries by title."""
    world = world_shown_by(options.model)
    held_out = [prompt for prompt in options.prompts if prompt not in world.chosen_on]
    summaries = {
        f"{name}, intervals over {over}": summary(rows, prompts, over)
        for name, prompts in (("all prompts", options.prompts), ("held-out prompts", held_out))
        for over in ("prompts", "seeds")
        if len(prompts) > 1 and (over == "prompts" or options.generation_seeds * options.sae_seeds > 1)
    }
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / f"{options.name}.csv", as_csv(rows))
    write_text(options.results / f"{options.name}.json", json.dumps(without_nan(summaries), indent=1) + "\n")
    figure = {arm: result for arm, result in summary(rows, options.prompts, "prompts").items() if arm in DRAWN}
    recall_figure(figure, options.results / f"{options.name}.svg")
    return summaries
