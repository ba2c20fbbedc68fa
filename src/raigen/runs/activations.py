"""What is kept of the activations: shards of safetensors, written once and read as streams."""

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from raigen.errors import RaigenError
from raigen.runs.files import shards_in, write_tensors
from raigen.runs.steps import Tick

NAME = "activations"
MEMORY_BOUND = 2 * 2**30  # bytes of float16 activations that `batches` holds at once


class TokenBatch(NamedTuple):
    """Tokens in random order, each with the index of its image."""

    tokens: Float[Tensor, "token d_in"]
    images: Int[Tensor, " token"]


class Chunk(NamedTuple):
    """Activations of consecutive images at one step; `first` is the index of the first image."""

    first: int
    activations: Float[Tensor, "image token d_in"]


class CapturedBatch(NamedTuple):
    """The activations of a few images as they are generated, and the progress so far. At the start there are none.

    `run` says which of several runs the images belong to, from 0.
    """

    indices: list[int]
    activations: Float[Tensor, "image step token d_in"] | None
    step_indices: tuple[int, ...]
    tick: Tick
    run: int = 0


class _Shard(NamedTuple):
    """The header of one file."""

    path: Path
    first: int
    n_images: int
    layout: "_Layout"


class _Layout(NamedTuple):
    """What all shards of a store share."""

    grid: tuple[int, int]
    step_indices: tuple[int, ...]
    d_in: int


def as_half(
    activations: Float[Tensor, "image step token d_in"], first: int, step_indices: Sequence[int]
) -> Float[Tensor, "image step token d_in"]:
    """The activations as float16. Raises RaigenError, naming image and step, for a number that float16 cannot hold."""
    half = activations.to(torch.float16)
    if not half.isfinite().all():
        image, step, *place = (~half.isfinite()).nonzero()[0].tolist()
        value = activations[image, step, *place].item()
        remedy = "" if math.isfinite(value) else ", or load the model with --dtype float32"
        raise RaigenError(
            f"activations of image {first + image} at step {step_indices[step]}: expected finite numbers of at "
            f"most 65,504 (float16); got {value:.6g}. Choose another hookpoint{remedy}"
        )
    return half


