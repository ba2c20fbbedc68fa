"""The world `emblems`: people of three sets of emoji, which nobody drew for raigen.

`raigen.world.worlds.WORLDS["emblems"]` draws, samples and judges it. `LICENSES.md` says whose art `pool.webp` holds.
"""
