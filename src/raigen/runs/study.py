"""Owns a study folder: which runs belong to it, and every path beside them."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raigen.config import object_of, rows_of, shaped
from raigen.errors import RaigenError
from raigen.runs.files import json_text, write_text
from raigen.runs.folder import FORMAT, Folder
from raigen.runs.notebook import frame, html_table
from raigen.runs.records import RareAttribute, checked, rarest, rate_text
from raigen.runs.run import Run
from raigen.runs.study_records import COLUMNS, rows

if TYPE_CHECKING:
    import pandas

MAX_SLUG = 60  # characters; file systems allow 255 bytes, people read fewer
MAX_BYTES = 240  # of a folder's name, before the number of `free_name`


class Entry(NamedTuple):
    """One run of a study: its prompt, its model, and its folder, relative to that of the study."""

    prompt: str
    model: str
    folder: str


class Study(Folder):
    """A study folder: runs over prompts and models, and what came of comparing them.

    `Study(dir)` opens one that is there, `Study.create(dir)` makes it if need be. Raises RaigenError when the folder is
    no study, or was written in a newer format.
    """

    MANIFEST, EMPTY, FLAG = "study.json", {"options": {}, "runs": []}, "--study"
    START = "raigen audit --prompts professions --model A --model B"

    def __init__(self, dir: str | Path):
        super().__init__(dir)
        self.comparison_path = self.dir / "comparison.json"
        self.answers_path = self.dir / "answers.jsonl"
        self.cards_dir = self.dir / "cards"
        self.axes_path = self.dir / "axes.csv"
        self.verdicts_path = self.dir / "verdicts.jsonl"
        self.table_path = self.dir / "comparison.csv"
        self.report_path = self.dir / "report.html"
        self.rates_path = self.dir / "rates.csv"

    @property
    def entries(self) -> list[Entry]:
        """The runs that belong to the study, in the order in which they were requested."""
        with shaped(self.manifest_path, "runs with a prompt, a model and a folder"):
            return [checked(Entry(**entry)) for entry in self.manifest["runs"]]

    def dir_of(self, entry: Entry) -> Path:
        """The folder of a run."""
        return self.dir / entry.folder

    def runs(self) -> list[Run]:
        """All runs, opened. Raises RaigenError, saying how to make it, when one was not begun yet."""
        for entry in self.entries:
            if not Run.is_at(self.dir_of(entry)):
                raise RaigenError(
                    f"{self.dir}: “{entry.prompt}” was not audited with {entry.model} yet; give the command that began "
                    f'this study again, or: raigen audit "{entry.prompt}" --model {entry.model} --study {self.dir}'
                )
        return [Run(self.dir_of(entry)) for entry in self.entries]

    def enroll(self, prompts: Sequence[str], models: Sequence[str], options: Mapping[str, Mapping[str, Any]],
               but: Sequence[str] = ()) -> list[Entry]:  # fmt: skip
        """Adds a run for every prompt and model that has none. Returns the entries of these prompts and models.

        `options` are the settings that all runs of a study share, by stage. Raises RaigenError, naming the field, where
        the study has other ones, except for stages in `but`, which are done anew.
        """
        manifest, known = self.manifest, {(entry.prompt, entry.model): entry for entry in self.entries}
        for stage, wanted in options.items():
            found = manifest["options"].get(stage, {}) if stage not in but else {}
            for name in found.keys() & wanted.keys():
                if found[name] != wanted[name]:
                    raise RaigenError(
                        f"{self.dir}: this study has {name} = {found[name]!r}, now asked for {wanted[name]!r}. "
                        f"Choose another --study, or add --redo {stage} to do that stage anew in the runs asked for"
                    )
        for model in models:
            for prompt in prompts:
                if (prompt, model) not in known:
                    name = _cut(f"{_cut(slug(prompt), MAX_BYTES // 2)}--{slug(Path(model).name)}", MAX_BYTES)
                    folder = free_name(name, [e.folder for e in known.values()])
                    known[prompt, model] = Entry(prompt, model, folder)
        self._write(known.values(), options)
        return [known[prompt, model] for model in models for prompt in prompts]

    def adopt(self, runs: Sequence[Run]) -> None:
        """Makes `runs` the runs of the study; they stay where they are. Raises RaigenError when two of them have the
        same prompt and model, and when the study has other runs."""
        found: dict[tuple[str, str], Entry] = {}
        for run in runs:
            capture = run.config.capture
            folder = Path(os.path.relpath(run.dir.resolve(), self.dir.resolve())).as_posix()
            entry = found.setdefault((capture.prompt, capture.model), Entry(capture.prompt, capture.model, folder))
            if entry.folder != folder:
                raise RaigenError(
                    f"runs: expected one for each prompt and model; {entry.folder} and {folder} are both of "
                    f"“{capture.prompt}” with {capture.model}"
                )
        if self.manifest["options"] or set(self.entries) - set(found.values()):
            raise RaigenError(f"{self.dir}: expected a new folder, or the comparison of these runs; it is a study of "
                              "other runs. Choose another --study")  # fmt: skip
        self._write(found.values(), {})

    def __repr__(self) -> str:
        entries = self.entries
        prompts, models = ({getattr(entry, name) for entry in entries} for name in ("prompt", "model"))
        compared = "compared" if self.comparison_path.is_file() else "not compared yet"
        return (f"Study({str(self.dir)!r}): {len(entries)} runs of {len(prompts)} prompts and {len(models)} models, "
                f"{compared}")  # fmt: skip

    def _repr_html_(self) -> str:
        rows = []
        for entry in self.entries:
            listed = self.attributes_of(entry)
            first = rarest(listed)
            found = [first.label, rate_text(first.presence)] if first and first.presence else ["", ""]
            rows.append([escape(str(cell)) for cell in (entry.prompt, entry.model, len(listed), *found)])
        return html_table(repr(self), ["prompt", "model", "listed", "rarest attribute", "presence"], rows)

    def attributes_of(self, entry: Entry) -> list[RareAttribute]:
        """The listed attributes of a run; empty where it has not come so far."""
        dir = self.dir_of(entry)
        run = Run(dir) if Run.is_at(dir) else None
        return run.attributes if run and run.has_finished("discover") else []

    def table(self) -> "pandas.DataFrame":
        """comparison.csv as a pandas DataFrame. Raises RaigenError before the study was compared, and when pandas is
        not installed."""
        return frame(list(rows(self.comparison())), COLUMNS)

    def neuron_rates(self) -> list[dict[str, Any]]:
        """The rows of rates.csv: how often listed neurons fire under every prompt that shares their autoencoder. Empty
        if no autoencoder is shared. The columns are `raigen.auditing.cross_prompt_rates.COLUMNS`."""
        if not self.rates_path.is_file():
            return []
        with shaped(self.rates_path, "what raigen audit --shared-sae writes"):
            rows = rows_of(self.rates_path, ("model", "prompt", "neuron", "under", "rate"))
            return [row | {"rate": float(row["rate"])} for _, row in rows]

    def comparison(self) -> dict[str, Any]:
        """What comparison.json holds. Raises RaigenError before the study was compared."""
        if not self.comparison_path.is_file():
            raise RaigenError(f"{self.comparison_path} is missing; make it with: raigen compare {self.dir}")
        return object_of(self.comparison_path, "attributes", "cells", "changes")

    def _write(self, entries: Any, options: Mapping[str, Mapping[str, Any]]) -> None:
        manifest = {"format": FORMAT, "options": options, "runs": [entry._asdict() for entry in entries]}
        write_text(self.manifest_path, json_text(manifest, indent=1))


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it where it is taken.

    >>> free_name("a", ["a", "a-2"])
    'a-3'
    """
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _cut(name: str, n_bytes: int) -> str:
    return name.encode()[:n_bytes].decode(errors="ignore")


def slug(text: str) -> str:
    """A text as part of the name of a folder. Letters of every script are kept.

    >>> slug("A photo of a CEO, smiling!")
    'a-photo-of-a-ceo-smiling'
    """
    return re.sub(r"\W+", "-", text.lower())[:MAX_SLUG].strip("-") or "prompt"
