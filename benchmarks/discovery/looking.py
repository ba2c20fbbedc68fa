"""Does it help to look around odd images?

Compares lists of equal cost on planted truth: `python -m benchmarks.discovery.looking`. Every arm makes 1,500 images of
a prompt, but for the first, which is the start of the others:

- *watched*: 1,000 audited images, the default list of neurons;
- *watched longer*: 1,500 audited images;
- *looked*: 1,000 audited images, and 500 relatives of odd ones (`raigen.discovery.look`);
- *looked at random*: the same, but around images drawn at random in place of odd ones.

An entry of a list is truly rare if at least 8 of its 10 top images share a value that at most 10 % of the 1,000 images
show. A value counts as found if a listed entry stands for it. It is named if the entry's label says this value. The
bands are rates seen in the 1,000 images.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import tyro

from benchmarks.common.intervals import COUNT, SHARE, interval_of, shown, without_nan
from benchmarks.common.results import RESULTS
from raigen.auditing.audit import capture_and_train, run_stage, steps
from raigen.config import PORTRAITS, AuditConfig, LookConfig
from raigen.discovery.families import Views
from raigen.judging.protocol import StoredImages
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.world.truth import hit_of
from raigen.world.worlds import WORLDS, World

ARMS = ("watched", "watched longer", "looked", "looked at random")
BANDS = {".1-.8 %": (0.0, 0.008), ".8-2 %": (0.008, 0.02), "2-5 %": (0.02, 0.05)}
SEEDS_APART = 100_000  # between the first seeds of two generation seeds
N_FIRST = 10


@dataclass(frozen=True)
class Options:
    """The benchmark of looking around odd images."""

    work: Path = Path("bench-work/looking")
    """Folder of the runs, PROFESSION/seed-N; those that are missing are made."""
    results: Path = RESULTS
    """Where the result file goes."""
    world: str = PORTRAITS
    """The planted world: `portraits` or `emblems`."""
    name: str = "looking"
    """Name of the result file, without its ending."""
    prompts: tuple[str, ...] = ()
    """Prompts of the world; none means all."""
    arms: tuple[str, ...] = ARMS
    """Arms to compare."""
    n_seeds: int = 1
    """Generation seeds, 1 or more."""
    n_images: int = 1000
    """Audited images per prompt. Half as many are added by all arms but the first."""
    made_only: bool = False
    """Leave out runs that are not there, instead of making them."""


class Entry(NamedTuple):
    """An entry of a list: the rare value that its top images share, if they share one; whether its label says so; and
    whether a family was found."""

    value: str | None
    is_named: bool
    has_label: bool
    is_family: bool


class Listing(NamedTuple):
    """The list of an arm for one prompt and generation seed, with the rates at which values are seen in the first
    images."""

    arm: str
    prompt: str
    seed: int
    entries: list[Entry]
    rates: dict[str, float]


def main(options: Options) -> None:
    """Runs what is missing, prints and writes the measures of every arm."""
    listings: list[Listing] = []
    world = WORLDS[options.world]
    for seed in range(options.n_seeds):
        for prompt in options.prompts or world.prompts:
            for arm in options.arms:
                found = listing_of(options, arm, prompt, seed)
                if found is not None:
                    listings.append(found)
                    hits = [entry.value for entry in found.entries if entry.value]
                    print(f"{arm}, {prompt}, seed {seed}: {len(hits)} of {len(found.entries)} truly rare; "
                          f"{', '.join(sorted(set(hits)))}", flush=True)  # fmt: skip
    summary = {arm: {group: measures([one for one in listings if one.arm == arm and is_chosen == (one.prompt in
               world.chosen_on)]) for group, is_chosen in (("chosen", True), ("reported", False))}
               for arm in options.arms}  # fmt: skip
    lists = [one._asdict() | {"entries": [entry._asdict() for entry in one.entries]} for one in listings]
    found = without_nan({"summary": summary, "lists": lists})
    write_text(options.results / f"{options.name}.json", json.dumps(found, indent=1) + "\n")
    for arm, by_group in summary.items():
        for group, measured in by_group.items():
            print(arm, group, *(f"{name} {shown(value)}" for name, value in measured.items()), sep="\n  ")


def listing_of(options: Options, arm: str, prompt: str, seed: int) -> Listing | None:
    """The list of an arm, from its run; a missing run is made, unless only those that are there are wanted."""
    folder = options.work / prompt.split()[-1] / f"seed-{seed}" / arm.replace(" ", "-")
    result = folder / "listing.json"
    if not result.is_file():
        if options.made_only:
            return None
        _make(options, arm, prompt, seed, folder)
        entries, rates = _read(options, Run(folder), folder.parent / "watched" / "rates.json")
        found = Listing(arm, prompt, seed, entries, rates)
        write_text(result, json.dumps(found._asdict() | {"entries": [entry._asdict() for entry in entries]}))
    stored = json.loads(result.read_text())
    return Listing(**{**stored, "entries": [Entry(**entry) for entry in stored["entries"]]})


def _make(options: Options, arm: str, prompt: str, seed: int, folder: Path) -> None:
    """Runs an arm through naming."""
    is_longer = arm == "watched longer"
    n_images = options.n_images + is_longer * options.n_images // 2
    config = AuditConfig.of(prompt, model=options.world, n_images=n_images, device="cpu", n_look_images=0,
                            base_seed=seed * SEEDS_APART)  # fmt: skip
    first = folder.parent / "watched"
    if arm.startswith("looked") and not folder.exists():
        listing_of(options, "watched", prompt, seed)
        shutil.copytree(first, folder)
        (folder / "listing.json").unlink()
    run = Run.create(folder)
    if arm.startswith("looked"):
        with at_random(seed) if arm == "looked at random" else nullcontext():
            run_stage(run, "look", LookConfig(), redo=True)
        run_stage(run, "annotate", config.annotate)
        return
    with run.locked():
        if not run.is_done("capture", config.capture):
            list(capture_and_train([run], [config]))
        for stage in ("discover", "look", "annotate"):
            list(steps(run, stage, getattr(config, stage)))


@contextmanager
def at_random(seed: int) -> Iterator[None]:
    """Takes random images in place of odd ones."""
    order = Views.odd_first

    def shuffled(views: Views) -> np.ndarray:
        return np.random.default_rng(seed).permutation(order(views))

    with patch.object(Views, "odd_first", shuffled):
        yield


def _read(options: Options, run: Run, known: Path) -> tuple[list[Entry], dict[str, float]]:
    """What the entries of a run stand for, and the rates of all values in the first images."""
    world: World = WORLDS[options.world]
    index_of, samples = run.index_of, run.all_samples()
    judged: Any = world.judge(StoredImages(run, samples))
    if not known.is_file():
        seen = judged.shows[: options.n_images][judged.readable[: options.n_images]].mean(0)
        write_text(known, json.dumps(dict(zip(world.value_names, seen.tolist(), strict=True))))
    rates: dict[str, float] = json.loads(known.read_text())
    entries = []
    for one in run.attributes:
        value = hit_of(judged, [index_of[file] for file in one.top_images], rates)["value"]
        is_named = value is not None and one.label == world.phrase(value)
        entries.append(Entry(value, is_named, one.label is not None, one.is_family))
    return entries, rates


def measures(listings: Sequence[Listing]) -> dict[str, dict[str, float]]:
    """The measures of some lists: means over seeds first, then over prompts, with intervals over prompts."""
    prompts = list(dict.fromkeys(one.prompt for one in listings))
    found: dict[str, list[float]] = {}
    for prompt in prompts:
        of_prompt = [one for one in listings if one.prompt == prompt]
        for name, values in _of_prompt(of_prompt).items():
            if values:
                found.setdefault(name, []).append(float(np.mean(values)))
    return {name: interval_of(np.array(values), COUNT if name == "listed" else SHARE) for name, values in found.items()}


def _of_prompt(listings: Sequence[Listing]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {"listed": [float(len(one.entries)) for one in listings]}
    values["truly rare"] = [float(entry.value is not None) for one in listings for entry in one.entries]
    values["truly rare, families"] = [float(entry.value is not None) for one in listings for entry in one.entries
                                      if entry.is_family]  # fmt: skip
    values["truly rare, first ten"] = [float(entry.value is not None) for one in listings
                                       for entry in one.entries[:N_FIRST]]  # fmt: skip
    values["right name, of rare ones with a label"] = [
        float(entry.is_named) for one in listings for entry in one.entries if entry.value and entry.has_label
    ]
    for band, (least, most) in BANDS.items():
        for kind in ("found", "named"):
            values[f"{kind}, {band}"] = [
                float(any(entry.value == value and (kind == "found" or entry.is_named) for entry in one.entries))
                for one in listings for value, rate in one.rates.items() if least < rate <= most
            ]  # fmt: skip
    return values


if __name__ == "__main__":
    main(tyro.cli(Options))
