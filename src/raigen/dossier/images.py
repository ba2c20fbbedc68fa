"""Writes images.parquet: the images with their places on a map, their codes and their verdicts."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from raigen.config import visible
from raigen.dossier.evidence import Part
from raigen.errors import RaigenError
from raigen.report.explorer import principal
from raigen.runs.files import sha256
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.study import slug

IN_A_GROUP = 256  # rows that are in memory at once, with their images
ABOUT = ("image", "file", "kind", "prompt", "model", "seed", "x", "y")  # the columns of every image
Row = dict[str, Any]


def need_pyarrow() -> None:
    """Raises RaigenError, saying what to install, where pyarrow is missing."""
    if not find_spec("pyarrow"):
        raise RaigenError("images.parquet: expected the package pyarrow; it is not installed. Install it with: "
                          "pip install 'raigen[export]', or leave the images out with: --no-images")  # fmt: skip


def write_images(path: Path, parts: Sequence[Part]) -> Path:
    """Writes a row for each image of the `parts`: audited ones, their relatives, and fresh ones. Returns the path.

    `image` holds the bytes of the file. `x` and `y` are the place on a map of all embeddings (`places`); fresh images
    have none. `code_...` says how strongly a listed neuron fires in an audited image (of a single run only, because the
    neurons of other runs are others), and `shows_...` whether the first judge sees an attribute in a fresh one.
    `datasets` takes the column `image` for images. Raises RaigenError as `need_pyarrow` does, and when an image is
    missing or damaged.
    """
    need_pyarrow()
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    codes, verdicts = _code_columns(parts), _verdict_columns(parts)
    schema = _schema(pyarrow, [*codes.values()], [*verdicts])
    rows, partial = _rows(parts, codes, verdicts), path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(partial, schema) as writer:
        while group := list(islice(rows, IN_A_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
    os.replace(partial, path)
    return path


def _schema(pyarrow: Any, codes: Sequence[str], verdicts: Sequence[str]) -> Any:
    """The columns and their types; the metadata tell `datasets` which column is an image."""
    text, number = pyarrow.string(), pyarrow.float32()
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)])
    kinds = dict(zip(ABOUT, (image, text, text, text, text, pyarrow.int64(), number, number), strict=True))
    kinds |= dict.fromkeys(codes, number) | dict.fromkeys(verdicts, pyarrow.bool_())
    names = {text: "string", number: "float32", pyarrow.int64(): "int64", pyarrow.bool_(): "bool"}
    features = {
        name: {"_type": "Image"} if kind == image else {"dtype": names[kind], "_type": "Value"}
        for name, kind in kinds.items()
    }
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return pyarrow.schema(list(kinds.items()), metadata=about)


def columns_of(parts: Sequence[Part]) -> dict[str, str]:
    """What each column of codes and of verdicts means, by its name."""
    codes = {name: f"how strongly {name.split('_')[1]} fires" for name in _code_columns(parts).values()}
    return codes | {name: f"whether the first judge sees “{label}”" for name, label in _verdict_columns(parts).items()}


def _code_columns(parts: Sequence[Part]) -> dict[int, str]:
    """The column of each listed neuron or family, by its number; none if there are several runs."""
    listed = parts[0].run.attributes if len(parts) == 1 else []
    return {a.neuron: _column("code", a.neuron, a.title) for a in listed}


def _verdict_columns(parts: Sequence[Part]) -> dict[str, str]:
    """The label of each column of verdicts."""
    return {_column("shows", item.key, item.label): item.label for part in parts for item in part.items
            if item.label and item.shows}  # fmt: skip


def _column(*words: object) -> str:
    """
    >>> _column("code", 12, "a red hat")
    'code_12_a_red_hat'
    """
    return "_".join(slug(str(word)).replace("-", "_") for word in words)


def _rows(parts: Sequence[Part], codes: Mapping[int, str], verdicts: Mapping[str, str]) -> Iterator[Row]:
    """The rows of all parts, each with every column."""
    empty: Row = dict.fromkeys([*ABOUT, *codes.values(), *verdicts])
    embeddings = [part.run.all_embeddings() for part in parts]
    of_part = np.split(places(np.concatenate(embeddings)), np.cumsum([len(one) for one in embeddings])[:-1])
    for part, spots in zip(parts, of_part, strict=True):
        audited, shown = _codes(part.run, codes), _shown(part)
        for number, (sample, (x, y)) in enumerate(zip(part.run.all_samples(), spots, strict=True)):
            is_relative = sample.file.startswith(f"{part.run.look_dir.name}/")
            about = _about(part, sample, "relative" if is_relative else "audited", "look" if is_relative else "capture")
            found = {name: None if np.isnan(column[number]) else float(column[number])
                     for name, column in audited.items()}  # fmt: skip
            yield empty | about | {"x": float(x), "y": float(y)} | found
        for number, sample in enumerate(part.fresh):
            yield empty | _about(part, sample, "fresh", "evaluate") | {name: one[number] for name, one in shown.items()}


def _about(part: Part, sample: Sample, kind: str, stage: str) -> Row:
    """The first columns of an image. Raises RaigenError when its file is missing or not the one that was written."""
    path = part.run.dir / sample.file
    data = path.read_bytes() if path.is_file() else b""
    if sha256(data) != sample.sha256:
        part.run.read_image(sample, stage)  # raises, saying how to make it again
    return {"image": {"bytes": data, "path": sample.file}, "file": sample.file, "kind": kind,
            "prompt": visible(part.prompt), "model": visible(part.model), "seed": sample.seed}  # fmt: skip


def _codes(run: Run, columns: Mapping[int, str]) -> dict[str, Float[np.ndarray, " image"]]:
    """By column, the codes of the audited images and their relatives, NaN where there is none: the relatives have codes
    of families only."""
    if not columns:
        return {}
    codes, families = run.image_codes(), run.family_codes()
    n_neurons, found = codes.shape[1] - families.shape[1], {}
    for neuron, name in columns.items():
        later = families[len(codes) :, neuron - n_neurons] if neuron >= n_neurons else np.full(
            max(0, len(families) - len(codes)), np.nan)  # fmt: skip
        found[name] = np.concatenate([codes[:, neuron], later])
    return found


def _shown(part: Part) -> dict[str, Sequence[bool | None]]:
    """By column, what the first judge of each attribute saw in the fresh images."""
    return {_column("shows", item.key, item.label): next(iter(item.shows.values()))
            for item in part.items if item.label and item.shows}  # fmt: skip


def places(embeddings: Float[np.ndarray, "image width"]) -> Float[np.ndarray, "image 2"]:
    """Where images lie on a map: their first two principal components. The same embeddings give the same map.

    >>> places(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])).shape
    (3, 2)
    """
    centered = embeddings - embeddings.mean(axis=0)
    directions = principal(centered, 2)
    return centered @ np.pad(directions, ((0, 0), (0, 2 - directions.shape[1])))
