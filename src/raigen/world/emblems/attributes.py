"""The vocabulary of the world `emblems`: which attributes an image can have, and the phrase for each."""

from dataclasses import dataclass, fields

from raigen.world.attributes import Value, check_record, choices_of, shown_by

PROFESSIONS = ("teacher", "judge", "mechanic", "scientist", "singer", "artist", "pilot", "detective", "student",
               "office worker")  # fmt: skip
COLORS = ("blue", "cream", "gray", "mint", "pink", "orange", "red", "navy")
COMPANIONS = ("cat", "sunflower", "ball", "umbrella", "apple", "heart", "fish", "snowman")
SKINS = ("yellow", "light", "medium-light", "medium", "medium-dark", "dark")
HANDS = ("noto", "twemoji", "fluent")
GENDERS = ("woman", "man", "person")


def prompt_of(who: str) -> str:
    """The bare prompt for one profession.

    >>> prompt_of("teacher"), prompt_of("office worker")
    ('a teacher', 'an office worker')
    """
    return f"{'an' if who[0] in 'aeiou' else 'a'} {who}"


PROMPTS = tuple(map(prompt_of, PROFESSIONS))
VALUES: tuple[Value, ...] = (
    *(Value("gender", name, f"a {name}", "demographic") for name in GENDERS),
    *(Value("skin", f"{name} skin", f"{name} skin", "demographic") for name in SKINS),
    *(Value("hand", name, f"drawn by {name}", "style") for name in HANDS),
    *(Value("background", f"{name} background", f"on a {name} background", "place") for name in COLORS),
    *(Value("companion", name, f"with {'an' if name[0] in 'au' else 'a'} {name}", "held") for name in COMPANIONS),
    Value("frame", "left of frame", "on the left of the frame", "composition"),
    Value("frame", "close-up", "close-up", "composition"),
    Value("frame", "tilted", "tilted", "composition"),
    Value("style", "black and white", "in black and white", "style"),
)
VALUE_NAMES: tuple[str, ...] = tuple(value.name for value in VALUES)
BY_NAME: dict[str, Value] = {value.name: value for value in VALUES}

# What a field holds when none of its values is shown. In black and white, neither skin nor background can be read.
PLAIN: dict[str, str] = {
    "skin": "no skin color",
    "background": "no background color",
    "companion": "no companion",
    "frame": "centered",
    "style": "in color",
}


@dataclass(frozen=True)
class Attributes:
    """Everything that is true of one image. Each field holds a name from `VALUES` or its plain one in `PLAIN`.

    >>> Attributes("judge", companion="cat").shown()
    ('person', 'yellow skin', 'noto', 'blue background', 'cat')
    """

    profession: str
    gender: str = "person"
    skin: str = "yellow skin"
    hand: str = "noto"
    background: str = "blue background"
    companion: str = PLAIN["companion"]
    frame: str = PLAIN["frame"]
    style: str = PLAIN["style"]

    def __post_init__(self) -> None:
        check_record(self, {"profession": PROFESSIONS, **CHOICES})

    def shown(self) -> tuple[str, ...]:
        """The names of all values that this image shows, in the order of `VALUES`."""
        return shown_by(self, VALUES)


FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Attributes) if field.name != "profession")
CHOICES = choices_of(FIELDS, VALUES, PLAIN)
