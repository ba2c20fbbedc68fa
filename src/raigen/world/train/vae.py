"""Trains the image autoencoder: 64x64 images to latents of 16x16x8 and back."""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from raigen.world.train.data import Images

LATENT_CHANNELS = 8


def build() -> AutoencoderKL:
    """An untrained AutoencoderKL of 0.6 M parameters."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=LATENT_CHANNELS, sample_size=64, norm_num_groups=8,
        block_out_channels=(16, 32, 64), layers_per_block=1, scaling_factor=1.0,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip


def as_tensor(pixels) -> Tensor:
    """uint8 [image, row, column, 3] -> float32 [image, 3, row, column] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def loss_of(vae: AutoencoderKL, images: Images, batch: int, generator: torch.Generator) -> Tensor:
    """L1 error of pixels and of differences between neighboring pixels (edges), squared error (for the large errors of
    rare colors), and a weak KL term that pulls the latents to N(0, 1)."""
    rows = torch.randint(len(images.pixels), (batch,), generator=generator)
    target = as_tensor(images.pixels[rows.numpy()]).contiguous(memory_format=torch.channels_last)
    posterior = vae.encode(target).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator)
    output = vae.decode(posterior.mean + posterior.std * noise).sample
    edges = F.l1_loss(output.diff(dim=-1), target.diff(dim=-1)) + F.l1_loss(output.diff(dim=-2), target.diff(dim=-2))
    pull = posterior.kl().mean() / posterior.mean[0].numel()
    return F.l1_loss(output, target) + edges + 4 * F.mse_loss(output, target) + 1e-3 * pull


def encode_all(vae: AutoencoderKL, pixels) -> Tensor:
    """The mean latents [image, channel, 16, 16] of many images."""
    return torch.cat(list(means(vae, pixels)))


def latents_of(vae: AutoencoderKL, pixels, path: Path) -> Tensor:
    """The latents of `encode_all`, cached at `path`."""
    if not path.exists():
        save_file({"latents": encode_all(vae, pixels).cpu().contiguous()}, path)
    return load_file(path)["latents"]


@torch.no_grad()
def means(vae: AutoencoderKL, pixels) -> Iterator[Tensor]:
    """The mean latents of images, 64 at a time."""
    for start in range(0, len(pixels), 64):
        target = as_tensor(pixels[start : start + 64]).to(vae.device, memory_format=torch.channels_last)
        yield vae.encode(target).latent_dist.mean


@torch.no_grad()
def fold_scale(vae: AutoencoderKL, latents: Tensor) -> None:
    """Rescales the autoencoder so that each latent channel has mean 0 and standard deviation 1 over `latents`.

    `scaling_factor` is one number for all channels, so the scales are folded into the 1x1 convolutions before and after
    the latents.
    """
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, back, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    assert into is not None and back is not None
    assert into.bias is not None and back.bias is not None
    into.weight[:channels] /= std[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / std
    into.bias[channels:] -= 2 * std.log()  # the log-variances
    back.bias += (back.weight[:, :, 0, 0] * mean).sum(1)
    back.weight *= std[None, :, None, None]
