"""Which device a run computes on."""

import re

import torch

from raigen.errors import RaigenError


def resolve_device(device: str) -> torch.device:
    """The device of this name; `auto` is the first GPU where there is one, else the CPU.

    Raises RaigenError for any other name, and for a device that this machine does not have.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if n_gpus else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise RaigenError(f"device: expected auto, cpu, cuda or cuda:N; got {device!r}")
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= n_gpus:
        raise RaigenError(f"device: {device!r} was requested, but torch sees {n_gpus} GPUs here; use auto or cpu")
    return found
