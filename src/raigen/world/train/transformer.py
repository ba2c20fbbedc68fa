"""Teaches the world to a diffusion transformer, with the bundled U-Net as its teacher.

Run: `python -m raigen.world.train.transformer FOLDER`. It is of PixArt's kind: the prompt, read by a T5 encoder, comes
in by cross-attention, and time by adaptive layer norms. The autoencoder, the drawings, the captions and the noise are
those of the U-Net; transformer and text encoder are trained from nothing.
"""

# diffusers and transformers annotate less than they return and re-export lazily:
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false

import argparse
import functools
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from diffusers import PixArtAlphaPipeline, PixArtTransformer2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from raigen.loading import load_pipeline
from raigen.models import BUNDLED, OWN_SETTINGS
from raigen.world.attributes import PROMPTS, VALUES
from raigen.world.captions import caption
from raigen.world.planted import sample_balanced
from raigen.world.train import unet, vae
from raigen.world.train.bundle import DEFAULTS, averaged, save_pipeline
from raigen.world.train.data import Pictures, pictures
from raigen.world.train.loop import Recipe, fit
from raigen.world.train.text import MAX_TOKENS
from raigen.world.train.unet import Noised, Planted

RECIPE = Recipe(steps=8000, lr=1e-3, warmup=200, ema=0.998, weight_decay=0.01, save_every=100)
BATCH = 32
TAUGHT = 1.0  # how much of the target is the teacher's prediction; the rest is that of the drawing
WIDTH, HEADS, LAYERS = 160, 5, 8
TEXT_WIDTH = 128


def main() -> None:
    """Trains and writes the pipeline; stopped, the same command goes on from its checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m raigen.world.train.transformer", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pipeline is written")
    parser.add_argument("--work", type=Path, default=Path("train-work"), help="folder for drawings and checkpoints")
    parser.add_argument("--steps", type=int, default=RECIPE.steps, help="training steps of 32 pictures")
    parser.add_argument("--n-drawings", type=int, default=40_000, help="drawings to learn from")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    teacher = load_pipeline(BUNDLED, "auto")
    drawn = pictures(arguments.work, "planted", arguments.n_drawings, 2, balanced=False)
    data = unet.planted_pictures(latents_of(teacher, drawn, arguments.work / "latents.safetensors"), drawn)
    checkpoint = arguments.work / "transformer.safetensors"
    tokenizer = make_tokenizer()
    train(Student(tokenizer), teacher, tokenizer, data, RECIPE._replace(steps=arguments.steps), checkpoint)
    write(arguments.folder, teacher, tokenizer, checkpoint)


class Student(nn.Module):
    """What is trained together: the transformer and its text encoder."""

    def __init__(self, tokenizer: T5Tokenizer):
        super().__init__()
        self.transformer = PixArtTransformer2DModel(
            sample_size=16, patch_size=2, in_channels=vae.LATENT_CHANNELS, out_channels=vae.LATENT_CHANNELS,
            num_layers=LAYERS, num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS,
            cross_attention_dim=WIDTH, caption_channels=TEXT_WIDTH, use_additional_conditions=False,
        )  # fmt: skip
        self.text_encoder = T5EncoderModel(T5Config(
            vocab_size=len(tokenizer), d_model=TEXT_WIDTH, d_kv=TEXT_WIDTH // 4, d_ff=2 * TEXT_WIDTH, num_layers=2,
            num_heads=4, relative_attention_num_buckets=16, feed_forward_proj="gated-gelu", dropout_rate=0.0,
            tie_word_embeddings=False,
        ))  # fmt: skip

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The predicted v [picture, channel, 16, 16]; `mask` [picture, token] is 1 for what is no padding."""
        return self.transformer(
            noisy, timestep=timesteps, encoder_hidden_states=self.text_encoder(tokens, mask).last_hidden_state,
            encoder_attention_mask=mask, added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample  # fmt: skip


def make_tokenizer() -> T5Tokenizer:
    """Whole words of the captions by their frequency, and single letters for all others, in the form of T5."""
    rng = np.random.default_rng(7)
    captions = [caption(sample_balanced(rng), rng, bare=0.1) for _ in range(4000)]
    captions += [value.phrase for value in VALUES] + list(PROMPTS)
    words = Counter(word for text in captions for word in text.lower().replace(",", "").split())
    total = sum(words.values())
    pieces = {f"\N{LOWER ONE EIGHTH BLOCK}{word}": math.log(n / total) for word, n in sorted(words.items())}
    letters = "\N{LOWER ONE EIGHTH BLOCK}abcdefghijklmnopqrstuvwxyz0123456789-,.'"
    rare = dict.fromkeys(letters, -20.0)
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(rare | pieces).items()]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=MAX_TOKENS)


