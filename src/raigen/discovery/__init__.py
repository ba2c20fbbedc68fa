"""From an autoencoder to the listed neurons: neurons whose images are alike, and unlike most other images.

The stage is `discover`, in `raigen.discovery.discover`; `scores` ranks the neurons of any dictionary.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["scores"])
