"""Shows runs and studies in a notebook, as small HTML with every text escaped."""

import base64
from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from raigen.errors import RaigenError
from raigen.runs.records import Presence, rarest, rate_text

if TYPE_CHECKING:
    from raigen.runs.run import Run
    from raigen.runs.study import Study

N_IMAGES = 5  # of each attribute
SIDE = 64  # pixels of each


def frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Any:
    """The rows as a pandas DataFrame. Raises RaigenError when pandas is not installed."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise RaigenError("table: expected the package pandas; it is not installed. "
                          "Install it with: pip install 'raigen[notebook]'") from error  # fmt: skip
    return pandas.DataFrame(rows, columns=list(columns))


def rate_of(presence: Presence | None) -> str:
    """A rate in words, with its interval.

    >>> rate_of(Presence(0.01, 0.003, 0.029, 3, 300, 0, "judge", "95 % Clopper-Pearson"))
    '1.0 % [0.3, 2.9]'
    """
    if presence is None:
        return "not measured"
    if not presence.n:
        return "no usable answer"
    return rate_text(presence, "{rate:.1f} % [{low:.1f}, {high:.1f}]")


def run_html(run: "Run") -> str:
    """The ranking of a run, with the strongest images and the rate of each attribute."""
    if not run.has_finished("discover"):
        return f"<p>{escape(repr(run))}</p>"
    samples = run.sample_of
    rows = []
    for attribute in run.attributes:
        images = "".join(_image(run, samples[file]) for file in attribute.top_images[:N_IMAGES])
        label = attribute.label or "no identified attribute"
        rows.append([str(attribute.rank), escape(label), images, rate_of(attribute.presence)])
    return _table(repr(run), ["rank", "attribute", "strongest images", "presence"], rows)


def study_html(study: "Study") -> str:
    """The runs of a study, with the rarest attribute of each."""
    rows = []
    for entry in study.entries:
        listed = study.attributes_of(entry)
        first = rarest(listed)
        found = [first.label or "", rate_of(first.presence)] if first else ["", ""]
        rows.append([*map(escape, (entry.prompt, entry.model)), str(len(listed)), *map(escape, found)])
    return _table(repr(study), ["prompt", "model", "listed", "rarest attribute", "presence"], rows)


def _image(run: "Run", sample: Any) -> str:
    from raigen.runs.pixels import thumbnail, webp

    try:
        data = base64.b64encode(webp(thumbnail(run.read_image(sample), SIDE))).decode()
    except RaigenError:  # the ranking is readable without a missing image
        return f'<span title="{escape(sample.file)} is missing">∅</span>'
    return f'<img src="data:image/webp;base64,{data}" height="{SIDE}" title="seed {sample.seed}" alt="">'


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the cells are HTML already."""
    top = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in head)
    lines = ["".join(f'<td style="text-align:left">{cell}</td>' for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<p>{escape(title)}</p><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
