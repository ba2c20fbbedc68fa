"""The fields of configurations: their ranges, what identifies a result, and the addresses of models."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, field, fields
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin
from urllib.parse import urlsplit

from raigen.errors import RaigenError

AUTO = "auto"  # of a batch size: found out while images are made
CLIP = "clip"  # the judge and the annotator that needs no vision-language model
PORTRAITS, EMBLEMS = "portraits", "emblems"  # the planted worlds; model, judge, embedder and vocabulary have this name
WORLDS = (PORTRAITS, EMBLEMS)
JUDGES = (*WORLDS, CLIP)  # the judges that have a name; all others are addresses
PYTHON, FILE = "python:", "file:"  # how the address of a judge begins that the user wrote
OWN_JUDGES = (PYTHON + "PACKAGE.MODULE:FUNCTION", FILE + "VERDICTS.csv")
KINDS = ("openai", "transformers", "scripted")
OPENAI_URL = "https://api.openai.com/v1"
FORMS = (
    "openai:MODEL for OpenAI, openai:MODEL@http://HOST:PORT/v1 for a server that speaks its protocol (vLLM, Ollama, "
    "llama.cpp, LM Studio), transformers:FOLDER_OR_ID for a model in this process, or scripted:FILE"
)
AFTER_AT = "http:// or https:// and a host after the @, as in openai:MODEL@http://HOST:PORT/v1"
MOST = 10**7  # of what is made or listed one by one: more fill the memory with their list
LARGEST = 2**53  # of other whole numbers: programs read larger ones in JSON inexactly
MAY_BE_EMPTY = ("negative_prompt",)
KIND_TEXTS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {  # by their names in annotated-types
    "ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt,
}  # fmt: skip


def need(holds: bool, name: str, value: object, expected: str) -> None:
    """Raises RaigenError with the expected and the given value, unless the condition holds."""
    if not holds:
        raise RaigenError(f"{name}: expected {expected}; got {value!r}")


def need_address(name: str, text: str, others: tuple[str, ...]) -> None:
    """Raises RaigenError unless `text` is one of `others` or the address of a vision-language model."""
    if text not in others:
        address_of(text, name, others)


def need_judge(name: str, text: str, *others: str) -> None:
    """Raises RaigenError unless `text` is a judge: one of `others`, a named one, the user's own (`OWN_JUDGES`), or the
    address of a vision-language model."""
    if not re.fullmatch(rf"{PYTHON}[\w.]+:\w+|{FILE}.+", text):
        need_address(name, text, (*others, *JUDGES, *OWN_JUDGES))


def check_ranges(config: Any) -> None:
    """Raises RaigenError for a field whose value has another type than the field, or is outside the range in its type;
    None and `auto` are in every range.

    The range is `Ge`, `Gt` or `Interval` of annotated-types, as in `Annotated[int | None, Ge(1)]`. Besides, numbers are
    finite, counts (`n_...`) at most `MOST`, other whole numbers at most `LARGEST`, and texts are not empty, except for
    `MAY_BE_EMPTY`: an empty one comes from a shell variable that is not set.
    """
    for each in fields(config):
        name, value = each.name, getattr(config, each.name)
        need(fits(value, each.type), name, value, _kind_text(each.type))
        has_range = get_origin(each.type) is Annotated and value not in (None, AUTO)
        for limit in get_args(each.type)[1:] if has_range else ():
            bounds = {name: bound for name in OPERATORS if (bound := getattr(limit, name, None)) is not None}
            inside = all(OPERATORS[name](value, bound) for name, bound in bounds.items())
            need(inside, name, value, _range_text(**bounds))
        most = MOST if name.startswith("n_") else LARGEST
        for one in value if isinstance(value, tuple) else (value,):
            need(one != "" or name in MAY_BE_EMPTY, name, value, "a text that is not empty; or leave it out")
            need(not isinstance(one, float) or math.isfinite(one), name, value, "a finite number")
            need(not isinstance(one, int) or abs(one) <= most, name, value, f"at most {most:,}")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value has a type, or one of several. Whole numbers are numbers, too, but True and False are none.

    >>> fits(3, float | None), fits(True, int), fits(("a",), tuple[str, ...]), fits("a", Literal["b"])
    (True, False, True, False)
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(value, parts[0])
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        kinds = [parts[0]] * len(value) if isinstance(value, tuple) and parts[-1] is ... else parts
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(fits, value, kinds))
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind or type(None))


def _kind_text(kind: Any) -> str:
    """
    >>> _kind_text(Annotated[int | None, None]), _kind_text(tuple[str, ...]), _kind_text(Literal["a", "b"])
    ('a whole number', 'a list, each a text', 'a or b')
    """
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list, each {_kind_text(get_args(kind)[0])}"
    if kind in KIND_TEXTS:
        return KIND_TEXTS[kind]
    return _kind_text(get_args(kind)[0])  # of what may be None, or has a range


def _range_text(ge: Any = None, gt: Any = None, le: Any = None, lt: Any = None) -> str:
    """
    >>> _range_text(ge=1), _range_text(gt=0), _range_text(gt=0, le=1)
    ('1 or more', 'a number above 0', 'a number in (0, 1]')
    """
    if le is None and lt is None:
        return f"a number above {gt}" if ge is None else f"{ge} or more"
    low = f"({gt}" if ge is None else f"[{ge}"
    return f"a number in {low}, {lt})" if le is None else f"a number in {low}, {le}]"


def detail(default: Any) -> Any:
    """A field that changes how a stage runs but not its result: a run may be resumed with another value."""
    return field(default=default, metadata={"identity": False})


def identity(config: Any) -> dict[str, Any]:
    """The fields of a configuration that determine the result, with JSON's types (lists for tuples)."""
    kept = {f.name for f in fields(config) if f.metadata.get("identity", True)}
    values = {name: value for name, value in asdict(config).items() if name in kept}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


