"""Steers a pipeline: turns neurons of an autoencoder up or down while it makes images."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from raigen.diffusion.generation import Settings, defaults, layout_of
from raigen.diffusion.hookpoints import denoiser_of, find_hookpoint
from raigen.diffusion.hooks import TokenHook
from raigen.discovery.codes import largest_codes, typical_peak
from raigen.errors import RaigenError
from raigen.runs.run import Run
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
    """Steers all images that `pipe` makes inside the `with`: these neurons are turned up, or down below 0.

        with raigen.steering(pipe, sae, {12: 1.5}, hookpoint="unet.mid_block"):
            images = pipe("a photo of a doctor", num_images_per_prompt=4).images

    A strength is in units of the neuron's scale in `scales`, which `unit_of` finds; a neuron without one has scale 1.

    - `steer` adds strength x scale x W_dec[i] to every token.
    - `set` moves the neuron's own code z_i towards its scale and adds only the change, strength x (scale - z_i) x
      W_dec[i], so whatever the autoencoder does not explain stays as it is. With strength 1 the code reaches its scale.
    - `contrast` adds strength x pattern, one vector for each token. `patterns` holds one for each neuron; `contrast_of`
      makes them. A number with a pattern need not be a neuron of the autoencoder.

    Strength 0 changes nothing, bit for bit. `steps` holds the denoising steps to steer, from 0; None is all. `mask`, in
    [0, 1] and of any size, says where in the image. Only the branch of guidance that sees the prompt is steered, unless
    `every_branch` is True. No hook is left behind.

    One denoising step with `settings` and `prompt` runs first, to find the image tokens; `settings` None is the
    pipeline's defaults. Give the settings of the very calls: images of another size can be steered in U-Nets only, and
    with other branches of guidance the prompt's cannot be told from the others.

    Raises RaigenError for a neuron that the autoencoder does not have, for a hookpoint of another width or one that
    cannot be captured, for a pattern that is missing or has another shape, and for a call with other branches of
    guidance.
    """
    beyond = [neuron for neuron in strengths if not 0 <= neuron < sae.config.d_sae and neuron not in (patterns or ())]
    if beyond:
        raise RaigenError(f"strengths: expected neurons from 0 to {sae.config.d_sae - 1}; got {beyond[0]}")
    settings = settings or defaults(pipe, None)
    point = find_hookpoint(pipe, hookpoint)
    layout = layout_of(pipe, prompt, settings, point)
    if layout.d_in != sae.config.d_in:
        raise RaigenError(f"hookpoint: the tokens of {point.path} have width {layout.d_in}; this autoencoder is for "
                          f"width {sae.config.d_in}. Name the hookpoint where it was trained")  # fmt: skip
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

    hook = TokenHook(point, layout, visit, exact=True, every_branch=every_branch)
    with hook.registered(denoiser_of(pipe, point)), _told(pipe, hook.begin_pipeline):
        yield
        hook.begin_pipeline()


@contextmanager
def _told(pipe: DiffusionPipeline, begin: Callable[[], None]) -> Iterator[None]:
    """Calls `begin` whenever the pipeline begins to denoise: that is when it sets the steps of its scheduler."""
    scheduler: Any = pipe.components["scheduler"]
    plain = scheduler.set_timesteps

    @wraps(plain)
    def told(*args: Any, **options: Any) -> Any:
        begin()
        return plain(*args, **options)

    scheduler.set_timesteps = told
    try:
        yield
    finally:
        del scheduler.set_timesteps


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
    """The tokens after steering by `steer` or `set`; see `steering`."""
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
    """The tokens after steering by `contrast`. Raises RaigenError when the patterns have another number of tokens."""
    if tokens.shape[1] != len(patterns[0]):
        raise RaigenError(f"patterns: expected images of {len(patterns[0])} tokens, like the audited ones; got "
                          f"{tokens.shape[1]}")  # fmt: skip
    added = sum(strength * pattern.to(tokens) for strength, pattern in zip(strengths, patterns, strict=True))
    assert isinstance(added, Tensor)
    return tokens + (added if mask is None else added * mask.to(tokens)[:, None])


def contrast_of(activations: Float[Tensor, "image token d_in"], top: Sequence[int]) -> Float[Tensor, "token d_in"]:
    """What sets some images apart at each position: the mean of their activations minus the mean of all images.

    This is contrastive activation addition (Rimsky et al. 2024) with all images as the other side.

    >>> contrast_of(torch.tensor([[[4.0]], [[2.0]], [[0.0]]]), [0, 1]).tolist()
    [[1.0]]
    """
    return activations[list(top)].mean(0) - activations.mean(0)


def random_like(vectors: Float[Tensor, "vector d_in"], seed: int) -> Float[Tensor, "vector d_in"]:
    """A random direction for each vector, with the same norm."""
    drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True) * vectors.norm(dim=1, keepdim=True)


def unit_of(run: Run, neuron: int) -> float:
    """The scale of a neuron, which is the unit of its strength: the mean of its largest codes over the ten audited
    images in which it is strongest.

    Raises RaigenError before `discover` has run, and as `unit_in` does.
    """
    return unit_in(largest_codes(run), neuron)


def unit_in(codes: Float[np.ndarray, "image neuron"], neuron: int) -> float:
    """`unit_of` from the largest codes of each image. Raises RaigenError for a neuron that the autoencoder does not
    have, and for one that fires in no image."""
    if not 0 <= neuron < codes.shape[1]:
        raise RaigenError(f"neurons: expected numbers from 0 to {codes.shape[1] - 1}; got {neuron}")
    unit = float(typical_peak(codes[:, [neuron]])[0])
    if not unit > 0:
        raise RaigenError(f"neurons: {neuron} fires in none of the audited images, so it has no scale; take another")
    return unit


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
    """The mask averaged over the area of each token of the grid."""
    if n_tokens != grid[0] * grid[1]:
        raise RaigenError(f"mask: expected images of the size in `settings`, whose grid is {grid}; got "
                          f"{n_tokens} tokens")  # fmt: skip
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None].float(), grid).flatten()
