"""Judges that users bring: a Python function, and a file of verdicts."""

import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from numbers import Real
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.config import rows_of
from raigen.config.fields import FILE
from raigen.errors import RaigenError
from raigen.judging.calibration import ANSWERS
from raigen.judging.protocol import Images, StoredImages, Subjects, Verdicts, without_black
from raigen.runs.files import csv_text, plain_cell, sha256, write_text
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tell, Tick

BATCH = 32  # images that a function is given at once, so that thousands do not fill the memory
COLUMNS = ("file", "label", "shows")  # of unjudged.csv; a file of verdicts may have `seed` for `file`, and `confidence`
EXPECTED = "True, False, None, or a pair (verdict, confidence) with a confidence in [0, 1]"


class Source(NamedTuple):
    """The file behind a judge, from the current folder where it lies in that, and its hash; "" if there is no file."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Source":
        """The source that lies at a path."""
        here = Path.cwd()
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        return cls(shown.as_posix(), sha256(path.read_bytes()) if path.is_file() else "")


class FunctionJudge:
    """A function that the user wrote, `python:PACKAGE.MODULE:FUNCTION`.

    It is called with a list of RGB images, at most `BATCH`, and a label. For each image it returns True (the image
    shows the attribute), False, or None (unscored); or a pair of this and the probability, in [0, 1], that it is right.
    Raises RaigenError when there is no such function, it raises anything, or it returns something else.
    """

    def __init__(self, address: str):
        _, module, name = address.split(":")
        self._address = address
        self.source, self._function = _found(address, module, name)
        self.name = f"{module}:{name}, source {self.source.sha256[:8]}"

    def verdicts(self, images: Images, subjects: Subjects, tell: Tell | None = None) -> list[Verdicts]:
        """What the function returns; `tell` is called after each batch and label."""
        labels = list(dict.fromkeys(subject.label for subject in subjects))
        found: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
        for start in range(0, len(images), BATCH):
            batch = [images[index] for index in range(start, min(start + BATCH, len(images)))]
            for place, label in enumerate(labels, 1):
                found[label] += self._called(batch, label)
                if tell is not None:
                    done = start * len(labels) + len(batch) * place
                    tell(Tick(done, len(images) * len(labels), self.name))
        by_label = {label: _verdicts(self.name, rows, "the function gave no verdict") for label, rows in found.items()}
        return without_black(images, [by_label[subject.label] for subject in subjects])

    def _called(self, batch: Sequence[Any], label: str) -> list[tuple[float, float]]:
        """The verdict (1, 0, NaN) and its confidence (NaN if not given) for each image of a batch."""
        try:
            found = self._function(list(batch), label)
        except Exception as error:  # a function of the user's may raise anything
            raise self._wrong(f"no error for {label!r}", f"it raised {type(error).__name__}: {error}") from error
        if not isinstance(found, list | tuple | np.ndarray):
            raise self._wrong(f"a list of {len(batch)} verdicts", f"it returned {type(found).__name__}")
        if len(found) != len(batch):
            raise self._wrong(f"{len(batch)} verdicts for {len(batch)} images", f"it returned {len(found)}")
        read = [_read(one) for one in found]
        for one, verdict in zip(found, read, strict=True):
            if verdict is None:
                raise self._wrong(f"each verdict to be {EXPECTED}", f"it returned {one!r} for {label!r}")
        return [verdict for verdict in read if verdict is not None]

    def _wrong(self, expected: str, came: str) -> RaigenError:
        return RaigenError(
            f"judge {self._address}: expected {expected}; {came}. Correct the function in {self.source.path}, then "
            "give the same command again"
        )


class FileJudge:
    """A file of verdicts, `file:VERDICTS.csv`, with the columns `file` or `seed`, `label`, `shows` and perhaps
    `confidence`: see `read_verdicts`. Images that it has no verdict on are unscored; `asked` remembers all of them.

    A `file` is a path from the current folder, or from the run folder. A `seed` stands for the image of the run's own
    prompt. A file that is not there yet counts as empty. Raises RaigenError when it cannot be read.
    """

    def __init__(self, address: str, run: Run):
        path = Path(address.removeprefix(FILE))
        if path.resolve() == run.unjudged_path.resolve():
            raise RaigenError(f"judge: {path} is written anew each time; save your verdicts under another name")
        self.source, self._run = Source.of(path), run
        self.name = f"{path.name}, sha256 {self.source.sha256[:8]}"
        self._rows = read_verdicts(path, run.dir) if os.path.lexists(path) else {}
        self.asked: dict[tuple[str, str], bool] = {}
        """By file and label, whether there is a verdict."""
        self._is_known = False

    def verdicts(self, images: Images, subjects: Subjects, tell: Tell | None = None) -> list[Verdicts]:
        """The verdicts of the file. There is no progress to tell."""
        if not isinstance(images, StoredImages):
            raise RaigenError(f"judge {FILE}{self.source.path}: expected images of a run; got {type(images).__name__}")
        found = []
        for subject in subjects:
            rows = [self._verdict(sample, subject.label) for sample in images.samples]
            found.append(_verdicts(self.name, rows, "the file has no verdict"))
        return without_black(images, found)

    def _verdict(self, sample: Sample, label: str) -> tuple[float, float]:
        keys = [sample.file] if sample.prompt != self._run.config.capture.prompt else [sample.file, str(sample.seed)]
        row = next((self._rows[key, label] for key in keys if (key, label) in self._rows), None)
        self._is_known |= row is not None
        verdict = row or (math.nan, math.nan)
        self.asked[sample.file, label] = not math.isnan(verdict[0])
        return verdict

    def finish(self) -> None:
        """Writes unjudged.csv, the images and labels that lack a verdict, as lines of a file of verdicts.

        Raises RaigenError when the file has lines, and none is about anything that was asked.
        """
        rows = [{"file": self._shown(file), "label": label} for (file, label), known in self.asked.items() if not known]
        write_text(self._run.unjudged_path, csv_text(COLUMNS, rows))
        if self._rows and not self._is_known:
            theirs, ours = next(iter(self._rows)), next(iter(self.asked), ("", ""))
            raise RaigenError(
                f"judge {FILE}{self.source.path}: expected verdicts on images of {self._run.dir}, such as "
                f"{self._shown(ours[0])} with the label {ours[1]!r}; it has none, but {theirs[0]} with the label "
                f"{theirs[1]!r}. {self._run.unjudged_path} lists what to judge; then give the same command again"
            )

    def _shown(self, file: str) -> str:
        return (self._run.dir / file).as_posix()


def read_verdicts(path: Path, run_dir: Path | None = None) -> dict[tuple[str, str], tuple[float, float]]:
    """The verdict (1, 0, or NaN for an empty `shows`) and its confidence (NaN if not given) of each line of a CSV file,
    by image and label. The image is its path, from `run_dir` if it lies there, or its seed.

    Raises RaigenError when the file is missing, lacks a column, has a value that cannot be read, or contradicts itself.
    """
    if not path.is_file():
        raise RaigenError(f"judge: expected a CSV file of verdicts; there is no file {str(path)!r}")
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for line, row in rows_of(path, ("label", "shows"), ("file", "seed")):
        cells = {name: plain_cell(row.get(name, "").strip()) for name in (*COLUMNS, "seed", "confidence")}
        if not cells["file"] and not re.fullmatch("[0-9]+", cells["seed"]):
            raise RaigenError(f"{path}, line {line}: expected the path of an image, or its seed; got {cells['seed']!r}")
        image = _place(cells["file"], run_dir) if cells["file"] else cells["seed"]
        verdict, key = _answer(cells, f"{path}, line {line}"), (image, cells["label"])
        if key in found and not np.array_equal(found[key], verdict, equal_nan=True):
            raise RaigenError(f"{path}, line {line}: expected one verdict on {image} and {key[1]!r}; another line says "
                              "something else. Remove one of them")  # fmt: skip
        found[key] = verdict
    return found


def need_paths(address: str, run_dirs: Sequence[Path] = ()) -> None:
    """Raises RaigenError unless a file of verdicts fits several runs: it names images by paths that exist from here,
    because every run has its own fresh/000000.png; and it covers each of `run_dirs`."""
    path = Path(address.removeprefix(FILE))
    images = {image for image, _ in read_verdicts(path)}
    wrong = next((image for image in images if not Path(image).is_file()), None)
    if wrong is not None:
        raise RaigenError(
            f"judge {address}: expected the path of each image from this folder, such as runs/NAME/fresh/000000.png, "
            f"because several runs have an image of that name; it has {wrong!r}. Write paths into the column file"
        )
    whole = [Path(image).resolve() for image in images]
    for folder in run_dirs:
        if not any(image.is_relative_to(folder.resolve()) for image in whole):
            raise RaigenError(
                f"judge {address}: expected verdicts on images of every run; it has none of {folder}. List what to "
                f"judge with: raigen evaluate {folder} --judge {address} --redo evaluate"
            )


def sources_of(judges: Sequence[Any]) -> dict[str, str]:
    """The file behind each judge that a user brought, with its hash."""
    return dict(judge.source for judge in judges if isinstance(judge, FunctionJudge | FileJudge))


def _found(address: str, module: str, name: str) -> tuple[Source, Callable[..., Any]]:
    """A function by its module and name. The current folder is searched first."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        spec = find_spec(module)
        source = Source.of(Path(spec.origin if spec and spec.origin else module))
        function = getattr(_loaded(module, source), name)
    except Exception as error:  # a module of the user's may raise anything
        raise RaigenError(
            f"judge {address}: expected the function {name} in the module {module}, installed or in the folder "
            f"{os.getcwd()}; {type(error).__name__}: {error}"
        ) from error
    if not callable(function):
        raise RaigenError(f"judge {address}: expected a function; {name} is {type(function).__name__}")
    return source, function


