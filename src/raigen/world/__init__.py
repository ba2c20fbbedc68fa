"""The planted worlds. `raigen.world.portraits` and `raigen.world.worlds` load when they are first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["portraits", "worlds"])
