"""What the configurations check their fields with."""

import re
from collections.abc import Sequence
from dataclasses import asdict, field, fields
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from raigen.errors import RaigenError

CLIP = "clip"  # the judge and the annotator that needs no vision-language model
WORLD = "portraits"  # the planted world; its model, judge, embedder, vocabulary and axes have this name, too
JUDGES = (WORLD, CLIP)  # the judges that have a name; all others are addresses
KINDS = ("openai", "transformers", "scripted")
OPENAI_URL = "https://api.openai.com/v1"
FORMS = (
    "openai:MODEL for OpenAI, openai:MODEL@http://HOST:PORT/v1 for a server that speaks its protocol (vLLM, Ollama, "
    "llama.cpp, LM Studio), transformers:FOLDER_OR_ID for a model in this process, or scripted:FILE"
)


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


class ModelAddress(NamedTuple):
    """Where a model is: `endpoint` is a base URL for a server, `here` for a local model, else the script's path."""

    kind: Literal["openai", "transformers", "scripted"]
    model: str
    endpoint: str

    @property
    def name(self) -> str:
        """What labels and rates that come from this model are signed with.

        >>> address_of("openai:qwen2.5vl:7b@http://127.0.0.1:11434/v1").name
        'qwen2.5vl:7b at 127.0.0.1:11434'
        """
        if self.kind == "scripted":
            return f"script {self.model}"
        return f"{self.model} at {urlsplit(self.endpoint).netloc if self.kind == 'openai' else 'this machine'}"


def address_of(text: str, name: str = "model", others: Sequence[str] = ()) -> ModelAddress:
    """The address in `text`. `name` and `others` are what the error says it is, and what else it could have been.

    Raises RaigenError when `text` has none of the `FORMS`, or holds a password.

    >>> address_of("openai:gpt-4o-mini").endpoint
    'https://api.openai.com/v1'
    """
    server = re.fullmatch(r"openai:(?P<model>\S+?)(@(?P<url>https?://\S+))?", text)
    other = re.fullmatch(r"(?P<kind>transformers|scripted):(?P<model>.+)", text)
    if server and "@" in urlsplit(server["url"] or OPENAI_URL).netloc:
        raise RaigenError(
            f"{name}: expected a URL without a name and password, for it is written into the run; give the key in the "
            "environment variable RAIGEN_API_KEY"
        )
    if server:
        return ModelAddress("openai", server["model"], (server["url"] or OPENAI_URL).rstrip("/"))
    if other and other["kind"] == "transformers":
        return ModelAddress("transformers", other["model"], "here")
    if other:
        return ModelAddress("scripted", other["model"], other["model"])
    raise RaigenError(f"{name}: expected {', '.join([*others, FORMS])}; got {text!r}")
