"""Fills the templates of the pages; all texts are escaped."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raigen.report.formatting import duration, percent, percent_range, points, q_text, ratio_text, times
from raigen.runs.records import Presence


def fill(template: str, page: Mapping[str, Any], **more: Any) -> str:
    """The template of this name with what the dict holds.

    Raises jinja2.UndefinedError when the dict lacks something that the template reads.
    """
    environment = Environment(
        loader=PackageLoader("raigen.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "duration": duration,
        "points": points,
        "q_text": q_text,
        "ratio": lambda found: ratio_text(found.ratio, found.low, found.high),
        "times": times,
    }
    return environment.get_template(template).render(page, **more)


def interval(presence: Presence) -> str:
    r"""The interval of a rate.

    >>> interval(Presence(2 / 300, 0.0008, 0.0239, 2, 300, 0, "clip", "clopper-pearson"))
    '0.08–2.4\xa0%'
    """
    return percent_range(presence.low, presence.high)
