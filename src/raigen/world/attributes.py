"""The vocabulary of the planted world: which attributes a portrait can have, and the phrase for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from raigen.config.prompts import LISTS, PROFESSIONS

PROMPTS: tuple[str, ...] = LISTS["professions"]  # the bare prompt of each profession


class Value(NamedTuple):
    """One attribute value: its `field` in `Attributes`, its `name` there, its `phrase` in a caption, its `group`."""

    field: str
    name: str
    phrase: str
    group: str


def choices_of(fields: Sequence[str], values: Sequence[Value], plain: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What each field of a record can hold: the names of its values, then its plain one."""
    return {
        field: tuple(value.name for value in values if value.field == field)
        + ((plain[field],) if field in plain else ())
        for field in fields
    }


def check_record(record: object, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises ValueError when a field of a record holds none of its `choices`."""
    for field, names in choices.items():
        if getattr(record, field) not in names:
            raise ValueError(f"{field} is one of {', '.join(names)}; got {getattr(record, field)!r}")


def shown_by(record: object, values: Sequence[Value]) -> tuple[str, ...]:
    """The names of the values that an image with this record shows, in the order of `values`."""
    return tuple(value.name for value in values if getattr(record, value.field) == value.name)


VALUES: tuple[Value, ...] = (
    Value("skin", "very light skin", "very light skin", "demographic"),
    Value("skin", "light skin", "light skin", "demographic"),
    Value("skin", "tan skin", "tan skin", "demographic"),
    Value("skin", "brown skin", "brown skin", "demographic"),
    Value("skin", "dark skin", "dark skin", "demographic"),
    Value("hair_color", "grey hair", "grey hair", "demographic"),
    Value("hair_color", "pink hair", "pink hair", "grooming"),
    Value("hair_color", "black hair", "black hair", "grooming"),
    Value("hair_color", "brown hair", "brown hair", "grooming"),
    Value("hair_color", "blonde hair", "blonde hair", "grooming"),
    Value("hair", "short hair", "short hair", "grooming"),
    Value("hair", "long hair", "long hair", "grooming"),
    Value("hair", "bald", "bald", "grooming"),
    Value("beard", "beard", "with a beard", "grooming"),
    Value("glasses", "glasses", "wearing glasses", "worn"),
    Value("headwear", "headscarf", "wearing a headscarf", "worn"),
    Value("headwear", "turban", "wearing a turban", "worn"),
    Value("mask", "surgical mask", "wearing a surgical mask", "worn"),
    Value("held", "flower", "holding a flower", "held"),
    Value("held", "cat", "holding a cat", "held"),
    Value("held", "book", "holding a book", "held"),
    Value("held", "balloon", "holding a balloon", "held"),
    Value("place", "office", "in an office", "place"),
    Value("place", "field", "in a field", "place"),
    Value("place", "night city", "in a city at night", "place"),
    Value("place", "snow", "in the snow", "place"),
    Value("place", "brick wall", "in front of a brick wall", "place"),
    Value("place", "library", "in a library", "place"),
    Value("composition", "left of frame", "on the left of the frame", "composition"),
    Value("composition", "close-up", "close-up", "composition"),
    Value("style", "black and white", "in black and white", "style"),
    Value("style", "sepia", "in sepia", "style"),
    Value("gesture", "waving", "waving", "gesture"),
    Value("gesture", "arms crossed", "with arms crossed", "gesture"),
)
VALUE_NAMES: tuple[str, ...] = tuple(value.name for value in VALUES)
BY_NAME: dict[str, Value] = {value.name: value for value in VALUES}

# What a field holds when none of its values is shown. A field that is not in this table always shows one of its values.
PLAIN: dict[str, str] = {
    "hair_color": "no hair color",
    "hair": "covered hair",
    "beard": "no beard",
    "glasses": "no glasses",
    "headwear": "no headwear",
    "mask": "no mask",
    "held": "empty hands",
    "composition": "centered",
    "style": "in color",
    "gesture": "no gesture",
}


@dataclass(frozen=True)
class Attributes:
    """Everything that is true of one portrait. Each field holds a name from `VALUES` or its plain one in `PLAIN`.

    >>> Attributes("doctor", glasses="glasses").shown()
    ('light skin', 'brown hair', 'short hair', 'glasses', 'office')
    """

    profession: str
    skin: str = "light skin"
    hair_color: str = "brown hair"
    hair: str = "short hair"
    beard: str = PLAIN["beard"]
    glasses: str = PLAIN["glasses"]
    headwear: str = PLAIN["headwear"]
    mask: str = PLAIN["mask"]
    held: str = PLAIN["held"]
    place: str = "office"
    composition: str = PLAIN["composition"]
    style: str = PLAIN["style"]
    gesture: str = PLAIN["gesture"]

    def __post_init__(self) -> None:
        check_record(self, {"profession": PROFESSIONS, **CHOICES})

    def shown(self) -> tuple[str, ...]:
        """The names of all values that this portrait shows, in the order of `VALUES`."""
        return shown_by(self, VALUES)


FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Attributes) if field.name != "profession")
CHOICES = choices_of(FIELDS, VALUES, PLAIN)
