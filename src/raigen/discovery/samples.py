"""A bounded random sample of a module's outputs, taken while images are made."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raigen.diffusion.hooks import TokenLayout
from raigen.errors import RaigenError

MAX_POSITIONS = 256  # kept of the last step of each image


class SampledActivations(NamedTuple):
    """The sample of one hookpoint, float16: some tokens of all steps with the index of their image, and the last step
    of each image on a grid of positions."""

    tokens: Float[Tensor, "token d_in"]
    images: Int[Tensor, " token"]
    last: Float[Tensor, "image position d_in"]


class ActivationSample:
    """Samples the outputs of one module, on the CPU and in float16.

    It keeps `per_step` random positions of each image and step, drawn from the seed of the image. Of the last step it
    keeps a grid of positions, thinned evenly to at most `MAX_POSITIONS`. So memory is bounded for images of any size.
    """

    def __init__(self, layout: TokenLayout, per_step: int):
        self.layout = layout
        self.n_positions = layout.grid[0] * layout.grid[1]
        self.per_step, self.positions = min(per_step, self.n_positions), thinned(layout.grid)
        self.seeds: Sequence[int] = ()
        self.steps: dict[int, Tensor] = {}
        self.tokens: list[Tensor] = []
        self.last: list[Tensor] = []
        self.error: RaigenError | None = None

    def begin(self, seeds: Sequence[int]) -> None:
        """Begins a batch of images, with these seeds."""
        self.seeds, self.steps = seeds, {}

    def __call__(self, step: int, tokens: Float[Tensor, "image token d_in"]) -> None:
        """Samples a step. If it is visited twice, the second visit counts."""
        if self.error is not None:
            return
        generators = (torch.Generator().manual_seed(seed * 1_000_003 + step) for seed in self.seeds)
        drawn = torch.stack(
            [torch.randperm(self.n_positions, generator=generator)[: self.per_step] for generator in generators]
        )
        chosen = drawn.unsqueeze(2).expand(-1, -1, tokens.shape[2]).to(tokens.device)
        self.steps[step] = tokens.detach().gather(1, chosen).to("cpu", torch.float16)
        self.latest = tokens.detach()[:, self.positions.to(tokens.device)]  # a copy

    def end(self, path: str) -> None:
        """Ends the batch. Numbers that float16 cannot hold are kept as an error, and the sample is dropped."""
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
        """The whole sample. Raises RaigenError if a batch held numbers that float16 cannot hold."""
        if self.error is not None:
            raise self.error
        tokens = torch.cat(self.tokens)
        images = torch.arange(len(tokens)).repeat_interleave(tokens.shape[1])
        return SampledActivations(tokens.flatten(0, 1), images, torch.cat(self.last))


def thinned(grid: tuple[int, int]) -> Int[Tensor, " position"]:
    """Every s-th position of every s-th row, with the smallest s that leaves at most `MAX_POSITIONS`.

    >>> len(thinned((16, 16))), len(thinned((32, 32))), thinned((32, 24))[:3].tolist()
    (256, 256, [0, 2, 4])
    """
    rows, columns = grid
    step = next(s for s in range(1, max(grid) + 1) if -(-rows // s) * -(-columns // s) <= MAX_POSITIONS)
    return torch.arange(rows * columns).view(rows, columns)[::step, ::step].flatten()
