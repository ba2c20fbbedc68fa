"""Writes generated images, and the lists of them, so that a stopped run knows which are whole."""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from raigen.runs.files import sha256, write_bytes, write_text
from raigen.runs.records import Sample
from raigen.runs.run import Run


def write_image(run: Run, folder: Path, index: int, prompt: str, seed: int, image: Image.Image) -> Sample:
    """Writes image `index` as PNG in `folder` of the run; its line for the list."""
    path, data = image_path(folder, index), as_png(image)
    write_bytes(path, data)
    return Sample(index, prompt, seed, path.relative_to(run.dir).as_posix(), sha256(data))


def write_list(path: Path, samples: Mapping[int, Sample]) -> None:
    """Writes all samples by rising index, as JSON lines."""
    # The whole list, atomically: 5,000 lines are 1 MB, nothing beside a batch, and no line can be torn or out of order.
    lines = [json.dumps(samples[index]._asdict(), ensure_ascii=False) for index in sorted(samples)]
    write_text(path, "".join(line + "\n" for line in lines))


def whole_samples(run: Run, path: Path, folder: Path, prompt: str, base_seed: int) -> dict[int, Sample]:
    """The samples of a list whose images are there with the listed hash, and of this prompt and seeds; by index.

    A list that is missing, or lines of it that cannot be read, count as nothing.
    """
    return {
        sample.index: sample
        for sample in _readable(path)
        if (sample.prompt, sample.seed) == (prompt, base_seed + sample.index)
        and run.dir / sample.file == image_path(folder, sample.index)
        and (run.dir / sample.file).is_file()
        and sha256((run.dir / sample.file).read_bytes()) == sample.sha256
    }


def image_path(folder: Path, index: int) -> Path:
    """Where image `index` lies in `folder`."""
    return folder / f"{index:06d}.png"


def as_png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _readable(path: Path) -> Iterator[Sample]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield Sample(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue
