"""A finished audit of a tiny model with random weights, whose neurons are all worth listing."""

from pathlib import Path
from typing import Any

import raigen
from raigen.runs.run import Run


def tiny_audit(prompt: str, model: Path, embedder: Path, run_dir: Path, **options: Any) -> Run:
    """The run of `prompt` in `run_dir`: 4 fresh images, 5 steps, 160 neurons; `options` are those of an audit."""
    return raigen.audit(
        prompt, model=str(model), run_dir=run_dir, n_fresh_images=4, embedder=str(embedder), device="cpu",
        percentile=0.0, distance=0.0, max_frequency=1.0, d_sae=160, k=4, num_inference_steps=5, n_label_images=0,
        **options,
    )  # fmt: skip
