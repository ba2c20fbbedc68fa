"""Keeps in bounded memory some of what a module puts out while images are made."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raigen.diffusion.hooks import TokenLayout
from raigen.errors import RaigenError

MAX_PLACES = 256  # of the last step of each image


class SampledActivations(NamedTuple):
    """What was kept of one hookpoint, float16: some tokens of all steps with the index of their image, and the last
    step of each image, on a grid of places."""

    tokens: Float[Tensor, "token d_in"]
    images: Int[Tensor, " token"]
    last: Float[Tensor, "image place d_in"]


class ActivationSample:
    """Keeps, on the CPU and in float16, what a search needs of one module.

    Of every step `per_step` places of each image, drawn by lot from its seed; of the last step every place of a grid,
    thinned evenly to at most `MAX_PLACES`. So memory is bounded, however large the images are.
    """

    def __init__(self, layout: TokenLayout, per_step: int):
        self.layout = layout
        self.n_places = layout.grid[0] * layout.grid[1]
        self.per_step, self.places = min(per_step, self.n_places), thinned(layout.grid)
        self.tokens: list[Tensor] = []
        self.last: list[Tensor] = []
        self.error: RaigenError | None = None

    def begin(self, seeds: Sequence[int]) -> None:
        """The next images are those of these seeds."""
        self.seeds = seeds
        self.steps: dict[int, Tensor] = {}

    def __call__(self, step: int, tokens: Float[Tensor, "image token d_in"]) -> None:
        """Keeps a step; where it is visited twice, the second time counts."""
        if self.error is not None:
            return
        generators = (torch.Generator().manual_seed(seed * 1_000_003 + step) for seed in self.seeds)
        drawn = torch.stack([torch.randperm(self.n_places, generator=lot)[: self.per_step] for lot in generators])
        chosen = drawn.unsqueeze(2).expand(-1, -1, tokens.shape[2]).to(tokens.device)
        self.steps[step] = tokens.detach().gather(1, chosen).to("cpu", torch.float16)
        self.latest = tokens.detach()[:, self.places.to(tokens.device)]  # a copy

    def end(self, path: str) -> None:
        """The images are done."""
        if self.error is not None:
            return
        tokens = torch.stack([self.steps[step] for step in sorted(self.steps)], 1).flatten(1, 2)
        last = self.latest.to("cpu", torch.float16)
        if not (tokens.isfinite().all() and last.isfinite().all()):
            self.error = RaigenError(f"hookpoint: {path} puts out numbers that float16 cannot hold, for one of the "
                                     f"seeds {self.seeds[0]} to {self.seeds[-1]}")  # fmt: skip
            self.tokens, self.last = [], []
            return
        self.tokens.append(tokens)
        self.last.append(last)

    def kept(self) -> SampledActivations:
        """All that was kept. Raises RaigenError when it is not whole."""
        if self.error is not None:
            raise self.error
        tokens = torch.cat(self.tokens)
        images = torch.arange(len(tokens)).repeat_interleave(tokens.shape[1])
        return SampledActivations(tokens.flatten(0, 1), images, torch.cat(self.last))


def thinned(grid: tuple[int, int]) -> Int[Tensor, " place"]:
    """Every s-th place of every s-th row, with the smallest s that leaves at most `MAX_PLACES`.

    >>> len(thinned((16, 16))), len(thinned((32, 32))), thinned((32, 24))[:3].tolist()
    (256, 256, [0, 2, 4])
    """
    rows, columns = grid
    step = next(s for s in range(1, max(grid) + 1) if -(-rows // s) * -(-columns // s) <= MAX_PLACES)
    return torch.arange(rows * columns).view(rows, columns)[::step, ::step].flatten()
