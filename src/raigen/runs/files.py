"""Writes files whole or not at all."""

import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raigen.config.text_files import HALF, LONE_JOINERS, UNSEEN, visible
from raigen.errors import RaigenError

if TYPE_CHECKING:
    import torch

FORMULA = tuple("=+-@\t\n\r\uff1d\uff0b\uff0d\uff20")  # how a cell begins that a spreadsheet takes for a formula
CLUTTER = ("Thumbs.db", "desktop.ini", "@eaDir", "__MACOSX")  # what other systems leave in folders, beside dot files
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # what a file system answers that cannot wait for the disk


def begin_folder(manifest_path: Path, empty: Mapping[str, Any], what: str, flag: str) -> None:
    """Makes a folder with an `empty` manifest unless it has one; `flag` is what names another folder. Raises
    RaigenError if other files are in the way."""
    path = manifest_path.parent
    try:
        is_there = manifest_path.exists()
        is_taken = path.is_dir() and any(not is_clutter(entry) for entry in path.iterdir())
    except OSError as error:
        raise RaigenError(f"{path}: expected a place to write to; {error.strerror}. Choose another {flag}") from error
    if is_there:
        return
    if is_taken:
        raise RaigenError(
            f"{path}: expected a new or empty folder, or {what}; it holds other files. Choose another {flag}"
        )
    write_text(manifest_path, json.dumps(empty, indent=1))


def is_clutter(path: Path) -> bool:
    """Whether a program that shows or copies folders left this entry.

    >>> is_clutter(Path("images/.DS_Store")), is_clutter(Path("images/000000.png"))
    (True, False)
    """
    return path.name.startswith(".") or path.name in CLUTTER


def shards_in(dir: Path) -> list[Path]:
    """The safetensors files in `dir`, by name, without clutter."""
    return sorted(path for path in dir.glob("*.safetensors") if not is_clutter(path))


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all. Raises RaigenError when the disk is full, or nothing can be written there."""
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb", opener=not_through_links) as file:
            file.write(data)
            file.flush()
            _wait_for_disk(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        if error.errno in FULL:
            raise RaigenError(
                f"{path}: the disk is full ({len(data):,} bytes were to be written). What was done is kept: free some "
                "space and give the same command again"
            ) from error
        raise RaigenError(f"{path}: expected a place to write to; {error.strerror}. Choose another folder, or allow "
                          "writing there") from error  # fmt: skip


def not_through_links(path: str, flags: int) -> int:
    """Opens a file for `open`, unless it is a link: in a folder from a stranger, that may lead to any file."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _wait_for_disk(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_tensors(path: Path, tensors: Mapping[str, "torch.Tensor"], metadata: Mapping[str, str] | None = None) -> None:
    """`write_bytes` for named tensors, as safetensors."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, dict(metadata or {})))


def json_text(entry: Any, indent: int | None = None) -> str:
    """JSON in which letters of every script stand as they are, and what is not `visible` stands as an escape.

    >>> json_text({"label": "béret\\u202e"})
    '{"label": "béret\\\\u202e"}'
    """
    text = json.dumps(entry, ensure_ascii=False, indent=indent)
    for hidden in (UNSEEN, LONE_JOINERS, HALF):
        text = hidden.sub(lambda found: json.dumps(found[0])[1:-1], text)
    return text


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV text: a line of column names, then a line for each row.

    A cell that is missing or None is left empty, and of a text only what is `visible` stays. A text that a spreadsheet
    would run as a formula gets an apostrophe in front, which `plain_cell` takes off again. Raises ValueError if a row
    has a key that is no column.

    >>> csv_text(["label", "rate"], [{"label": "a hat", "rate": 0.5}, {"label": "night, snow"}])
    'label,rate\\na hat,0.5\\n"night, snow",\\n'
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(cell) for name, cell in row.items()} for row in rows)
    return buffer.getvalue()


def plain_cell(text: str) -> str:
    """The text of a cell that `csv_text` wrote.

    >>> plain_cell("'=1+1"), plain_cell("'tis")
    ('=1+1', "'tis")
    """
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet might run it; also behind apostrophes, so that `plain_cell` knows which of them is ours."""
    return text.lstrip("'").startswith(FORMULA)


def _harmless(cell: Any) -> Any:
    if isinstance(cell, str):
        cell = visible(cell)
    if not isinstance(cell, str) or not _is_formula(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
