"""The reservoir: each token once, well mixed, in bounded memory, resumable."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raigen.errors import RaigenError
from raigen.runs.activations import TokenBatch
from raigen.sae.reservoir import Reservoir


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(sizes: list[int]) -> list[TokenBatch]:
    """Images of as many tokens each; a token holds its own number."""
    parts, first = [], 0
    for image, size in enumerate(sizes):
        numbers = torch.arange(first, first + size)
        parts.append(TokenBatch(torch.stack([numbers % 1000, numbers // 1000], 1).float(), torch.full((size,), image)))
        first += size
    return parts


def mixed(parts: list[TokenBatch], reservoir: Reservoir) -> Iterator[TokenBatch]:
    """All tokens of `parts` through the reservoir, to the last."""
    for part in parts:
        yield from reservoir.add(part.tokens, part.images)
    yield from reservoir.drain()


@given(sizes=st.lists(st.integers(0, 40), max_size=30), capacity=st.integers(4, 60), size=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_every_token_comes_out_once_with_its_image(sizes, capacity, size):
    parts = numbered(sizes)
    reservoir = Reservoir(capacity, size, 2, generator())
    batches = []
    for batch in mixed(parts, reservoir):
        batches.append(batch)
        assert reservoir.held <= capacity and 1 <= len(batch.tokens) <= size
    out = torch.cat([batch.tokens @ torch.tensor([1.0, 1000.0]) for batch in batches]) if batches else torch.zeros(0)
    images = torch.cat([batch.images for batch in batches]) if batches else torch.zeros(0, dtype=torch.int64)
    order = out.argsort()
    assert out[order].tolist() == list(range(sum(sizes)))
    assert images[order].tolist() == [image for image, n in enumerate(sizes) for _ in range(n)]


def test_batches_mix_many_images():
    """64 images in memory of 512: the entropy of the images in a batch is near the best there is."""
    entropies = []
    for batch in mixed(numbered([64] * 512), Reservoir(64 * 64, 256, 2, generator())):
        share = batch.images.bincount().float()
        share = share[share > 0] / share.sum()
        entropies.append(float(-(share * share.log()).sum()))
    assert sum(entropies) / len(entropies) > 0.85 * math.log(64)
    assert min(entropies) > 0.7 * math.log(64)


def test_a_restored_reservoir_goes_on_as_if_never_stopped():
    parts = numbered([20] * 12)
    whole = [batch.images.tolist() for batch in mixed(parts, Reservoir(64, 16, 2, generator(3)))]
    first = Reservoir(64, 16, 2, generator(3))
    begun = [batch.images.tolist() for part in parts[:7] for batch in first.add(part.tokens, part.images)]
    second = Reservoir(64, 16, 2, generator(9))
    second.restore(first.state())
    assert begun + [batch.images.tolist() for batch in mixed(parts[7:], second)] == whole


def test_a_reservoir_smaller_than_a_batch_is_refused():
    with pytest.raises(RaigenError, match="expected room for a batch of 16 tokens; got 8"):
        Reservoir(8, 16, 2, generator())
