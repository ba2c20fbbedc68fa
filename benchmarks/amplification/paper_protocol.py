"""The paper's own measurements of amplification, on the bundled model:

`python -m benchmarks.amplification.paper_protocol --help`.

For the first five named attributes of each prompt (RAIGen, arXiv 2602.06806; chosen as in `benchmarks.amplification`,
whose audits are used):

- Half of the images use the base prompt, half the revised prompt: how often they show the attribute; the *deviation
  ratio* |rate - 1/2| / (1/2), which is 0 where half of the images show it and 1 where all or none do (the usual ratio
  over C classes, max_c |share_c - 1/C| / (1 - 1/C), for two); and CLIP alignment with the base prompt, before and
  after. - The likelihood, under the prompt, of the ten audited images in which the neuron is strongest and of ten
  random ones: the negative log-likelihood by the probability-flow ODE (Song et al. 2021, see
  `benchmarks.amplification.likelihood`).

The likelihood is computed for *latents*, which the encoder makes from the finished images, at the first noise level of
the schedule, in bits for each of their 2,048 dimensions. It ignores the decoder, and it cannot be compared with the
likelihoods of other models, such as those of the paper, which are for pixels. It can be compared between the top images
and the random images.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import tyro
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

import raigen
from benchmarks.amplification.audits import BATCH, Aim, AuditOptions, aims_of, audited
from benchmarks.amplification.likelihood import angles_of, bits_per_dimension, log_likelihood
from benchmarks.amplification.methods import image, kept
from benchmarks.common.intervals import ANY, SHARE, interval_of, shown, without_nan
from raigen.diffusion.loading import load_pipeline
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.world.judge import as_pixels

MEASURES = ("presence before", "presence", "deviation ratio before", "deviation ratio", "alignment before", "alignment",
            "bits of top images", "bits of random images", "top - random")  # fmt: skip


@dataclass(frozen=True)
class Options(AuditOptions):
    """The paper's protocol."""

    n_likely: int = 10
    """Images of each kind, top and random, whose likelihood is computed; at most ten."""
    n_angles: int = 60
    """Points of the probability-flow ODE, at even timesteps."""
    n_probes: int = 1
    """Vectors of random signs that estimate the divergence."""


def main(options: Options) -> None:
    """Measures every attribute of every prompt, prints and writes the means over prompts."""
    rows: list[dict[str, Any]] = []
    for prompt in options.prompts:
        run = audited(options, prompt)
        rows += [row_of(options, run, aim) for aim in aims_of(run, options.n_attributes)]
        found = {"options": {name: value for name, value in asdict(options).items()
                             if name not in ("work", "source", "results")},
                 "means": summary(rows), "attributes": rows}  # fmt: skip
        write_text(options.results / "paper_protocol.json", json.dumps(without_nan(found), indent=1) + "\n")
    print(*(f"{name}: {shown(value)} (n = {value['n']} prompts)" for name, value in summary(rows).items()), sep="\n")


def row_of(options: Options, run: Run, aim: Aim) -> dict[str, Any]:
    """The measures of one attribute, cached in the folder of its run."""
    asked = {"n_images": options.n_images, "n_likely": options.n_likely, "n_angles": options.n_angles,
             "n_probes": options.n_probes, "label": aim.attribute.label}  # fmt: skip

    def make() -> dict[str, Any]:
        named = {"prompt": run.config.capture.prompt, "label": aim.attribute.label}
        return named | mixture_of(options, run, aim) | likelihoods(options, run, aim)

    return kept(run.dir / "cells" / f"{aim.attribute.neuron}-paper.json", asked, make)


def mixture_of(options: Options, run: Run, aim: Aim) -> dict[str, float]:
    """Presence, deviation ratio and alignment of base images, and of as many images with half by the revised prompt."""
    (entry,) = raigen.amplify(run, attribute=aim.attribute.rank, method="prompt", strength=(0.5,),
                              n_images=options.n_images, batch_size=BATCH)  # fmt: skip
    mixed = next(point for point in entry["points"] if point["strength"] == 0.5)
    before, after = entry["base"]["presence"]["rate"], mixed["presence"]["rate"]
    return {
        "presence before": before, "presence": after,
        "deviation ratio before": deviation_ratio(before), "deviation ratio": deviation_ratio(after),
        "alignment before": entry["base"]["alignment"]["mean"], "alignment": mixed["alignment"]["mean"],
    }  # fmt: skip


def deviation_ratio(rate: float) -> float:
    """How far the share of images with an attribute is from one half, in [0, 1].

    >>> deviation_ratio(0.25)
    0.5
    """
    return abs(rate - 0.5) / 0.5


def likelihoods(options: Options, run: Run, aim: Aim) -> dict[str, float]:
    """Mean bits per dimension of the strongest images of a neuron and of random others."""
    top = aim.attribute.top_images[: options.n_likely]
    rest = [sample.file for sample in run.samples() if sample.file not in aim.attribute.top_images]
    chosen = np.random.default_rng(aim.attribute.neuron).choice(len(rest), len(top), replace=False)
    files = [*top, *(rest[index] for index in sorted(chosen))]
    pipe = load_pipeline("portraits", "cpu", run.config.capture)
    latents = encoded(pipe, run, files)
    angles, timestep = angles_of(pipe.scheduler.alphas_cumprod, options.n_angles)
    velocity = velocity_of(pipe, run.config.capture.prompt, timestep)
    found = log_likelihood(velocity, latents, angles.tolist(), torch.Generator().manual_seed(0), options.n_probes)
    bits = bits_per_dimension(found, latents[0].numel())
    first, second = bits[: len(top)].mean().item(), bits[len(top) :].mean().item()
    return {"bits of top images": first, "bits of random images": second, "top - random": first - second}


@torch.no_grad()
def encoded(pipe: DiffusionPipeline, run: Run, files: Sequence[str]) -> Float[Tensor, "image channel row column"]:
    """The latents of finished images: the means of the encoder, scaled as for the denoiser."""
    vae = pipe.components["vae"]
    pixels = as_pixels([image(run.dir / file) for file in files])
    return vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor


def velocity_of(
    pipe: DiffusionPipeline, prompt: str, timestep: Callable[[float], float]
) -> Callable[[Tensor, float], Tensor]:
    """The prediction of the U-Net for the prompt at an angle: v, without guidance."""
    text = pipe.encode_prompt(prompt, "cpu", 1, False)[0].detach()
    unet = pipe.components["unet"].requires_grad_(False)

    def velocity(x: Tensor, angle: float) -> Tensor:
        time = torch.full((len(x),), timestep(angle))
        return unet(x, time, text.expand(len(x), -1, -1)).sample

    return velocity


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean of each measure over prompts (each the mean of its attributes), with its interval."""
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], []).append(row)
    return {
        name: interval_of(
            np.array([np.mean([row[name] for row in found]) for found in by_prompt.values()]),
            SHARE if name.startswith("presence") else ANY,
        )
        for name in MEASURES
    }


if __name__ == "__main__":
    main(tyro.cli(Options))
