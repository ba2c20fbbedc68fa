"""From activations to a Matryoshka sparse autoencoder. It trains on any vectors, not only on those of images.

The stage is `train`, in `raigen.sae.train`, beside `fit`, which trains on batches of your own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["interchange", "train"], {"model": ["MatryoshkaSAE"]})
