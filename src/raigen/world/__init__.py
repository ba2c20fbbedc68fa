"""The planted world. `raigen.world.portraits` loads when it is first used."""

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if name == "portraits":
        return import_module("raigen.world.portraits")
    raise AttributeError(f"module 'raigen.world' has no attribute {name!r}")
