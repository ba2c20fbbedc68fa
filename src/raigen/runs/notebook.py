"""How runs and studies show themselves in a notebook: pandas frames, and small HTML tables with escaped texts."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

from PIL.Image import Image

from raigen.config import visible
from raigen.errors import RaigenError

N_IMAGES = 5  # of each attribute
SIDE = 64  # pixels of each


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """The rows as a pandas DataFrame. Raises RaigenError when pandas is not installed."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise RaigenError("table: expected the package pandas; it is not installed. "
                          "Install it with: pip install 'raigen[notebook]'") from error  # fmt: skip
    return pandas.DataFrame(rows, columns=list(columns))


def html_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under a title. Title and head are texts; the cells are HTML already."""
    top = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in head)
    lines = ["".join(f'<td style="text-align:left">{cell}</td>' for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return visible(f"<p>{escape(title)}</p><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")


def html_image(image: Image | None, title: str) -> str:
    """A small image inside the page, or a sign where there is none; `title` shows on hover."""
    if image is None:
        return f'<span title="{escape(title)}">∅</span>'
    from raigen.runs.pixels import thumbnail, webp  # numpy takes a moment to load

    data = base64.b64encode(webp(thumbnail(image, SIDE))).decode()
    return f'<img src="data:image/webp;base64,{data}" height="{SIDE}" title="{escape(title)}" alt="">'
