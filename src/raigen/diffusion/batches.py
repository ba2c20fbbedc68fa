"""How many images are made at once: a given number, or as many as make an image cheapest and fit into the memory."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar
from weakref import WeakKeyDictionary

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.config.fields import AUTO
from raigen.errors import RaigenError
from raigen.runs.device import gpu_memory

T = TypeVar("T")
Made = TypeVar("Made")
ON_CPU = 16
FIRST_ON_GPU = 4
FULL = 0.8  # the share of a GPU's memory that twice as many images may need
CHEAPER = 0.95  # of the seconds an image takes, at most, for which twice as many are worth their memory


class MemoryLimitError(RaigenError):
    """The memory does not suffice for this many images at once."""


class BatchSize:
    """How many images to make at once.

    `auto` is 16 on a CPU. On a GPU it begins with 4 and doubles after each full batch, as long as an image gets cheaper
    by 5 % or more and twice as many are expected to fill at most 80 % of the memory. If the memory does not suffice,
    `auto` halves, and no longer grows.
    """

    def __init__(self, asked: int | Literal["auto"], device: torch.device):
        self.device, self.is_auto = device, asked == AUTO
        self.grows = asked == AUTO and device.type == "cuda"
        self.size = (FIRST_ON_GPU if self.grows else ON_CPU) if asked == AUTO else asked
        self._seconds = math.inf  # an image took, with half as many

    def __str__(self) -> str:
        return f"{self.size} at once" + (", more if that makes an image cheaper" if self.grows else "")

    def made(self, items: Sequence[T], make: Callable[[Sequence[T]], Made]) -> Iterator[tuple[Sequence[T], Made]]:
        """Calls `make` for all items in their order, some at a time; yields these items and what was made of them.

        Where they are too many for the memory, and the size is `auto`, it calls `make` again for fewer.
        """
        start = 0
        while start < len(items):
            batch = items[start : start + self.size]
            done = self._tried(batch, make)
            if done:  # else the same items come again, fewer at a time
                start += len(batch)
                yield batch, done[0]

    def _tried(self, batch: Sequence[T], make: Callable[[Sequence[T]], Made]) -> tuple[Made] | None:
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        before = gpu_memory(self.device).in_use if self.grows else 0
        started = time.perf_counter()
        try:
            made = make(batch)
        except MemoryLimitError:
            if not self.is_auto or len(batch) == 1:
                raise
            self.size, self.grows = len(batch) // 2, False
        else:
            self._learn(len(batch), time.perf_counter() - started, before)
            return (made,)
        if on_gpu:  # after the error is gone, which kept tensors
            torch.cuda.empty_cache()
        return None

    def _learn(self, n: int, seconds: float, before: int) -> None:
        if not self.grows or n < self.size:
            return
        memory = gpu_memory(self.device)
        if seconds / n > CHEAPER * self._seconds:
            self.size, self.grows = max(1, n // 2), False
        elif before + 2 * (memory.most - before) > FULL * memory.total:
            self.grows = False
        else:
            self.size, self._seconds = 2 * n, seconds / n


# What was found for a pipeline, so that it is found once for all images of a run.
_sizes: WeakKeyDictionary[DiffusionPipeline, dict[Hashable, BatchSize]] = WeakKeyDictionary()


def batch_size_of(pipe: DiffusionPipeline, settings: Hashable, asked: int | Literal["auto"]) -> BatchSize:
    """The batch size for images that a pipeline makes with these settings."""
    return _sizes.setdefault(pipe, {}).setdefault((settings, asked), BatchSize(asked, pipe._execution_device))


@contextmanager
def memory_told(pipe: DiffusionPipeline, n_images: int) -> Iterator[None]:
    """Raises MemoryLimitError, which says what to lower, if the memory does not suffice. (On a CPU, torch raises a
    plain RuntimeError.)"""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
            raise
        remedy = "a smaller batch_size" if n_images > 1 else "a smaller height and width, tiling or offload='model'"
        raise MemoryLimitError(f"{n_images} images at once do not fit into the memory of {pipe.device}; give {remedy}. "
                               f"({error})") from error  # fmt: skip
