"""Where results of benchmarks go, and how a table of measures is summarized and written."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common.intervals import ANY, SHARE, Summary, interval_of, shown
from benchmarks.common.measures import RANGES
from benchmarks.common.world import WORLD

RESULTS = Path(__file__).parents[1] / "results"
FIELDS = ("prompt", "generation_seed", "sae_seed", "arm", "measure", "value")
SHOWN = (
    "precision@10", "recall@20", "recall@20 in 0.5-1 %", "recall@20 in 1-2 %", "recall@20 in 2-5 %", "listed",
    "redundancy", "control hits", "interpretable", "presence", "rate correlation", "matched AP",
)  # fmt: skip
HEADS = {
    "recall@20 in 0.5-1 %": "at .5-1 %", "recall@20 in 1-2 %": "at 1-2 %", "recall@20 in 2-5 %": "at 2-5 %",
    "redundancy": "hits per value", "rate correlation": "Spearman of rates",
}  # of the measures, in tables  # fmt: skip
# The score was chosen on the first generation seed of the other prompts; the end of the list on all five seeds.
HELD_OUT = tuple(prompt for prompt in WORLD.prompts if prompt not in WORLD.chosen_on)


def summary(rows: Iterable[dict], prompts: Iterable[str], over: str = "seeds") -> Summary:
    """arm -> measure -> mean over prompts and seeds, with a 95 % interval over the means of the seeds, or of the
    prompts: how much it would vary with other seeds, or other prompts.

    A list with nothing to measure (an empty list, or no value in a band) does not count for that measure, so `n` can be
    smaller than the number of prompts.
    """
    wanted, by_key = set(prompts), {}
    for row in rows:
        if row["prompt"] in wanted:
            groups = by_key.setdefault((row["arm"], row["measure"]), {})
            group = row["prompt"] if over == "prompts" else (row["generation_seed"], row["sae_seed"])
            groups.setdefault(group, []).append(float(row["value"]))
    result: Summary = {}
    for (arm, name), groups in by_key.items():
        means = np.array([mean for values in groups.values() if np.isfinite(mean := mean_of(values))])
        result.setdefault(arm, {})[name] = interval_of(means, RANGES.get(name, SHARE))
    return result


def differences(rows: Iterable[dict], base: str) -> Summary:
    """arm -> measure -> mean difference to the arm `base`, paired by prompt (each the mean over its seeds), with its
    interval over prompts. A prompt that has nothing to measure in one of the two arms does not count."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault((row["arm"], row["measure"]), {}).setdefault(row["prompt"], []).append(float(row["value"]))
    means = {key: {prompt: mean_of(values) for prompt, values in by.items()} for key, by in found.items()}
    result: Summary = {}
    for (arm, name), by_prompt in means.items():
        if arm != base:
            gaps = np.array([value - means[base, name][prompt] for prompt, value in by_prompt.items()])
            result.setdefault(arm, {})[name] = interval_of(gaps[np.isfinite(gaps)], ANY)
    return result


def mean_of(values: Sequence[float]) -> float:
    """The mean of the values that are numbers; NaN for none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def read_rows(path: Path) -> list[dict]:
    """The rows of a table that `as_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(result: Summary, measures: Sequence[str] = SHOWN, rows_are: str = "arm") -> str:
    """A Markdown table, arms x measures: mean [low, high], with its n where that is below the largest of the row."""
    heads = [HEADS.get(name, name) for name in measures]
    lines = [f"| {rows_are} | " + " | ".join(heads) + " |", "|---" * (1 + len(measures)) + "|"]
    for arm, values in result.items():
        n = max(values[name]["n"] for name in measures)
        cells = [shown(values[name], n) for name in measures]
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
