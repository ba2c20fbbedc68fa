"""What do denoisers of full size cost? Random weights in the real architectures: `python -m benchmarks.cost.full_size`.

The U-Net of SDXL and the transformers of SD 3 medium and FLUX.1-schnell are built from their published configurations
with random weights. Each generates one image alone, then one with a layer captured; then an autoencoder is trained on
the activations. No checkpoint is loaded, so the results say nothing about one. Text encoders and decoder are left out.
Without a GPU it runs at a much reduced size, as a smoke test that measures nothing; the result says so.
"""

import json
import platform
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import tyro
from torch import Tensor, nn

from benchmarks.common.results import RESULTS
from raigen.config import TrainConfig
from raigen.diffusion.hookpoints import Hookpoint
from raigen.diffusion.hooks import ActivationCollector, TokenHook, TokenLayout
from raigen.diffusion.layout import LayoutProbe
from raigen.runs.files import write_text
from raigen.sae.fit import fit
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.seeds import placed

PIXELS_PER_LATENT = 8
SMALL_HOOKPOINT = "transformer_blocks.1"  # of a reduced transformer, which has fewer blocks
SMOKE = "a smoke test at reduced size on a CPU, no GPU was available: these numbers say nothing about the full size"
FULL = "full size with random weights; no real checkpoint was loaded, text encoders and decoder are left out"


class Architecture(NamedTuple):
    """A denoiser: its class, its published configuration, the changes for a smoke test, and how it is called.

    `latent` is the side of the noise, `text` the number of prompt tokens; `guided` has two branches, the second one for
    the prompt.
    """

    name: str
    kind: str
    config: dict[str, Any]
    reduced: dict[str, Any]
    hookpoint: str
    latent: int
    text: int
    steps: int
    guided: bool


