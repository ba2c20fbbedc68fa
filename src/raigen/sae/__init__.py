"""From activations to a Matryoshka sparse autoencoder, which trains on any vectors, not only on image tokens.

The stage is `train`, in `raigen.sae.train`; `fit`, also there, trains on batches of your own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["interchange", "train"], {"model": ["MatryoshkaSAE"]})
