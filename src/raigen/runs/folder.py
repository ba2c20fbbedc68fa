"""A folder of ours: its manifest, its format, its lock. A run and a study are each one."""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from filelock import FileLock, Timeout

from raigen.config import object_of, visible
from raigen.errors import RaigenError
from raigen.runs.files import begin_folder

FORMAT = 1  # of both folders; raised when an old folder can no longer be read


class Folder:
    """A folder with a manifest. `Folder(dir)` opens one that is there, `Folder.create(dir)` makes it if need be.

    Raises RaigenError when the folder has no manifest, or was written in a newer format.
    """

    MANIFEST: ClassVar[str]
    """File name of the manifest."""
    EMPTY: ClassVar[Mapping[str, Any]]
    """What the manifest of a new folder holds, beside the format."""
    FLAG: ClassVar[str]
    """The flag of the command line that names another folder."""
    START: ClassVar[str]
    """The command that makes one, before the folder's name."""

    def __init__(self, dir: str | Path):
        self.dir = Path(dir)
        _need_a_name_in_utf8(self.dir)
        self.manifest_path = self.dir / self.MANIFEST
        self.dossier_dir = self.dir / "dossier"
        if not self.is_at(self.dir):
            raise RaigenError(f"{self.dir}: expected a {self._kind()} folder with a {self.MANIFEST}; found none. "
                              f"Start one with: {self.START} {self.FLAG} {self.dir}")  # fmt: skip
        _ = self.manifest  # checks it

    @classmethod
    def is_at(cls, dir: str | Path) -> bool:
        """Whether there is one at this path."""
        try:
            return (Path(dir) / cls.MANIFEST).is_file()
        except (OSError, ValueError):  # a name that is too long, or no name at all: a prompt, say
            return False

    @classmethod
    def create(cls, dir: str | Path) -> Self:
        """Opens the one in `dir`, or makes an empty one there. Raises RaigenError if other files are in the way."""
        _need_a_name_in_utf8(Path(dir))
        begin_folder(Path(dir) / cls.MANIFEST, {"format": FORMAT, **cls.EMPTY}, f"a {cls._kind()}", cls.FLAG)
        return cls(dir)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the manifest holds. Raises RaigenError when it cannot be read."""
        empty = {"format": FORMAT, **self.EMPTY}
        remedy = (f"To keep all images that are whole, write {json.dumps(empty)} into it and give the command that "
                  "began it again")  # fmt: skip
        try:
            found = object_of(self.manifest_path, *empty)
        except RaigenError as error:
            raise RaigenError(f"{error}. {remedy}") from error
        for name, value in empty.items():
            is_right = type(found[name]) is type(value)
            if isinstance(value, dict):
                is_right = is_right and all(isinstance(part, dict) for part in found[name].values())
            if not is_right:
                kind = "a dict of dicts" if isinstance(value, dict) else f"a {type(value).__name__}"
                raise RaigenError(f"{self.manifest_path}: expected {kind} as {name}; found {found[name]!r:.80}. "
                                  f"{remedy}")  # fmt: skip
            if name == "format" and found[name] > FORMAT:
                raise RaigenError(f"{self.dir}: written in format {found[name]}, this raigen reads up to {FORMAT}; "
                                  "upgrade it")  # fmt: skip
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one writer. Raises RaigenError when another process holds it. Where nothing can be
        locked, because the file system knows no locks or is read-only, one line on stderr says so, and the work goes
        on: a finished run can always be read."""
        lock = self.dir / ".lock"
        if lock.is_symlink():  # the lock would empty the file to which it leads
            raise RaigenError(f"{lock}: expected a file of its own; it is a link. Delete it")
        held = FileLock(lock, timeout=0)
        try:
            with warnings.catch_warnings(record=True) as told:  # of a lock file in place of the system's lock
                warnings.simplefilter("always")
                held.acquire()
            why = "its file system has no locks" if told else None
        except Timeout as error:
            raise RaigenError(f"{self.dir}: another raigen process is writing here; wait for it or choose another "
                              f"{self.FLAG}") from error  # fmt: skip
        except (OSError, NotImplementedError) as error:
            why = getattr(error, "strerror", None) or "its file system has no locks"
        if why:
            text = f"raigen: {self.dir} cannot be locked ({why}); let only one raigen write there"
            print(visible(text), file=sys.stderr)
        try:
            yield
        finally:
            held.release()

    @classmethod
    def _kind(cls) -> str:
        return cls.__name__.lower()


def _need_a_name_in_utf8(dir: Path) -> None:
    """Raises RaigenError for a folder in which safetensors could neither write nor read."""
    try:
        os.path.abspath(dir).encode()
    except UnicodeEncodeError as error:
        raise RaigenError(f"{str(dir)!r}: expected the name of a folder in UTF-8; it has other bytes. Rename it, or "
                          "choose another") from error  # fmt: skip
