"""Writes generated images and their lists, so that a stopped run knows which images are complete."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from raigen.config import parsed
from raigen.errors import RaigenError
from raigen.runs.files import json_text, sha256, write_bytes, write_text
from raigen.runs.records import Sample
from raigen.runs.run import Run


def write_image(run: Run, folder: Path, index: int, prompt: str, seed: int, image: Image.Image) -> Sample:
    """Writes image `index` as PNG in `folder` of the run, and returns its entry for the list."""
    path, data = image_path(folder, index), as_png(image)
    write_bytes(path, data)
    return Sample(index, prompt, seed, path.relative_to(run.dir).as_posix(), sha256(data))


def write_list(path: Path, samples: Mapping[int, Sample]) -> None:
    """Writes all samples as JSON lines, by rising index."""
    # The whole list at once: 5,000 lines are 1 MB, little beside a batch, and no line can be torn or out of order.
    lines = [json_text(samples[index].as_json()) for index in sorted(samples)]
    write_text(path, "".join(line + "\n" for line in lines))


def whole_samples(run: Run, path: Path, folder: Path, prompt: str, base_seed: int) -> dict[int, Sample]:
    """The complete samples of a list, by index: prompt and seed are right, and the image exists with the listed hash.

    A missing list, and lines that cannot be read, count as nothing.
    """
    return {
        sample.index: sample
        for sample in _readable(path)
        if (sample.prompt, sample.seed) == (prompt, base_seed + sample.index)
        and run.dir / sample.file == image_path(folder, sample.index)
        and (run.dir / sample.file).is_file()
        and sha256((run.dir / sample.file).read_bytes()) == sample.sha256
    }


def whole_relatives(run: Run) -> list[Sample]:
    """The relatives that an earlier look made, in order, up to the first whose image is not whole."""
    found = []
    for place, sample in enumerate(_readable(run.relatives_path)):
        path = image_path(run.relatives_dir, place)
        if not path.is_file() or sha256(path.read_bytes()) != sample.sha256:
            break
        found.append(sample)
    return found


def image_path(folder: Path, index: int) -> Path:
    """The path of image `index` in `folder`."""
    return folder / f"{index:06d}.png"


def as_png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _readable(path: Path) -> Iterator[Sample]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # a prompt may hold U+2028
        try:
            sample = Sample.from_json(parsed(line, str(path)))
        except (RaigenError, TypeError, AttributeError):
            continue
        yield sample
