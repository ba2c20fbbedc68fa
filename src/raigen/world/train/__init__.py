"""Trains the bundled model of the portraits world from seeds: `python -m raigen.world.train`."""