@cache
def _loaded(module: str, source: Source) -> ModuleType:
    """A module as its source says now: it is read again when the file has changed."""
    return importlib.reload(sys.modules[module]) if module in sys.modules else importlib.import_module(module)


def _read(one: Any) -> tuple[float, float] | None:
    """A verdict of a function and its confidence, as numbers; None if it cannot be read."""
    is_pair = isinstance(one, tuple | list) and len(one) == 2
    verdict, sure = one if is_pair else (one, None)
    if not isinstance(verdict, bool | np.bool_ | None):
        return None
    if is_pair and not (isinstance(sure, Real) and not isinstance(sure, bool) and 0 <= float(sure) <= 1):
        return None
    return math.nan if verdict is None else float(verdict), float(sure) if isinstance(sure, Real) else math.nan


def _answer(cells: Mapping[str, str], place: str) -> tuple[float, float]:
    """The verdict and the confidence of a line of a file."""
    shows = ANSWERS.get(cells["shows"].lower())
    if shows is None and cells["shows"]:
        raise RaigenError(f"{place}: expected yes, no or nothing in the column shows; got {cells['shows']!r}")
    try:
        sure = float(cells["confidence"]) if cells["confidence"] else math.nan
    except ValueError:
        sure = -1.0
    if sure < 0 or sure > 1:
        raise RaigenError(f"{place}: expected a confidence in [0, 1] or nothing; got {cells['confidence']!r}")
    return math.nan if shows is None else float(shows), sure


def _place(text: str, run_dir: Path | None) -> str:
    """The path of an image, from the run folder if it lies there."""
    path = Path(text).resolve()
    if run_dir is not None and path.is_relative_to(run_dir.resolve()):
        return path.relative_to(run_dir.resolve()).as_posix()
    return PurePath(text).as_posix()


def _verdicts(judge: str, rows: Sequence[tuple[float, float]], reason: str) -> Verdicts:
    columns: Float[np.ndarray, "2 image"] = np.array(rows, float).reshape(-1, 2).T
    return Verdicts(judge, columns[0], columns[1], dict.fromkeys(np.flatnonzero(np.isnan(columns[0])).tolist(), reason))
