"""Scales the tokens of every denoising step to mean 0 and variance 1, for training."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from raigen.errors import RaigenError
from raigen.sae.model import MatryoshkaSAE


class InputScaling(NamedTuple):
    """A mean token and a scale above 0 for each stored denoising step, in the unit of the activations."""

    mean: Float[Tensor, "step d_in"]
    scale: Float[Tensor, " step"]

    @classmethod
    def of(cls, activations: Float[Tensor, "image step token d_in"]) -> "InputScaling":
        """The scaling of these activations to mean 0 and, over all channels of a step together, variance 1.

        Raises RaigenError when the tokens of a step are all equal.
        """
        mean = activations.float().mean((0, 2))
        scale = (activations.float() - mean[:, None]).square().mean((0, 2, 3)).sqrt()
        if not (scale > 0).all():
            step = int((~(scale > 0)).nonzero()[0])
            raise RaigenError(f"input_scaling: expected tokens that differ; all tokens of stored step {step} are "
                              "equal or not finite. Train without it")  # fmt: skip
        return cls(mean, scale)

    def scaled(self, activations: Float[Tensor, "image step token d_in"]) -> Float[Tensor, "image step token d_in"]:
        """(activation - mean) / scale for each step, in the precision of the activations."""
        scaled = (activations.float() - self.mean[:, None]) / self.scale[:, None, None]
        return scaled.to(activations.dtype)

    @torch.no_grad()
    def fold(self, sae: MatryoshkaSAE, place: int = -1) -> None:
        """Turns an autoencoder of scaled tokens into one of raw tokens of the `place`-th stored step.

        At that step, its reconstructions stay the same, and its codes, too, once divided by the scale. At other steps,
        whose mean and scale differ, they do not. Biases and threshold change; the weights and their unit rows stay.
        """
        scale = float(self.scale[place])
        sae.b_dec.mul_(scale).add_(self.mean[place].to(sae.b_dec))
        sae.b_enc.mul_(scale)
        sae.threshold.mul_(scale)
