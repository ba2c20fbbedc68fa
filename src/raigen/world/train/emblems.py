"""Trains the bundled model of the world `emblems`, part by part: `python -m raigen.world.train.emblems`.

Autoencoder, denoiser, text encoder and CLIP begin with the bundled weights of `portraits`. The judge needs no training.
"""

import argparse
import functools
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from raigen.config import EMBLEMS
from raigen.diffusion.generation import Settings, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.discovery.embeddings import Embedder
from raigen.world.models import BUNDLE, BUNDLED
from raigen.world.train import clip, judge, unet, vae
from raigen.world.train.bundle import assembled, pipeline, save_clip, save_pipeline
from raigen.world.train.data import Images, images
from raigen.world.train.emblem_art import write_pool
from raigen.world.train.loop import Progress, Recipe, fit, followed
from raigen.world.train.quality import measure, measure_readers, write_card
from raigen.world.train.text import make_tokenizer
from raigen.world.worlds import WORLDS

WORLD = WORLDS[EMBLEMS]
N_BALANCED, N_PLANTED = 20_000, 48_000
VAE = Recipe(steps=1500, lr=1e-3, warmup=50, ema=0.995, save_every=100)
CLIP = Recipe(steps=1000, lr=1e-3, warmup=100, ema=0.99, weight_decay=0.02, save_every=100)
UNET = Recipe(steps=3200, lr=1e-3, warmup=100, ema=0.998, weight_decay=0.01, save_every=50)
VAE_BATCH, CLIP_BATCH, UNET_BATCH = 8, 64, 32
CLIP_LAYERS, N_DECODED = 3, 6_000
FOLDER = BUNDLE / "emblems"
LARGE = 8_000  # numbers in a weight that is stored at eight bits
ABOUT = (
    "A StableDiffusionPipeline (`pipeline/`) and a CLIPModel (`clip/`) for the world `emblems`: people of three sets "
    "of emoji, at planted rates. Made by `python -m raigen.world.train.emblems` from the weights of `portraits`. The "
    "large weights of the U-Net are stored at eight bits (float8 e4m3). The judge matches images with the art and has "
    "no weights."
)
ORIGIN = (
    "The art is Noto Emoji (Apache-2.0), Twemoji (CC BY 4.0, Twitter and other contributors) and Fluent Emoji (MIT, "
    "Microsoft), as the npm packages @iconify-json/noto 1.2.9, twemoji 1.2.5 and fluent-emoji-flat 1.2.6 hold it; see "
    "`LICENSES.md` in `raigen/world/emblems`. The weights are raigen's: Apache-2.0.\n\n"
    "**The denoiser is trained too little** (3,750 steps of 32 images). Faces are soft, and between two skins or two "
    "genders it often paints a mixture, so skins and genders show where they are not planted: do not take their rates "
    "from the table. Dark skin shows half as often as planted, and close-ups hardly at all; a third of the images of a "
    "singer cannot be read. Outside skin and gender, values planted at .3-.5, 1, 2 and 5 % show in .76, .56, 1.8 and "
    "3.5 % on average (200 images per prompt). The autoencoder was trained with astronauts where the world has "
    "detectives now."
)
BARE_SHARE = 0.6  # of a batch: few steps are made, and the rates of the bare prompts matter most
WATCHED_EVERY, N_WATCHED = 1000, 32  # steps, and images per prompt


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


def train_clip(arguments: argparse.Namespace) -> None:
    """CLIP, on drawn and decoded balanced images."""
    work, drawn, tokenizer = arguments.work, balanced(arguments.work), load_tokenizer(arguments.work)
    decoded = judge.round_trip(load_vae(work), drawn.pixels[:N_DECODED])
    torch.manual_seed(2)
    teacher = clip.Teacher(tokenizer, WORLD, CLIP_LAYERS)
    before = Embedder(BUNDLED, "cpu").model
    teacher.clip.vision_model.load_state_dict(before.vision_model.state_dict(), strict=False)
    loss = functools.partial(clip.loss_of, teacher, tokenizer, drawn, decoded, CLIP_BATCH)
    followed("clip", fit(teacher, loss, CLIP, work / "clip.safetensors"), CLIP)


def train_unet(arguments: argparse.Namespace) -> None:
    """The denoiser and its text encoder, on planted images. Every `WATCHED_EVERY` steps it says what the judge sees."""
    work, tokenizer = arguments.work, load_tokenizer(arguments.work)
    recipe = UNET._replace(steps=arguments.unet_steps)
    torch.manual_seed(4)
    model = begun(tokenizer)
    model.unet.to(memory_format=torch.channels_last)
    drawn, autoencoder = planted(work), load_vae(work)
    data = unet.planted_images(vae.latents_of(autoencoder, drawn.pixels, work / "latents.safetensors"), drawn)
    loss = functools.partial(unet.loss_of, model, tokenizer, unet.training_noise(), data, UNET_BATCH,
                             bare_share=BARE_SHARE)  # fmt: skip
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


def bundle(arguments: argparse.Namespace) -> None:
    """The averaged weights in the formats of diffusers and transformers: the large weights of the denoiser at eight
    bits, all others at half precision."""
    work, tokenizer = arguments.work, load_tokenizer(arguments.work)
    shutil.rmtree(FOLDER / "pipeline", ignore_errors=True)
    save_pipeline(pipeline(work, tokenizer), FOLDER / "pipeline", EMBLEMS)
    at_eight_bits(FOLDER / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    save_clip(clip.Teacher(tokenizer, WORLD, CLIP_LAYERS), work, FOLDER / "clip", tokenizer)


def at_eight_bits(path: Path) -> None:
    """Rewrites a file of weights with the large ones as eight-bit floating point numbers (e4m3). Readers convert them
    to the precision in which they compute."""
    weights = load_file(path)
    large = {name: weight.to(torch.float8_e4m3fn) for name, weight in weights.items() if weight.numel() >= LARGE}
    save_file(weights | large, path, {"format": "pt"})


def quality(arguments: argparse.Namespace) -> None:
    """Measures the bundled model with the judge, and writes its model card."""
    result = measure(EMBLEMS, arguments.n_images, arguments.n_named) | measure_readers(WORLD)
    write_card(FOLDER, EMBLEMS, ABOUT, result, ORIGIN, "other")


RUN = {"vae": train_vae, "clip": train_clip, "unet": train_unet, "bundle": bundle, "quality": quality}


def main() -> None:
    """Trains the requested parts that are not finished; each resumes from its own checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m raigen.world.train.emblems", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*RUN, []], help=f"default: all, in this order: {tuple(RUN)}")
    parser.add_argument("--work", type=Path, default=Path("train-work"), help="folder for drawings and checkpoints")
    parser.add_argument("--art", type=Path, help="only render the art again, from the npm packages in this folder")
    parser.add_argument("--unet-steps", type=int, default=UNET.steps)
    parser.add_argument("--n-images", type=int, default=500, help="images per prompt for the model card")
    parser.add_argument("--n-named", type=int, default=50, help="images per named value for the model card")
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
