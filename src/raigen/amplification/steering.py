"""Turns neurons of an autoencoder up or down while a pipeline makes its images."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from raigen.diffusion.generation import Settings, defaults, layout_of
from raigen.diffusion.hookpoints import denoiser_of, find_hookpoint
from raigen.diffusion.hooks import TokenHook
from raigen.errors import RaigenError
from raigen.sae.model import MatryoshkaSAE

Method = Literal["steer", "set", "contrast"]


@contextmanager
def steering(
    pipe: DiffusionPipeline,
    sae: MatryoshkaSAE,
    strengths: Mapping[int, float],
    *,
    scales: Mapping[int, float] | None = None,
    hookpoint: str | None = None,
    steps: Container[int] | None = None,
    method: Method = "steer",
    every_branch: bool = False,
    mask: Float[Tensor, "row column"] | None = None,
    patterns: Mapping[int, Float[Tensor, "token d_in"]] | None = None,
    settings: Settings | None = None,
    prompt: str = "a photo",
) -> Iterator[None]:
    """Images made by `pipe` inside the `with` have these neurons turned up (or down, below 0).

        with raigen.steering(pipe, sae, {12: 1.5}, hookpoint="unet.mid_block"):
            images = pipe("a photo of a doctor", num_images_per_prompt=4).images

    A neuron's strength is in units of its scale in `scales` (1 where none is given; see `scales_of`). `steer` adds
    strength x scale x W_dec[i] to every token. `set` moves the neuron's own code z_i towards the scale, by the share
    `strength` of the way, and adds the difference only, strength x (scale - z_i) x W_dec[i], so that what the
    autoencoder does not explain stays as it is. `contrast` adds strength x the neuron's pattern in `patterns`, a vector
    for each token (see `contrast_of`). In all, strength 0 changes nothing, bit for bit.

    Only denoising `steps` (indices from 0) are touched, all if None; only the branch that is told the prompt, unless
    `every_branch`; `mask` in [0, 1], of any size, says where. Which tokens those are is asked of the model first, in
    one step with `settings` and `prompt` (None: the pipeline's defaults); images of another size than these settings
    can be steered at U-Nets only. No hook is left behind.

    Raises RaigenError for neurons that the autoencoder does not have, a module of another width, a neuron without a
    pattern or one of another shape, and a hookpoint that cannot be captured.
    """
    beyond = [neuron for neuron in strengths if not 0 <= neuron < sae.config.d_sae]
    if beyond:
        raise RaigenError(f"strengths: expected neurons from 0 to {sae.config.d_sae - 1}; got {beyond[0]}")
    settings = settings or defaults(pipe, None)
    point = find_hookpoint(pipe, hookpoint)
    layout = layout_of(pipe, prompt, settings, point)
    if layout.d_in != sae.config.d_in:
        raise RaigenError(f"hookpoint: {point.path} puts out tokens of width {layout.d_in}; this autoencoder is for "
                          f"width {sae.config.d_in}. Name the hookpoint it was trained at")  # fmt: skip
    if method == "contrast":
        _check_patterns(patterns or {}, list(strengths), (layout.grid[0] * layout.grid[1], layout.d_in))
    active = {neuron: strength for neuron, strength in strengths.items() if strength}
    units = [(scales or {}).get(neuron, 1.0) for neuron in active]

    def visit(step: int, tokens: Tensor) -> Tensor | None:
        if not active or (steps is not None and step not in steps):
            return None
        where = None if mask is None else _fitted(mask, tokens.shape[1], layout.grid)
        if method == "contrast":
            assert patterns is not None
            return patterned(tokens, [patterns[neuron] for neuron in active], list(active.values()), where)
        return pushed(tokens, sae, list(active), list(active.values()), units, method, where)

    with TokenHook(point, layout, visit, exact=True, every_branch=every_branch).listening(denoiser_of(pipe, point)):
        yield


@torch.no_grad()
def pushed(
    tokens: Float[Tensor, "image token d_in"],
    sae: MatryoshkaSAE,
    neurons: list[int],
    strengths: list[float],
    scales: list[float],
    method: Method = "steer",
    mask: Float[Tensor, " token"] | None = None,
) -> Float[Tensor, "image token d_in"]:
    """Tokens with the neurons turned up, as `steering` says."""
    directions = sae.W_dec[neurons].to(tokens)
    goal, strength = tokens.new_tensor(scales), tokens.new_tensor(strengths)
    if method == "set":
        codes = sae.encode(tokens.flatten(0, 1).to(sae.W_enc), neurons).to(tokens)
        amounts = strength * (goal - codes.unflatten(0, tokens.shape[:2]))
    else:
        amounts = (strength * goal).expand(*tokens.shape[:2], -1)
    if mask is not None:
        amounts = amounts * mask.to(tokens)[:, None]
    return tokens + amounts @ directions


@torch.no_grad()
def patterned(
    tokens: Float[Tensor, "image token d_in"],
    patterns: Sequence[Float[Tensor, "token d_in"]],
    strengths: Sequence[float],
    mask: Float[Tensor, " token"] | None = None,
) -> Float[Tensor, "image token d_in"]:
    """Tokens with strength x pattern added for each pattern. Raises RaigenError for another number of tokens."""
    if tokens.shape[1] != len(patterns[0]):
        raise RaigenError(f"patterns: expected images of {len(patterns[0])} tokens, as those they are of; got "
                          f"{tokens.shape[1]}")  # fmt: skip
    added = sum(strength * pattern.to(tokens) for strength, pattern in zip(strengths, patterns, strict=True))
    assert isinstance(added, Tensor)
    return tokens + (added if mask is None else added * mask.to(tokens)[:, None])


def contrast_of(activations: Float[Tensor, "image token d_in"], top: Sequence[int]) -> Float[Tensor, "token d_in"]:
    """What sets some images apart at each position: the mean of their activations less that of all images
    (contrastive activation addition, Rimsky et al. 2024, with the rest of the images as the other side).

    >>> contrast_of(torch.tensor([[[4.0]], [[2.0]], [[0.0]]]), [0, 1]).tolist()
    [[1.0]]
    """
    return activations[list(top)].mean(0) - activations.mean(0)


def random_like(vectors: Float[Tensor, "vector d_in"], seed: int) -> Float[Tensor, "vector d_in"]:
    """Random directions, one for each vector and as long as it."""
    drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True) * vectors.norm(dim=1, keepdim=True)


def scales_of(peaks: Float[Tensor, "image neuron"], top: int = 10) -> Float[Tensor, " neuron"]:
    """The unit of each neuron's strength, from its largest code in each image: the mean over its `top` images.

    >>> scales_of(torch.tensor([[4.0, 0.0], [2.0, 1.0], [0.0, 0.0]]), top=2).tolist()
    [3.0, 0.5]
    """
    return peaks.topk(min(top, len(peaks)), dim=0).values.mean(0)


def _check_patterns(patterns: Mapping[int, Tensor], neurons: Sequence[int], shape: tuple[int, int]) -> None:
    """Raises RaigenError unless every neuron has a pattern [token, d_in] of this shape."""
    for neuron in neurons:
        found = tuple(patterns[neuron].shape) if neuron in patterns else "none"
        if found != shape:
            raise RaigenError(
                f"patterns: expected one of {shape[0]} tokens of width {shape[1]} for neuron {neuron}; got {found}. "
                "Make them with: from raigen.amplification.steering import contrast_of"
            )


def _fitted(mask: Float[Tensor, "row column"], n_tokens: int, grid: tuple[int, int]) -> Float[Tensor, " token"]:
    """The mask over the grid of tokens, by area."""
    if n_tokens != grid[0] * grid[1]:
        raise RaigenError(f"mask: expected images of the size that `settings` give, whose grid is {grid}; got "
                          f"{n_tokens} tokens")  # fmt: skip
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None].float(), grid).flatten()
