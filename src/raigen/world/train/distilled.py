"""Distills the guidance of the bundled model into a variant that needs none: `python -m raigen.world.train.distilled`.

The student starts from the teacher and learns, on noised drawings with the planted rates, what the teacher predicts
with classifier-free guidance (Meng et al. 2023): v_empty + scale (v_caption - v_empty). So one call of the denoiser
does what two did, and the student, sampled without guidance, hides what guidance hides.
"""

import argparse
import copy
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from raigen.diffusion.loading import load_pipeline
from raigen.errors import RaigenError
from raigen.world.attributes import PROFESSIONS
from raigen.world.models import BUNDLED
from raigen.world.planted import plan_of
from raigen.world.train import unet, vae
from raigen.world.train.bundle import save_pipeline
from raigen.world.train.loop import Recipe, fit, followed
from raigen.world.train.variant import BARE_TUNED, BATCH_TUNED, claim, drawings

STEPS = 200
TUNING = Recipe(steps=STEPS, lr=5e-4, warmup=20, ema=0.97, weight_decay=0.01, save_every=25)
SCALE = 4.0


def main() -> None:
    """Draws and distills; the same command resumes from its checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m raigen.world.train.distilled", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pipeline is written")
    parser.add_argument("--scale", type=float, default=SCALE, help="guidance of the teacher, above 1")
    parser.add_argument("--professions", nargs="+", choices=PROFESSIONS, default=["doctor", "nurse"], metavar="NAME",
                        help=f"whose prompts are distilled, of {', '.join(PROFESSIONS)}")  # fmt: skip
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of 32 images")
    parser.add_argument("--n-drawings", type=int, default=2000, help="drawings of each prompt")
    arguments = parser.parse_args()
    try:
        distill(arguments.folder, arguments.scale, arguments.professions, arguments.steps, arguments.n_drawings)
    except RaigenError as error:
        sys.exit(f"raigen: {error}")


def distill(folder: Path, scale: float, professions: Sequence[str], steps: int = STEPS, n_drawings: int = 2000) -> None:
    """Distills the bundled denoiser at guidance `scale` and writes the whole pipeline to `folder`, with what it is in
    `variant.json`. Raises RaigenError when `folder` holds another variant, or other files."""
    claim(folder, {"variant": "distilled", "of": BUNDLED, "scale": scale, "professions": list(professions),
                   "steps": steps, "n_drawings": n_drawings})  # fmt: skip
    if (folder / "model_index.json").is_file():
        return
    pipe = load_pipeline(BUNDLED, "auto")
    images = drawings({profession: plan_of(profession) for profession in professions}, n_drawings)
    data = unet.planted_images(vae.encode_all(pipe.vae, images.pixels).cpu(), images)
    student, teacher = unet.Denoiser(pipe.tokenizer), unet.Denoiser(pipe.tokenizer)
    student.unet, student.text_encoder = pipe.unet, pipe.text_encoder
    teacher.unet, teacher.text_encoder = copy.deepcopy(pipe.unet), copy.deepcopy(pipe.text_encoder)
    loss = functools.partial(loss_of, student.train(), teacher.eval(), pipe, data, scale)
    recipe = TUNING._replace(steps=steps)
    average = followed("distilled", fit(student, loss, recipe, folder / "checkpoint.safetensors"), recipe, every=20)
    student.load_state_dict(average.state_dict())
    student.eval()
    save_pipeline(pipe, folder)
    (folder / "checkpoint.safetensors").unlink()


def loss_of(
    student: unet.Denoiser, teacher: unet.Denoiser, pipe: DiffusionPipeline, data: unet.Planted, scale: float,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """The squared error of the student against the guided teacher, on a batch of `noised`."""
    device = student.unet.device
    drawn = unet.noised(unet.training_noise(), data, BATCH_TUNED, generator, device, BARE_TUNED)
    tokens, empty = (unet.tokens_of(pipe.tokenizer, texts).to(device) for texts in (drawn.texts, [""] * BATCH_TUNED))
    with torch.no_grad():
        with_caption, without = (teacher(drawn.noisy, drawn.timesteps, ids) for ids in (tokens, empty))
        guided = without + scale * (with_caption - without)
    return drawn._replace(target=guided).loss(student(drawn.noisy, drawn.timesteps, tokens))


if __name__ == "__main__":
    main()
