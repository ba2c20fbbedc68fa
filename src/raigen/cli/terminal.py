"""Prints texts to the terminal without what would steer it."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from raigen.config import in_a_line, visible
from raigen.runs.files import json_text


def say(text: object) -> None:
    """Prints what is `visible` of a text on stdout."""
    _print(text, sys.stdout)


def say_json(value: object) -> None:
    """Prints a value as one JSON object on stdout, for other programs."""
    say(json_text(plain(value), indent=1))


def plain(value: Any) -> Any:
    """A value as JSON has it: named tuples as objects, other sequences as lists.

    >>> from raigen.runs.records import HookpointCost
    >>> plain({0.05: (HookpointCost("unet.mid_block", (2, 2), 192, 8, True),)})
    {'0.05': [{'path': 'unet.mid_block', 'grid': [2, 2], 'd_in': 192, 'bytes_per_image': 8, 'is_default': True}]}
    """
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    return list(map(plain, value)) if isinstance(value, list | tuple) else value


def warn(text: object) -> None:
    """Prints what is `visible` of a text on stderr."""
    _print(text, sys.stderr)


def cell(text: str) -> str:
    """A text in one line for what rich draws, which reads markup.

    >>> cell("[red]a\\x1b[31m hat\\u202e")
    '\\\\[red]a[31m hat'
    """
    return escape(in_a_line(text))


def _print(text: object, stream: Any) -> None:
    """Prints at once. A character that the encoding of the terminal lacks becomes a question mark."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(visible(str(text)).encode(encoding, "replace").decode(encoding), file=stream, flush=True)
