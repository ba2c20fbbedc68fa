"""The judge of the world `emblems`: recognizes every attribute of an image by matching it with the art.

An image is explained as a figure at one of several places before a background of one color. The squared error of every
explanation becomes a probability; over all figures with a value these add up to the probability of that value.
Companions are matched in their corner, on top of the best explanation.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from raigen.errors import RaigenError
from raigen.world.emblems.attributes import CHOICES, COMPANIONS, GENDERS, HANDS, PROFESSIONS, SKINS, VALUES
from raigen.world.emblems.draw import BACKGROUND, RISE, SHIFT, SIZE, companion_layer, person_layer
from raigen.world.emblems.pool import N_FIGURES, companion_index
from raigen.world.judge import Judgment, as_pixels, read

BATCH = 32  # images
FRAMES = ("left of frame", "close-up", "tilted", "centered")
CORNER = (slice(0, 25), slice(39, SIZE))  # rows and columns where a companion may be
N_FINE = 24  # figures in frames that are matched at full size
SHIFTS = [(right, down) for down in range(-RISE, RISE + 1) for right in range(-SHIFT, SHIFT + 1)]
COARSE = [(right, down) for down in (-1, 1) for right in (-2, 0, 2)]
# The scales of errors, chosen on decoded drawings: what is likely in images that are right.
PERSON_ERROR, COMPANION_ERROR, SHADE_ERROR = 80.0, 30.0, 12.0
LEAST_COLOR, COLOR_WIDTH = 7.0, 0.5  # mean difference between the channels of an image in color, in [0, 255]
COMPANION_PRIOR = 4.0  # how much better in nats a companion must explain its corner
LARGEST_ERROR = 30.0  # root mean square, in [0, 255], of an image that is readable


class Bank(NamedTuple):
    """Figures in frames: their colors and how clear they are, both zero where no pixel counts, and sums of these."""

    color: Float[Tensor, "*image figure pixel*3"]
    clear: Float[Tensor, "*image figure pixel"]
    kept: Float[Tensor, " pixel"]  # 1 where pixels count: not in the corner of companions
    color_square: Float[Tensor, "*image figure"]
    clear_square: Float[Tensor, "*image figure"]
    product: Float[Tensor, "*image figure 3"]


@cache
def _figures() -> tuple[Float[Tensor, "figure 64 64 3"], Float[Tensor, "figure 64 64"]]:
    """All figures in all frames: their colors, and how clear they are."""
    layers = [person_layer.__wrapped__(index, frame) for frame in FRAMES for index in range(N_FIGURES)]
    return (torch.from_numpy(np.stack([layer.color for layer in layers])).half(),
            torch.from_numpy(np.stack([1 - layer.alpha[..., 0] for layer in layers])).half())  # fmt: skip


@cache
def _small_bank(*, gray: bool) -> Bank:
    """All figures in all frames, at a quarter of the size."""
    color, clear = (each.float() for each in _figures())
    color = _small((_in_gray(color) if gray else color).movedim(-1, 1)).movedim(1, -1)
    return _bank(color, _small(clear[:, None])[:, 0])


def _bank(color: Float[Tensor, "*figures s s 3"], clear: Float[Tensor, "*figures s s"]) -> Bank:
    side = clear.shape[-1]
    kept = torch.ones(SIZE, SIZE)
    kept[CORNER] = 0
    kept = (F.avg_pool2d(kept[None], SIZE // side)[0] > 0.99).float()
    color, clear = color * kept[..., None], clear * kept
    return Bank(
        color.flatten(-3), clear.flatten(-2), kept.flatten(), color.square().sum((-1, -2, -3)),
        clear.square().sum((-1, -2)), (clear[..., None] * color).sum((-2, -3)),
    )  # fmt: skip


def _small(images: Float[Tensor, "n channel 64 64"]) -> Float[Tensor, "n channel 16 16"]:
    return F.avg_pool2d(images, 4)


def _in_gray(color: Float[Tensor, "*rest 3"]) -> Float[Tensor, "*rest 3"]:
    return (color @ torch.tensor([0.299, 0.587, 0.114]))[..., None].expand_as(color).contiguous()


def judge(images: Sequence[Image.Image]) -> Judgment:
    """Recognizes all attributes of images of the emblems world. Raises RaigenError when there is no image."""
    if not images:
        raise RaigenError("judge: expected at least one image; got none")
    with torch.inference_mode():
        pixels = (as_pixels(images) + 1) * 127.5
        is_gray = _grayness(pixels) > 0.5
        parts: list[tuple[Tensor, dict[str, Tensor]]] = []
        for gray in (False, True):
            found = torch.where(is_gray == gray)[0]
            parts += [(rows, _read(pixels[rows], gray=gray)) for rows in found.split(BATCH) if len(rows)]
        order = torch.cat([rows for rows, _ in parts]).argsort()
        found = {name: torch.cat([part[name] for _, part in parts])[order] for name in parts[0][1]}
    return read(found, VALUES, CHOICES)


def _grayness(pixels: Float[Tensor, "image 3 64 64"]) -> Float[Tensor, " image"]:
    """The probability that an image is black and white."""
    spread = (pixels.amax(1) - pixels.amin(1)).mean((1, 2))
    return torch.sigmoid((LEAST_COLOR - spread) / COLOR_WIDTH)


def _read(pixels: Float[Tensor, "image 3 64 64"], *, gray: bool) -> dict[str, Tensor]:
    """The log probabilities of each field's choices, of the professions, and a number above 0 for readable images."""
    if gray:
        pixels = _in_gray(pixels.movedim(1, -1)).movedim(-1, 1)
    match = matched(pixels, gray=gray)
    figure, frame = match.figures % N_FIGURES, match.figures // N_FIGURES
    chance = match.chance
    who = {"profession": 54, "hand": 18, "gender": 6, "skin": 1}
    sizes = {"profession": len(PROFESSIONS), "hand": len(HANDS), "gender": len(GENDERS), "skin": len(SKINS)}
    found = {name: _summed(chance, figure // step % sizes[name], sizes[name]) for name, step in who.items()}
    found["frame"] = _summed(chance, frame, len(FRAMES))
    shades = torch.tensor([BACKGROUND[name] for name in CHOICES["background"][:-1]], dtype=torch.float32)
    distance = (match.shade[:, None] - shades).square().sum(-1)
    found["background"] = (-distance / (2 * SHADE_ERROR**2)).softmax(-1)
    found["companion"] = _companions(pixels, match, gray=gray)
    is_gray = _grayness(pixels)[:, None]
    found["style"] = torch.cat([is_gray, 1 - is_gray], -1)
    for name in ("skin", "background"):
        found[name] = torch.cat([found[name] * (1 - is_gray), is_gray], -1)
    return {name: shares.clamp(1e-6).log() for name, shares in found.items()} | {
        "readable": LARGEST_ERROR - match.error
    }


def _summed(chance: Float[Tensor, "image n"], choice: Int[Tensor, "image n"], size: int) -> Float[Tensor, "image s"]:
    return torch.zeros(len(chance), size).scatter_add_(1, choice, chance)


class Match(NamedTuple):
    """The likeliest figures of images in their frames, and for the best one its shift, background and error."""

    figures: Int[Tensor, "image n"]  # frame x N_FIGURES + figure, the best one first
    chance: Float[Tensor, "image n"]
    shift: Int[Tensor, " image"]  # index into SHIFTS
    shade: Float[Tensor, "image 3"]
    error: Float[Tensor, " image"]  # root mean square outside the corner, in [0, 255]


def matched(pixels: Float[Tensor, "image 3 64 64"], *, gray: bool) -> Match:
    """Matches images with all figures at a quarter of their size, and with the best of them at full size."""
    small = _small_bank(gray=gray)
    rough = torch.stack([_errors(_small(_shifted(pixels, *by)), small)[0] for by in COARSE]).amin(0)
    figures = rough.topk(N_FINE, largest=False).indices
    color, clear = (each[figures].float() for each in _figures())
    chosen = _bank(_in_gray(color) if gray else color, clear)
    found = [_errors(_shifted(pixels, *by), chosen) for by in SHIFTS]
    errors, shades = (torch.stack(each) for each in zip(*found, strict=True))
    lowest, shift = errors.min(0)
    order = lowest.argsort(-1)
    figures, lowest, shift = (each.gather(1, order) for each in (figures, lowest, shift))
    rows = torch.arange(len(pixels))
    return Match(
        figures, (-lowest / (2 * PERSON_ERROR**2)).softmax(-1), shift[:, 0], shades[shift[:, 0], rows, order[:, 0]],
        (lowest[:, 0].clamp(0) / (3 * chosen.kept.sum())).sqrt(),
    )  # fmt: skip


def _shifted(pixels: Tensor, right: int, down: int) -> Tensor:
    """Images moved back by what a figure was moved."""
    padded = F.pad(pixels, (SHIFT, SHIFT, SHIFT, SHIFT), mode="replicate")
    return padded[:, :, SHIFT + down : SHIFT + down + SIZE, SHIFT + right : SHIFT + right + SIZE]


def _errors(pixels: Float[Tensor, "image 3 s s"], bank: Bank) -> tuple[Tensor, Tensor]:
    """The squared error of every figure of `bank` before its best background, [image, figure], and that background,
    [image, figure, 3]. The bank has figures of its own for each image, or the same ones for all."""
    flat = pixels.flatten(2) * bank.kept  # [image, 3, pixel]
    by_color = flat.transpose(1, 2).flatten(1)
    if bank.color.ndim == 2:
        with_color, with_clear = by_color @ bank.color.T, (flat @ bank.clear.T).transpose(1, 2)
    else:
        with_color = (bank.color @ by_color[..., None])[..., 0]
        with_clear = bank.clear @ flat.transpose(1, 2)
    above = with_clear - bank.product
    error = flat.square().sum((1, 2))[:, None] - 2 * with_color + bank.color_square
    square = bank.clear_square.clamp(1e-3)
    return error - above.square().sum(-1) / square, above / square[..., None]


@cache
def _companion_bank(*, gray: bool) -> tuple[Tensor, Tensor]:
    """Color and opacity of all companions at all their places in the corner: [companion x hand x place, row, column,
    3 or 1]."""
    layers = [companion_layer(companion_index(hand, name)).moved(right, down)
              for name in COMPANIONS for hand in HANDS for right in (-1, 0, 1) for down in (-1, 0, 1)]  # fmt: skip
    color = torch.from_numpy(np.stack([layer.color[CORNER] for layer in layers]))
    alpha = torch.from_numpy(np.stack([layer.alpha[CORNER] for layer in layers]))
    return (_in_gray(color) if gray else color), alpha


def _companions(pixels: Float[Tensor, "image 3 64 64"], match: Match, *, gray: bool) -> Float[Tensor, "image 9"]:
    """The probability of each companion, and of none, from how well it explains the corner on top of the person."""
    color, alpha = _companion_bank(gray=gray)
    found = []
    for image, figure, shift, shade in zip(pixels, match.figures[:, 0], match.shift, match.shade, strict=True):
        person = person_layer(int(figure) % N_FIGURES, FRAMES[int(figure) // N_FIGURES]).moved(*SHIFTS[int(shift)])
        below = torch.from_numpy(person.color[CORNER]), torch.from_numpy(person.alpha[CORNER])
        behind = (_in_gray(below[0]) if gray else below[0]) + (1 - below[1]) * shade
        corner = image[:, *CORNER].movedim(0, -1)
        none = (corner - behind).square().sum()
        each = (corner - color - (1 - alpha) * behind).square().sum((1, 2, 3)).view(len(COMPANIONS), -1).amin(1)
        errors = torch.cat([each, none[None]]) / (2 * COMPANION_ERROR**2)
        errors[-1] -= COMPANION_PRIOR
        found.append((-errors).softmax(-1))
    return torch.stack(found)