class ActivationStore:
    """The activations of a run: for image, denoising step and position of the grid, a vector of width `d_in`.

    Opening reads headers only. Each shard holds a tensor "activations" [image, step, token, d_in] of float16 and, as
    metadata, the index of its first image, the grid (rows, columns; tokens run along rows) and the steps kept.

    Raises RaigenError when `dir` holds no shards, a broken one, shards that do not agree, or not every image from 0 on.

    >>> from tempfile import mkdtemp
    >>> dir = Path(mkdtemp()) / "activations"
    >>> path = ActivationStore.write(dir, 0, torch.zeros(5, 1, 6, 4), grid=(2, 3), step_indices=(9,))
    >>> store = ActivationStore(dir)
    >>> store.n_images, store.n_steps, store.n_tokens, store.d_in
    (5, 1, 6, 4)
    >>> [batch.tokens.shape[0] for batch in store.batches(16, epochs=1)]
    [15, 15]
    """

    def __init__(self, dir: str | Path):
        self.dir = Path(dir)
        self._remedy = f"Run: raigen capture {self.dir.parent}"
        shards = [self._header(path) for path in shards_in(self.dir)]
        if not shards:
            raise RaigenError(f"{self.dir}: expected activations; found none. {self._remedy}")
        self._shards = sorted(shards, key=lambda shard: shard.first)
        self._check_agreement()
        self._check_cover()
        self.n_images = sum(shard.n_images for shard in shards)
        self.grid, self.step_indices, self.d_in = self._shards[0].layout
        self.n_steps = len(self.step_indices)
        self.n_tokens = self.grid[0] * self.grid[1]

    @staticmethod
    def write(
        dir: str | Path,
        first: int,
        activations: Float[Tensor, "image step token d_in"],
        grid: tuple[int, int],
        step_indices: Sequence[int],
    ) -> Path:
        """Writes the shard of the images from `first` on, as float16; returns its path.

        Raises RaigenError, naming the image and the step, for NaN, infinity or a number float16 cannot hold (above
        65,504), and when `activations` does not fit `grid` and `step_indices`.
        """
        if activations.shape[1] != len(step_indices) or activations.shape[2] != grid[0] * grid[1]:
            raise RaigenError(
                f"activations: expected [image, {len(step_indices)} steps, {grid[0]} x {grid[1]} tokens, d_in]; "
                f"got {list(activations.shape)}"
            )
        half = as_half(activations, first, step_indices)
        path = Path(dir) / f"{first:06d}.safetensors"
        facts = {"first": first, "rows": grid[0], "columns": grid[1], "step_indices": list(step_indices)}
        write_tensors(path, {NAME: half}, {name: json.dumps(fact) for name, fact in facts.items()})
        return path

    def step(self, step_index: int) -> Iterator[Chunk]:
        """All images at one step, shard by shard, as float32; other steps are not read.

        `step_index` is one of `step_indices` (scoring takes the last). Raises RaigenError when it is not.
        """
        place = self._place(step_index)
        for shard in self._shards:
            with safe_open(shard.path, "pt") as file:
                yield Chunk(shard.first, file.get_slice(NAME)[:, place].float())

    def images(self, indices: Sequence[int], step_index: int) -> Float[Tensor, "image token d_in"]:
        """The activations of some images at one step, in the order of `indices`, as float32.

        Raises RaigenError when an image or the step is not in the store.
        """
        place = self._place(step_index)
        found = torch.empty(len(indices), self.n_tokens, self.d_in)
        for row, index in enumerate(indices):
            shard = self._shard_of(index)
            with safe_open(shard.path, "pt") as file:
                found[row] = file.get_slice(NAME)[index - shard.first, place]
        return found

    def batches(
        self,
        tokens_per_batch: int,
        epochs: int,
        generator: torch.Generator | None = None,
        memory_bound: int = MEMORY_BOUND,
        prepared: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[TokenBatch]:
        """Every token once per epoch, as float32, shuffled across images, steps and positions.

        `prepared` maps activations [image, step, token, d_in] to the same shape before they are shuffled. Batches have
        at most `tokens_per_batch` tokens, and their sizes differ by at most one. A store of at most `memory_bound`
        bytes is shuffled as a whole, a larger one in parts of randomly drawn images.
        """
        for _ in range(epochs):
            order = torch.randperm(self.n_images, generator=generator)
            for part in order.tensor_split(self._n_parts(memory_bound)):
                images = part.sort().values
                loaded = self._load(images.tolist())
                tokens = (prepared(loaded) if prepared else loaded).flatten(0, 2)
                shuffled = torch.randperm(len(tokens), generator=generator)
                for rows in shuffled.tensor_split(-(-len(tokens) // tokens_per_batch)):
                    yield TokenBatch(tokens[rows].float(), images[rows // (self.n_steps * self.n_tokens)])

    def n_batches(self, tokens_per_batch: int, epochs: int, memory_bound: int = MEMORY_BOUND) -> int:
        """How many batches `batches` yields."""
        parts = torch.arange(self.n_images).tensor_split(self._n_parts(memory_bound))
        return epochs * sum(-(-len(part) * self.n_steps * self.n_tokens // tokens_per_batch) for part in parts)

    def _n_parts(self, memory_bound: int) -> int:
        bytes_per_image = self.n_steps * self.n_tokens * self.d_in * 2
        return min(self.n_images, -(-self.n_images * bytes_per_image // memory_bound))

    def first_shard(self) -> Float[Tensor, "image step token d_in"]:
        """The activations of the images in the first shard, float16."""
        return self._load(list(range(self._shards[0].n_images)))

    def _load(self, images: list[int]) -> Float[Tensor, "image step token d_in"]:
        """All activations of some images (rising indices), float16."""
        tokens = torch.empty(len(images), self.n_steps, self.n_tokens, self.d_in, dtype=torch.float16)
        for shard in self._shards:
            start, end = (bisect_right(images, shard.first + offset - 1) for offset in (0, shard.n_images))
            with safe_open(shard.path, "pt") as file:
                if end - start == shard.n_images:
                    tokens[start:end] = file.get_tensor(NAME)
                else:
                    for row in range(start, end):
                        tokens[row] = file.get_slice(NAME)[images[row] - shard.first]
        return tokens

    def _place(self, step_index: int) -> int:
        if step_index not in self.step_indices:
            raise RaigenError(f"step_index: expected one of {self.step_indices}, the steps kept; got {step_index}")
        return self.step_indices.index(step_index)

    def _shard_of(self, index: int) -> _Shard:
        if not 0 <= index < self.n_images:
            raise RaigenError(f"image: expected an index from 0 to {self.n_images - 1}; got {index}")
        return self._shards[bisect_right([shard.first for shard in self._shards], index) - 1]

    def _header(self, path: Path) -> _Shard:
        try:
            with safe_open(path, "pt") as file:
                facts: dict[str, Any] = {name: json.loads(fact) for name, fact in file.metadata().items()}
                n_images, _, _, d_in = file.get_slice(NAME).get_shape()
            layout = _Layout((facts["rows"], facts["columns"]), tuple(facts["step_indices"]), d_in)
            return _Shard(path, facts["first"], n_images, layout)
        except (SafetensorError, AttributeError, KeyError, ValueError) as error:
            raise RaigenError(
                f"{path}: expected a whole shard of activations; it is broken ({error!r}). Delete it. {self._remedy}"
            ) from error

    def _check_agreement(self) -> None:
        for shard in self._shards:
            if shard.layout != self._shards[0].layout:
                raise RaigenError(
                    f"{shard.path}: expected the grid, steps and width of {self._shards[0].path.name}, "
                    f"{self._shards[0].layout}; got {shard.layout}. Delete it. {self._remedy}"
                )

    def _check_cover(self) -> None:
        expected = 0
        for shard in self._shards:
            if shard.first > expected:
                raise RaigenError(
                    f"{self.dir}: the activations of images {expected} to {shard.first - 1} are missing. {self._remedy}"
                )
            if shard.first < expected:
                last = min(expected, shard.first + shard.n_images) - 1
                raise RaigenError(
                    f"{shard.path}: images {shard.first} to {last} are in another shard too. Delete it. {self._remedy}"
                )
            expected += shard.n_images
