"""Keeps what was made in the studio: one JSON file for each request, in the run folder."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raigen.amplification.recipes import SavedRecipe
from raigen.config import object_of, shaped
from raigen.errors import RaigenError
from raigen.runs.files import json_text, write_text
from raigen.runs.run import Run
from raigen.studio.session import Pair, Shown

KEYS = ("made", "recipe", "pairs")


@dataclass(frozen=True)
class Kept:
    """A request of the gallery: when it was made (UTC), its recipe and its images. `name` is that of its file."""

    name: str
    made: str
    recipe: SavedRecipe
    pairs: tuple[Pair, ...]

    @property
    def title(self) -> str:
        """What was turned, in a line."""
        parts = (f"{one.label or f'neuron {one.neuron}'} {one.strength:+g}" for one in self.recipe.turned)
        return f"{self.made} · {self.recipe.method} · {', '.join(parts)} · {len(self.pairs)} images"

    @classmethod
    def begun(cls, recipe: SavedRecipe) -> "Kept":
        """A new entry without images."""
        now = time.time_ns()
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now // 10**9))
        return cls(f"{now:020d}", made, recipe, ())


class Gallery:
    """The gallery of a run."""

    def __init__(self, run: Run):
        self.dir = run.studio_dir / "gallery"

    def keep(self, entry: Kept) -> None:
        """Writes an entry, or writes it anew with more images."""
        content = {
            "made": entry.made, "recipe": entry.recipe.as_json(),
            "pairs": [pair._asdict() | {"shown": [one._asdict() for one in pair.shown]} for pair in entry.pairs],
        }  # fmt: skip
        write_text(self._path(entry.name), json_text(content, indent=1))

    def entries(self) -> list[Kept]:
        """All entries, the newest first. Raises RaigenError when a file is damaged."""
        return [_read(path) for path in sorted(self.dir.glob("*.json"), reverse=True)]

    def drop(self, name: str) -> None:
        """Deletes an entry, but not its images: a curve may use them."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if not name.isdigit():
            raise RaigenError(f"gallery: expected the number of an entry; got {name!r:.50}")
        return self.dir / f"{name}.json"


def save_recipe(run: Run, recipe: SavedRecipe, name: str) -> Path:
    """Writes a recipe file into the run folder. Raises RaigenError for a name that is no file name."""
    stem = "-".join(name.split())
    if not stem or len(stem) > 80 or not all(letter.isalnum() or letter in "-_" for letter in stem):
        raise RaigenError(f"name: expected letters, digits, - and _, at most 80; got {name!r:.90}")
    path = run.studio_dir / "recipes" / f"{stem}.json"
    write_text(path, recipe.text())
    return path


def files_of(pairs: Sequence[Pair]) -> list[str]:
    """The files of pairs in the order in which they are shown: each unsteered image, then its steered twin."""
    return [file for pair in pairs for file in (pair.unsteered, pair.steered)]


def _read(path: Path) -> Kept:
    found = object_of(path, *KEYS)
    with shaped(str(path), "an entry of the gallery", "Delete it"):
        return Kept(path.stem, found["made"], SavedRecipe.from_json(found["recipe"]), tuple(map(_pair, found["pairs"])))


def _pair(entry: dict[str, Any]) -> Pair:
    return Pair(**{**entry, "shown": tuple(Shown(**one) for one in entry["shown"])})
