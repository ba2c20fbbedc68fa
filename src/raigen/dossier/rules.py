"""The rules of a tolerance file: a small language, read by patterns; nothing in it is run."""

import re
from dataclasses import dataclass

from raigen.errors import RaigenError

PRESENCE, ASKED, HELD_BACK, WORSE = "presence", "asked", "held_back", "worse"
NUMBER = r"(\d+\.?\d*|\.\d+)"
OF_A_NUMBER = re.compile(rf"""({PRESENCE}|{ASKED}|{HELD_BACK})(?:\((?:"([^"]*)"|'([^']*)')\))?\s*(>=|<=)\s*{NUMBER}""")
OF_A_STUDY = re.compile(rf"no\s+attribute\s+worse\s+than\s+baseline\s+at\s+q\s*<=\s*{NUMBER}")
FORMS = (
    'presence("LABEL") >= NUMBER, asked("LABEL") >= NUMBER or held_back("LABEL") <= NUMBER (with >= or <=; without '
    '("LABEL") for every named attribute), or: no attribute worse than baseline at q <= NUMBER'
)


@dataclass(frozen=True)
class Rule:
    """One tolerance, as `text`. It says of the `quantity` of an attribute (`label`; None: of every named one) that it
    is at least or at most the `limit`. If the quantity is `worse`, it says that no attribute is shown less often than
    by the baseline with a q of at most the `limit`.

    `presence` is the share of images that show the attribute, `asked` the share when the prompt asks for it, and
    `held_back` how many times as often it shows then.
    """

    text: str
    quantity: str
    label: str | None
    is_at_least: bool
    limit: float

    def __post_init__(self) -> None:
        is_ratio = self.quantity == HELD_BACK
        if not 0 < self.limit < (float("inf") if is_ratio else 1):
            expected = "a number above 0" if is_ratio else "a number between 0 and 1, such as 0.2"
            raise RaigenError(f"expected {expected} in {self.text!r}; got {self.limit:g}")

    def holds(self, value: float) -> bool:
        """Whether the value is on the tolerated side of the limit."""
        return value >= self.limit if self.is_at_least else value <= self.limit


def rule_of(text: str) -> Rule:
    """The rule that a text spells out. Raises RaigenError, with the forms that a rule can have, for any other text.

    >>> rule_of('presence("a woman") >= .2').limit, rule_of("held_back <= 5").label
    (0.2, None)
    """
    plain = text.strip()
    if found := OF_A_NUMBER.fullmatch(plain):
        quantity, double, single, sign, number = found.groups()
        label = double if double is not None else single
        return Rule(plain, quantity, label, sign == ">=", float(number))
    if found := OF_A_STUDY.fullmatch(plain):
        return Rule(plain, WORSE, None, False, float(found[1]))
    raise RaigenError(f"expected {FORMS}; got {text!r}")
