"""Trains the judge on drawings, before and after the autoencoder, and on many kinds of garbage."""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from raigen.world.attributes import FIELDS
from raigen.world.judge import JudgeNet
from raigen.world.train.data import Images
from raigen.world.train.vae import as_tensor, means

GARBAGE_SHARE = 0.15


@torch.no_grad()
def round_trip(vae: AutoencoderKL, pixels) -> np.ndarray:
    """Images encoded and decoded: uint8 [image, row, column, 3]."""
    return np.concatenate([_as_bytes(vae.decode(latents).sample) for latents in means(vae, pixels)])


@torch.no_grad()
def half_denoised(vae: AutoencoderKL, pixels, seed: int) -> np.ndarray:
    """Decoded latents that still hold 45 to 95 % noise (by standard deviation): uint8 [image, row, column, 3]."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for latents in means(vae, pixels):
        share = 0.45 + 0.5 * torch.rand((len(latents), 1, 1, 1), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        parts.append(_as_bytes(vae.decode((1 - share**2).sqrt() * latents + share * noise).sample))
    return np.concatenate(parts)


def _as_bytes(images: Tensor) -> np.ndarray:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def garbage(pixels: Tensor, unfinished: Tensor, generator: torch.Generator) -> Tensor:
    """One unreadable image for each of `pixels` [image, 3, 64, 64]: noise, texture, shuffled tiles, a crop, a blend, a
    noisy image, or one of `unfinished`."""
    result = pixels.clone()
    for index in range(len(pixels)):
        kind = int(torch.randint(7, (1,), generator=generator))
        other = unfinished[int(torch.randint(len(unfinished), (1,), generator=generator))]
        if kind == 0:
            result[index] = torch.rand((3, 64, 64), generator=generator) * 2 - 1
        elif kind == 1:  # smooth or rough texture, tinted
            size = int(2 ** torch.randint(1, 6, (1,), generator=generator))
            coarse = torch.randn((1, 3, size, size), generator=generator) * 0.6
            tint = torch.rand((3, 1, 1), generator=generator) * 1.6 - 0.8
            result[index] = F.interpolate(coarse, size=64, mode="bicubic")[0] + tint
        elif kind == 2:  # shuffled tiles
            tiles = F.unfold(pixels[index : index + 1], 16, stride=16)
            order = torch.randperm(16, generator=generator)
            result[index] = F.fold(tiles[:, :, order], 64, 16, stride=16)[0]
        elif kind == 3:  # a corner blown up
            y, x = (int(v) for v in torch.randint(0, 44, (2,), generator=generator))
            result[index] = F.interpolate(pixels[index : index + 1, :, y : y + 20, x : x + 20], size=64)[0]
        elif kind == 4:  # two portraits at once
            result[index] = 0.5 * pixels[index].flip(-1) + 0.5 * pixels[index - 1]
        elif kind == 5:  # drowned in noise
            result[index] = 0.4 * pixels[index] + torch.randn((3, 64, 64), generator=generator) * 0.7
        else:
            result[index] = other
    return result.clamp(-1, 1)


def disturbed(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Adds what generated images may have: a shift of up to two pixels, a tint, faint noise, a little blur."""
    dy, dx = (int(v) for v in torch.randint(-2, 3, (2,), generator=generator))
    padded = F.pad(pixels, (2, 2, 2, 2), mode="replicate")
    pixels = padded[:, :, 2 + dy : 66 + dy, 2 + dx : 66 + dx]
    count = len(pixels)
    blur = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = pixels.lerp(blur, 0.5 * torch.rand((count, 1, 1, 1), generator=generator))
    tint = torch.randn((count, 3, 1, 1), generator=generator) * 0.02
    noise = torch.randn(pixels.shape, generator=generator)
    return pixels + tint + noise * 0.06 * torch.rand((count, 1, 1, 1), generator=generator)


def half_decoded(drawn: Images, decoded, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch half drawn and half decoded (`decoded` are the first of `drawn`): pixels in [-1, 1], and their codes."""
    half = batch // 2
    fresh = torch.randint(len(drawn.pixels), (half,), generator=generator).numpy()
    again = torch.randint(len(decoded), (batch - half,), generator=generator).numpy()
    codes = np.concatenate([drawn.codes[fresh], drawn.codes[again]]).astype(np.int64)
    return as_tensor(np.concatenate([drawn.pixels[fresh], decoded[again]])), torch.from_numpy(codes)


def loss_of(
    net: JudgeNet, drawn: Images, decoded, unfinished: Tensor, batch: int, generator: torch.Generator
) -> Tensor:
    """The sum of the cross-entropies of all heads, on images half drawn and half decoded, and of readability."""
    pixels, codes = half_decoded(drawn, decoded, batch, generator)
    pixels = disturbed(pixels, generator)
    n_garbage = int(batch * GARBAGE_SHARE)
    bad = garbage(pixels[torch.randperm(batch, generator=generator)[:n_garbage]], unfinished, generator)
    logits = net(torch.cat([pixels, bad]).contiguous(memory_format=torch.channels_last))
    readable = torch.cat([torch.ones(batch), torch.zeros(n_garbage)])
    loss = F.binary_cross_entropy_with_logits(logits["readable"], readable)
    for column, name in enumerate(("profession", *FIELDS)):
        loss = loss + F.cross_entropy(logits[name][:batch], codes[:, column])
    return loss
