"""Trains a diffusion transformer on the world: the bundled model beside the U-Net, for comparison.

Run: `python -m raigen.world.train.transformer`. The architecture is PixArt: a T5 encoder encodes the prompt, which
enters by cross-attention; time enters by adaptive layer norms. The autoencoder is the bundled one; drawings, captions
and noise are the same as for the U-Net. Transformer and text encoder are trained from scratch.
"""

import argparse
import functools
import math
from collections import Counter
from pathlib import Path

import torch
from diffusers import DDPMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from raigen.diffusion.loading import load_pipeline
from raigen.world.models import BUNDLE, BUNDLED, FOLDERS, TRANSFORMER
from raigen.world.train import unet, vae
from raigen.world.train.bundle import averaged, save_pipeline
from raigen.world.train.data import images
from raigen.world.train.loop import Recipe, fit, followed
from raigen.world.train.quality import measure, write_card
from raigen.world.train.text import MAX_TOKENS, corpus
from raigen.world.train.unet import Planted

RECIPE = Recipe(steps=6500, restart=5000, lr=2.5e-3, warmup=100, ema=0.998, weight_decay=0.01, save_every=100)
BATCH = 32
ABOUT = (
    "A PixArtAlphaPipeline with a T5 encoder, trained on drawings of the planted world of `portraits`; autoencoder, "
    "judge and CLIP are those of `portraits`. Made by `python -m raigen.world.train.transformer`."
)
WIDTH, HEADS, LAYERS = 160, 5, 8
TEXT_WIDTH = 128


def main() -> None:
    """Trains and writes the pipeline and its model card; the same command resumes from its checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m raigen.world.train.transformer", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("train-work"), help="folder for drawings and checkpoints")
    parser.add_argument("--steps", type=int, default=RECIPE.steps, help="training steps of 32 images")
    parser.add_argument("--n-drawings", type=int, default=40_000, help="drawings to learn from")
    parser.add_argument("--n-images", type=int, default=1000, help="images per prompt for the model card")
    parser.add_argument("--n-named", type=int, default=100, help="images per named value for the model card")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    bundled = load_pipeline(BUNDLED, "auto")
    drawn = images(arguments.work, "planted", arguments.n_drawings, 2, balanced=False)
    latents = vae.latents_of(bundled.vae, drawn.pixels, arguments.work / "latents.safetensors")
    data = unet.planted_images(latents, drawn)
    checkpoint = arguments.work / "transformer.safetensors"
    tokenizer = make_tokenizer()
    torch.manual_seed(6)
    model = Denoiser(tokenizer).to(bundled.device)
    train(model, tokenizer, data, RECIPE._replace(steps=arguments.steps), checkpoint)
    folder = BUNDLE / FOLDERS[TRANSFORMER]
    write(folder, bundled, tokenizer, checkpoint)
    write_card(folder, TRANSFORMER, ABOUT, measure(TRANSFORMER, arguments.n_images, arguments.n_named))


class Denoiser(nn.Module):
    """The transformer and its text encoder, which are trained together."""

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
        """The predicted v [image, channel, 16, 16]; `mask` [image, token] is 0 for padding."""
        return self.transformer(
            noisy, timestep=timesteps, encoder_hidden_states=self.text_encoder(tokens, mask).last_hidden_state,
            encoder_attention_mask=mask, added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample  # fmt: skip


def make_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer: whole words of the captions, scored by frequency, and single letters for all other words."""
    words = Counter(word for text in corpus() for word in text.lower().replace(",", "").split())
    total = sum(words.values())
    pieces = {f"\N{LOWER ONE EIGHTH BLOCK}{word}": math.log(n / total) for word, n in sorted(words.items())}
    letters = "\N{LOWER ONE EIGHTH BLOCK}abcdefghijklmnopqrstuvwxyz0123456789-,.'"
    rare = dict.fromkeys(letters, -20.0)
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(rare | pieces).items()]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=MAX_TOKENS)


def train(model: Denoiser, tokenizer: T5Tokenizer, data: Planted, recipe: Recipe, checkpoint: Path) -> None:
    """Trains in place; resumes from `checkpoint` where there is one, and updates it."""
    loss = functools.partial(loss_of, model.train(), tokenizer, unet.training_noise(), data, BATCH)
    followed("transformer", fit(model, loss, recipe, checkpoint), recipe)


def loss_of(model: Denoiser, tokenizer: T5Tokenizer, noise: DDPMScheduler, data: Planted, batch: int,
            generator: torch.Generator) -> Tensor:  # fmt: skip
    """The v-prediction loss of a batch of `raigen.world.train.unet.noised`."""
    device = model.transformer.device
    drawn = unet.noised(noise, data, batch, generator, device)
    texts = [text.lower() for text in drawn.texts]  # as the pipeline does with its prompts
    tokens = tokenizer(texts, padding="longest", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return drawn.loss(
        model(drawn.noisy, drawn.timesteps, tokens.input_ids.to(device), tokens.attention_mask.to(device))
    )


def write(folder: Path, bundled: DiffusionPipeline, tokenizer: T5Tokenizer, checkpoint: Path) -> None:
    """Writes the averaged weights of a checkpoint as a pipeline that diffusers reads, at half precision."""
    model = Denoiser(tokenizer)
    model.load_state_dict(averaged(checkpoint))
    pipe = PixArtAlphaPipeline(
        tokenizer=tokenizer, text_encoder=model.text_encoder, vae=bundled.vae, transformer=model.transformer,
        scheduler=unet.sampler(),
    )  # fmt: skip
    save_pipeline(pipe, folder)


if __name__ == "__main__":
    main()
