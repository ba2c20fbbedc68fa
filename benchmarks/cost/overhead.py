"""How much longer does it take to generate images in an audit? `python -m benchmarks.cost.overhead`.

One process runs, in turn, the pipeline alone, with the same seeds and batches and with images saved as PNG; and the
stages capture and train of an audit. It reports the ratio of the medians over rounds, and the share of the extra time
that is training.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.common.results import RESULTS
from raigen.auditing.audit import walk
from raigen.config import AuditConfig
from raigen.diffusion.generation import defaults, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.runs.files import write_text
from raigen.runs.run import Run


@dataclass(frozen=True)
class Options:
    """The overhead benchmark."""

    prompt: str = "a photo of a doctor"
    """The prompt."""
    model: str = "portraits"
    """A diffusers pipeline, or the bundled one."""
    n_images: int = 100
    """Images per round, 50 or more."""
    rounds: int = 3
    """Timed rounds, after one round to warm up."""
    steps_per_image: int | None = None
    """Denoising steps of each image to train on; None is the default of an audit."""
    device: str = "auto"
    """`cpu`, `cuda` or `auto`."""
    work: Path = Path("bench-work/overhead")
    """Folder for the images; it is emptied."""
    results: Path = RESULTS
    """Where overhead.json goes."""


def main(options: Options) -> None:
    """Times both in turn, prints and writes the ratio."""
    config = AuditConfig.of(options.prompt, model=options.model, n_images=options.n_images, device=options.device,
                            steps_per_image=options.steps_per_image)  # fmt: skip
    seconds: dict[str, list[float]] = {"alone": [], "audit": [], "training": []}
    for number in range(options.rounds + 1):
        shutil.rmtree(options.work, ignore_errors=True)
        seconds["alone"].append(_timed(lambda: alone(config, options.work / "alone")))
        run = Run.create(options.work / "audit")
        seconds["audit"].append(_timed(lambda run=run: audited(run, config)))
        seconds["training"].append(run.facts.train.training_seconds)
        print(
            f"round {number}: {', '.join(f'{name} {times[-1]:.1f} s' for name, times in seconds.items())}", flush=True
        )
    median = {name: float(np.median(times[1:])) for name, times in seconds.items()}
    result = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() and options.device != "cpu" else "cpu",
        "threads": torch.get_num_threads(),
        "options": {name: value for name, value in asdict(options).items() if name not in ("work", "results")},
        "seconds per image": {name: value / options.n_images for name, value in median.items()},
        "with capture and training / alone": median["audit"] / median["alone"],
        "training / alone": median["training"] / median["alone"],
    }
    print(json.dumps(result, indent=1))
    write_text(options.results / "overhead.json", json.dumps(result, indent=1) + "\n")


def alone(config: AuditConfig, folder: Path) -> None:
    """Generates the images and nothing else; loads the model again, as an audit does."""
    folder.mkdir(parents=True)
    capture = config.capture
    pipe = load_pipeline(capture.model, capture.device, capture)
    settings = defaults(pipe, capture.model, capture)
    seeds = range(capture.base_seed, capture.base_seed + capture.n_images)
    batches = generate_images(pipe, capture.prompt, seeds, settings, capture.batch_size)
    for number, image in enumerate(chain.from_iterable(batches)):
        image.save(folder / f"{number}.png")


def audited(run: Run, config: AuditConfig) -> None:
    """The first two stages of an audit."""
    for step in walk(run, config):
        if (step.stage, step.state) == ("train", "finished"):
            return


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(tyro.cli(Options))
