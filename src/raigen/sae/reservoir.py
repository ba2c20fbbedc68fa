"""Mixes a stream of tokens in bounded memory."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raigen.errors import RaigenError
from raigen.runs.activations import TokenBatch


class Reservoir:
    """A mixing buffer: takes tokens image by image, and returns each exactly once, in random order.

    It holds at most `capacity` tokens, as float16 with the index of their image: `capacity` x (2 `d_in` + 8) bytes.
    Whenever it is full, it returns `tokens_per_batch` tokens, drawn at random from all that it holds; `drain` returns
    the rest.

    >>> reservoir = Reservoir(capacity=8, tokens_per_batch=4, d_in=2, generator=torch.Generator().manual_seed(0))
    >>> tokens = torch.arange(24.0).view(12, 2)
    >>> batches = list(reservoir.add(tokens, torch.arange(12))) + list(reservoir.drain())
    >>> torch.cat([batch.images for batch in batches]).sort().values.tolist() == list(range(12))
    True
    """

    def __init__(self, capacity: int, tokens_per_batch: int, d_in: int, generator: torch.Generator):
        if capacity < tokens_per_batch:
            raise RaigenError(f"reservoir: expected room for a batch of {tokens_per_batch} tokens; got {capacity}")
        self.tokens_per_batch, self.generator = tokens_per_batch, generator
        self.tokens = torch.empty(capacity, d_in, dtype=torch.float16)
        self.images = torch.empty(capacity, dtype=torch.int64)
        self.held = 0

    def add(self, tokens: Float[Tensor, "token d_in"], images: Int[Tensor, " token"]) -> Iterator[TokenBatch]:
        """Takes tokens; yields a batch whenever the reservoir is full."""
        start = 0
        while start < len(tokens):
            end = min(len(tokens), start + len(self.tokens) - self.held)
            place = slice(self.held, self.held + end - start)
            self.tokens[place], self.images[place] = tokens[start:end].half(), images[start:end]
            self.held, start = place.stop, end
            if self.held == len(self.tokens):
                yield self._take(self.tokens_per_batch)

    def drain(self) -> Iterator[TokenBatch]:
        """Yields all tokens that are left, in batches that differ in size by at most one token."""
        n_batches = -(-self.held // self.tokens_per_batch)
        for left in range(n_batches, 0, -1):
            yield self._take(-(-self.held // left))

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs: the tokens, their images, and the state of the generator."""
        return {
            "tokens": self.tokens[: self.held].clone(),
            "images": self.images[: self.held].clone(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continues from a `state` of a reservoir of the same capacity."""
        self.held = len(state["images"])
        self.tokens[: self.held], self.images[: self.held] = state["tokens"], state["images"]
        self.generator.set_state(state["generator"])

    def _take(self, count: int) -> TokenBatch:
        rows = self._random_rows(count)
        batch = TokenBatch(self.tokens[rows].float(), self.images[rows])
        self.held -= count
        gone = rows[rows < self.held]  # their places are filled from beyond the new end
        beyond = torch.ones(count, dtype=torch.bool)
        beyond[rows[rows >= self.held] - self.held] = False
        last = beyond.nonzero().squeeze(1) + self.held
        self.tokens[gone], self.images[gone] = self.tokens[last], self.images[last]
        return batch

    def _random_rows(self, count: int) -> Int[Tensor, " row"]:
        """`count` different rows, in random order; where many more are held, only some of them are looked at."""
        if 4 * count <= self.held:
            some = torch.randint(self.held, (count + count // 2,), generator=self.generator).unique()
            if len(some) >= count:
                return some[torch.randperm(len(some), generator=self.generator)[:count]]
        return torch.randperm(self.held, generator=self.generator)[:count]
