"""Turns a run folder into one self-contained page: folder -> dict -> HTML."""

import base64
import hashlib
from collections.abc import Generator, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raigen import figures
from raigen.cards import cards, data_uri, fitting, read_codes
from raigen.config import ReportConfig
from raigen.exports import export
from raigen.page import DASH, page_of, read_neurons
from raigen.records import Outcome, Presence, Tick
from raigen.review import digest, tasks
from raigen.run import Run, write_text


def report(run: Run, config: ReportConfig) -> Generator[Tick, None, Outcome]:
    """Writes `report.html` into the run folder: pictures, charts, styles and scripts are all inside the file. Beside it
    `review.html`, on which a person can check what the judge saw, and the exports (see `raigen.exports`).

    Needs what `capture`, `train` and `discover` made; names, rates and the planted truth are shown if they are there.
    Raises RaigenError when a needed file is missing or does not fit the others.
    """
    attributes = run.attributes
    yield Tick(0, len(attributes) + 1, "reading")
    neurons, made = read_neurons(run, attributes), []
    for card in cards(run, attributes, read_codes(run, neurons.ids), config):
        made.append(card)
        yield Tick(len(made), len(attributes) + 1, f"neuron {card['attribute'].neuron}")
    page = page_of(run, attributes, neurons, made, config)
    html = render("report", page)
    write_text(run.report_path, html)
    write_text(run.sheet_path, render("review", sheet_of(run)))
    exported = export(run, page)
    yield Tick(len(attributes) + 1, len(attributes) + 1, run.report_path.name)
    return Outcome([run.report_path, run.sheet_path, *exported], {"bytes": len(html.encode())})


def sheet_of(run: Run) -> dict[str, Any]:
    """Everything that the review sheet says, as the dict that its template reads."""
    found = tasks(run)
    pictures = [sample for task in found for sample in task.pictures]
    thumbs = fitting(run, pictures, len(pictures)) if pictures else None
    return {
        "prompt": run.config_of("capture").prompt,
        "tasks": [
            {
                "neuron": task.attribute.neuron, "rank": task.attribute.rank, "label": task.attribute.label,
                "sha256": digest(task),
                "is_pixel_art": max(run.read_image(task.pictures[0]).size) <= figures.PIXEL_ART,
                "pictures": [
                    {"file": sample.file, "uri": data_uri(run.read_image(sample), thumbs),
                     "alt": f"picture {number}, seed {sample.seed}"}
                    for number, sample in enumerate(task.pictures, 1)
                ],
            }
            for task in found if thumbs
        ],
    }  # fmt: skip


def render(name: str, page: Mapping[str, Any]) -> str:
    """The page `name` (report or review) as HTML. All texts are escaped; a content policy keeps the page from loading
    or running anything else.

    Raises jinja2.UndefinedError when the dict lacks something that the template reads.
    """
    environment = Environment(
        loader=PackageLoader("raigen"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "interval": interval, "duration": duration}
    script = environment.get_template(f"{name}.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(f"{name}.html.jinja").render(page, script_digest=digest)


def percent(share: float) -> str:
    r"""A share in [0, 1] as percent, with the digits that a reader needs, kept on one line.

    >>> [percent(share) for share in (0.0004, 0.0067, 0.124, 0.9967, 0, 1)]
    ['0.04\xa0%', '0.7\xa0%', '12\xa0%', '99.7\xa0%', '0\xa0%', '100\xa0%']
    """
    return f"{_digits(share)}\xa0%"


def interval(presence: Presence) -> str:
    r"""The interval of a rate.

    >>> interval(Presence(2 / 300, 0.0008, 0.0239, 2, 300, 0, "clip", "clopper-pearson"))
    '0.08–2.4\xa0%'
    """
    return f"{_digits(presence.low)}{DASH}{_digits(presence.high)}\xa0%"


def duration(seconds: float) -> str:
    """Seconds in the units of a clock.

    >>> duration(7.31), duration(426), duration(7500)
    ('7.3 s', '7 min 6 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _digits(share: float) -> str:
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f}"
    if value < 0.1:
        return f"{value:.1g}"
    return f"{value:.0f}" if 10 <= value <= 90 else f"{value:.1f}"
