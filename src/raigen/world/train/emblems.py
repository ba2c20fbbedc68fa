"""Trains the bundled model of the world `emblems`, part by part: `python -m raigen.world.train.emblems`.

Autoencoder, denoiser, text encoder and CLIP begin with the bundled weights of `portraits`. The judge needs no training.
"""

import argparse
import functools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from transformers import CLIPTokenizer

from raigen.config import EMBLEMS
from raigen.diffusion.generation import Settings, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.world.models import BUNDLED
from raigen.world.train import unet, vae
from raigen.world.train.data import Images, images
from raigen.world.train.emblem_art import write_pool
from raigen.world.train.loop import Progress, Recipe, fit, followed
from raigen.world.train.text import make_tokenizer
from raigen.world.worlds import WORLDS

WORLD = WORLDS[EMBLEMS]
N_BALANCED, N_PLANTED = 20_000, 48_000
VAE = Recipe(steps=1500, lr=1e-3, warmup=50, ema=0.995, save_every=100)
UNET = Recipe(steps=3000, lr=1e-3, warmup=100, ema=0.998, weight_decay=0.01, save_every=50)
VAE_BATCH, UNET_BATCH = 8, 32
WATCHED_EVERY, N_WATCHED = 500, 32  # steps, and images per prompt


def train_vae(arguments: argparse.Namespace) -> None:
    """The autoencoder, on balanced drawings; its latents are scaled to mean 0 and standard deviation 1 per channel."""
    work, drawn = arguments.work, balanced(arguments.work)
    torch.manual_seed(0)
    model = load_pipeline(BUNDLED, "cpu").vae.requires_grad_(True).train().to(memory_format=torch.channels_last)
    loss = functools.partial(vae.loss_of, model, drawn, VAE_BATCH)
    average = followed("vae", fit(model, loss, VAE, work / "vae.safetensors"), VAE)
    assert isinstance(average, AutoencoderKL)
    vae.fold_scale(average, vae.encode_all(average, planted(work).pixels[:2000]))
    average.save_pretrained(work / "vae")


def train_unet(arguments: argparse.Namespace) -> None:
    """The denoiser and its text encoder, on planted images. Every `WATCHED_EVERY` steps it says what the judge sees."""
    work, tokenizer = arguments.work, load_tokenizer(arguments.work)
    recipe = UNET._replace(steps=arguments.unet_steps)
    torch.manual_seed(4)
    model = begun(tokenizer)
    model.unet.to(memory_format=torch.channels_last)
    drawn, autoencoder = planted(work), load_vae(work)
    data = unet.planted_images(vae.latents_of(autoencoder, drawn.pixels, work / "latents.safetensors"), drawn)
    loss = functools.partial(unet.loss_of, model, tokenizer, unet.training_noise(), data, UNET_BATCH)
    followed("unet", watched(fit(model, loss, recipe, work / "unet.safetensors"), tokenizer, autoencoder), recipe)


def begun(tokenizer: CLIPTokenizer) -> unet.Denoiser:
    """The denoiser with the weights of `portraits`, and the vectors of all words that both worlds know."""
    model, before = unet.Denoiser(tokenizer), load_pipeline(BUNDLED, "cpu")
    model.unet.load_state_dict(before.unet.state_dict())
    weights = before.text_encoder.state_dict()
    name = next(name for name in weights if name.endswith("token_embedding.weight"))
    known, vectors = before.tokenizer.get_vocab(), model.text_encoder.state_dict()[name].clone()
    for word, index in tokenizer.get_vocab().items():
        if word in known:
            vectors[index] = weights[name][known[word]]
    model.text_encoder.load_state_dict(weights | {name: vectors})
    return model


def watched(progress: Iterator[Progress], tokenizer: CLIPTokenizer, autoencoder: AutoencoderKL) -> Iterator[Progress]:
    """Passes on a training of the denoiser, and prints what the judge sees in images of its average."""
    for each in progress:
        yield each
        if each.step % WATCHED_EVERY == 0:
            assert isinstance(each.average, unet.Denoiser)
            pipe = assembled(each.average, tokenizer, autoencoder)
            for prompt in WORLD.prompts:
                print(seen_line(pipe, prompt), file=sys.stderr, flush=True)


def seen_line(pipe: DiffusionPipeline, prompt: str) -> str:
    """How many of some images of a prompt can be read and have the right profession, how often common values show
    against their planted rates, and rare ones as a whole."""
    settings = Settings(10, 1.0, 64, 64)
    shown = [image for batch in generate_images(pipe, prompt, range(N_WATCHED), settings, N_WATCHED) for image in batch]
    verdict, rates = WORLD.judge(shown), WORLD.planted(prompt)
    seen = dict(zip(WORLD.value_names, verdict.shows.mean(0), strict=True))
    right = (verdict.profession == WORLD.prompts.index(prompt)).mean()
    common = [name for name, rate in rates.items() if rate > 0.05]
    rare = WORLD.rare_values(prompt)
    off = np.mean([abs(seen[name] - rates[name]) for name in common])
    return (f"  {prompt}: readable {verdict.readable.mean():.2f}, profession {right:.2f}, common off by {off:.3f}, "
            f"rare {sum(seen[name] for name in rare):.2f} of {sum(rates[name] for name in rare):.2f}")  # fmt: skip


def assembled(model: unet.Denoiser, tokenizer: CLIPTokenizer, autoencoder: AutoencoderKL) -> StableDiffusionPipeline:
    """The parts as one pipeline."""
    return StableDiffusionPipeline(
        vae=autoencoder, text_encoder=model.text_encoder, tokenizer=tokenizer, unet=model.unet,
        scheduler=unet.sampler(), safety_checker=None, feature_extractor=None,  # type: ignore
        requires_safety_checker=False,
    )  # fmt: skip


def balanced(work: Path) -> Images:
    """The images on which the autoencoder and CLIP are trained."""
    return images(work, "balanced", N_BALANCED, 1, balanced=True, world=WORLD)


def planted(work: Path) -> Images:
    """The images on which the denoiser is trained."""
    return images(work, "planted", N_PLANTED, 2, balanced=False, world=WORLD)


def load_vae(work: Path) -> AutoencoderKL:
    """The trained autoencoder."""
    return AutoencoderKL.from_pretrained(work / "vae").to(memory_format=torch.channels_last).eval()  # type: ignore


def load_tokenizer(work: Path) -> CLIPTokenizer:
    """The tokenizer, made at the first call."""
    folder = work / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder) if folder.exists() else make_tokenizer(folder, WORLD)


RUN = {"vae": train_vae, "unet": train_unet}


def main() -> None:
    """Trains the requested parts that are not finished; each resumes from its own checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m raigen.world.train.emblems", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*RUN, []], help=f"default: all, in this order: {tuple(RUN)}")
    parser.add_argument("--work", type=Path, default=Path("train-work"), help="folder for drawings and checkpoints")
    parser.add_argument("--art", type=Path, help="only render the art again, from the npm packages in this folder")
    parser.add_argument("--unet-steps", type=int, default=UNET.steps)
    arguments = parser.parse_args()
    if arguments.art:
        return write_pool(arguments.art)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts or RUN:
        started = time.monotonic()
        RUN[part](arguments)
        print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
