"""A batch grows while an image gets cheaper and fits, shrinks where it does not fit, and no image is lost.

No GPU is at hand: what torch says of its memory, and the clock, are stood in for.
"""

import numpy as np
import pytest
import torch

from raigen.config import AmplifyConfig, AuditConfig, CaptureConfig, SearchConfig
from raigen.diffusion.batches import BatchSize, MemoryLimitError, batch_size_of, memory_told
from raigen.diffusion.capture import capture, capture_batches
from raigen.diffusion.generation import Settings, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore
from raigen.runs.run import Run
from tests.support.tiny import drained

PROMPT, GPU = "a b", torch.device("cuda")
WEIGHTS, TOTAL, OTHERS = 20, 100, 5  # of a GPU's memory; the others are another process


class Gpu:
    """A stand-in for a GPU: an image takes `per_image` of its memory, and `seconds(n)` in a batch of n."""

    def __init__(self, monkeypatch, per_image: float = 1, seconds=lambda n: 1 / n, refuses=()):
        self.per_image, self.seconds, self.refuses = per_image, seconds, refuses
        self.now, self.most, self.sizes = 0.0, 0.0, []
        cuda = {"mem_get_info": lambda device: (TOTAL - OTHERS - self.reserved, TOTAL),
                "memory_allocated": lambda device: WEIGHTS, "memory_reserved": lambda device: self.reserved,
                "max_memory_allocated": lambda device: self.most, "empty_cache": lambda: None,
                "reset_peak_memory_stats": lambda device: setattr(self, "most", WEIGHTS)}  # fmt: skip
        for name, stand_in in cuda.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr("raigen.diffusion.batches.time.perf_counter", lambda: self.now)

    @property
    def reserved(self) -> float:
        return max(WEIGHTS, self.most) + 3  # torch keeps more ready than it uses

    def make(self, items):
        needed = WEIGHTS + len(items) * self.per_image
        if needed + OTHERS > TOTAL or len(items) in self.refuses:
            raise MemoryLimitError("too many")
        self.most, self.now = max(self.most, needed), self.now + self.seconds(len(items)) * len(items)
        self.sizes.append(len(items))
        return [item * 10 for item in items]


def made(gpu: Gpu, sizes: BatchSize, n: int) -> list[int]:
    found = list(sizes.made(range(n), gpu.make))
    assert [item for batch, _ in found for item in batch] == list(range(n))
    assert [value for _, values in found for value in values] == [item * 10 for item in range(n)]
    return [len(batch) for batch, _ in found]


def test_it_doubles_until_twice_as_many_would_fill_the_memory(monkeypatch):
    # 25 in use before; 32 images would be 25 + 2 * 32 > 80.
    gpu = Gpu(monkeypatch, per_image=1)
    assert made(gpu, BatchSize("auto", GPU), 100) == [4, 8, 16, 32, 32, 8]
    gpu = Gpu(monkeypatch, per_image=4)
    assert made(gpu, BatchSize("auto", GPU), 30) == [4, 8, 8, 8, 2]


def test_it_goes_back_where_an_image_gets_no_cheaper(monkeypatch):
    gpu = Gpu(monkeypatch, per_image=0.1, seconds=lambda n: 1.0 if n < 8 else 0.8 if n == 8 else 0.78)
    assert made(gpu, BatchSize("auto", GPU), 60) == [4, 8, 16, 8, 8, 8, 8]


