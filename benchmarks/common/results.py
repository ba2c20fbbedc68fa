"""Where results of benchmarks go, and how a table of measures is summarized and written."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common.intervals import interval_of, shown
from raigen.world.attributes import PROMPTS

RESULTS = Path(__file__).parents[1] / "results"
FIELDS = ("prompt", "generation_seed", "sae_seed", "arm", "measure", "value")
SHOWN = (
    "precision@10", "recall@20", "recall@20 in 0.5-1 %", "recall@20 in 1-2 %", "recall@20 in 2-5 %", "listed",
    "redundancy", "control hits", "interpretable", "presence", "rate correlation", "matched AP",
)  # fmt: skip
# The score was chosen on the first generation seed of these prompts; the end of the list on all five seeds.
CHOSEN_ON = tuple(f"a photo of a {name}" for name in ("doctor", "nurse", "hairdresser", "manager"))
HELD_OUT = tuple(prompt for prompt in PROMPTS if prompt not in CHOSEN_ON)


def summary(
    rows: Iterable[dict], prompts: Iterable[str], over: str = "seeds"
) -> dict[str, dict[str, dict[str, float]]]:
    """arm -> measure -> mean over prompts and seeds, with a 95 % Student interval over the means of the seeds, or of
    the prompts: how much it would vary with other seeds, or other prompts.

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
