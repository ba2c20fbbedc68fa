"""Reads the text files that people and other programs write: one door, one kind of error for whatever comes."""

import csv
import io
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raigen.errors import RaigenError

LARGEST = 256  # MB
LONGEST = 10_000  # characters of a prompt
LONGEST_LABEL = 300  # characters of a label or a phrase
MOST_LINES = 20_000  # of prompts, labels or phrases
# What a terminal takes for a command, what turns the direction of a line, and what has no width: Unicode's controls,
# Bidi_Control and Default_Ignorable_Code_Point, but for variation selectors and joiners.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
# Joiners beside ASCII. Between other letters they belong to the spelling: of Persian, Hindi and emoji, say.
LONE_JOINERS = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")
HALF = re.compile("[\ud800-\udfff]")  # half a character: what a broken byte, or a broken escape in JSON, becomes


def text_of(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark; line ends of all systems become `\\n`.

    Raises RaigenError when the file is missing, larger than `LARGEST`, or no text in UTF-8.
    """
    try:
        if (size := path.stat().st_size) > LARGEST * 10**6:
            raise RaigenError(f"{path}: expected a text of at most {LARGEST} MB; it has {size / 1e6:,.0f} MB")
        data = path.read_bytes()
    except OSError as error:
        raise RaigenError(f"{path}: expected a text file; {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RaigenError(f"{path}: expected a text in UTF-8; line {line} is in another encoding. Save the file as "
                          "UTF-8") from error  # fmt: skip
    if "\0" in text:
        raise RaigenError(f"{path}: expected a text in UTF-8; it has null characters, so it is in another encoding, or "
                          "is not a text. Save it as UTF-8")  # fmt: skip
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(path: Path, longest: int = LONGEST) -> list[str]:
    """The lines of a text file, without duplicates, empty lines and comments (lines that begin with #).

    Raises RaigenError as `text_of` does, for a line of more than `longest` characters, and for more than `MOST_LINES`.
    """
    lines = [line.strip() for line in text_of(path).split("\n")]
    for number, line in enumerate(lines, 1):
        if len(line) > longest:
            raise RaigenError(f"{path}: expected lines of at most {longest:,} characters; line {number} has "
                              f"{len(line):,}")  # fmt: skip
    if len(lines) > MOST_LINES:
        raise RaigenError(f"{path}: expected at most {MOST_LINES:,} lines; it has {len(lines):,}")
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def labels_of(path: Path) -> list[str]:
    """The labels or phrases in a text file, one a line, as `in_a_line` shows them. Raises RaigenError as `lines_of`."""
    return list(dict.fromkeys(filter(None, map(in_a_line, lines_of(path, LONGEST_LABEL)))))


def visible(text: str) -> str:
    """A text as it may be shown to people: without the characters of `UNSEEN` and `LONE_JOINERS`. Tabs and line breaks
    stay. Half a character becomes the sign for what cannot be read.

    >>> visible("a\\x1b[31m hat\\u202e"), visible("zero\\u200bwidth")
    ('a[31m hat', 'zerowidth')
    """
    return HALF.sub("\N{REPLACEMENT CHARACTER}", LONE_JOINERS.sub("", UNSEEN.sub("", text)))


def in_a_line(text: str) -> str:
    """A text from a person, a model or a server in one line, as it may be shown to people.

    >>> in_a_line("a \\x1b[31mred\\n hat")
    'a [31mred hat'
    """
    return " ".join(visible(" ".join(text.split())).split())


def json_of(path: Path) -> Any:
    """What a JSON file holds. Raises RaigenError as `text_of` does, and where the text is no JSON."""
    return parsed(text_of(path), str(path))


def parsed(text: str, source: str, remedy: str = "") -> Any:
    """What a JSON text holds. Raises RaigenError, with the `source`, the place and the `remedy`, where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else f"it is broken ({error})"
        raise RaigenError(f"{source}: expected whole JSON; {why}. {remedy}".rstrip(" .")) from error


def object_of(path: Path, *keys: str) -> dict[str, Any]:
    """The object in a JSON file. Raises RaigenError as `json_of` does, and unless it has all `keys`."""
    found = json_of(path)
    if not isinstance(found, dict) or not found.keys() >= set(keys):
        has = f"the keys {', '.join(found) or 'none'}" if isinstance(found, dict) else type(found).__name__
        raise RaigenError(f"{path}: expected a JSON object{' with ' if keys else ''}{', '.join(keys)}; found {has}")
    return found


def rows_of(path: Path, columns: Collection[str], one_of: Collection[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, by column, each with the number of its line.

    Raises RaigenError as `text_of` does, where one of `columns` or each of `one_of` is missing or there twice, and
    where a row cannot be read or has more cells than there are columns.
    """
    rows = csv.DictReader(io.StringIO(text_of(path)))
    try:
        found = [name.strip() for name in rows.fieldnames or ()]
        _check_columns(path, found, columns, one_of)
        rows.fieldnames = found
        for row in rows:
            more = row.pop(None, ())  # type: ignore[call-overload]  # the cells beyond the columns
            if any(more):  # empty ones are the commas of a spreadsheet
                n_cells = len(found) + len(more)
                raise RaigenError(f"{path}: expected {len(found)} cells in line {rows.line_num}; it has {n_cells}. A "
                                  "text with commas needs quotes around it")  # fmt: skip
            yield rows.line_num, {name: value or "" for name, value in row.items()}
    except csv.Error as error:
        raise RaigenError(
            f"{path}: expected a table in CSV; line {rows.line_num + 1} cannot be read ({error})"
        ) from error


def _check_columns(path: Path, found: list[str], columns: Collection[str], one_of: Collection[str]) -> None:
    missing = [name for name in columns if name not in found]
    if one_of and not set(one_of) & set(found):
        missing.append(" or ".join(one_of))
    if missing:
        wanted = ", ".join([*columns, *([" or ".join(one_of)] if one_of else [])])
        raise RaigenError(f"{path}: expected the columns {wanted}, with commas between them; {missing[0]} is missing, "
                          f"found {', '.join(found)[:200] or 'none'}")  # fmt: skip
    twice = [name for name in (*columns, *one_of) if found.count(name) > 1]
    if twice:
        raise RaigenError(f"{path}: expected one column {twice[0]}; it has {found.count(twice[0])}")


@contextmanager
def shaped(source: object, expected: str, remedy: str = "") -> Iterator[None]:
    """Raises RaigenError where what was read has another shape than the code inside needs: keys that are missing or
    unknown, values of another type."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        if isinstance(error, RaigenError):
            raise
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise RaigenError(f"{source}: expected {expected}; {why}. {remedy}".rstrip(" .")) from error
