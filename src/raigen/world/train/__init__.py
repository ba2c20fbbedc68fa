"""Trains the models of the portraits world from seeds: `python -m raigen.world.train`."""

from transformers.utils import logging

logging.set_verbosity_error()  # it warns of image processors that need torchvision, which nothing here does
