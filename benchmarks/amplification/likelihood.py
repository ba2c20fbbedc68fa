"""The likelihood of a sample under a diffusion model, by its probability-flow ODE (Song et al. 2021, score SDEs).

A noisy sample is x(a) = cos(a) x0 + sin(a) noise, with the angle a from 0 (data) to pi / 2 (noise). The prediction
v = cos(a) noise - sin(a) x0 (Salimans & Ho 2022) is then the flow itself, dx/da = v(x, a), and

    log p(x at the first angle) = log N(x at the last angle; 0, 1) + integral of div v da.

The divergence is Hutchinson's estimate e.(dv/dx e) with random signs e, the same along a path (Grathwohl et al. 2019);
the path is Heun's, the integral the trapezoidal rule over its steps.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]


def log_likelihood(
    velocity: Velocity, samples: Float[Tensor, "sample ..."], angles: Sequence[float], generator: torch.Generator,
    n_probes: int = 1,
) -> Float[Tensor, " sample"]:  # fmt: skip
    """The log of the density of each sample, in nats; samples are taken to be at the first of the rising `angles`.

    `velocity(x, angle)` is v of a batch, independent for each row. More `n_probes` make the estimate of the divergence
    less noisy, more angles make the path more exact; the cost is 2 x angles x (1 + n_probes) passes through the model.
    """
    signs = [_signs(samples, generator) for _ in range(n_probes)]
    x, total = samples, torch.zeros(len(samples), dtype=samples.dtype)
    speed, divergence = _with_divergence(velocity, x, angles[0], signs)
    for here, there in pairwise(angles):
        step = there - here
        with torch.no_grad():
            ahead = velocity(x + step * speed, there)
        x = x + step / 2 * (speed + ahead)
        before = divergence
        speed, divergence = _with_divergence(velocity, x, there, signs)
        total = total + step / 2 * (before + divergence)
    flat = x.flatten(1)
    return total - 0.5 * (flat**2).sum(1) - 0.5 * flat.shape[1] * math.log(2 * math.pi)


def bits_per_dimension(log_likelihoods: Float[Tensor, " sample"], dimensions: int) -> Float[Tensor, " sample"]:
    """The negative log-likelihood, in bits per dimension.

    >>> bits_per_dimension(torch.tensor([-4 * math.log(2)]), 2).tolist()
    [2.0]
    """
    return -log_likelihoods / (dimensions * math.log(2))


def angles_of(alphas_cumprod: Float[Tensor, " timestep"], n: int) -> tuple[np.ndarray, Callable[[float], float]]:
    """`n` rising angles of a discrete schedule, at even timesteps from the first to the last; and a function that
    interpolates the timestep of any angle between them. cos(angle) is the root of alphas_cumprod."""
    known = np.arccos(np.sqrt(alphas_cumprod.double().numpy()))
    timesteps = np.arange(len(known), dtype=float)
    angles = np.interp(np.linspace(0, len(known) - 1, n), timesteps, known)
    return angles, lambda angle: float(np.interp(angle, known, timesteps))


def _with_divergence(velocity: Velocity, x: Tensor, angle: float, signs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        speed = velocity(at, angle)
        found = [torch.autograd.grad(speed, at, sign, retain_graph=place + 1 < len(signs))[0]
                 for place, sign in enumerate(signs)]  # fmt: skip
    parts = [(gradient * sign).flatten(1).sum(1) for gradient, sign in zip(found, signs, strict=True)]
    return speed.detach(), torch.stack(parts).mean(0)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return (2 * torch.randint(0, 2, like.shape, generator=generator) - 1).to(like)
