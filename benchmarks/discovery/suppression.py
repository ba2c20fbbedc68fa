"""What does guidance hide? Rates of planted values at several guidance scales, and when the value is named.

Run: `python -m benchmarks.discovery.suppression`. The world's judge
judges fresh images of every prompt, with the same seeds at every scale, and then images of "prompt, value" for every
value that is rare under the prompt.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.common.figures import suppression_figure
from benchmarks.common.intervals import COUNT, SHARE, interval_of, without_nan
from benchmarks.common.results import RESULTS
from benchmarks.common.world import WORLD
from raigen.diffusion.generation import defaults, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.runs.files import write_text
from raigen.stats import rate_interval
from raigen.world.planted import RARE_AT_MOST

SEEDS_FROM = 3_000_000_000  # apart from those of audits, fresh images and the model card
BATCH = 32
# The values that the bundled model shows where they were not planted (its model card).
LEAKING = ("bald", "beard", "grey hair", "arms crossed", "dark skin")


@dataclass(frozen=True)
class Options:
    """The suppression benchmark."""

    n_images: int = 500
    """Images per prompt and guidance scale."""
    n_named: int = 50
    """Images per prompt and rare value when the value is named, at the default guidance."""
    results: Path = RESULTS
    """Where suppression.json, suppression.csv and suppression.svg go."""


def main(options: Options) -> None:
    """Measures all rates; writes and prints them."""
    pipe = load_pipeline(WORLD.pipeline, "auto")
    settings = defaults(pipe, WORLD.pipeline)
    assert settings.guidance_scale is not None
    scales = sorted({1.0, settings.guidance_scale, 2 * settings.guidance_scale})
    rows = []
    for prompt in WORLD.prompts:
        for scale in scales:
            rows += seen(pipe, prompt, settings._replace(guidance_scale=scale), options.n_images)
        for name in WORLD.rare_values(prompt):
            rows.append(named(pipe, prompt, name, settings, options.n_named))
        print(prompt, flush=True)
    write_text(options.results / "suppression.csv", as_csv(rows))
    print(json.dumps(write_results(options.results, rows), indent=1))


def write_results(results: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes the means over prompts as JSON, and the figure; returns the means."""
    scales = sorted({row["guidance_scale"] for row in rows})
    result = {"by_scale": {f"{scale:g}": kept(rows, scale) for scale in scales}, "named": called(rows)}
    write_text(results / "suppression.json", json.dumps(without_nan(result), indent=1) + "\n")
    suppression_figure(rows, results / "suppression.svg")
    return result


def seen(pipe: Any, prompt: str, settings: Any, count: int) -> Iterator[dict[str, Any]]:
    """A row for every planted value of the prompt: the number of readable images that show it."""
    verdict = WORLD.judge(_images(pipe, prompt, settings, count))
    n = int(verdict.readable.sum())
    hits = dict(zip(WORLD.value_names, verdict.shows.sum(0).tolist(), strict=True))
    for name, planted in WORLD.planted(prompt).items():
        if planted > 0:
            yield row_of(prompt, name, planted, settings.guidance_scale, hits[name], n, named=False)


def named(pipe: Any, prompt: str, name: str, settings: Any, count: int) -> dict[str, Any]:
    """The row of a rare value when the prompt names it."""
    verdict = WORLD.judge(_images(pipe, f"{prompt}, {WORLD.phrase(name)}", settings, count))
    hits = int(verdict.shows[:, WORLD.value_names.index(name)].sum())
    return row_of(prompt, name, WORLD.planted(prompt)[name], settings.guidance_scale, hits, int(verdict.readable.sum()),
                  named=True)  # fmt: skip


def row_of(prompt: str, value: str, planted: float, scale: float, hits: int, n: int, *, named: bool) -> dict[str, Any]:
    """Counts with their interval; `rate` is None when no image was readable."""
    interval = rate_interval(hits, n) if n else None
    return {
        "prompt": prompt, "value": value, "planted": planted, "guidance_scale": scale, "named": int(named),
        "hits": hits, "readable": n, "rate": hits / n if n else None,
        "low": interval.low if interval else None, "high": interval.high if interval else None,
    }  # fmt: skip


def kept(rows: list[dict[str, Any]], scale: float) -> dict[str, dict[str, float]]:
    """For the values planted as rare: how often they were seen over how often they were planted, with and without the
    values in LEAKING, and the share of values never seen; with intervals over prompts."""
    chosen = [row for row in rows if row["guidance_scale"] == scale and not row["named"] and row["readable"]]
    rare = [row for row in chosen if row["planted"] <= RARE_AT_MOST]
    common = [row for row in chosen if row["planted"] > RARE_AT_MOST]
    return {
        "rare: seen / planted": ratio(rare),
        "rare, without those that leak: seen / planted": ratio([row for row in rare if row["value"] not in LEAKING]),
        "common: seen / planted": ratio(common),
        "rare: never seen": interval_of(np.array([np.mean([row["hits"] == 0 for row in part])
                                                  for part in by_prompt(rare)]), SHARE),
    }  # fmt: skip


def ratio(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Hits over planted hits of all rows together, with an interval over prompts: of the ratio estimator, from the
    residual of each prompt."""
    parts = by_prompt(rows)
    seen = np.array([sum(row["hits"] for row in part) for part in parts])
    planted = np.array([sum(row["planted"] * row["readable"] for row in part) for part in parts])
    pooled = seen.sum() / planted.sum()
    return interval_of(pooled + (seen - pooled * planted) / planted.mean(), COUNT)


def by_prompt(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of each prompt."""
    return [[row for row in rows if row["prompt"] == prompt] for prompt in dict.fromkeys(row["prompt"] for row in rows)]


def called(rows: list[dict[str, Any]]) -> dict[str, float]:
    """When a rare value is named: its mean rate, and the share of values shown by at least 80 % of images."""
    found = np.array([row["rate"] for row in rows if row["named"] and row["rate"] is not None])
    return {"mean rate": float(found.mean()), "values in >= 80 % of images": float((found >= 0.8).mean())}


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text; an unknown rate is empty."""
    lines = [",".join(rows[0])]
    for row in rows:
        lines.append(",".join("" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
                              for cell in row.values()))  # fmt: skip
    return "\n".join(lines) + "\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table that `as_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: text if name in ("prompt", "value") else float(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _images(pipe: Any, prompt: str, settings: Any, count: int) -> list:
    seeds = range(SEEDS_FROM, SEEDS_FROM + count)
    return [image for batch in generate_images(pipe, prompt, seeds, settings, BATCH) for image in batch]


if __name__ == "__main__":
    main(tyro.cli(Options))
