"""Reads the files of a run: each is whole and of the right shape, or an error says how to make it again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raigen.config import parsed, shaped, text_of
from raigen.errors import RaigenError
from raigen.runs.files import sha256
from raigen.runs.folder import Folder
from raigen.runs.records import RareAttribute, Sample

if TYPE_CHECKING:
    import torch


class RunFiles(Folder):
    """The folder of a run, as far as reading its files goes."""

    @property
    def words_path(self) -> Path:
        """The directions of the vocabulary with which CLIP named the neurons."""
        return self.dir / "words.safetensors"

    @property
    def notes_path(self) -> Path:
        """What people noted about the findings."""
        return self.dir / "notes.json"

    @property
    def manifest(self) -> dict[str, Any]:
        """What run.json holds. Raises RaigenError when it cannot be read, or has another shape."""
        found = super().manifest
        if not all(isinstance(part, dict) for part in _parts(found)):
            raise RaigenError(f"{self.manifest_path}: expected objects as dropped, machine, and config, facts and "
                              "outputs of each stage; found other things. Fetch the folder again")  # fmt: skip
        return found

    def read_text(self, path: Path, stage: str) -> str:
        """The text of a file that `stage` makes.

        Raises RaigenError with the command that makes it when it is missing.
        """
        self.require_file(path, stage)
        return text_of(path)

    def read_lines(self, path: Path, stage: str) -> list[dict[str, Any]]:
        """The entries of a JSONL file that `stage` makes. Raises RaigenError as `read_text` does, and for a line that
        is no JSON object."""
        lines = self.read_text(path, stage).split("\n")  # not splitlines: a text may hold U+2028
        with self.shaped(path, stage):
            return [dict(parsed(line, str(path), self._remedy(stage))) for line in lines if line]

    def read_samples(self, path: Path, stage: str) -> list[Sample]:
        """The images of a list, in order. Raises RaigenError as `read_lines` does, and for a list of another shape."""
        lines = self.read_lines(path, stage)
        with self.shaped(path, stage):
            found = [Sample.from_json(line) for line in lines]
            if any(after.index <= before.index for before, after in pairwise(found)):
                raise ValueError("the indices do not rise")
        return found

    def read_attributes(self, path: Path, stage: str) -> list[RareAttribute]:
        """The entries of a list. Raises RaigenError as `read_json` does, and for a list of another shape."""
        entries = self.read_json(path, stage)
        with self.shaped(path, stage):
            return [RareAttribute.from_json(entry) for entry in entries]

    def read_json(self, path: Path, stage: str) -> Any:
        """What a JSON file that `stage` makes holds. Raises RaigenError as `read_text` does."""
        return parsed(self.read_text(path, stage), str(path), self._remedy(stage))

    def shaped(self, path: Path, stage: str) -> AbstractContextManager[None]:
        """Raises RaigenError, saying how to make the file of `stage` again, where the code inside needs another
        shape."""
        return shaped(path, f"what raigen {stage} writes", self._remedy(stage))

    def _remedy(self, stage: str) -> str:
        if stage == "amplify":
            return "Make it again with: the same amplify command"
        redo = "" if stage == "capture" else f" --redo {stage}"  # a capture keeps the images that are whole
        return f"Make it again with: raigen {stage} {self.dir}{redo}"

    def read_tensors(self, path: Path, stage: str) -> dict[str, "torch.Tensor"]:
        """The tensors of a safetensors file that `stage` makes. Raises RaigenError when it is missing or broken."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        self.require_file(path, stage)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise RaigenError(
                f"{path}: expected a whole safetensors file; it is broken ({error}). {self._remedy(stage)}"
            ) from error

    def read_array(self, path: Path, name: str, stage: str = "discover") -> Any:
        """A tensor of a file that `stage` makes, as an array. Raises RaigenError as `read_tensors` does."""
        with self.shaped(path, stage):
            return self.read_tensors(path, stage)[name].numpy()

    def stacked(self, rows: Any, path: Path, names: Sequence[str]) -> Any:
        """Rows of an array, and below them the tensors of these names in another file."""
        import numpy as np

        return np.concatenate([rows, *(self.read_array(path, name)[None] for name in names)]) if names else rows

    def read_image(self, sample: Sample, stage: str = "capture") -> Any:
        """The RGB image of a sample. Raises RaigenError when its file is missing or not the one that was written."""
        from PIL import Image

        path = self.dir / sample.file
        if not path.is_file() or sha256(path.read_bytes()) != sample.sha256:
            state = "is not the file that was written" if path.is_file() else "is missing"
            remedy = self._remedy(stage)
            if stage == "capture" and path.is_file():
                remedy = remedy.replace("with:", "with: delete it, then")  # the capture looks at sizes alone
            raise RaigenError(f"{path} (seed {sample.seed}) {state}. {remedy}")
        return Image.open(path).convert("RGB")

    def require_file(self, path: Path, stage: str) -> None:
        """Raises RaigenError, saying what makes it, when a file of `stage` is missing."""
        if not path.is_file():
            raise RaigenError(f"{path} is missing; make it with: raigen {stage} {self.dir}")


def _parts(manifest: Mapping[str, Any]) -> Iterator[Any]:
    """The parts of run.json that are objects, outer ones first."""
    dropped, records = manifest.get("dropped", {}), manifest["stages"].values()
    yield from (manifest.get("machine", {}), dropped)
    yield from dropped.values()
    for record in records:
        yield from (record.get(name) or {} for name in ("config", "facts", "outputs"))