ARCHITECTURES = (
    Architecture(
        "SDXL", "UNet2DConditionModel",
        {"sample_size": 128, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280),
         "layers_per_block": 2, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
         "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
         "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
         "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
         "projection_class_embeddings_input_dim": 2816},
        {"sample_size": 16, "block_out_channels": (32, 32, 64), "transformer_layers_per_block": (1, 1, 1),
         "attention_head_dim": (1, 1, 2), "cross_attention_dim": 64},
        "mid_block", 128, 77, 50, True,
    ),
    Architecture(
        "SD 3 medium", "SD3Transformer2DModel",
        {"sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
         "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
         "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192},
        {"num_layers": 3, "num_attention_heads": 2, "joint_attention_dim": 64, "caption_projection_dim": 128,
         "pooled_projection_dim": 32},
        "transformer_blocks.12", 128, 333, 28, True,
    ),
    Architecture(
        "FLUX.1-schnell", "FluxTransformer2DModel",
        {"patch_size": 1, "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
         "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
         "guidance_embeds": False},
        {"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 1, "joint_attention_dim": 64,
         "pooled_projection_dim": 32},
        "transformer_blocks.18", 128, 256, 4, False,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The benchmark of full-size denoisers."""

    device: str = "auto"
    """`auto`, `cpu` or `cuda`; a CPU runs the smoke test."""
    only: tuple[str, ...] = ()
    """Names of the architectures to run; empty for all."""
    repeats: int = 2
    """Timed images of each kind; the fastest counts."""
    training_steps: int = 20
    """Timed training steps of 4,096 tokens."""
    results: Path = RESULTS
    """Where full_size.json goes."""


class Bench:
    """One denoiser on one device, full or reduced, with its inputs."""

    def __init__(self, architecture: Architecture, device: str, full: bool):
        self.architecture, self.device, self.full = architecture, device, full
        self.config = architecture.config | ({} if full else architecture.reduced)
        self.latent, self.n_steps = (architecture.latent, architecture.steps) if full else (16, 2)
        self.dtype = torch.bfloat16 if full else torch.float32
        torch.manual_seed(0)
        self.denoiser = built(architecture.kind, self.config, device, self.dtype)
        path = (
            architecture.hookpoint if full or not architecture.kind.endswith("Transformer2DModel") else SMALL_HOOKPOINT
        )
        self.hookpoint = Hookpoint(path, self.denoiser.get_submodule(path))

    def random(self, *shape: int, seed: int = 0) -> Tensor:
        """Normal noise from a seed."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(self.device, self.dtype)

    def noise(self) -> Tensor:
        """The noise from which an image starts: a map, or for FLUX its packed patches of 2 x 2."""
        if self.architecture.kind == "FluxTransformer2DModel":
            return self.random(1, (self.latent // 2) ** 2, self.config["in_channels"])
        return self.random(1, self.config["in_channels"], self.latent, self.latent)

    def arguments(self, prompt: str) -> dict[str, Any]:
        """All inputs but the noise and the time: random text embeddings, different for each prompt."""
        config, rows = self.config, 2 if self.architecture.guided else 1
        seeds = [0, sum(prompt.encode())][-rows:]

        def of(*shape: int) -> Tensor:
            return torch.cat([self.random(1, *shape, seed=seed) for seed in seeds])

        text = self.architecture.text if self.full else 7
        if self.architecture.kind == "UNet2DConditionModel":
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            sizes = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]]).repeat(rows, 1).to(self.device, self.dtype)
            return {"encoder_hidden_states": of(text, config["cross_attention_dim"]),
                    "added_cond_kwargs": {"text_embeds": of(pooled), "time_ids": sizes}}  # fmt: skip
        found = {"encoder_hidden_states": of(text, config["joint_attention_dim"]),
                 "pooled_projections": of(config["pooled_projection_dim"])}  # fmt: skip
        if self.architecture.kind == "FluxTransformer2DModel":
            side = torch.arange(self.latent // 2, device=self.device, dtype=self.dtype)
            places = torch.cartesian_prod(side, side)
            found |= {"img_ids": torch.cat([torch.zeros_like(places[:, :1]), places], 1),
                      "txt_ids": torch.zeros(text, 3, device=self.device, dtype=self.dtype)}  # fmt: skip
        return found

    @torch.inference_mode()
    def image(self, prompt: str) -> None:
        """All denoising steps of one image; each moves the noise a little, as a sampler does."""
        noise, more = self.noise(), self.arguments(prompt)
        rows = 2 if self.architecture.guided else 1
        for step in range(self.n_steps):
            time = torch.full((rows,), 1 - step / self.n_steps, device=self.device, dtype=self.dtype)
            time = time if self.architecture.kind == "FluxTransformer2DModel" else 1000 * time
            answer = self.denoiser(noise.repeat(rows, *[1] * (noise.dim() - 1)), timestep=time, return_dict=False,
                                   **more)[0]  # fmt: skip
            noise = noise - answer[-1:] / self.n_steps
        if self.device == "cuda":
            torch.cuda.synchronize()

    def layout(self) -> TokenLayout:
        """The layout of the prompt's image tokens, detected on the denoiser itself."""
        side = self.latent * PIXELS_PER_LATENT
        return LayoutProbe(self.image, self.denoiser, [self.hookpoint], "a", (side, side)).layout(self.hookpoint)


def built(kind: str, config: dict[str, Any], device: str, dtype: torch.dtype) -> nn.Module:
    """A denoiser with random weights, made on the device where it runs."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return getattr(diffusers, kind)(**config).eval()
    finally:
        torch.set_default_dtype(before)


def main(options: Options) -> None:
    """Runs every architecture, writes and prints."""
    is_gpu = torch.cuda.is_available() and options.device != "cpu"
    device = "cuda" if is_gpu else "cpu"
    chosen = [each for each in ARCHITECTURES if not options.only or each.name in options.only]
    result = {
        "smoke_test": not is_gpu,
        "note": FULL if is_gpu else SMOKE,
        "gpu": torch.cuda.get_device_name() if is_gpu else None,
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "options": {name: value for name, value in asdict(options).items() if name != "results"},
        "architectures": {each.name: measured(Bench(each, device, is_gpu), options) for each in chosen},
    }
    print(json.dumps(result, indent=1))
    write_text(options.results / "full_size.json", json.dumps(result, indent=1) + "\n")


def measured(bench: Bench, options: Options) -> dict[str, Any]:
    """The time and memory of one denoiser."""
    full = built(bench.architecture.kind, bench.architecture.config, "meta", torch.float32)
    layout = bench.layout()  # also warms up
    collected: list[Tensor] = []

    def capture() -> None:
        collector = ActivationCollector(bench.hookpoint.path, [0], None)
        with TokenHook(bench.hookpoint, layout, collector, 1).registered(bench.denoiser):
            bench.image("a")
        collected[:] = [collector.collected()[0].half()]

    plain = timed(lambda: bench.image("a"), options.repeats, bench.device)
    captured = timed(capture, options.repeats, bench.device)
    tokens = collected[0].flatten(0, 2)
    n_bytes = tokens.numel() * tokens.element_size()
    return {
        "parameters of the full size": sum(weight.numel() for weight in full.parameters()),
        "parameters that ran": sum(weight.numel() for weight in bench.denoiser.parameters()),
        "hookpoint": bench.hookpoint.path,
        "steps": bench.n_steps,
        "grid": list(layout.grid),
        "d_in": layout.d_in,
        "tokens per image": len(tokens),
        "seconds per image": plain["seconds"],
        "seconds per image with capture": captured["seconds"],
        "peak bytes": plain["peak bytes"],
        "peak bytes with capture": captured["peak bytes"],
        "bytes per image on disk, all steps": n_bytes,
        "bytes per image on disk, last step": n_bytes // bench.n_steps,
        "training": trained(tokens, options.training_steps, bench.device),
    }


def trained(tokens: Tensor, steps: int, device: str) -> dict[str, float]:
    """The speed of raigen's training on these tokens, repeated to fill its batches; the first steps warm up."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    config = TrainConfig(tokens_per_batch=4096)
    sae = placed(MatryoshkaSAE(config.sae_config(tokens.shape[1])), torch.device(device))

    def batches() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps + 2):
            yield tokens[torch.randint(len(tokens), (config.batch_of(0),), generator=generator)].float()

    moments = []
    for _ in fit(sae, batches(), config):
        moments.append(time.perf_counter())  # the loss is on the CPU, so the step is done
    seconds = (moments[-1] - moments[1]) / (len(moments) - 2)
    return {
        "d_sae": sae.config.d_sae,
        "seconds per step": seconds,
        "tokens per second": config.batch_of(0) / seconds,
        "seconds per image": len(tokens) / config.batch_of(0) * seconds,
        "peak bytes": peak_bytes(device),
    }


def timed(action: Callable[[], None], repeats: int, device: str) -> dict[str, float]:
    """The fastest of some runs, and the peak memory."""
    seconds = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return {"seconds": min(seconds), "peak bytes": peak_bytes(device)}


def peak_bytes(device: str) -> int:
    """The peak memory of the GPU since the last reset, or of the process since its start."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(tyro.cli(Options))
