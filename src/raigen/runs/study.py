"""Owns a study folder: which runs belong to it, and every path beside them."""

import csv
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from raigen.errors import RaigenError
from raigen.runs.files import begin_folder, lock, write_text
from raigen.runs.run import Run
from raigen.runs.study_records import COLUMNS, rows

FORMAT = 1  # of the folder; raised when an old folder can no longer be read
MAX_SLUG = 60  # characters; file systems allow 255 bytes, people read fewer


class Entry(NamedTuple):
    """One run of a study: its prompt, its model, and its folder, relative to that of the study."""

    prompt: str
    model: str
    folder: str


class Study:
    """A study folder: runs over prompts and models, and what came of comparing them.

    `Study(dir)` opens one that is there, `Study.create(dir)` makes it if need be. Raises RaigenError when the folder is
    no study, or was written in a newer format.
    """

    def __init__(self, dir: str | Path):
        self.dir = Path(dir)
        if not self.manifest_path.is_file():
            raise RaigenError(
                f"{self.dir}: expected a study folder with a study.json; found none. Start one with: "
                f"raigen audit --prompts professions --model A --model B --study {self.dir}"
            )
        if (found := self.manifest["format"]) > FORMAT:
            raise RaigenError(f"{self.dir}: written in format {found}, this raigen reads up to {FORMAT}; upgrade it")

    @classmethod
    def create(cls, dir: str | Path) -> "Study":
        """Opens the study in `dir`, or makes an empty one there. Raises RaigenError if other files are in the way."""
        begin_folder(Path(dir) / "study.json", {"format": FORMAT, "options": {}, "runs": []}, "a study", "--study")
        return cls(dir)

    manifest_path = property(lambda self: self.dir / "study.json")
    comparison_path = property(lambda self: self.dir / "comparison.json")
    answers_path = property(lambda self: self.dir / "answers.jsonl")
    cards_dir = property(lambda self: self.dir / "cards")
    axes_path = property(lambda self: self.dir / "axes.csv")
    verdicts_path = property(lambda self: self.dir / "verdicts.jsonl")
    table_path = property(lambda self: self.dir / "comparison.csv")
    report_path = property(lambda self: self.dir / "report.html")
    rates_path = property(lambda self: self.dir / "rates.csv")

    @property
    def manifest(self) -> dict[str, Any]:
        """What study.json holds. Raises RaigenError when it cannot be read."""
        try:
            return json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RaigenError(f"{self.manifest_path}: expected JSON, {error}; delete it and audit again") from error

    @property
    def entries(self) -> list[Entry]:
        """The runs that belong to the study, in the order in which they were asked for."""
        return [Entry(**entry) for entry in self.manifest["runs"]]

    def dir_of(self, entry: Entry) -> Path:
        """The folder of a run."""
        return self.dir / entry.folder

    def runs(self) -> list[Run]:
        """All runs, opened. Raises RaigenError, saying how to make it, when one was not begun yet."""
        for entry in self.entries:
            if not (self.dir_of(entry) / "run.json").is_file():
                raise RaigenError(
                    f"{self.dir}: “{entry.prompt}” was not audited with {entry.model} yet; give the command that began "
                    f'this study again, or: raigen audit "{entry.prompt}" --model {entry.model} --study {self.dir}'
                )
        return [Run(self.dir_of(entry)) for entry in self.entries]

    def enroll(self, prompts: Sequence[str], models: Sequence[str], options: Mapping[str, Mapping[str, Any]],
               but: Sequence[str] = ()) -> list[Entry]:  # fmt: skip
        """Adds a run for every prompt and model that has none; the entries of the asked-for ones.

        `options` are the settings of each stage that all runs of a study share. Raises RaigenError, naming the field,
        where the study has others, unless the stage is in `but`: those are to be done anew.
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
                    folder = free_name(f"{slug(prompt)}--{slug(Path(model).name)}", [e.folder for e in known.values()])
                    known[prompt, model] = Entry(prompt, model, folder)
        self._write(known.values(), options)
        return [known[prompt, model] for model in models for prompt in prompts]

    def adopt(self, runs: Sequence[Run]) -> None:
        """Makes `runs`, wherever they lie, those of the study. Raises RaigenError when two have one prompt and
        model."""
        found: dict[tuple[str, str], Entry] = {}
        for run in runs:
            capture = run.config_of("capture")
            folder = Path(os.path.relpath(run.dir.resolve(), self.dir.resolve())).as_posix()
            entry = found.setdefault((capture.prompt, capture.model), Entry(capture.prompt, capture.model, folder))
            if entry.folder != folder:
                raise RaigenError(
                    f"runs: expected one for each prompt and model; {entry.folder} and {folder} are both of "
                    f"“{capture.prompt}” with {capture.model}"
                )
        self._write(found.values(), {})

    def table(self) -> dict[str, list[Any]]:
        """comparison.csv as columns by name, which `pandas.DataFrame` takes as they are; numbers are numbers, and what
        is not known is None. Raises RaigenError before the study was compared.
        """
        found = list(rows(self.comparison()))
        return {name: [row[name] for row in found] for name in COLUMNS}

    def neuron_rates(self) -> list[dict[str, Any]]:
        """What rates.csv says: how often listed neurons fire under every prompt that shares their autoencoder (columns
        `raigen.auditing.elsewhere.COLUMNS`, `rate` as a number); empty where none is shared."""
        if not self.rates_path.is_file():
            return []
        with self.rates_path.open(encoding="utf-8", newline="") as file:
            return [row | {"rate": float(row["rate"])} for row in csv.DictReader(file)]

    def comparison(self) -> dict[str, Any]:
        """What comparison.json holds. Raises RaigenError before the study was compared."""
        if not self.comparison_path.is_file():
            raise RaigenError(f"{self.comparison_path} is missing; make it with: raigen compare {self.dir}")
        return json.loads(self.comparison_path.read_text(encoding="utf-8"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one writer. Raises RaigenError when another process holds it."""
        with lock(self.dir, "--study"):
            yield

    def _write(self, entries: Any, options: Mapping[str, Mapping[str, Any]]) -> None:
        manifest = {"format": FORMAT, "options": options, "runs": [entry._asdict() for entry in entries]}
        write_text(self.manifest_path, json.dumps(manifest, indent=1, ensure_ascii=False))


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


def slug(text: str) -> str:
    """A text as part of the name of a folder. Letters of every script are kept.

    >>> slug("A photo of a CEO, smiling!")
    'a-photo-of-a-ceo-smiling'
    """
    return re.sub(r"\W+", "-", text.lower())[:MAX_SLUG].strip("-") or "prompt"
