"""What the configurations check their fields with."""

from dataclasses import asdict, field, fields
from typing import Any

from raigen.address import address_of
from raigen.errors import RaigenError


def need(holds: bool, name: str, value: object, expected: str) -> None:
    """Raises RaigenError, with what came, unless it holds."""
    if not holds:
        raise RaigenError(f"{name}: expected {expected}; got {value!r}")


def need_address(name: str, text: str, others: tuple[str, ...]) -> None:
    """Raises RaigenError unless `text` is one of `others` or the address of a vision-language model."""
    if text not in others:
        address_of(text, name, others)


def detail(default: Any) -> Any:
    """A field that changes how a stage runs but not what comes out, so a run may be resumed with another value."""
    return field(default=default, metadata={"identity": False})


def identity(config: Any) -> dict[str, Any]:
    """The fields of a configuration that decide what comes out, as they stand in JSON (tuples as lists)."""
    kept = {f.name for f in fields(config) if f.metadata.get("identity", True)}
    values = {name: value for name, value in asdict(config).items() if name in kept}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
