"""How much longer does an image take when it is steered? `python -m benchmarks.amplification.steering_overhead`.

In one process and in turn: the pipeline alone, with one neuron steered, with one set, with five steered. Reported is
for each the median over the rounds of its seconds over those of the pipeline alone in the same round, with the interval
of order statistics, and how long it takes once to ask the model where its tokens are. On a CPU the seconds are those
that the process was given, so that other work beside it counts little; on a GPU those of the clock. The autoencoder has
the shape that an audit trains, with random weights.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from benchmarks.common.intervals import median_interval, shown, without_nan
from benchmarks.common.results import RESULTS
from raigen.amplification.steering import steering
from raigen.config import CaptureConfig, TrainConfig
from raigen.diffusion.generation import Settings, defaults, generate, layout_of
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.loading import load_pipeline
from raigen.runs.files import write_text
from raigen.sae.model import MatryoshkaSAE

GOAL = 1.05


@dataclass(frozen=True)
class Options:
    """The benchmark of what steering costs."""

    prompt: str = "a photo of a doctor"
    """What is painted."""
    model: str = "portraits"
    """A diffusers pipeline, or the bundled one."""
    batch_size: int = 16
    """Images at once."""
    rounds: int = 10
    """Timed rounds; one more goes before."""
    device: str = "auto"
    """`cpu`, `cuda` or `auto`."""
    results: Path = RESULTS
    """Where steering_overhead.json goes."""


def main(options: Options) -> None:
    """Times all ways in turn, prints and writes the ratios."""
    capture = CaptureConfig(options.prompt, model=options.model, device=options.device)
    pipe = load_pipeline(capture.model, capture.device, capture)
    settings = defaults(pipe, capture.model, capture)
    started = time.perf_counter()
    layout = layout_of(pipe, options.prompt, settings, find_hookpoint(pipe))
    asking = time.perf_counter() - started
    sae = random_sae(layout.d_in).to(pipe.device)
    seconds = timed(options, pipe, settings, ways(pipe, sae, settings, options.prompt))
    ratios = {name: median_interval(np.array(found) / np.array(seconds["alone"])) for name, found in seconds.items()}
    result = {
        "device": torch.cuda.get_device_name() if pipe.device.type == "cuda" else pipe.device.type,
        "threads": torch.get_num_threads(), "goal": GOAL,
        "options": {name: value for name, value in asdict(options).items() if name != "results"},
        "seconds per image alone": float(np.median(seconds["alone"])) / options.batch_size,
        "seconds to ask where the tokens are, once": asking, "over alone": ratios,
    }  # fmt: skip
    write_text(options.results / "steering_overhead.json", json.dumps(without_nan(result), indent=1) + "\n")
    print(f"alone: {result['seconds per image alone']:.4f} s an image; asking once: {asking:.2f} s")
    print(*(f"{name}: {shown(ratio)} of alone" for name, ratio in ratios.items()), sep="\n")


def ways(
    pipe: DiffusionPipeline, sae: MatryoshkaSAE, settings: Settings, prompt: str
) -> Mapping[str, Callable[[], AbstractContextManager[None]]]:
    """What each batch of images is made inside of, by name."""
    one, five = {0: 1.0}, dict.fromkeys(range(5), 1.0)
    return {
        "alone": nullcontext,
        "steer": lambda: steering(pipe, sae, one, settings=settings, prompt=prompt),
        "set": lambda: steering(pipe, sae, one, method="set", settings=settings, prompt=prompt),
        "steer five": lambda: steering(pipe, sae, five, settings=settings, prompt=prompt),
    }


def timed(
    options: Options, pipe: DiffusionPipeline, settings: Settings,
    among: Mapping[str, Callable[[], AbstractContextManager[None]]],
) -> dict[str, list[float]]:  # fmt: skip
    """The seconds of a batch by way and round; each round begins with another way."""
    seconds: dict[str, list[float]] = {name: [] for name in among}
    names = list(among)
    for number in range(options.rounds + 1):
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            started = clock(pipe)
            with among[name]():
                generate(pipe, options.prompt, range(options.batch_size), settings)
            if number:
                seconds[name].append(clock(pipe) - started)
        if number:
            print(f"round {number}: " + ", ".join(f"{name} {found[-1]:.2f} s" for name, found in seconds.items()),
                  flush=True)  # fmt: skip
    return seconds


def clock(pipe: DiffusionPipeline) -> float:
    """Seconds: of this process on a CPU, on the wall for a GPU once it has done what it was told."""
    if pipe.device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def random_sae(d_in: int) -> MatryoshkaSAE:
    """An autoencoder of the shape that an audit trains."""
    sae, generator = MatryoshkaSAE(TrainConfig().sae_config(d_in)), torch.Generator().manual_seed(0)
    sae.initialize(torch.randn(256, d_in, generator=generator), generator)
    return sae.eval()


if __name__ == "__main__":
    main(tyro.cli(Options))
