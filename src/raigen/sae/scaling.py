"""Brings the tokens of every denoising step to one mean and scale before an autoencoder learns them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from raigen.errors import RaigenError
from raigen.sae.model import MatryoshkaSAE


class InputScaling(NamedTuple):
    """A mean token and a scale above 0, in the unit of the activations, for each denoising step that is kept."""

    mean: Float[Tensor, "step d_in"]
    scale: Float[Tensor, " step"]

    @classmethod
    def of(cls, activations: Float[Tensor, "image step token d_in"]) -> "InputScaling":
        """What brings these activations to mean 0 and, over all channels of a step together, variance 1.

        Raises RaigenError when the tokens of a step are all equal.
        """
        mean = activations.float().mean((0, 2))
        scale = (activations.float() - mean[:, None]).square().mean((0, 2, 3)).sqrt()
        if not (scale > 0).all():
            step = int((~(scale > 0)).nonzero()[0])
            raise RaigenError(f"input_scaling: expected tokens that differ; all of step {step} (of those kept) are "
                              "equal or not finite. Train without it")  # fmt: skip
        return cls(mean, scale)

    @classmethod
    def restored(cls, state: Mapping[str, Tensor]) -> "InputScaling | None":
        """The scaling whose fields these are; None where there are none."""
        return cls(state["mean"], state["scale"]) if state else None

    def scaled(self, activations: Float[Tensor, "image step token d_in"]) -> Float[Tensor, "image step token d_in"]:
        """(activation - mean) / scale, step by step, in the precision that comes."""
        scaled = (activations.float() - self.mean[:, None]) / self.scale[:, None, None]
        return scaled.to(activations.dtype)

    @torch.no_grad()
    def fold(self, sae: MatryoshkaSAE, place: int = -1) -> None:
        """Changes an autoencoder of scaled tokens into one of raw tokens of a step, the `place`-th of those kept.

        Its codes there, divided by the scale, and its reconstructions are the same; at another step, whose mean and
        scale differ, they are not. Biases and threshold change, the weights and their unit rows stay.
        """
        scale = float(self.scale[place])
        sae.b_dec.mul_(scale).add_(self.mean[place].to(sae.b_dec))
        sae.b_enc.mul_(scale)
        sae.threshold.mul_(scale)
