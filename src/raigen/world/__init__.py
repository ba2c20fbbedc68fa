"""The planted world. `raigen.world.portraits` loads when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["portraits"])
