"""Generates the pictures of a run, and stores what the hookpoint put out for each."""

import io
import itertools
import json
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError, safe_open

from raigen.activations import NAME, ActivationStore
from raigen.config import CaptureConfig
from raigen.diffusion import Generated, Settings, defaults, generate, load_pipeline, revision
from raigen.hookpoint import find_hookpoint
from raigen.run import Outcome, Run, Sample, Tick, sha256, write_bytes, write_text


def capture(run: Run, config: CaptureConfig) -> Generator[Tick, None, Outcome]:
    """Makes picture i from seed `base_seed + i` and keeps the activations of all its denoising steps.

    Each batch is written whole: its pictures, one shard of activations, then its lines in samples.jsonl. Stopped at
    any time and started again, it keeps every batch whose pictures have the hashes in samples.jsonl and whose shard
    is whole, and makes the others again, to the same pictures. Yields progress in pictures.

    Raises RaigenError when the model cannot be loaded, the hookpoint does not exist or cannot be captured, an
    activation is not finite, or the disk is full.
    """
    pipe = load_pipeline(config.model, config.device)
    settings = defaults(pipe, config.model, config)
    hookpoint = find_hookpoint(pipe, config.hookpoint)
    samples = _whole_batches(run, config)
    if run.samples_path.exists():  # what it lists beyond the whole batches is gone
        _write_samples(run, samples)
    n_made, seconds = 0, 0.0
    yield Tick(len(samples), config.n_images)
    for indices in _missing(config.n_images, config.batch_size, samples):
        started = time.perf_counter()
        seeds = [config.base_seed + index for index in indices]
        generated = generate(pipe, config.prompt, seeds, settings, hookpoint)
        samples |= _write_batch(run, config, indices, generated)
        _write_samples(run, samples)
        n_made, seconds = n_made + len(indices), seconds + time.perf_counter() - started
        yield Tick(len(samples), config.n_images, f"{seconds / n_made:.2f} s a picture")
    store = ActivationStore(run.activations_dir)
    facts = {
        "model": config.model,
        "revision": revision(config.model),
        "pipeline": type(pipe).__name__,
        "scheduler": type(pipe.components["scheduler"]).__name__,
        **settings._asdict(),
        "hookpoint": hookpoint.path,
        "grid": list(store.grid),
        "d_in": store.d_in,
        "n_steps": store.n_steps,
        "seconds_per_image": round(seconds / n_made, 4) if n_made else None,
        "device": str(pipe.device),
        **_safety(pipe.components.get("safety_checker"), samples, settings),
    }
    shards = sorted(run.activations_dir.glob("*.safetensors"))
    pictures = [run.dir / sample.file for sample in samples.values()]
    return Outcome([run.samples_path, *pictures, *shards], facts)


def _whole_batches(run: Run, config: CaptureConfig) -> dict[int, Sample]:
    """The samples of the batches that an earlier start left whole; the files of all others are deleted."""
    listed = _listed(run.samples_path)
    whole: dict[int, Sample] = {}
    files = set()
    for path in sorted(run.activations_dir.glob("*.safetensors")):
        indices = _images_of(path)
        if (
            indices
            and indices[-1] < config.n_images
            and whole.keys().isdisjoint(indices)
            and all(_is_whole(run, config, index, listed.get(index)) for index in indices)
        ):
            whole |= {index: listed[index] for index in indices}
            files |= {path, *(run.dir / listed[index].file for index in indices)}
    for folder in (run.images_dir, run.activations_dir):
        for path in set(folder.glob("*")) - files:
            path.unlink()
    return whole


def _is_whole(run: Run, config: CaptureConfig, index: int, sample: Sample | None) -> bool:
    if sample is None or (sample.prompt, sample.seed) != (config.prompt, config.base_seed + index):
        return False
    path = run.dir / sample.file
    return path == _picture_path(run, index) and path.is_file() and sha256(path.read_bytes()) == sample.sha256


def _images_of(shard: Path) -> range:
    """The indices of the images in a shard; empty when it is broken."""
    try:
        with safe_open(shard, "pt") as file:
            first = int(file.metadata()["first"])
            return range(first, first + file.get_slice(NAME).get_shape()[0])
    except (SafetensorError, KeyError, TypeError, ValueError):
        return range(0)


def _listed(path: Path) -> dict[int, Sample]:
    """The samples listed so far, by index; lines that cannot be read are left out."""
    if not path.is_file():
        return {}
    samples = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            sample = Sample(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue
        samples[sample.index] = sample
    return samples


def _missing(n_images: int, batch_size: int, samples: Mapping[int, Sample]) -> Iterator[list[int]]:
    """The indices without a sample, in batches of consecutive ones."""
    absent = [index for index in range(n_images) if index not in samples]
    for _, group in itertools.groupby(enumerate(absent), key=lambda pair: pair[1] - pair[0]):
        indices = [index for _, index in group]
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def _write_batch(run: Run, config: CaptureConfig, indices: list[int], generated: Generated) -> dict[int, Sample]:
    assert generated.activations is not None and generated.grid is not None  # a hookpoint was given
    samples = {}
    for index, image in zip(indices, generated.images, strict=True):
        path, data = _picture_path(run, index), _png(image)
        write_bytes(path, data)
        file = path.relative_to(run.dir).as_posix()
        samples[index] = Sample(index, config.prompt, config.base_seed + index, file, sha256(data))
    ActivationStore.write(
        run.activations_dir, indices[0], generated.activations, generated.grid, generated.step_indices
    )
    return samples


def _write_samples(run: Run, samples: Mapping[int, Sample]) -> None:
    # The whole list, atomically: 5,000 lines are 1 MB, nothing beside a batch, and no line can be torn or out of order.
    lines = [json.dumps(samples[index]._asdict(), ensure_ascii=False) for index in sorted(samples)]
    write_text(run.samples_path, "".join(line + "\n" for line in lines))


def _picture_path(run: Run, index: int) -> Path:
    return run.images_dir / f"{index:06d}.png"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _safety(checker: object, samples: Mapping[int, Sample], settings: Settings) -> dict[str, Any]:
    """Whether a safety checker watched, and how many pictures it blackened (wholly black ones)."""
    black = sha256(_png(Image.new("RGB", (settings.width, settings.height))))
    n_black = sum(sample.sha256 == black for sample in samples.values())
    return {"safety_checker": checker is not None, "n_black_images": n_black}
