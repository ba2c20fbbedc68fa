"""A folder of ours: its manifest, its format, its lock. A run and a study are each one."""

import errno
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from filelock import FileLock, Timeout

from raigen.errors import RaigenError
from raigen.runs.files import begin_folder

FORMAT = 1  # of both folders; raised when an old folder can no longer be read
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # what a file system without locks answers


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
        self.manifest_path = self.dir / self.MANIFEST
        if not self.is_at(self.dir):
            raise RaigenError(f"{self.dir}: expected a {self._kind()} folder with a {self.MANIFEST}; found none. "
                              f"Start one with: {self.START} {self.FLAG} {self.dir}")  # fmt: skip
        if (found := self.manifest["format"]) > FORMAT:
            raise RaigenError(f"{self.dir}: written in format {found}, this raigen reads up to {FORMAT}; upgrade it")

    @classmethod
    def is_at(cls, dir: str | Path) -> bool:
        """Whether there is one at this path."""
        return (Path(dir) / cls.MANIFEST).is_file()

    @classmethod
    def create(cls, dir: str | Path) -> Self:
        """Opens the one in `dir`, or makes an empty one there. Raises RaigenError if other files are in the way."""
        begin_folder(Path(dir) / cls.MANIFEST, {"format": FORMAT, **cls.EMPTY}, f"a {cls._kind()}", cls.FLAG)
        return cls(dir)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the manifest holds. Raises RaigenError when it cannot be read."""
        try:
            return json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RaigenError(f"{self.manifest_path}: expected JSON, {error}; "
                              "delete the folder and audit again") from error  # fmt: skip

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one writer. Raises RaigenError when another process holds it. Where the file system
        knows no locks, one line on stderr says so, and the work goes on."""
        held = FileLock(self.dir / ".lock", timeout=0)
        try:
            with warnings.catch_warnings(record=True) as told:  # of a lock file in place of the system's lock
                warnings.simplefilter("always")
                held.acquire()
            if told:
                self._say_that_nothing_locks()
        except Timeout as error:
            raise RaigenError(f"{self.dir}: another raigen process is writing here; wait for it or choose another "
                              f"{self.FLAG}") from error  # fmt: skip
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            self._say_that_nothing_locks()
        try:
            yield
        finally:
            held.release()

    def _say_that_nothing_locks(self) -> None:
        print(f"raigen: {self.dir} lies on a file system without locks; let only one raigen write there",
              file=sys.stderr)  # fmt: skip

    @classmethod
    def _kind(cls) -> str:
        return cls.__name__.lower()
