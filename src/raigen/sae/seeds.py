"""Trains the autoencoders of a run, one for each seed, on the same batches."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from raigen.config import TrainConfig
from raigen.runs.activations import TokenBatch
from raigen.runs.device import resolve_device
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from raigen.sae.fit import Training, TrainStep, below
from raigen.sae.model import CHUNK, MatryoshkaSAE
from raigen.sae.scaling import InputScaling

METRICS_EVERY = 10  # steps
CLOSING_TOKENS = 16_384  # at the end: half of them set the threshold, the other half measure the quality


class SeedTrainings:
    """The trainings of a run. The first one makes the autoencoder that is used.

    `metrics` are the steps of the first training; `seconds` is the time spent on training in this process.
    """

    def __init__(self, run: Run, config: TrainConfig, d_in: int, n_images: int):
        # A run with fewer images than the tracker waits for: silence on all of them is enough to count as dead.
        patience = min(config.dead_after_images, n_images)
        device, self.trainings = _device_of(run), list[Training]()
        for i in range(config.n_seeds):
            own = replace(config, dead_after_images=patience, sae_seed=config.sae_seed + i)
            self.trainings.append(Training(placed(MatryoshkaSAE(own.sae_config(d_in)), device), own))
        self.run = run
        self.metrics: list[TrainStep] = []
        self.seconds = 0.0

    def update(self, batch: TokenBatch) -> TrainStep:
        """One step of every training; returns that of the first."""
        started = time.perf_counter()
        step, *_ = [training.update(batch) for training in self.trainings]
        self.metrics.append(step)
        self.seconds += time.perf_counter() - started
        return step

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors."""
        metrics = torch.tensor([[*step[:2], *step.fvu, *step[3:]] for step in self.metrics]).double()
        found = {"metrics": metrics}
        for number, training in enumerate(self.trainings):
            found |= {f"training-{number}.{name}": value for name, value in training.state().items()}
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a `state` of trainings with the same configuration."""
        for number, training in enumerate(self.trainings):
            training.restore(below(state, f"training-{number}."))
        self.metrics = [TrainStep(int(step), loss, fvu, l0, int(n_dead), int(tokens))
                        for step, loss, *fvu, l0, n_dead, tokens in state["metrics"].tolist()]  # fmt: skip

    def finish(self, closing: Iterable[Float[Tensor, "_ d_in"]], scaling: InputScaling | None = None) -> Outcome:
        """Sets the thresholds, and writes the autoencoders and metrics.jsonl.

        Every other token of the `closing` batches sets the threshold; the tokens between measure the quality of the
        first autoencoder. With `scaling`, the closing tokens are scaled ones, and the autoencoders are written for raw
        tokens.
        """
        sae, last = self.trainings[0].sae, self.metrics[-1]
        tokens = torch.cat(list(closing)).to(sae.b_dec.device)
        for training in self.trainings:
            training.sae.calibrate(tokens[::2])
        quality = inference_quality(sae, tokens[1::2])
        outputs = []
        for number, training in enumerate(self.trainings):
            if scaling:
                scaling.fold(training.sae)
            outputs += training.sae.save(self.run.seed_dir(number))
        kept = [step for step in self.metrics if step.step % METRICS_EVERY == 0 or step is last]
        write_text(self.run.metrics_path, "".join(json.dumps(step._asdict()) + "\n" for step in kept))
        facts = {
            **{name: value for name, value in asdict(sae.config).items() if not name.startswith("aux")},
            "group_sizes": list(sae.config.group_sizes),
            "steps": last.step,
            "tokens": last.tokens,
            "n_seeds": len(self.trainings),
            "n_dead": last.n_dead,
            "dead_share": last.n_dead / sae.config.d_sae,
        }
        return Outcome([*outputs, self.run.metrics_path], facts | quality)


def n_closing_batches(tokens_per_batch: int) -> int:
    """How many batches `SeedTrainings.finish` needs."""
    return -(-CLOSING_TOKENS // tokens_per_batch)


def placed(sae: MatryoshkaSAE, device: torch.device) -> MatryoshkaSAE:
    """Moves an autoencoder to a device. On a GPU that computes in bfloat16, it searches for the largest codes in that:
    there, the product with the encoder takes nearly all of a step."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        sae.search_dtype = torch.bfloat16
    return sae.to(device)


@torch.no_grad()
def inference_quality(sae: MatryoshkaSAE, tokens: Float[Tensor, "token d_in"]) -> dict[str, Any]:
    """`fvu` (all neurons), `fvu_per_prefix` and `l0` of the inference codes of some tokens."""
    variance = float((tokens - tokens.mean(dim=0)).square().sum())
    squared, n_active = [0.0] * len(sae.group_bounds), 0
    for chunk in tokens.split(CHUNK):
        codes = sae.encode(chunk)
        n_active += int((codes > 0).sum())
        for groups in range(len(squared)):
            squared[groups] += float((chunk - sae.decode(codes, groups)).square().sum())
    fvu = [error / variance for error in squared]
    return {"fvu": fvu[-1], "fvu_per_prefix": fvu, "l0": n_active / len(tokens)}


def _device_of(run: Run) -> torch.device:
    """The device of the capture; `auto` for a run whose activations were not captured by us."""
    record = run.manifest["stages"].get("capture")
    return resolve_device(record["config"]["device"] if record else "auto")
