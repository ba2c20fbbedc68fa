"""Reads a tolerance file: what a person decided, which no audit can know."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from raigen.config import text_of
from raigen.dossier.rules import Rule, rule_of
from raigen.errors import RaigenError

TEXTS = ("set_by", "set_on", "purpose", "organization", "relationship")
RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")  # of Every Eval Ever
KEYS = (*TEXTS, "rules", "protected")
EXAMPLE = """rules = ['presence("a woman") >= 0.2']"""


@dataclass(frozen=True)
class Tolerances:
    """What a person tolerates: the `rules`, who set them (`set_by`), when (`set_on`), and for which `purpose` the model
    is to be used. `organization` made the audit, and has this `relationship` (one of `RELATIONSHIPS`) to the model.
    `protected` holds the labels that touch each protected ground, such as religion. None was not said.
    """

    rules: tuple[Rule, ...] = ()
    set_by: str | None = None
    set_on: str | None = None
    purpose: str | None = None
    organization: str | None = None
    relationship: str | None = None
    protected: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def grounds_of(self, label: str | None) -> list[str]:
        """The protected grounds that an attribute touches, according to the person."""
        return [ground for ground, labels in self.protected.items() if label in labels]


def read_tolerances(path: Path) -> Tolerances:
    """What a tolerance file says. Raises RaigenError, with the line or the entry, for a file of another form."""
    try:
        table = tomllib.loads(text_of(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RaigenError(f"{path}: expected a file in TOML; {error}. A short one is: {EXAMPLE}") from error
    unknown = [key for key in table if key not in KEYS]
    if unknown:
        raise RaigenError(f"{path}: expected the entries {', '.join(KEYS)}; got {unknown[0]!r}")
    said = {key: _text(path, key, table[key]) for key in TEXTS if key in table}
    if said.get("relationship", "other") not in RELATIONSHIPS:
        raise RaigenError(f"{path}: expected {', '.join(RELATIONSHIPS)} as relationship; got {said['relationship']!r}")
    return Tolerances(_rules(path, table.get("rules", [])), **said, protected=_protected(path, table))


def _text(path: Path, key: str, value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str) and value.strip():
        return value
    raise RaigenError(f"{path}: expected a text as {key}; got {value!r}. Leave it out if it is not known")


def _texts(path: Path, key: str, value: Any, example: str) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value):
        return tuple(value)
    raise RaigenError(f"{path}: expected a list of texts as {key}, such as {example}; got {value!r:.80}")


def _rules(path: Path, value: Any) -> tuple[Rule, ...]:
    found = []
    for number, text in enumerate(_texts(path, "rules", value, EXAMPLE), 1):
        try:
            found.append(rule_of(text))
        except RaigenError as error:
            raise RaigenError(f"{path}: rule {number}: {error}") from error
    return tuple(found)


def _protected(path: Path, table: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    value = table.get("protected", {})
    if not isinstance(value, dict):
        raise RaigenError(
            f"{path}: expected a table [protected] with a list of labels for each ground; got {value!r:.80}"
        )
    example = 'religion = ["wearing a headscarf"]'
    return {ground: _texts(path, f"protected.{ground}", labels, example) for ground, labels in value.items()}
