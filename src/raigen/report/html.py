"""Fills the templates of the pages and cards; all texts are escaped."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

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
    is_markdown = template.endswith(".md.jinja")
    environment = Environment(
        loader=PackageLoader("raigen.report"),
        autoescape=not is_markdown,
        keep_trailing_newline=is_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | {"plain": plain}
    return visible(environment.get_template(template).render(page, **more))


def plain(text: str) -> str:
    r"""A text with the signs of Markdown and HTML escaped, on one line.

    >>> plain("a|b <i> *c* [d](e)")
    'a\\|b \\<i\\> \\*c\\* \\[d\\]\\(e\\)'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#|&!])", r"\\\1", " ".join(text.split()))
