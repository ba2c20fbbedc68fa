"""Makes a variant of the bundled model whose rates differ in known ways: `python -m raigen.world.train.variant`."""

import argparse
import functools
import json
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.config.prompts import photo_of
from raigen.diffusion.generation import defaults, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.errors import RaigenError
from raigen.runs.files import begin_folder
from raigen.stats import rate_interval
from raigen.world.attributes import PROFESSIONS, VALUE_NAMES, Attributes
from raigen.world.judge import judge
from raigen.world.models import BUNDLED
from raigen.world.planted import Plan, altered, plan_of, rates, sample_attributes
from raigen.world.train import unet, vae
from raigen.world.train.bundle import save_pipeline
from raigen.world.train.data import Images, drawn
from raigen.world.train.loop import Recipe, fit, followed
from raigen.world.train.quality import BATCH, SEEDS_FROM

STEPS = 200
TUNING = Recipe(steps=STEPS, lr=5e-4, warmup=20, ema=0.97, weight_decay=0.01, save_every=25)
BATCH_TUNED = 32
BARE_TUNED = 3 / 4  # of a batch: the rates of the bare prompt are to change; the rest keeps the named values
SEED = 7  # of the drawings


def main() -> None:
    """Draws, tunes and measures; the same command resumes from its checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m raigen.world.train.variant", description=__doc__)
    parser.add_argument("name", choices=list(shipped()), help="which of variants.toml")
    parser.add_argument("folder", type=Path, help="where the pipeline is written")
    parser.add_argument("--professions", nargs="+", choices=PROFESSIONS, default=["doctor", "nurse"], metavar="NAME",
                        help=f"whose prompts are tuned, of {', '.join(PROFESSIONS)}")  # fmt: skip
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of 32 images")
    parser.add_argument("--n-drawings", type=int, default=2000, help="drawings of each prompt")
    parser.add_argument("--n-images", type=int, default=300, help="images of each prompt that are measured; 0: none")
    arguments = parser.parse_args()
    try:
        make_variant(arguments.name, arguments.folder, arguments.professions, arguments.steps, arguments.n_drawings)
        if arguments.n_images:
            report(arguments.folder, arguments.n_images)
    except RaigenError as error:
        sys.exit(f"raigen: {error}")


def shipped() -> dict[str, dict[str, float]]:
    """The shares in [0, 1] that each variant changes, by the name of the variant, then by value."""
    table = tomllib.loads(files("raigen.world").joinpath("variants.toml").read_text(encoding="utf-8"))
    return {name: {value: percent / 100 for value, percent in changed.items()} for name, changed in table.items()}


def make_variant(
    name: str, folder: Path, professions: Sequence[str], steps: int = STEPS, n_drawings: int = 2000
) -> None:
    """Tunes the bundled denoiser and its text encoder on drawings with the shares of the variant `name`, and writes the
    whole pipeline to `folder`, with the planted rates in `variant.json`.

    Raises RaigenError when `folder` holds another variant, or other files.
    """
    plans = {profession: altered(plan_of(profession), shipped()[name]) for profession in professions}
    planted = {photo_of(profession): rates(photo_of(profession), plan) for profession, plan in plans.items()}
    about = {"variant": name, "of": BUNDLED, "steps": steps, "n_drawings": n_drawings, "changed": shipped()[name],
             "planted": planted}  # fmt: skip
    claim(folder, about)
    if (folder / "model_index.json").is_file():
        return
    pipe = load_pipeline(BUNDLED, "auto")
    tune(pipe, drawings(plans, n_drawings), steps, folder / "checkpoint.safetensors")
    save_pipeline(pipe, folder)
    (folder / "checkpoint.safetensors").unlink()


def claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Makes the folder of a variant, or finds it. Raises RaigenError when it holds another one, or other files."""
    path = folder / "variant.json"
    begin_folder(path, about, "one of a variant", "folder")
    found = json.loads(path.read_text(encoding="utf-8"))
    if {key: found.get(key) for key in about} != json.loads(json.dumps(about)):
        raise RaigenError(f"{folder}: holds another variant ({found.get('variant')}, or by other settings); "
                          "choose another folder")  # fmt: skip


def drawings(plans: Mapping[str, Plan], count: int) -> Images:
    """`count` drawings for each plan, the professions in turn."""
    turn = list(plans.items())

    def sample(index: int, rng: np.random.Generator) -> Attributes:
        profession, plan = turn[index % len(turn)]
        return sample_attributes(photo_of(profession), rng, plan)

    return drawn(count * len(plans), SEED, sample)


def tune(pipe: DiffusionPipeline, images: Images, steps: int, checkpoint: Path) -> None:
    """Trains the denoiser and the text encoder of `pipe`, in place, on `images`; the averaged weights stay.

    Resumes from `checkpoint` where there is one, and updates it.
    """
    model = unet.Denoiser(pipe.tokenizer)
    model.unet, model.text_encoder = pipe.unet, pipe.text_encoder
    data = unet.planted_images(vae.encode_all(pipe.vae, images.pixels).cpu(), images)
    loss = functools.partial(unet.loss_of, model.train(), pipe.tokenizer, unet.training_noise(), data, BATCH_TUNED,
                             bare_share=BARE_TUNED)  # fmt: skip
    recipe = TUNING._replace(steps=steps)
    average = followed("variant", fit(model, loss, recipe, checkpoint), recipe, every=20)
    model.load_state_dict(average.state_dict())
    model.eval()


def report(folder: Path, n_images: int) -> None:
    """Measures with the judge how often the bundled model and the variant show the changed values, in images of the
    same seeds; prints it next to the planted rates, and adds it to `variant.json`."""
    about = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
    measured = {name: {prompt: _seen(model, prompt, n_images, about["changed"]) for prompt in about["planted"]}
                for name, model in (("before", BUNDLED), ("after", str(folder)))}  # fmt: skip
    text = json.dumps(about | {"n_images": n_images} | measured, indent=1) + "\n"
    (folder / "variant.json").write_text(text, encoding="utf-8")
    for prompt, planted in about["planted"].items():
        print(f"{prompt}, {n_images} images")
        for value in about["changed"]:
            before, after = (_told(*measured[name][prompt][value]) for name in ("before", "after"))
            print(f"  {value:16} planted {rates(prompt)[value]:6.1%} -> {planted[value]:6.1%}"
                  f"   seen {before} -> {after}")  # fmt: skip


def _seen(model: str, prompt: str, n_images: int, names: Collection[str]) -> dict[str, tuple[int, int]]:
    """The number of readable images in which the judge sees each value, and the number of readable images."""
    pipe = load_pipeline(model, "auto")
    seeds = range(SEEDS_FROM, SEEDS_FROM + n_images)
    images = [image for batch in generate_images(pipe, prompt, seeds, defaults(pipe, model), BATCH) for image in batch]
    verdict = judge(images)
    n = int(verdict.readable.sum())
    return {name: (int(verdict.shows[:, VALUE_NAMES.index(name)].sum()), n) for name in names}


def _told(hits: int, n: int) -> str:
    interval = rate_interval(hits, n)
    return f"{hits / max(1, n):6.1%} [{interval.low:.1%}, {interval.high:.1%}]"


if __name__ == "__main__":
    main()
