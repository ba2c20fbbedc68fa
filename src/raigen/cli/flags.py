"""Reads the command line: a command is a dataclass, its fields are flags, and their docstrings are the help."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from functools import cache
from typing import Annotated, Any, Union, get_args

import docstring_parser
import tyro
from tyro.conf import (
    DisallowNone,
    OmitArgPrefixes,
    OmitSubcommandPrefixes,
    PositionalMetavarFromFieldName,
    Suppress,
)
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

DESCRIPTION = "Finds the attributes that a text-to-image model knows but hardly ever shows."
NAMES_ITS_DEFAULT = tyro.conf.arg(help_behavior_hint="")  # of a flag whose docstring ends in the default
MARKERS = (OmitArgPrefixes, OmitSubcommandPrefixes, DisallowNone, PositionalMetavarFromFieldName)
REGISTRY = ConstructorRegistry()


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the terminal. Its name is the name of the class, and its description the docstring."""

    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        """For each stage, the values of the flags that are left out, where they are not the defaults."""
        return {}

    def execute(self) -> int | None:
        """Runs the command and prints the result. Returns the exit status if it is not 0."""
        raise NotImplementedError


def parse(args: Sequence[str], commands: Sequence[type[Command]]) -> Any:
    """The one of `commands` that `args` spell out. Prints a message and exits with status 2 if there is none."""
    union: Any = Union[tuple(commands)]  # noqa: UP007
    command = _read(union, args)
    recorded = command.recorded()
    if recorded:  # read once more, so that a flag that is left out has its recorded value
        parts = {stage: type(getattr(command, stage))(**values) for stage, values in recorded.items()}
        command = _read(type(command), args[1:], default=replace(command, **parts))
    return command


def _read(kind: Any, args: Sequence[str], **default: Any) -> Any:
    with REGISTRY:
        return tyro.cli(kind, prog="raigen", description=DESCRIPTION, args=args, config=MARKERS, **default)


def flags(config: type, *hidden: str) -> Any:
    """Annotates a field of a command: the fields of this configuration are flags, except for the `hidden` ones.

    The values that are read are not checked yet: `config(**vars(read))` does that, with errors in raigen's words.
    """
    texts, parts = docstrings(config), []
    for each in fields(config):
        kind = Annotated[each.type, tyro.conf.arg(help=texts[each.name])] if each.name not in hidden else Suppress[Any]
        parts.append((each.name, kind, field(default="" if each.default is MISSING else each.default)))
    namespace = {"__post_init__": lambda self: None, "__doc__": config.__doc__}
    unchecked = make_dataclass(config.__name__, parts, bases=(config,), frozen=True, namespace=namespace)
    return tyro.conf.arg(constructor=unchecked)


@cache
def docstrings(config: type) -> dict[str, str]:
    """The docstring of each field on a single line: the parser would keep the line breaks of the source."""
    bases = reversed(config.__mro__[:-1])
    found = [param for base in bases for param in docstring_parser.parse_from_object(base).params]
    return {param.arg_name: " ".join((param.description or "").split()) for param in found}


@REGISTRY.primitive_rule
def _numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """A list of numbers is read with commas or spaces between them."""
    if info.type not in (tuple[int, ...], tuple[float, ...]):
        return None
    number = get_args(info.type)[0]
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{number.__name__.upper()},...]",
        instance_from_str=lambda parts: tuple(number(text) for part in parts for text in part.split(",") if text),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [f"{each:g}" for each in value],
    )
