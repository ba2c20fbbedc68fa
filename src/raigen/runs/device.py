"""Which device a run computes on."""

import os
import re

import torch

from raigen.errors import RaigenError


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
