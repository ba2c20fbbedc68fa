"""What are the listed neurons that are not hits? `python -m benchmarks.discovery.misses`.

It uses the cells and codes of the discovery benchmark. Each of the first ten neurons of a list gets the first kind that
fits its ten top images: at least eight show a *rare value* (a hit); eight show the same *rare pair* of values, which at
most 10 % of all images show together; six or seven show a rare value (*nearly*); eight show a *common value*, which
more than 10 % of all images show, at least twice as often as all images do; or *nothing*. A list of neurons in random
order shows how many pairs occur by chance.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Bool

from benchmarks.common.arms import by_part, coherent, longer
from benchmarks.common.cells import Cell, capture, cell_of, default_codes
from benchmarks.common.intervals import SHARE, interval_of, without_nan
from benchmarks.common.measures import RARE_AT_MOST, SHARED_BY, Listing, Truth, top_images, verdicts
from benchmarks.common.results import HELD_OUT, RESULTS, table
from benchmarks.common.world import WORLD
from raigen.runs.files import write_text
from raigen.runs.run import Run

KINDS = ("rare value", "rare pair", "nearly", "common value", "nothing")
COUNTED = {kind: (kind,) for kind in KINDS} | {"rare value or pair": KINDS[:2]}
NEARLY = 0.6  # of the top images
N_FIRST = 10


@dataclass(frozen=True)
class Options:
    """The benchmark of misses."""

    work: Path = Path("bench-work")
    """Folder of the discovery benchmark."""
    results: Path = RESULTS
    """Where misses.json goes."""
    prompts: tuple[str, ...] = field(default=WORLD.prompts)
    """Prompts of the world."""
    n_images: int = 1000
    """Images per prompt and generation seed, as in the discovery benchmark."""
    generation_seeds: int = 5
    """Sets of images per prompt."""


def kinds(listing: Listing, truth: Truth) -> list[tuple[str, str]]:
    """Kind and name, such as ("rare pair", "long hair + office"), of each of the first ten units."""
    rate, top = truth.shows.mean(0), top_images(listing.activations)[:N_FIRST]
    rare = np.flatnonzero((rate > 0) & (rate <= RARE_AT_MOST))
    shares = truth.shows[top].mean(1)  # [unit, value]
    verdict = verdicts(listing, truth)
    found = []
    for unit, images in enumerate(top):
        pair = rare_pair(truth.shows, truth.shows[images])
        if verdict.hit[unit] >= 0:
            found.append(("rare value", WORLD.value_names[verdict.hit[unit]]))
        elif pair is not None:
            found.append(("rare pair", " + ".join(WORLD.value_names[value] for value in pair)))
        elif len(rare) and shares[unit, rare].max() >= NEARLY:
            found.append(("nearly", WORLD.value_names[rare[shares[unit, rare].argmax()]]))
        elif verdict.meaning[unit] >= 0:
            found.append(("common value", WORLD.value_names[verdict.meaning[unit]]))
        else:
            found.append(("nothing", ""))
    return found


def rare_pair(shows: Bool[np.ndarray, "image value"], tops: Bool[np.ndarray, "top value"]) -> tuple[int, int] | None:
    """The rarest pair of values that at least 80 % of the top images, but at most 10 % of all images, show together;
    None where there is none."""
    common = np.flatnonzero(tops.mean(0) >= SHARED_BY).tolist()
    pairs = [(a, b) for place, a in enumerate(common) for b in common[place + 1 :]]
    rates = {
        (a, b): (shows[:, a] & shows[:, b]).mean() for a, b in pairs if (tops[:, a] & tops[:, b]).mean() >= SHARED_BY
    }
    rates = {pair: rate for pair, rate in rates.items() if rate <= RARE_AT_MOST}
    return min(rates, key=lambda pair: rates[pair]) if rates else None


def main(options: Options) -> None:
    """Prints every miss, then the shares of the kinds and the share of hits at each place; writes them with intervals
    over prompts."""
    found: dict[str, dict[str, list[list[str]]]] = {}  # list -> prompt -> the kinds in each set of images
    for prompt in options.prompts:
        for seed in range(options.generation_seeds):
            run = capture(options.work, prompt, seed, options.n_images)
            cell = cell_of(run, prompt, seed)
            for name, listing in lists(run, cell).items():
                told = kinds(listing, Truth(cell.shows, cell.controls))
                found.setdefault(name, {}).setdefault(prompt, []).append([kind for kind, _ in told])
                if name == "coherent, to 5 %":
                    print(f"{prompt}, seed {seed}:", "; ".join(" ".join(one) for one in told), flush=True)
    shares, places = {}, {}
    for name, by_prompt in found.items():
        for which, among in (("all prompts", WORLD.prompts), ("held-out prompts", HELD_OUT)):
            chosen = [by_prompt[prompt] for prompt in options.prompts if prompt in among]
            shares[f"{name}, {which}"], places[f"{name}, {which}"] = summary(chosen), by_place(chosen)
    result = {"shares": shares, "rare values by place": places}
    write_text(options.results / "misses.json", json.dumps(without_nan(result), indent=1) + "\n")
    print(
        table(shares, tuple(COUNTED), "list"),
        table(places, list(map(str, range(1, N_FIRST + 1))), "place"),
        sep="\n\n",
    )


def lists(run: Run, cell: Cell) -> dict[str, Listing]:
    """The default list, a list up to 5 %, and the same neurons in random order."""
    codes, clip, looks = default_codes(run, cell)["matryoshka"], cell.embeddings["clip"], cell.embeddings["pixels"]
    return {
        "coherent": coherent(codes.peak, clip, looks),
        "coherent, to 5 %": coherent(codes.peak, clip, looks, max_frequency=longer(len(clip))),
        "random order": by_part(codes.mean, clip, "random", seed=0),
    }


def summary(by_prompt: Sequence[list[list[str]]]) -> dict[str, dict[str, float]]:
    """The mean share of each kind in COUNTED, with an interval over prompts of the means over seeds; empty lists do not
    count."""
    found = {}
    for name, counted in COUNTED.items():
        shares = [[np.mean([kind in counted for kind in told]) for told in sets if told] for sets in by_prompt]
        found[name] = interval_of(np.array([np.mean(seeds) for seeds in shares if seeds]), SHARE)
    return found


def by_place(by_prompt: Sequence[list[list[str]]]) -> dict[str, dict[str, float]]:
    """The share of lists with a rare value at a place, among lists that reach it, with an interval as in `summary`."""
    found = {}
    for place in range(N_FIRST):
        hits = [[told[place] == KINDS[0] for told in sets if len(told) > place] for sets in by_prompt]
        found[str(place + 1)] = interval_of(np.array([np.mean(there) for there in hits if there]), SHARE)
    return found


if __name__ == "__main__":
    main(tyro.cli(Options))
