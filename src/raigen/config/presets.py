"""The settings of the published experiments, by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from raigen.config import STAGE_CONFIGS
from raigen.errors import RaigenError

PresetName = Literal["paper-sd14", "paper-sdxl", "paper-flux"]
# RAIGen, arXiv 2602.06806; the authors' code for what the paper leaves open. See docs/reproduce.md.
_PUBLISHED: dict[str, Any] = {
    "n_images": 5000,
    "batch_size": 20,
    "k": 32,
    "tokens_per_batch": 4096,
    "epochs": 5,
    "lr": 3e-4,
    "dead_after_tokens": 20 * 4096,  # 20 batches
    "dead_after_images": 1,
    "score": "published",
    "distance": 0.003,
    "percentile": 90.0,
    "n_attributes": 10,
    "n_top_images": 10,
    "min_images": 1,
    "embedder": "openai/clip-vit-large-patch14",
    "n_look_images": 0,
    "n_fresh_images": 1000,
}
_U_NET: dict[str, Any] = {"hookpoint": "unet.mid_block", "d_sae": 20480, "group_sizes": (2048, 18432)}
PRESETS: dict[PresetName, dict[str, Any]] = {
    "paper-sd14": {**_PUBLISHED, **_U_NET, "model": "CompVis/stable-diffusion-v1-4", "num_inference_steps": 50},
    "paper-sdxl": {
        **_PUBLISHED, **_U_NET, "model": "stabilityai/stable-diffusion-xl-base-1.0", "num_inference_steps": 50,
        "guidance_scale": 9.0,
    },
    "paper-flux": {
        **_PUBLISHED, "hookpoint": "transformer.transformer_blocks.18", "model": "black-forest-labs/FLUX.1-schnell",
        "num_inference_steps": 4, "d_sae": 49152, "group_sizes": (4915, 44237),  # 16 x 3072, a tenth coarse
    },
}  # fmt: skip


def preset(name: str) -> dict[str, Any]:
    """The options of a preset, as `raigen.audit` takes them. Raises RaigenError for an unknown name.

    >>> preset("paper-sdxl")["n_images"]
    5000
    """
    if name not in PRESETS:
        raise RaigenError(f"preset: expected one of {', '.join(PRESETS)}; got {name!r}")
    return dict(PRESETS[name])


def by_stage(name: str) -> Mapping[str, dict[str, Any]]:
    """The options of a preset, each under the stage that has a field of its name."""
    options = preset(name)
    return {
        stage: {f.name: options[f.name] for f in fields(config) if f.name in options}
        for stage, config in STAGE_CONFIGS.items()
    }
