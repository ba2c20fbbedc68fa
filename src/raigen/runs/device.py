"""Which device a run computes on."""

import os
import re
from pathlib import Path
from typing import NamedTuple

import torch

from raigen.errors import RaigenError


class GpuMemory(NamedTuple):
    """Bytes of a GPU: in use now by all processes, in use at most since the peak was last reset, and all of them. What
    torch only keeps ready is not in use."""

    in_use: int
    most: int
    total: int


def gpu_memory(device: torch.device) -> GpuMemory:
    """How much of a GPU's memory is in use."""
    free, total = torch.cuda.mem_get_info(device)
    ours = torch.cuda.memory_allocated(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return GpuMemory(others + ours, others + torch.cuda.max_memory_allocated(device), total)


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device, with what the system could free at once."""
    if device.type == "cuda":
        memory = gpu_memory(device)
        return memory.total - memory.in_use
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").split("\n")
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not on Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpus_for(device: str) -> list[str]:
    """The GPUs that several processes can share out among them, as CUDA_VISIBLE_DEVICES names them; none if the runs
    name another device than `auto` or `cuda`."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    named = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip()]
    return named or [str(gpu) for gpu in range(torch.cuda.device_count())]


def resolve_device(device: str) -> torch.device:
    """The device of this name; `auto` is the first GPU where there is one, else the CPU.

    Raises RaigenError for any other name, and for a device that this machine does not have.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if n_gpus else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device):
        raise RaigenError(f"device: expected auto, cpu, cuda or cuda:N; got {device!r}")
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= n_gpus:
        raise RaigenError(f"device: {device!r} was requested, but torch sees {n_gpus} GPUs here; use auto or cpu")
    return found
