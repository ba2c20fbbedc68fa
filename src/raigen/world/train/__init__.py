"""Trains the models of the portraits world from seeds: `python -m raigen.world.train`."""

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

# They warn about image processors that need torchvision, casts to half precision, and shards being written.
for _log in (diffusers_logging, transformers_logging):
    _log.set_verbosity_error()
    _log.disable_progress_bar()
