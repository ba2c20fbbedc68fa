"""Relatives of images: the noise of an image, moved by small steps that keep its distribution."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Lineage = tuple[Any, ...]
"""Where an image comes from: the seed of its first ancestor, then (size, seed) of each step from parent to child.

The image of one seed alone has a lineage of one number. A size lies in (0, 1).
"""


class MovedNoise(TorchFunctionMode):
    """While active, `torch.randn` moves the noise that it draws from the generators of images along their lineages.

    A step of size b turns noise x into sqrt(1 - b^2) x + b y, with fresh noise y of the step's own seed: the
    preconditioned Crank-Nicolson move (Cotter, Roberts, Stuart and White 2013). If x is standard normal, so is the
    moved noise. A relative is therefore a genuine image of the model, as likely as any other. All noise that a pipeline
    draws for an image moves, even if its sampler adds noise at each step.

    >>> lineages = [(0, (0.6, 1))]
    >>> with MovedNoise(lineages) as noise:
    ...     moved = torch.randn(2, generator=noise.generators[0])
    >>> alone = [torch.randn(2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    >>> torch.equal(moved, 0.8 * alone[0] + 0.6 * alone[1])
    True
    """

    def __init__(self, lineages: Sequence[Lineage]):
        super().__init__()
        self.generators = [_generator(seed) for seed, *_ in lineages]
        """One generator for each image, on the CPU, as a pipeline takes them."""
        self._steps = {
            id(generator): [(size, _generator(seed)) for size, seed in steps]  # type: ignore[misc]
            for generator, (_, *steps) in zip(self.generators, lineages, strict=True)
        }

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        drawn = func(*args, **kwargs)
        if func is torch.randn:
            for size, generator in self._steps.get(id(kwargs.get("generator")), ()):
                fresh: Tensor = func(*args, **{**kwargs, "generator": generator})
                drawn = math.sqrt(1 - size**2) * drawn + size * fresh
        return drawn


def _generator(seed: Any) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)
