"""Fills the templates of the pages and cards; all texts are escaped."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raigen.config import visible
from raigen.report.formatting import duration, interval, percent, points, q_text, ratio_text, times
from raigen.runs.records import difference_text, rate_text
from raigen.runs.study_records import kind_text

FILTERS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "interval": interval,
    "duration": duration,
    "points": points,
    "q_text": q_text,
    "ratio": ratio_text,
    "times": times,
    "kind": kind_text,
    "rate": rate_text,
    "difference": difference_text,
}


def fill(template: str, page: Mapping[str, Any], **more: Any) -> str:
    """The text that a template makes of the dict `page`.

    Texts are escaped for HTML, and the whole is `visible`. In Markdown (`.md.jinja`) the template escapes labels by the
    filter `plain`.
    Raises jinja2.UndefinedError if the template reads something that the dict lacks.
    """
    return visible(_environment(template.endswith(".md.jinja")).get_template(template).render(page, **more))


def render(name: str, page: Mapping[str, Any]) -> str:
    """The page `name` (report, review or study) as HTML. All texts are escaped. A content security policy lets the page
    load nothing and run only its own script.

    Raises jinja2.UndefinedError as `fill` does.
    """
    script = fill(f"{name}.js", {})
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return fill(f"{name}.html.jinja", page, script_digest=digest)


@cache
def _environment(is_markdown: bool) -> Environment:
    """Where the templates are; it compiles each only once."""
    environment = Environment(
        loader=PackageLoader("raigen.report"),
        autoescape=not is_markdown,
        keep_trailing_newline=is_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | {"plain": plain, "code": code, "island": island}
    return environment


def plain(text: str) -> str:
    r"""A text with the signs of Markdown and HTML escaped, on one line.

    >>> plain("a|b <i> *c* [d](e)")
    'a\\|b \\<i\\> \\*c\\* \\[d\\]\\(e\\)'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#|&!])", r"\\\1", " ".join(text.split()))


def island(data: Any) -> Markup:
    """Data as JSON for a script element of a page. Its texts are `visible`, and none can end the element.

    >>> island({"label": "</script>\\u202e<b>"})
    Markup('{"label":"\\\\u003c/script\\\\u003e\\\\u003cb\\\\u003e"}')
    """
    text = json.dumps(_visible(data), separators=(",", ":"), allow_nan=False)
    return Markup(re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text))


def _visible(data: Any) -> Any:
    if isinstance(data, str):
        return visible(data)
    if isinstance(data, Mapping):
        return {_visible(key): _visible(value) for key, value in data.items()}
    return [_visible(value) for value in data] if isinstance(data, list | tuple) else data


def code(text: str) -> str:
    r"""A text as code in a line or a table of Markdown.

    >>> code("presence('a|b') >= `.2`")
    "`presence('a\\|b') >= '.2'`"
    """
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", r"\|") + "`"
