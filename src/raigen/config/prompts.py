"""The prompts of a study, from built-in lists or from files."""

from pathlib import Path

from raigen.config.text_files import lines_of
from raigen.errors import RaigenError

PROFESSIONS = ("doctor", "nurse", "farmer", "sheriff", "CEO", "hairdresser", "manager", "cleaner", "attendant",
               "assistant")  # fmt: skip


def photo_of(who: str) -> str:
    """The prompt for a photo of one person, with the right article.

    >>> photo_of("doctor"), photo_of("attendant")
    ('a photo of a doctor', 'a photo of an attendant')
    """
    article = "an" if who[0].lower() in "aeiou" else "a"
    return f"a photo of {article} {who}"


LISTS: dict[str, tuple[str, ...]] = {
    "professions": tuple(map(photo_of, PROFESSIONS)),
    "scenes": (
        "a family having breakfast in a kitchen",
        "a child flying a kite on a beach",
        "two people waiting at a bus stop",
        "a bride and a groom in front of a house",
        "a street market on a sunny morning",
        "a classroom full of students",
        "a dog lying on a couch",
        "a football team after a match",
        "a couple cooking dinner together",
        "people dancing at a party",
    ),
}  # fmt: skip


def prompts_of(name: str) -> tuple[str, ...]:
    """The prompts of a built-in list, or of a text file with one prompt a line, without duplicates. Lines that begin
    with # are comments.

    Raises RaigenError when there is neither a list nor a file of this name, or the file has no prompt.

    >>> prompts_of("professions")[8]
    'a photo of an attendant'
    """
    if name in LISTS:
        return LISTS[name]
    path = Path(name)
    if not path.is_file():
        raise RaigenError(f"prompts: expected {', '.join(LISTS)} or a text file with one prompt a line; got {name!r}")
    found = lines_of(path)
    if not found:
        raise RaigenError(f"prompts: expected one prompt a line; {path} has none")
    return tuple(found)
