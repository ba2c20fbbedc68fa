"""Does the hookpoint search agree with planted truth? `python -m benchmarks.discovery.hookpoint_search --help`.

For each prompt, the search tries all hookpoints of the bundled model on the same images. The world's judge judges the
images, and each autoencoder's list is measured against its verdicts. The two orders of the hookpoints are compared. The
measures that make up the rank were chosen on `CHOSEN_ON` alone.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Bool
from safetensors.numpy import load_file, save_file
from scipy.stats import rankdata, spearmanr

from benchmarks.common.cells import controls
from benchmarks.common.intervals import CORRELATION, interval_of, without_nan
from benchmarks.common.measures import Listing, Truth, average_precision, measure
from benchmarks.common.results import HELD_OUT, RESULTS
from benchmarks.common.world import WORLD
from raigen.config import SearchConfig
from raigen.discovery.listing import NeuronList
from raigen.discovery.scores import NeuronScores
from raigen.discovery.search import SAE_SEEDS, Reading, ranked, rating_of, try_hookpoints
from raigen.runs.files import write_text
from raigen.runs.records import HookpointRating
from raigen.runs.steps import exhausted
from raigen.world.truth import RARE_SEEN_AT_MOST

CHOSEN_ON = ("a photo of a doctor", "a photo of a nurse")
REPORTED_ON = HELD_OUT[:2]  # the score of neurons was not chosen on these, either
TRUTHS = ("held", "interpretable", "precision@10", "recall@20")
MIN_SHOWN = 5  # images
MEASURES = ("score", "concentration", "stability", "dead_share", "n_listed")


@dataclass(frozen=True)
class Options:
    """The benchmark of the hookpoint search."""

    model: str = WORLD.pipeline
    """A model of the world. Give any other than the first its own `work` and `name`."""
    default: str = "unet.mid_block"
    """The default hookpoint of this model."""
    name: str = "hookpoint_search"
    """Name of the file in `results`."""
    prompts: tuple[str, ...] = field(default=(*CHOSEN_ON, *REPORTED_ON))
    """Prompts of the world."""
    n_images: int = 300
    """Images per prompt."""
    work: Path = Path("bench-work/hookpoint_search")
    """Folder for the measurements of each prompt; what is there is used."""
    results: Path = RESULTS
    """Where the JSON file goes."""
    threads: int = 1
    """CPU threads."""


def main(options: Options) -> None:
    """Measures each prompt, then writes and prints the agreement of the two orders."""
    torch.set_num_threads(options.threads)
    by_prompt = {prompt: measured(options, prompt) for prompt in options.prompts}
    result = {
        "n_images": options.n_images,
        "chosen on": summary({prompt: rows for prompt, rows in by_prompt.items() if prompt in CHOSEN_ON}),
        "reported on": summary({prompt: rows for prompt, rows in by_prompt.items() if prompt not in CHOSEN_ON}),
        "hookpoints": by_prompt,
    }
    write_text(options.results / f"{options.name}.json", json.dumps(without_nan(result), indent=1) + "\n")
    print(json.dumps({name: result[name] for name in ("chosen on", "reported on")}, indent=1))


def measured(options: Options, prompt: str) -> list[dict[str, Any]]:
    """A row for each hookpoint of a prompt, best first by the search."""
    tried, shows = material(options, prompt)
    truth = Truth(shows, controls(prompt))
    known = {each.path: truths(each, truth) for each in tried}
    rows = [rating._asdict() | known[rating.path] for rating in ranked(tried)]
    return [{name: value for name, value in row.items() if name != "readings"} for row in rows]


def material(options: Options, prompt: str) -> tuple[list[HookpointRating], Bool[np.ndarray, "image value"]]:
    """The findings of the search at each hookpoint, on the readable images, and what these images show; cached."""
    path = options.work / f"{prompt.split()[-1]}-{options.n_images}.safetensors"
    if not path.exists():
        started, verdicts = time.monotonic(), []
        config = SearchConfig(prompt=prompt, n_images=options.n_images)
        watch = [lambda images: verdicts.append(WORLD.judge(images))]
        tried = exhausted(try_hookpoints(options.model, config, watch), None)
        tensors = {name: np.concatenate([getattr(verdict, name) for verdict in verdicts])
                   for name in ("readable", "shows")}  # fmt: skip
        for each in tried:
            for seed, read in enumerate(each.readings):
                parts = read._asdict() | read.listing._asdict()
                parts |= {f"scores.{name}": value for name, value in read.listing.scores._asdict().items()}
                del parts["listing"], parts["scores"]
                tensors |= {f"{each.path}|{seed}|{name}": np.asarray(value) for name, value in parts.items()}
        options.work.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
        print(f"{prompt}: {time.monotonic() - started:.0f} s", flush=True)
    stored = load_file(path)
    readable = stored["readable"].astype(bool)
    paths = dict.fromkeys(name.split("|")[0] for name in stored if "|" in name)
    tried = [_tried(stored, name, readable, name == options.default) for name in paths]
    return tried, stored["shows"].astype(bool)[readable]


def _tried(stored: dict[str, np.ndarray], path: str, readable: np.ndarray, is_default: bool) -> HookpointRating:
    found = []
    for seed in SAE_SEEDS:
        parts = {name.split("|")[2]: value for name, value in stored.items() if name.startswith(f"{path}|{seed}|")}
        scores = NeuronScores(**{name: parts[f"scores.{name}"] for name in NeuronScores._fields})
        listing = NeuronList(scores, parts["neurons"], parts["top"])
        found.append(Reading(parts["max_codes"][readable], listing, parts["concentration"], parts["dead_share"].item()))
    return rating_of(path, is_default, found)


def truths(tried: HookpointRating, truth: Truth) -> dict[str, float]:
    """The agreement with truth at a hookpoint, averaged over its autoencoders.

    `held`: mean over the rare values that at least five images show of the average precision of the best neuron.
    `interpretable`: share of the first ten neurons whose top images share a value, twice as often as all images.
    """
    rate, count = truth.shows.mean(0), truth.shows.sum(0)
    rare = (rate <= RARE_SEEN_AT_MOST) & (count >= MIN_SHOWN)
    found = []
    for read in tried.readings:
        listed = read.listing.neurons
        result = measure(Listing(read.max_codes[:, listed], read.listing.scores.frequency[listed]), truth)
        result["held"] = float(average_precision(read.max_codes, truth.shows[:, rare]).max(0).mean())
        found.append(result)
    return {name: float(np.mean([one[name] for one in found])) for name in TRUTHS}


def summary(by_prompt: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """For each measure of truth: Spearman's correlation over hookpoints with each measure of the search, as a mean over
    prompts with its interval; and its value at the first hookpoint of the search, at the default, at the best, and on
    average."""
    result: dict[str, Any] = {}
    for truth in TRUTHS:
        correlations = {
            name: over_prompts([agreement(rows, name, truth) for rows in by_prompt.values()])
            | {"by prompt": {prompt: agreement(rows, name, truth) for prompt, rows in by_prompt.items()}}
            for name in ("rank", *MEASURES)
        }
        chosen = [next(row[truth] for row in rows if row["rank"] == 1) for rows in by_prompt.values()]
        default = [next(row[truth] for row in rows if row["is_default"]) for rows in by_prompt.values()]
        every = [[row[truth] for row in rows] for rows in by_prompt.values()]
        result[truth] = {
            "spearman": correlations,
            "mean ranks": {
                " + ".join(names): over_prompts([of_ranks(rows, names, truth) for rows in by_prompt.values()])
                for size in (2, 3, 4)
                for names in combinations(MEASURES[:4], size)
            },
            "at the first of the search": float(np.mean(chosen)),
            "at the default": float(np.mean(default)),
            "at the best": float(np.mean([max(values) for values in every])),
            "at any": float(np.mean([np.mean(values) for values in every])),
        }
    return result


def of_ranks(rows: Sequence[dict[str, Any]], names: Sequence[str], truth: str) -> float:
    """Spearman's correlation over hookpoints of the mean rank in some measures with a measure of truth."""
    signed = [[row[name] * (-1 if name == "dead_share" else 1) for row in rows] for name in names]
    ranks = np.sum([rankdata(values) for values in signed], axis=0)
    return agreement([row | {"mean": rank} for row, rank in zip(rows, ranks, strict=True)], "mean", truth)


def over_prompts(correlations: Sequence[float]) -> dict[str, float]:
    """The mean of the correlations that are numbers, with its interval."""
    return interval_of(np.array([value for value in correlations if np.isfinite(value)]), CORRELATION)


def agreement(rows: Sequence[dict[str, Any]], name: str, truth: str) -> float:
    """Spearman's correlation over hookpoints of a measure, or of the rank (1 is best), with a measure of truth."""
    sign = -1 if name in ("rank", "dead_share") else 1
    values = [[sign * row[name] for row in rows], [row[truth] for row in rows]]
    if any(np.ptp(each) == 0 for each in values):
        return float("nan")
    return float(spearmanr(*values)[0])  # type: ignore[arg-type]


if __name__ == "__main__":
    main(tyro.cli(Options))
