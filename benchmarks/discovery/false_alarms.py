"""Does a comparison call a model different from itself? `python -m benchmarks.discovery.false_alarms`.

It uses the images of `benchmarks.discovery` (two generation seeds or more) and the verdicts of the world's judge. The
images of each prompt are split at random into two sets, as if they came from two models, and every value is compared
under every prompt, as in `raigen compare`. Over many splits, it counts the comparisons that are called different (q of
.05 or less), and the splits with at least one of them. Only the share of splits has an interval, because the splits
compare the same images again and again.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float
from safetensors.numpy import load_file

from benchmarks.common.results import RESULTS
from benchmarks.common.world import WORLD
from raigen.comparison.changes import Shows, changes_of
from raigen.errors import RaigenError
from raigen.runs.files import write_text
from raigen.runs.study_records import Compared
from raigen.stats import rate_interval


@dataclass(frozen=True)
class Options:
    """The benchmark of false alarms."""

    work: Path = Path("bench-work")
    """Folder of the discovery benchmark."""
    results: Path = RESULTS
    """Where false_alarms.json goes."""
    prompts: tuple[str, ...] = field(default=WORLD.prompts)
    """Prompts of the world, all compared at once."""
    n_images: int = 1000
    """Images of each of the two sets, for each prompt."""
    n_splits: int = 50
    """The number of random splits."""
    seed: int = 0
    """Seed of the splits."""


def main(options: Options) -> None:
    """Counts false alarms; prints and writes the result."""
    seen = {prompt: shown(options.work, prompt) for prompt in options.prompts}
    rng, alarms = np.random.default_rng(options.seed), []
    for number in range(options.n_splits):
        alarms.append(alarms_of(split(seen, options.n_images, rng), options.prompts))
        print(f"split {number + 1}: {alarms[-1]} called different", flush=True)
    n = len(options.prompts) * len(WORLD.value_names)
    called, any_called = sum(alarms), sum(count > 0 for count in alarms)
    result = {
        "n_images": options.n_images, "n_splits": options.n_splits, "comparisons in each": n,
        "called different": called, "most in one": max(alarms),
        "splits with any": counted(any_called, options.n_splits),
    }  # fmt: skip
    write_text(options.results / "false_alarms.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def counted(hits: int, n: int) -> dict[str, object]:
    """A share with its interval."""
    return {"hits": hits, "n": n, "share": hits / n} | rate_interval(hits, n)._asdict()


def shown(work: Path, prompt: str) -> Float[np.ndarray, "image value"]:
    """The verdicts on all images of a prompt: 1, 0, NaN where an image is unreadable. Raises RaigenError where there
    are no images."""
    paths = sorted((work / prompt.split()[-1]).glob("g*/truth.safetensors"))
    if not paths:
        raise RaigenError(f"{work}: no judged images of {prompt!r}; make them with: python -m benchmarks.discovery")
    parts = [load_file(path) for path in paths]
    return np.concatenate([np.where(part["readable"][:, None], part["shows"], np.nan) for part in parts])


def split(seen: dict[str, Float[np.ndarray, "image value"]], n: int, rng: np.random.Generator) -> Shows:
    """Two disjoint sets of `n` images for each prompt, by value, prompt and set. Raises RaigenError for too few
    images."""
    shows = {}
    for prompt, table in seen.items():
        if len(table) < 2 * n:
            raise RaigenError(f"n_images: expected at most half of the {len(table)} images of {prompt!r}; got {n}")
        order = rng.permutation(len(table))
        for name, rows in (("one", order[:n]), ("other", order[n : 2 * n])):
            shows |= {(value, prompt, name): table[rows, column] for column, value in enumerate(WORLD.value_names)}
    return shows


def alarms_of(shows: Shows, prompts: tuple[str, ...]) -> int:
    """How many of the comparisons are called different."""
    attributes = [Compared(name, True, (), ()) for name in WORLD.value_names]
    changes = changes_of(attributes, shows, prompts, ("one", "other"), 0.95)
    return sum(change.kind not in ("same", "unmeasured") for change in changes)


if __name__ == "__main__":
    main(tyro.cli(Options))
