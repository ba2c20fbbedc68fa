"""Writes docs/commands.md, the reference of the command line, from the commands: python -m raigen.cli.reference."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from textwrap import fill
from typing import Any, get_args, get_type_hints

from raigen.cli.flags import Command, docstrings
from raigen.cli.main import COMMANDS
from raigen.cli.terminal import say

WIDTH = 120
HEAD = """# Commands

This page is generated from the code: `python -m raigen.cli.reference > docs/commands.md`. `raigen COMMAND --help` says
the same. A flag of yes or no is turned off with `--no-`, as in `--no-offline`.
"""


def reference() -> str:
    """The whole page."""
    return HEAD + "".join(section(command) for command in COMMANDS)


def section(command: type[Command]) -> str:
    """A command: what it does, what it takes, and its flags."""
    arguments, rows = [], []
    for row in rows_of(command):
        (rows if row[0].startswith("--") else arguments).append(row)
    usage = " ".join(["raigen", command.__name__.lower(), *(name.upper() for name, _, _ in arguments)])
    lines = [
        f"\n## {command.__name__.lower()}",
        "",
        fill(f"`{usage}`: {(command.__doc__ or '').splitlines()[0]}", WIDTH),
        "",
    ]
    lines += [fill(f"- `{name.upper()}`: {text}", WIDTH, subsequent_indent="  ") for name, _, text in arguments] + (
        [""] if arguments else []
    )
    if rows:
        lines += ["| flag | default | |", "|---|---|---|"]
        lines += [f"| `{name}` | {default} | {text} |" for name, default, text in rows]
    return "\n".join(lines).rstrip() + "\n"


def rows_of(command: type[Command]) -> Iterator[tuple[str, str, str]]:
    """Name, default and help of each argument; the flags of a stage are the fields of its configuration."""
    hints, texts = get_type_hints(command, include_extras=True), docstrings(command)
    for field in fields(command):
        marks = getattr(hints[field.name], "__metadata__", ())
        inner = next((mark.constructor_factory for mark in marks if getattr(mark, "constructor_factory", None)), None)
        if inner is not None:
            helps = ((each, [getattr(mark, "help", None) for mark in get_args(each.type)]) for each in fields(inner()))
            yield from (_row(each, text) for each, found in helps for text in found if text)
        elif any("positional" in repr(mark).lower() for mark in marks):
            yield field.name, "", texts[field.name]
        else:
            yield _row(field, texts[field.name])


def _row(field: Field[Any], text: str) -> tuple[str, str, str]:
    return f"--{field.name.replace('_', '-')}", _default(field.default), text.replace("|", "\\|")


def _default(value: Any) -> str:
    if value is MISSING or value is None or value in ((), ""):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    shown = (
        " ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
    return f"`{shown}`"


if __name__ == "__main__":
    say(reference().rstrip("\n"))