class ModelAddress(NamedTuple):
    """A vision-language model. `endpoint` is the base URL of a server, `here` for a local model, or a script's path."""

    kind: Literal["openai", "transformers", "scripted"]
    model: str
    endpoint: str

    @property
    def name(self) -> str:
        """The name that stands beside labels and rates that come from this model.

        >>> address_of("openai:qwen2.5vl:7b@http://127.0.0.1:11434/v1").name
        'qwen2.5vl:7b at 127.0.0.1:11434'
        """
        if self.kind == "scripted":
            return f"script {self.model}"
        return f"{self.model} at {urlsplit(self.endpoint).netloc if self.kind == 'openai' else 'this machine'}"


def address_of(text: str, name: str = "model", others: Sequence[str] = ()) -> ModelAddress:
    """The address that `text` spells out.

    Raises RaigenError when `text` has none of the `FORMS`, or contains a password or a key. The message calls the value
    `name` and lists `others` as further legal values. A server whose `http://` was forgotten is never taken for a model
    of OpenAI.

    >>> address_of("openai:gpt-4o-mini").endpoint
    'https://api.openai.com/v1'
    """
    server = re.fullmatch(r"openai:(?P<model>\S\S*?)(@(?P<url>[a-zA-Z]+:/\S*))?", text)
    other = re.fullmatch(r"(?P<kind>transformers|scripted):(?P<model>.+)", text)
    if server and server["url"]:
        return ModelAddress("openai", server["model"], _endpoint(name, server["url"]))
    if server:
        model = server["model"].removeprefix("@")  # names of models may begin with it
        need("@" not in model and "://" not in model, name, model.rpartition("@")[2], AFTER_AT)
        return ModelAddress("openai", server["model"], OPENAI_URL)
    if other and other["kind"] == "transformers":
        return ModelAddress("transformers", other["model"], "here")
    if other:
        return ModelAddress("scripted", other["model"], other["model"])
    raise RaigenError(f"{name}: expected {', '.join([*others, FORMS])}; got {text!r}")


def _endpoint(name: str, url: str) -> str:
    """The base URL of a server. Raises RaigenError for anything else, without repeating what may be a secret."""
    try:
        place = urlsplit(url)
        is_right = bool(place.scheme in ("http", "https") and place.hostname and place.port != 0 and url.isprintable())
    except ValueError:  # brackets or a port of another form
        is_right, place = False, urlsplit("")
    need("@" not in place.netloc and not place.query and not place.fragment, name, "one that has them",
         "a URL without a name, password, query, or fragment, because it is recorded in the run; put the key into the "
         "environment variable RAIGEN_API_KEY")  # fmt: skip
    need(is_right, name, url, AFTER_AT)
    return url.rstrip("/")
