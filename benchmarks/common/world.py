"""The world that the benchmarks measure, unless they are told another one."""

from raigen.config import PORTRAITS
from raigen.world.worlds import WORLDS

WORLD = WORLDS[PORTRAITS]
