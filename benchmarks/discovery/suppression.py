"""What does guidance hide? Rates of planted values at several guidance scales, and when the value is named.

Run: `python -m benchmarks.discovery.suppression`. The world's judge
judges fresh images of every prompt, with the same seeds at every scale, and then images of "prompt, value" for every
value that is rare under the prompt.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.common.figures import suppression_figure
from benchmarks.common.results import RESULTS
from raigen.diffusion.generation import defaults, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.runs.files import write_text
from raigen.stats import rate_interval
from raigen.world.attributes import BY_NAME, PROMPTS, VALUE_NAMES
from raigen.world.judge import judge
from raigen.world.models import BUNDLED
from raigen.world.planted import RARE_AT_MOST, rare_values, rates

SEEDS_FROM = 3_000_000_000  # apart from those of audits, fresh images and the model card
BATCH = 32


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
    pipe = load_pipeline(BUNDLED, "auto")
    settings = defaults(pipe, BUNDLED)
    assert settings.guidance_scale is not None
    scales = sorted({1.0, settings.guidance_scale, 2 * settings.guidance_scale})
    rows = []
    for prompt in PROMPTS:
        for scale in scales:
            rows += seen(pipe, prompt, settings._replace(guidance_scale=scale), options.n_images)
        for name in rare_values(prompt):
            rows.append(named(pipe, prompt, name, settings, options.n_named))
        print(prompt, flush=True)
    result = {"n_images": options.n_images, "n_named": options.n_named, "scales": scales,
              "by_scale": {f"{scale:g}": kept(rows, scale) for scale in scales},
              "named": called(rows)}  # fmt: skip
    write_text(options.results / "suppression.csv", as_csv(rows))
    write_text(options.results / "suppression.json", json.dumps(result, indent=1) + "\n")
    suppression_figure(rows, options.results / "suppression.svg")
    print(json.dumps({name: result[name] for name in ("by_scale", "named")}, indent=1))


def seen(pipe: Any, prompt: str, settings: Any, count: int) -> Iterator[dict[str, Any]]:
    """A row for every planted value of the prompt: the number of readable images that show it."""
    verdict = judge(_images(pipe, prompt, settings, count))
    n = int(verdict.readable.sum())
    hits = dict(zip(VALUE_NAMES, verdict.shows.sum(0).tolist(), strict=True))
    for name, planted in rates(prompt).items():
        if planted > 0:
            yield row_of(prompt, name, planted, settings.guidance_scale, hits[name], n, named=False)


def named(pipe: Any, prompt: str, name: str, settings: Any, count: int) -> dict[str, Any]:
    """The row of a rare value when the prompt names it."""
    verdict = judge(_images(pipe, f"{prompt}, {BY_NAME[name].phrase}", settings, count))
    hits = int(verdict.shows[:, VALUE_NAMES.index(name)].sum())
    return row_of(prompt, name, rates(prompt)[name], settings.guidance_scale, hits, int(verdict.readable.sum()),
                  named=True)  # fmt: skip


def row_of(prompt: str, value: str, planted: float, scale: float, hits: int, n: int, *, named: bool) -> dict[str, Any]:
    """Counts with their interval; `rate` is None when no image was readable."""
    interval = rate_interval(hits, n) if n else None
    return {
        "prompt": prompt, "value": value, "planted": planted, "guidance_scale": scale, "named": int(named),
        "hits": hits, "readable": n, "rate": hits / n if n else None,
        "low": interval.low if interval else None, "high": interval.high if interval else None,
    }  # fmt: skip


def kept(rows: list[dict[str, Any]], scale: float) -> dict[str, float]:
    """For the values planted as rare: pooled rate seen over pooled rate planted, and the share of values never seen."""
    chosen = [row for row in rows if row["guidance_scale"] == scale and not row["named"] and row["readable"]]
    rare = [row for row in chosen if row["planted"] <= RARE_AT_MOST]
    common = [row for row in chosen if row["planted"] > RARE_AT_MOST]
    return {
        "rare: seen / planted": _pooled(rare),
        "common: seen / planted": _pooled(common),
        "rare: never seen": float(np.mean([row["hits"] == 0 for row in rare])),
    }


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


def _pooled(rows: list[dict[str, Any]]) -> float:
    return sum(row["hits"] for row in rows) / sum(row["planted"] * row["readable"] for row in rows)


def _images(pipe: Any, prompt: str, settings: Any, count: int) -> list:
    seeds = range(SEEDS_FROM, SEEDS_FROM + count)
    return [image for batch in generate_images(pipe, prompt, seeds, settings, BATCH) for image in batch]


if __name__ == "__main__":
    main(tyro.cli(Options))