def latents_of(teacher: DiffusionPipeline, drawn: Pictures, path: Path) -> Tensor:
    """The latents of drawings, kept at `path`."""
    if not path.exists():
        save_file({"latents": vae.encode_all(teacher.vae, drawn.pixels).cpu().contiguous()}, path)
    return load_file(path)["latents"]


def train(student: Student, teacher: DiffusionPipeline, tokenizer: T5Tokenizer, data: Planted, recipe: Recipe,
          checkpoint: Path) -> None:  # fmt: skip
    """Trains in place; goes on from `checkpoint` where one is there, and keeps it up to date."""
    student.to(teacher.device)
    loss = functools.partial(loss_of, student.train(), teacher, tokenizer, data, BATCH)
    started, smooth = time.monotonic(), None
    for step, value, _ in fit(student, loss, recipe, checkpoint):
        smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
        if step % 50 == 0 or step == recipe.steps:
            seconds = time.monotonic() - started
            print(f"transformer {step}/{recipe.steps} loss {smooth:.4f} {seconds:.0f} s", file=sys.stderr, flush=True)


def loss_of(student: Student, teacher: DiffusionPipeline, tokenizer: T5Tokenizer, data: Planted, batch: int,
            generator: torch.Generator) -> Tensor:  # fmt: skip
    """The v-prediction loss, towards what the teacher predicts of the same noisy pictures and captions.

    A drawing is one of the many that a noisy picture may have come from; the teacher's prediction is nearer to their
    mean, so that fewer pictures teach as much.
    """
    device = student.transformer.device
    drawn = unet.noised(unet.training_noise(), data, batch, generator, device)
    tokens = tokenizer(drawn.texts, padding="longest", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    predicted = student(drawn.noisy, drawn.timesteps, tokens.input_ids.to(device), tokens.attention_mask.to(device))
    return drawn._replace(target=torch.lerp(drawn.target, taught(teacher, drawn), TAUGHT)).loss(predicted)


@torch.no_grad()
def taught(teacher: DiffusionPipeline, drawn: Noised) -> Tensor:
    """What the teacher predicts of a batch."""
    tokens = unet.tokens_of(teacher.tokenizer, drawn.texts).to(drawn.noisy.device)
    states = teacher.text_encoder(tokens).last_hidden_state
    return teacher.unet(drawn.noisy, drawn.timesteps, states).sample


def write(folder: Path, teacher: DiffusionPipeline, tokenizer: T5Tokenizer, checkpoint: Path) -> None:
    """Writes the averaged weights of a checkpoint as a pipeline that diffusers reads, at half precision."""
    student = Student(tokenizer)
    student.load_state_dict(averaged(checkpoint))
    pipe = PixArtAlphaPipeline(
        tokenizer=tokenizer, text_encoder=student.text_encoder, vae=teacher.vae, transformer=student.transformer,
        scheduler=unet.sampler(),
    )  # fmt: skip
    save_pipeline(pipe, folder)
    (folder / OWN_SETTINGS).write_text(json.dumps(DEFAULTS, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
