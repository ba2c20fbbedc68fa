"""Trains the denoiser and its text encoder on latents of images with the planted rates."""

from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from raigen.config import PORTRAITS
from raigen.world.captions import caption
from raigen.world.train.data import Images, decode
from raigen.world.train.text import MAX_TOKENS, text_config
from raigen.world.train.vae import LATENT_CHANNELS
from raigen.world.worlds import WORLDS, World

N_LEVELS = 1000
SHIFT = 4.0  # factor on the ratio of noise to signal of the cosine schedule; at high noise the content is decided
BARE_SHARE = 3 / 8  # of a batch: images by the planted rates, with the bare prompt
EMPTY_SHARE = 0.1  # captions left out, for classifier-free guidance


class Denoiser(nn.Module):
    """The U-Net and its text encoder, which are trained together.

    The caption enters the 8x8 blocks by cross-attention, and every block as a pooled vector added to the time
    embedding.
    """

    def __init__(self, tokenizer: CLIPTokenizer):
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=16, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, layers_per_block=1,
            block_out_channels=(64, 128), cross_attention_dim=128, attention_head_dim=4, norm_num_groups=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            addition_embed_type="text", addition_embed_type_num_heads=4,
        )  # fmt: skip
        nn.init.zeros_(self.unet.add_embedding.norm2.weight)  # at first the pooled caption has no effect
        self.text_encoder = CLIPTextModel(text_config(tokenizer))

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The predicted v [image, channel, 16, 16]."""
        states = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, states).sample


def betas() -> list[float]:
    """The shifted cosine schedule (Hoogeboom et al., simple diffusion, 2023): noise : signal = SHIFT x tan(pi t / 2).

    In latents of 16x16x8, two places can be distinguished at a signal of 1/50. The first of ten even steps of the plain
    cosine schedule jumps over that point, and nearly all images end in the most common place.
    """
    angles = np.arctan(SHIFT * np.tan(np.linspace(0, 1, N_LEVELS + 1)[:-1] * np.pi / 2))
    kept = np.append(np.cos(angles) ** 2, 0.0)
    return np.minimum(1 - kept[1:] / kept[:-1], 0.999).tolist()


def training_noise() -> DDPMScheduler:
    """The noise schedule of training: shifted cosine, v-prediction."""
    return DDPMScheduler(num_train_timesteps=N_LEVELS, trained_betas=betas(), prediction_type="v_prediction")


def sampler() -> DPMSolverMultistepScheduler:
    """The bundled sampler: DPM-Solver++ of second order on the same schedule."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=N_LEVELS, trained_betas=betas(), prediction_type="v_prediction",
        timestep_spacing="trailing", final_sigmas_type="zero", steps_offset=1,
    )  # fmt: skip


class Planted(NamedTuple):
    """The training set of the denoiser: `latents` [image, channel, 16, 16], the attributes of the images as `codes`,
    and `rows`: for each pair of a prompt and a value, the images of that prompt that show that value; their `world`."""

    latents: Tensor
    codes: NDArray[np.uint8]
    rows: list[tuple[str, NDArray[np.intp]]]
    world: World = WORLDS[PORTRAITS]


def planted_images(latents: Tensor, drawn: Images) -> Planted:
    """Makes the training set of images and their latents."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, codes in enumerate(drawn.codes):
        attributes = decode(codes, drawn.world)
        for name in attributes.shown():
            rows.setdefault((attributes.profession, name), []).append(row)
    pairs = [(name, np.array(rows[profession, name])) for profession, name in sorted(rows)]
    return Planted(latents, drawn.codes, pairs, drawn.world)


def captioned(
    data: Planted, batch: int, generator: torch.Generator, bare_share: float = BARE_SHARE
) -> tuple[NDArray[np.intp], list[str]]:
    """Rows of a batch and a caption for each.

    `bare_share` of the rows follow the planted rates and have the bare prompt (some have an empty caption). The
    captions of the others name a value. The values are drawn uniformly, so that rare values are also learned by name.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    n_bare = round(batch * bare_share)
    bare = rng.integers(len(data.codes), size=n_bare)

    def told(row: int, **how: Any) -> str:
        return caption(decode(data.codes[row], data.world), rng, **how, world=data.world)

    texts = [told(row, bare=1.0) for row in bare]
    texts = ["" if rng.random() < EMPTY_SHARE * batch / n_bare else text for text in texts]
    named = []
    for pair in rng.integers(len(data.rows), size=batch - n_bare):
        name, rows = data.rows[pair]
        named.append(rng.choice(rows))
        texts.append(told(named[-1], bare=0.0, naming=name))
    return np.concatenate([bare, np.array(named, np.intp)]), texts


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids [text, MAX_TOKENS]."""
    return tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids


def noise_levels(batch: int, generator: torch.Generator, bare_share: float = BARE_SHARE) -> Tensor:
    """The noise level of each image of a batch, as a share of all timesteps: spread evenly, but higher where the
    caption names a value, because at little noise the image itself shows it."""
    n_bare = round(batch * bare_share)
    parts = [
        ((torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count) ** power
        for count, power in ((n_bare, 1.0), (batch - n_bare, 0.7))
    ]
    return torch.cat(parts)


class Noised(NamedTuple):
    """A training batch: latents with noise at `timesteps`, their captions, the v to predict, and the weight of each
    image (1 on average)."""

    noisy: Tensor
    timesteps: Tensor
    texts: list[str]
    target: Tensor
    weight: Tensor

    def loss(self, predicted: Tensor) -> Tensor:
        """The weighted squared error of `predicted` [image, channel, 16, 16]."""
        return (self.weight * (predicted - self.target).square().mean((1, 2, 3))).mean()


def noised(noise: DDPMScheduler, data: Planted, batch: int, generator: torch.Generator, device: torch.device,
           bare_share: float = BARE_SHARE) -> Noised:  # fmt: skip
    """A batch at the levels of `noise_levels`, weighted by 5 / (5 + SNR).

    Little noise gets little weight: there the model learns only details. Much noise gets full weight (min-SNR would
    give it almost none): there it is decided which values an image shows, and there the caption matters.
    """
    rows, texts = captioned(data, batch, generator, bare_share)
    clean = data.latents[rows].to(device)
    timesteps = (noise_levels(batch, generator, bare_share) * N_LEVELS).long().clamp(max=N_LEVELS - 1).to(device)
    epsilon = torch.randn(clean.shape, generator=generator).to(device)
    signal = noise.alphas_cumprod.to(device)[timesteps]
    weight = 5 / (5 + signal / (1 - signal))
    return Noised(
        noise.add_noise(clean, epsilon, timesteps).contiguous(memory_format=torch.channels_last), timesteps, texts,
        noise.get_velocity(clean, epsilon, timesteps), weight / weight.mean(),
    )  # fmt: skip


def loss_of(model: Denoiser, tokenizer: CLIPTokenizer, noise: DDPMScheduler, data: Planted, batch: int,
            generator: torch.Generator, bare_share: float = BARE_SHARE) -> Tensor:  # fmt: skip
    """The v-prediction loss of a batch of `noised`."""
    drawn = noised(noise, data, batch, generator, model.unet.device, bare_share)
    return drawn.loss(model(drawn.noisy, drawn.timesteps, tokens_of(tokenizer, drawn.texts).to(model.unet.device)))
