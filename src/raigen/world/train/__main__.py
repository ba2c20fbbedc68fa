"""Trains the bundled model again from its seeds, part by part: `python -m raigen.world.train`."""

import argparse
import functools
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from raigen.world.judge import JudgeNet
from raigen.world.models import BUNDLE, BUNDLED
from raigen.world.train import clip, judge, unet, vae
from raigen.world.train.bundle import write_bundle
from raigen.world.train.data import Images, images
from raigen.world.train.loop import Recipe, fit, followed
from raigen.world.train.quality import measure, measure_readers, write_card
from raigen.world.train.text import make_tokenizer

N_BALANCED, N_PLANTED, N_DECODED = 20_000, 40_000, 8_000
VAE = Recipe(steps=4200, lr=2e-3, warmup=50, ema=0.995, save_every=100, restart=1700)
JUDGE = Recipe(steps=3650, restart=2650, lr=2e-3, warmup=100, ema=0.995, weight_decay=0.02)
CLIP = Recipe(steps=5600, restart=5100, lr=1.5e-3, warmup=100, ema=0.99, weight_decay=0.02)
UNET = Recipe(steps=8000, restart=6600, lr=1e-3, warmup=100, ema=0.998, weight_decay=0.01, save_every=50)
ABOUT = (
    "A StableDiffusionPipeline (`pipeline/`) and a CLIPModel (`clip/`) trained on drawings of a planted world, with "
    "the judge that reads them (`judge.safetensors`). Made by `python -m raigen.world.train`."
)
VAE_BATCH, JUDGE_BATCH, CLIP_BATCH, UNET_BATCH = 8, 96, 96, 32


def main() -> None:
    """Trains the requested parts that are not finished; each resumes from its own checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m raigen.world.train", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*RUN, []], help=f"default: all, in this order: {tuple(RUN)}")
    parser.add_argument("--work", type=Path, default=Path("train-work"), help="folder for drawings and checkpoints")
    parser.add_argument("--unet-steps", type=int, default=UNET.steps)
    parser.add_argument("--n-images", type=int, default=2000, help="images per prompt for the model card")
    parser.add_argument("--n-named", type=int, default=200, help="images per named value for the model card")
    parser.add_argument("--runs", type=Path, help="a folder of captures whose images are judged for the model card")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts or RUN:
        started = time.monotonic()
        RUN[part](arguments)
        print(f"{part}: {time.monotonic() - started:.0f} s", flush=True)


def train_vae(arguments: argparse.Namespace) -> None:
    """The autoencoder, on balanced drawings; its latents are scaled to mean 0 and standard deviation 1 per channel."""
    work, drawn = arguments.work, balanced(arguments.work)
    torch.manual_seed(0)
    model = vae.build().to(memory_format=torch.channels_last)
    loss = functools.partial(vae.loss_of, model, drawn, VAE_BATCH)
    average = followed("vae", fit(model, loss, VAE, work / "vae.safetensors"), VAE)
    assert isinstance(average, AutoencoderKL)
    vae.fold_scale(average, vae.encode_all(average, planted(work).pixels[:2000]))
    average.save_pretrained(work / "vae")


def decode_balanced(work: Path) -> dict[str, Tensor]:
    """Balanced images after the round trip, and half-denoised ones, for the judge and CLIP."""
    path = work / "decoded.safetensors"
    if not path.exists():
        model, drawn = load_vae(work), balanced(work)
        decoded = torch.from_numpy(judge.round_trip(model, drawn.pixels[:N_DECODED]))
        unfinished = torch.from_numpy(judge.half_denoised(model, drawn.pixels[:2000], seed=3))
        save_file({"decoded": decoded, "unfinished": unfinished}, path)
    return load_file(path)


def train_judge(arguments: argparse.Namespace) -> None:
    """The judge, on drawn and decoded balanced images."""
    work = arguments.work
    tensors, drawn = decode_balanced(work), balanced(work)
    torch.manual_seed(1)
    net = JudgeNet().to(memory_format=torch.channels_last)
    unfinished = vae.as_tensor(tensors["unfinished"].numpy())
    loss = functools.partial(judge.loss_of, net, drawn, tensors["decoded"].numpy(), unfinished, JUDGE_BATCH)
    followed("judge", fit(net, loss, JUDGE, work / "judge.safetensors"), JUDGE)


def train_clip(arguments: argparse.Namespace) -> None:
    """CLIP, on drawn and decoded balanced images."""
    work = arguments.work
    tensors, drawn, tokenizer = decode_balanced(work), balanced(work), load_tokenizer(work)
    torch.manual_seed(2)
    teacher = clip.Teacher(tokenizer)
    loss = functools.partial(clip.loss_of, teacher, tokenizer, drawn, tensors["decoded"].numpy(), CLIP_BATCH)
    followed("clip", fit(teacher, loss, CLIP, work / "clip.safetensors"), CLIP)


def train_unet(arguments: argparse.Namespace) -> None:
    """The denoiser and its text encoder, on planted images."""
    work, tokenizer = arguments.work, load_tokenizer(arguments.work)
    recipe = UNET._replace(steps=arguments.unet_steps)
    torch.manual_seed(4)
    model = unet.Denoiser(tokenizer).to("cuda" if torch.cuda.is_available() else "cpu")
    model.unet.to(memory_format=torch.channels_last)
    drawn = planted(work)
    data = unet.planted_images(vae.latents_of(load_vae(work), drawn.pixels, work / "latents.safetensors"), drawn)
    loss = functools.partial(unet.loss_of, model, tokenizer, unet.training_noise(), data, UNET_BATCH)
    followed("unet", fit(model, loss, recipe, work / "unet.safetensors"), recipe)


def bundle(arguments: argparse.Namespace) -> None:
    """The averaged weights in the formats of diffusers and transformers, at half precision."""
    write_bundle(arguments.work, BUNDLE, load_tokenizer(arguments.work))


def quality(arguments: argparse.Namespace) -> None:
    """Measures the bundled model with the judge, and writes its model card."""
    result = measure(BUNDLED, arguments.n_images, arguments.n_named, runs=arguments.runs) | measure_readers()
    write_card(BUNDLE, BUNDLED, ABOUT, result)


def balanced(work: Path) -> Images:
    """The images on which the autoencoder, the judge and CLIP are trained."""
    return images(work, "balanced", N_BALANCED, 1, balanced=True)


def planted(work: Path) -> Images:
    """The images on which the denoiser is trained."""
    return images(work, "planted", N_PLANTED, 2, balanced=False)


def load_vae(work: Path) -> AutoencoderKL:
    """The trained autoencoder."""
    return AutoencoderKL.from_pretrained(work / "vae").to(memory_format=torch.channels_last).eval()  # type: ignore


def load_tokenizer(work: Path) -> CLIPTokenizer:
    """The tokenizer, made at the first call."""
    folder = work / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder) if folder.exists() else make_tokenizer(folder)


RUN = {
    "vae": train_vae, "judge": train_judge, "clip": train_clip, "unet": train_unet,
    "bundle": bundle, "quality": quality,
}  # fmt: skip

if __name__ == "__main__":
    main()
