"""The planted world `portraits`: its planted rates, its drawings and its judge."""

from raigen.world.attributes import PROMPTS, VALUE_NAMES, Attributes
from raigen.world.draw import draw
from raigen.world.judge import Judgment, judge
from raigen.world.planted import control_values, rare_values, rates, sample_attributes

__all__ = [
    "PROMPTS",
    "VALUE_NAMES",
    "Attributes",
    "Judgment",
    "control_values",
    "draw",
    "judge",
    "rare_values",
    "rates",
    "sample_attributes",
]
