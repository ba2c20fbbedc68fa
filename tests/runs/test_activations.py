"""The activation store: what goes in comes out, every token once, and broken stores say so."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore

GRID, STEPS = (2, 3), (4, 9)


def numbered(n_images: int, n_steps: int = 2, n_tokens: int = 6) -> Tensor:
    """Activations of width 2 that spell the running number of the token; exact in float16."""
    number = torch.arange(n_images * n_steps * n_tokens).view(n_images, n_steps, n_tokens)
    return torch.stack([number // 1000, number % 1000], dim=-1).float()


def numbers(tokens: Tensor) -> list[int]:
    return (tokens[:, 0] * 1000 + tokens[:, 1]).int().tolist()


def store_of(dir: Path, activations: Tensor, sizes: list[int], grid=GRID, steps=STEPS) -> ActivationStore:
    first = 0
    for part in activations.split(sizes):
        ActivationStore.write(dir, first, part, grid, steps)
        first += len(part)
    return ActivationStore(dir)


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "run" / "activations", numbered(7), [3, 3, 1])


def test_the_store_knows_its_shape(store):
    assert (store.n_images, store.n_steps, store.n_tokens, store.d_in) == (7, 2, 6, 2)
    assert (store.grid, store.step_indices) == (GRID, STEPS)


def test_a_step_comes_back_shard_by_shard(store):
    for step_index, place in ((4, 0), (9, 1)):
        chunks = list(store.step(step_index))
        assert [chunk.first for chunk in chunks] == [0, 3, 6]
        found = torch.cat([chunk.activations for chunk in chunks])
        assert found.dtype == torch.float32 and torch.equal(found, numbered(7)[:, place])


def test_images_come_back_in_the_order_asked_for(store):
    assert torch.equal(store.images([6, 0, 3, 0], 9), numbered(7)[[6, 0, 3, 0], 1])


def test_a_number_in_a_file_name_means_nothing(store):
    for number, path in enumerate(sorted(store.dir.iterdir())):
        path.rename(store.dir / f"z{9 - number}.safetensors")
    reopened = ActivationStore(store.dir)
    assert torch.equal(torch.cat([chunk.activations for chunk in reopened.step(4)]), numbered(7)[:, 0])


def test_a_shard_is_float16_and_says_what_it_holds(store):
    with safe_open(store.dir / "000003.safetensors", "pt") as file:
        assert file.get_tensor("activations").dtype == torch.float16
        assert file.metadata() == {"first": "3", "rows": "2", "columns": "3", "step_indices": "[4, 9]"}


@given(
    shards=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    n_steps=st.integers(1, 3),
    n_tokens=st.integers(1, 7),
    tokens_per_batch=st.integers(1, 300),
    epochs=st.integers(1, 2),
    memory_bound=st.sampled_from([1, 60, 500, 10**9]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_every_token_comes_once_per_epoch(shards, n_steps, n_tokens, tokens_per_batch, epochs, memory_bound, seed):
    activations = numbered(sum(shards), n_steps, n_tokens)
    with TemporaryDirectory() as dir:
        store = store_of(Path(dir), activations, shards, (1, n_tokens), tuple(range(n_steps)))
        generator = torch.Generator().manual_seed(seed)
        batches = list(store.batches(tokens_per_batch, epochs, generator, memory_bound))
    assert len(batches) == store.n_batches(tokens_per_batch, epochs, memory_bound)
    assert max(len(batch.tokens) for batch in batches) <= tokens_per_batch
    seen = [number for batch in batches for number in numbers(batch.tokens)]
    n = activations[..., 0].numel()
    for epoch in range(epochs):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))
    images = [image for batch in batches for image in batch.images.tolist()]
    assert images == [number // (n_steps * n_tokens) for number in seen]


def test_batches_mix_images_steps_and_positions(tmp_path):
    store = store_of(tmp_path, numbered(40), [10] * 4)
    first = next(store.batches(120, 1, torch.Generator().manual_seed(0)))
    seen = torch.tensor(numbers(first.tokens))
    assert len(set(first.images.tolist())) > 30  # 38 expected
    assert 40 < int((seen // 6 % 2).sum()) < 80  # about half of them from the second step
    assert len(set((seen % 6).tolist())) == 6
    assert (seen.diff() != 1).float().mean() > 0.9


def test_the_order_follows_the_generator(store):
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        return [n for b in store.batches(30, 2, generator) for n in numbers(b.tokens)]

    assert order(1) == order(1) != order(2)
    assert order(1)[:84] != order(1)[84:]  # another order in the next epoch


def test_batches_are_of_one_size(store):
    assert [len(batch.tokens) for batch in store.batches(50, 1)] == [42, 42]


@pytest.mark.parametrize(
    ("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf"), (-70000.0, "-70000"), (65504.0, None)]
)
def test_numbers_that_float16_cannot_hold_are_refused(tmp_path, value, shown):
    activations = numbered(3)
    activations[2, 1, 5, 0] = value
    if shown is None:
        ActivationStore.write(tmp_path, 10, activations, GRID, STEPS)
        return
    with pytest.raises(RaigenError, match=rf"activations of image 12 at step 9: .*got {shown}"):
        ActivationStore.write(tmp_path, 10, activations, GRID, STEPS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("grid", "steps"), [((2, 2), STEPS), (GRID, (1, 2, 3))])
def test_a_shard_must_fit_its_grid_and_steps(tmp_path, grid, steps):
    with pytest.raises(RaigenError, match=r"got \[3, 2, 6, 2\]"):
        ActivationStore.write(tmp_path, 0, numbered(3), grid, steps)


@pytest.mark.parametrize(
    ("gone", "missing"), [(["000003"], "images 3 to 5 are missing"), (["000000"], "images 0 to 2 are missing")]
)
def test_a_gap_names_the_missing_images(store, gone, missing):
    for name in gone:
        (store.dir / f"{name}.safetensors").unlink()
    with pytest.raises(RaigenError, match=missing + r"\. Run: raigen capture .*run$"):
        ActivationStore(store.dir)


def test_an_overlap_is_refused(store):
    ActivationStore.write(store.dir, 5, numbered(2), GRID, STEPS)
    with pytest.raises(RaigenError, match="images 5 to 5 are in another shard too"):
        ActivationStore(store.dir)


def test_shards_must_agree(store):
    ActivationStore.write(store.dir, 7, numbered(2), (3, 2), STEPS)
    with pytest.raises(RaigenError, match=r"expected the grid, steps and width of 000000.safetensors"):
        ActivationStore(store.dir)


def test_an_empty_store_says_how_to_fill_it(tmp_path):
    with pytest.raises(RaigenError, match=r"expected activations; found none. Run: raigen capture"):
        ActivationStore(tmp_path / "activations")


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0not a header....", None])
def test_a_broken_shard_is_named(store, content):
    path = store.dir / "000003.safetensors"
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(RaigenError, match=r"000003.safetensors: expected a whole shard"):
        ActivationStore(store.dir)


def test_what_is_not_kept_is_named(store):
    with pytest.raises(RaigenError, match=r"step_index: expected one of \(4, 9\), the steps kept; got 0"):
        next(store.step(0))
    with pytest.raises(RaigenError, match="image: expected an index from 0 to 6; got 7"):
        store.images([7], 4)
