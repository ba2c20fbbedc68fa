"""Finds the attributes that a text-to-image model knows but hardly ever shows.

Names load when they are first used, so that `import raigen` is quick and loads neither torch nor diffusers.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raigen import interchange, scores, train, world
    from raigen.amplify import amplify
    from raigen.audit import audit
    from raigen.compare import compare
    from raigen.config import SAEConfig
    from raigen.errors import RaigenError
    from raigen.records import RareAttribute
    from raigen.run import Run
    from raigen.sae import MatryoshkaSAE
    from raigen.steering import steering
    from raigen.study import Study

    __version__: str

__all__ = [
    "MatryoshkaSAE",
    "RaigenError",
    "RareAttribute",
    "Run",
    "SAEConfig",
    "Study",
    "__version__",
    "amplify",
    "audit",
    "compare",
    "interchange",
    "scores",
    "steering",
    "train",
    "world",
]

_HOMES = {
    "MatryoshkaSAE": "raigen.sae",
    "RaigenError": "raigen.errors",
    "RareAttribute": "raigen.records",
    "Run": "raigen.run",
    "SAEConfig": "raigen.config",
    "Study": "raigen.study",
    "amplify": "raigen.amplify",
    "audit": "raigen.audit",
    "compare": "raigen.compare",
    "steering": "raigen.steering",
}
_MODULES = {
    "interchange": "raigen.interchange",
    "scores": "raigen.scores",
    "train": "raigen.train",
    "world": "raigen.world",
}


class _Package(ModuleType):
    """Keeps `raigen.amplify`, `raigen.audit`, `raigen.compare` and `raigen.steering` the functions: importing the
    modules of these names would put the modules in their place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("amplify", "audit", "compare", "steering") and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("raigen")
    if name in _MODULES:
        import_module(_MODULES[name])
        return sys.modules[f"raigen.{name}"]
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'raigen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
