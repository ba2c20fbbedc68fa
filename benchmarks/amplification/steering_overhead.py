"""How much longer does an image take when it is steered? `python -m benchmarks.amplification.steering_overhead`.

One process runs, in turn: the pipeline alone, with one neuron steered, with one neuron set, with five steered. For each
it reports the ratio of its seconds to the seconds of the pipeline alone in the same round: the median over rounds, with
the interval of order statistics. It also reports the time to detect the token layout, which is needed once. On a CPU,
seconds are CPU time of the process, so that other load matters little; on a GPU they are wall time. The autoencoder has
the shape that an audit trains, and random weights.
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
    """The benchmark of the cost of steering."""

    prompt: str = "a photo of a doctor"
    """The prompt."""
    model: str = "portraits"
    """A diffusers pipeline, or the bundled one."""
    batch_size: int = 16
    """Images per batch."""
    rounds: int = 10
    """Timed rounds, after one round to warm up."""
    device: str = "auto"
    """`cpu`, `cuda` or `auto`."""
    results: Path = RESULTS
    """Where steering_overhead.json goes."""


def main(options: Options) -> None:
    """Times all variants in turn, prints and writes the ratios."""
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
    """The context in which each batch is generated, by name."""
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
    """The seconds of a batch, by variant and round; each round begins with another variant."""
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
    """Seconds: CPU time of this process on a CPU; on a GPU, wall time after all of its work is done."""
    if pipe.device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def random_sae(d_in: int) -> MatryoshkaSAE:
    """An autoencoder with the shape that an audit trains."""
    sae, generator = MatryoshkaSAE(TrainConfig().sae_config(d_in)), torch.Generator().manual_seed(0)
    sae.initialize(torch.randn(256, d_in, generator=generator), generator)
    return sae.eval()


if __name__ == "__main__":
    main(tyro.cli(Options))
