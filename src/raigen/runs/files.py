"""Writes files whole or not at all."""

import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raigen.errors import RaigenError

if TYPE_CHECKING:
    import torch


def begin_folder(manifest_path: Path, empty: Mapping[str, Any], what: str, flag: str) -> None:
    """Makes a folder with an `empty` manifest unless it has one; `flag` is what names another folder. Raises
    RaigenError if other files are in the way."""
    path = manifest_path.parent
    if manifest_path.exists():
        return
    if path.is_dir() and any(path.iterdir()):
        raise RaigenError(
            f"{path}: expected a new or empty folder, or {what}; it holds other files. Choose another {flag}"
        )
    path.mkdir(parents=True, exist_ok=True)
    write_text(manifest_path, json.dumps(empty, indent=1))


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all. Raises RaigenError when the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RaigenError(
                f"{path}: the disk is full ({len(data):,} bytes were to be written). What was done is kept: free some "
                "space and give the same command again"
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_tensors(path: Path, tensors: Mapping[str, "torch.Tensor"], metadata: Mapping[str, str] | None = None) -> None:
    """`write_bytes` for named tensors, as safetensors."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, dict(metadata or {})))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table as CSV text: a line of column names, then a line for each row.

    A cell that is missing or None is left empty. Raises ValueError if a row has a key that is no column.

    >>> csv_text(["label", "rate"], [{"label": "a hat", "rate": 0.5}, {"label": "night, snow"}])
    'label,rate\\na hat,0.5\\n"night, snow",\\n'
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
