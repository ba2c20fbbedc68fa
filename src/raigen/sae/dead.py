"""Tracks which neurons of an autoencoder are dead during training."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class DeadNeuronTracker:
    """A neuron is dead when it was silent for `after_tokens` tokens and for `after_images` distinct images.

    Both must have passed: a few images have many tokens, so tokens alone would call a neuron dead too early. Where
    batches carry no image indices, only tokens count.

    >>> tracker = DeadNeuronTracker(d_sae=2, after_tokens=8, after_images=2)
    >>> for image in (0, 0, 1):
    ...     tracker.update(torch.tensor([True, False]), n_tokens=4, images=torch.full((4,), image))
    ...     tracker.dead.tolist()
    [False, False]
    [False, False]
    [False, True]
    """

    def __init__(self, d_sae: int, after_tokens: int, after_images: int):
        self.after_tokens, self.after_images = after_tokens, after_images
        self._tokens = torch.zeros(d_sae, dtype=torch.int64)  # since the neuron last fired
        self._fired_at = torch.zeros(d_sae, dtype=torch.int64)  # the batch, from 1
        self._seen_at: dict[int, int] = {}  # image -> the last batch that held it
        self._batch = 0

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as tensors."""
        seen = torch.tensor(list(self._seen_at.items()), dtype=torch.int64).view(-1, 2)
        return {"tokens": self._tokens.clone(), "fired_at": self._fired_at.clone(), "seen_at": seen,
                "batch": torch.tensor(self._batch)}  # fmt: skip

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a `state`."""
        self._tokens, self._fired_at = state["tokens"].clone(), state["fired_at"].clone()
        self._seen_at = dict(state["seen_at"].tolist())
        self._batch = int(state["batch"])

    def update(self, fired: Bool[Tensor, " d_sae"], n_tokens: int, images: Int[Tensor, " token"] | None = None) -> None:
        """Counts one batch."""
        self._batch += 1
        self._tokens = (self._tokens + n_tokens).masked_fill(fired.cpu(), 0)
        self._fired_at.masked_fill_(fired.cpu(), self._batch)
        if images is not None:
            self._seen_at.update(dict.fromkeys(images.unique().tolist(), self._batch))

    @property
    def dead(self) -> Bool[Tensor, " d_sae"]:
        """Which neurons are dead now."""
        dead = self._tokens >= self.after_tokens
        if self._seen_at and dead.any():
            seen_at = torch.tensor(list(self._seen_at.values())).sort().values
            images = len(seen_at) - torch.searchsorted(seen_at, self._fired_at, right=True)
            dead &= images >= self.after_images
        return dead
