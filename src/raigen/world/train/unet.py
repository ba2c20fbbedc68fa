"""Trains the denoiser and its text encoder on latents of pictures with the planted rates."""

# diffusers and transformers annotate less than they return and re-export lazily:
# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from raigen.world.captions import caption
from raigen.world.train.data import Pictures, decode
from raigen.world.train.text import MAX_TOKENS, text_config
from raigen.world.train.vae import LATENT_CHANNELS, encode_all

NOISE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
EMPTY_SHARE = 0.1  # captions left out, for classifier-free guidance


class Denoiser(nn.Module):
    """What is trained together: the U-Net and its text encoder."""

    def __init__(self, tokenizer: CLIPTokenizer):
        super().__init__()
        self.unet = UNet2DConditionModel(
            sample_size=16, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, layers_per_block=1,
            block_out_channels=(64, 128), cross_attention_dim=128, attention_head_dim=4, norm_num_groups=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        self.text_encoder = CLIPTextModel(text_config(tokenizer, layers=2))

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The predicted v [picture, channel, 16, 16]."""
        states = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, states).sample


def training_noise() -> DDPMScheduler:
    """The noise schedule of training: cosine, v-prediction."""
    return DDPMScheduler(**NOISE)


def sampler() -> DPMSolverMultistepScheduler:
    """The bundled sampler: DPM-Solver++ of second order on the same schedule."""
    return DPMSolverMultistepScheduler(**NOISE, timestep_spacing="trailing", final_sigmas_type="zero", steps_offset=1)


def captions(drawn: Pictures, rows: Tensor, generator: torch.Generator) -> list[str]:
    """A fresh caption for each picture: half bare, half naming one to three attributes, a tenth left empty."""
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    texts = [caption(decode(drawn.codes[row]), rng) for row in rows.tolist()]
    return ["" if rng.random() < EMPTY_SHARE else text for text in texts]


def tokens_of(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids [text, MAX_TOKENS]."""
    return tokenizer(texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids


def loss_of(model: Denoiser, tokenizer: CLIPTokenizer, noise: DDPMScheduler, vae: AutoencoderKL, drawn: Pictures,
            batch: int, generator: torch.Generator) -> Tensor:  # fmt: skip
    """The v-prediction loss with min-SNR weights (gamma 5), timesteps spread evenly over the batch."""
    device = model.unet.device
    rows = torch.randint(len(drawn.pixels), (batch,), generator=generator)
    clean = encode_all(vae, drawn.pixels[rows.numpy()], batch).to(device)
    spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    timesteps = (spread * len(noise.alphas_cumprod)).long().to(device)
    epsilon = torch.randn(clean.shape, generator=generator).to(device)
    noisy = noise.add_noise(clean, epsilon, timesteps)
    target = noise.get_velocity(clean, epsilon, timesteps)
    tokens = tokens_of(tokenizer, captions(drawn, rows, generator)).to(device)
    predicted = model(noisy.contiguous(memory_format=torch.channels_last), timesteps, tokens)
    signal = noise.alphas_cumprod.to(device)[timesteps]
    snr = signal / (1 - signal)
    weight = snr.clamp(max=5.0) / (snr + 1)
    error = (predicted - target).square().mean((1, 2, 3))
    return (weight * error).mean() / weight.mean()