def test_it_halves_where_the_memory_does_not_suffice_and_loses_no_image(monkeypatch):
    gpu = Gpu(monkeypatch, per_image=0.1, refuses=(16, 8))
    assert made(gpu, BatchSize("auto", GPU), 30) == [4, 8 // 2, 4, 4, 4, 4, 4, 2]
    gpu = Gpu(monkeypatch, per_image=70)
    assert made(gpu, BatchSize("auto", GPU), 3) == [1, 1, 1]
    gpu = Gpu(monkeypatch, per_image=80)
    with pytest.raises(MemoryLimitError):
        made(gpu, BatchSize("auto", GPU), 3)


def test_a_number_is_taken_at_its_word(monkeypatch):
    gpu = Gpu(monkeypatch, per_image=1)
    assert made(gpu, BatchSize(10, GPU), 25) == [10, 10, 5]
    with pytest.raises(MemoryLimitError):
        made(gpu, BatchSize(90, GPU), 90)


def test_on_a_cpu_it_is_sixteen_and_halves_too():
    assert (BatchSize("auto", torch.device("cpu")).size, str(BatchSize("auto", torch.device("cpu")))) == (
        16,
        "16 at once",
    )
    assert str(BatchSize("auto", GPU)) == "4 at once, more if that makes an image cheaper"

    def make(items):
        if len(items) > 4:
            raise MemoryLimitError("too many")
        return items

    assert [len(batch) for batch, _ in BatchSize("auto", torch.device("cpu")).made(range(16), make)] == [4] * 4


def test_auto_is_the_default_everywhere_and_other_texts_are_refused():
    assert AuditConfig.of(PROMPT).capture.batch_size == SearchConfig().batch_size == "auto"
    assert AmplifyConfig(attribute=(1,)).batch_size == CaptureConfig(PROMPT).batch_size == "auto"
    for config in (CaptureConfig, lambda prompt, **o: AmplifyConfig(attribute=(1,), **o), SearchConfig):
        with pytest.raises(RaigenError, match="batch_size: expected 1 or more; got 0"):
            config(prompt=PROMPT, batch_size=0)


def test_what_was_found_holds_for_all_images_of_a_pipeline(sd_folder):
    pipe, settings = load_pipeline(str(sd_folder), "cpu"), Settings(2, 2.0, 16, 16)
    assert batch_size_of(pipe, settings, "auto") is batch_size_of(pipe, settings, "auto")
    assert batch_size_of(pipe, settings, 4).size == 4
    batch_size_of(pipe, settings, "auto").size = 3
    assert [len(images) for images in generate_images(pipe, PROMPT, range(7), settings, "auto")] == [3, 3, 1]


def full_beyond(pipe, monkeypatch, most: int, n_fitting: int = 0) -> None:
    """Lets the denoiser run out of memory for more than `most` images, after `n_fitting` of its calls for as many."""
    forward, calls = pipe.unet.forward, []

    def limited(sample, *args, **kwargs):
        calls.extend([1] if len(sample) > 2 * most else [])
        if len(sample) > 2 * most and len(calls) > n_fitting:
            raise torch.OutOfMemoryError("2 GiB wanted")
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(pipe.unet, "forward", limited)


def test_a_capture_that_runs_out_of_memory_goes_on_with_the_same_images(sd_folder, tmp_path, monkeypatch):
    config = CaptureConfig(PROMPT, str(sd_folder), n_images=50, store=True, device="cpu")
    whole = Run.create(tmp_path / "whole")
    drained(capture(whole, config))
    pipe = load_pipeline(str(sd_folder), "cpu")
    full_beyond(pipe, monkeypatch, 5, n_fitting=4)  # a batch of sixteen, and a step of the next one
    run = Run.create(tmp_path / "run")
    ticks, _ = drained(capture_batches(run, config, pipe=pipe))
    assert [len(part.indices) for part in ticks] == [0, 16, *[4] * 8, 2]
    found, expected = (
        np.stack([np.asarray(each.read_image(sample)).astype(int) for sample in each.samples()])
        for each in (run, whole)
    )
    assert len(found) == 50 and abs(found - expected).max() <= 1
    stored, known = (ActivationStore(each.activations_dir).images(range(50), 2) for each in (run, whole))
    assert (stored - known).abs().max() < 2e-3 * known.abs().max()


def test_too_little_memory_for_one_image_or_a_given_number_is_an_error(sd_folder, monkeypatch):
    pipe, settings = load_pipeline(str(sd_folder), "cpu"), Settings(2, 2.0, 16, 16)
    full_beyond(pipe, monkeypatch, 0)
    with pytest.raises(MemoryLimitError, match=r"1 images at once do not fit .* give a smaller height and width"):
        list(generate_images(pipe, PROMPT, range(3), settings, "auto"))
    with pytest.raises(MemoryLimitError, match=r"3 images at once do not fit .* give a smaller batch_size"):
        list(generate_images(pipe, PROMPT, range(3), settings, 3))
    with pytest.raises(RuntimeError, match="another"), memory_told(pipe, 2):
        raise RuntimeError("another")
