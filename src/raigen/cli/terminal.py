"""Prints texts to the terminal without what would steer it."""

import sys
from typing import Any

from rich.markup import escape

from raigen.config import in_a_line, visible


def say(text: object) -> None:
    """Prints what is `visible` of a text on stdout."""
    _print(text, sys.stdout)


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
