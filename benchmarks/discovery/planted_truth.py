"""Measures discovery against planted truth: every arm, prompt and seed. `python -m benchmarks.discovery --help`."""

import csv
import io
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.arms import arms_of
from benchmarks.common.cells import capture, cell_of, default_codes
from benchmarks.common.figures import recall_figure
from benchmarks.common.intervals import interval_of, shown, without_nan
from benchmarks.common.measures import Truth, measure
from raigen.config import TrainConfig
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.world.attributes import PROMPTS

RESULTS = Path(__file__).parents[1] / "results"
FIELDS = ("prompt", "generation_seed", "sae_seed", "arm", "measure", "value")
SHOWN = (
    "precision@10", "recall@20", "recall@20 in 0.5-1 %", "recall@20 in 1-2 %", "recall@20 in 2-5 %", "listed",
    "redundancy", "control hits", "interpretable", "presence", "rate correlation", "matched AP",
)  # fmt: skip
DRAWN = (
    "told the truth", "coherent", "coherent, to 10 %", "published", "published, ten images", "random order",
    "CLIP clusters", "ICA of looks",
)  # fmt: skip
# The score was chosen on the first generation seed of these, where its list ends on all five.
CHOSEN_ON = tuple(f"a photo of a {name}" for name in ("doctor", "nurse", "hairdresser", "manager"))
HELD_OUT = tuple(prompt for prompt in PROMPTS if prompt not in CHOSEN_ON)


@dataclass(frozen=True)
class Options:
    """The discovery benchmark."""

    model: str = "portraits"
    """A model of the portraits world, which CHOSEN_ON is about; another one with a `work` and a `name` of its own."""
    work: Path = Path("bench-work")
    """Folder for images, activations and codes; what is there is used."""
    results: Path = RESULTS
    """Where the tables and figures go."""
    name: str = "discovery"
    """Of the files in `results`."""
    prompts: tuple[str, ...] = field(default=PROMPTS)
    """Prompts of the portraits world."""
    n_images: int = 1000
    """Images per prompt and generation seed."""
    generation_seeds: int = 5
    """Sets of images per prompt."""
    sae_seeds: int = 1
    """Autoencoders per set of images."""
    workers: int = 2
    """Processes, each with its share of the cores and one cell at a time: two with a core each are a third faster than
    one with two."""


def main(options: Options) -> None:
    """Fills the table cell by cell, then writes it, its summary and the figure."""
    cells = list(product(range(options.generation_seeds), options.prompts))
    threads = max(1, (os.cpu_count() or 1) // options.workers)
    with ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        found = list(pool.map(partial(rows_of, options), cells))
    write_results(options, list(chain.from_iterable(found)))


def rows_of(options: Options, cell: tuple[int, str]) -> list[dict]:
    """The measures of all arms for one generation seed and prompt; kept in its folder once made."""
    (seed, prompt), rows, started = cell, [], time.monotonic()
    for sae_seed in range(options.sae_seeds):
        path = options.work / prompt.split()[-1] / f"g{seed}" / f"rows-{sae_seed}.csv"
        if not path.exists():
            run = capture(options.work, prompt, seed, options.n_images, model=options.model)
            write_text(path, as_csv(measured(run, prompt, seed, sae_seed)))
        with path.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    print(f"{prompt}, seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    return rows


def measured(run: Run, prompt: str, seed: int, sae_seed: int) -> list[dict]:
    """One row for each arm and measure."""
    cell = cell_of(run, prompt, seed)
    codes = default_codes(run, cell, sae_seed)
    truth = Truth(cell.shows, cell.controls)
    place = {"prompt": prompt, "generation_seed": seed, "sae_seed": sae_seed}
    return [
        place | {"arm": arm, "measure": name, "value": value}
        for arm, make in arms_of(cell, codes, TrainConfig().sae_config(cell.mid.shape[-1]).k, sae_seed).items()
        for name, value in measure(make(), truth).items()
    ]


def summary(
    rows: Iterable[dict], prompts: Iterable[str], over: str = "seeds"
) -> dict[str, dict[str, dict[str, float]]]:
    """arm -> measure -> mean over prompts and seeds, with a 95 % Student interval over the means of the seeds, or of
    the prompts: how much another seed, or another prompt, might change it.

    A prompt that has nothing to measure (no value in a band) is left out of that measure.
    """
    wanted, by_key = set(prompts), {}
    for row in rows:
        if row["prompt"] in wanted:
            groups = by_key.setdefault((row["arm"], row["measure"]), {})
            group = row["prompt"] if over == "prompts" else (row["generation_seed"], row["sae_seed"])
            groups.setdefault(group, []).append(float(row["value"]))
    result: dict[str, dict[str, dict[str, float]]] = {}
    for (arm, name), groups in by_key.items():
        known = [np.array(values)[np.isfinite(values)] for values in groups.values()]
        means = np.array([values.mean() for values in known if len(values)])
        result.setdefault(arm, {})[name] = interval_of(means)
    return result


def write_results(options: Options, rows: list[dict]) -> None:
    """CSV of everything, JSON of the summaries, the figure, and the table on the terminal."""
    held_out = [prompt for prompt in options.prompts if prompt in HELD_OUT]
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
    for title, result in summaries.items():
        print(f"\n{title}\n{table(result)}")


def table(
    result: dict[str, dict[str, dict[str, float]]], measures: Sequence[str] = SHOWN, rows_are: str = "arm"
) -> str:
    """A Markdown table, arms x measures: mean [low, high]."""
    lines = [f"| {rows_are} | " + " | ".join(measures) + " |", "|---" * (1 + len(measures)) + "|"]
    for arm, values in result.items():
        cells = [shown(values[name]) for name in measures]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_csv(rows: Iterable[dict]) -> str:
    """Rows as CSV text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in rows:
        writer.writerow([*(row[name] for name in FIELDS[:-1]), f"{float(row['value']):.6g}"])
    return buffer.getvalue()
