"""Writes one self-contained page about a run: folder -> dict -> HTML."""

import base64
import hashlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from raigen.config import ReportConfig, shaped
from raigen.judging.notes import VERDICTS, hashes_of, notes_of
from raigen.judging.review import Task, digest, tasks
from raigen.judging.trust import disagreements, ways, width_text
from raigen.report.amplified import curves_of, mixtures_of, read_amplified
from raigen.report.explorer import explorer_of
from raigen.report.exports import export
from raigen.report.html import fill
from raigen.report.neuron_cards import cards, data_uri, disputed, fitting, read_codes, thumbs_for
from raigen.report.page import page_of, read_neurons
from raigen.report.svg import draw
from raigen.runs import pixels
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick


def report(run: Run, config: ReportConfig) -> Generator[Tick, None, Outcome]:
    """Writes `report.html` into the run folder, with all images, charts, styles and scripts inside the file.

    Also writes `review.html`, on which a person can check the judge, every figure as SVG, and the exports (see
    `raigen.report.exports`). Needs the results of `capture`, `train` and `discover`; names, rates and the planted truth
    are shown if they exist.
    Raises RaigenError when a needed file is missing, does not fit the others, or holds other things than raigen wrote.
    """
    with shaped(run.dir, "files as the earlier stages wrote them", "Do the stage of the damaged one again with --redo"):
        return (yield from _written(run, config))


def _written(run: Run, config: ReportConfig) -> Generator[Tick, None, Outcome]:
    attributes = run.attributes
    yield Tick(0, len(attributes) + 1, "reading")
    neurons, amplified, made = read_neurons(run, attributes), read_amplified(run, attributes), []
    differ, to_review = disagreements(run), tasks(run)
    n_disputed = sum(len(side.images) for sides in differ.values() for side in sides)
    explorer = explorer_of(run, attributes, neurons)
    thumbs = thumbs_for(run, attributes, config, amplified.n_images + n_disputed, len(explorer.atlas.uri))
    for card in cards(run, attributes, read_codes(run, neurons.ids), config, thumbs):
        made.append(card | {"disputed": disputed(run, differ.get(card["attribute"].neuron, ()), thumbs)})
        yield Tick(len(made), len(attributes) + 1, f"neuron {card['attribute'].neuron}")
    page = page_of(run, attributes, neurons, made, config) | {
        "ways": ways(run, "RUN", to_review, differ),
        "has_sheet": bool(to_review),
        "curves": curves_of(run, amplified, thumbs),
        "mixtures": mixtures_of(amplified),
        "n_other_curves": amplified.n_others,
        "explorer": explorer,
        "notes": notes_of(run),
        "verdicts": VERDICTS,
        "hashes": hashes_of(run, attributes),
    }
    html = render("report", page)
    write_text(run.report_path, html)
    write_text(run.sheet_path, render("review", sheet_of(run, to_review)))
    exported = [*export(run, page), *draw(run, page)]
    yield Tick(len(attributes) + 1, len(attributes) + 1, run.report_path.name)
    return Outcome([run.report_path, run.sheet_path, *exported], {"bytes": len(html.encode())})


def sheet_of(run: Run, to_review: Sequence[Task]) -> dict[str, Any]:
    """Everything that the review sheet says: the dict that its template reads."""
    images = [sample for task in to_review for sample in task.images]
    thumbs = fitting(run, images, len(images)) if images else None
    return {
        "prompt": run.config.capture.prompt,
        "tasks": [
            {
                "neuron": task.attribute.neuron, "rank": task.attribute.rank, "label": task.attribute.label,
                "sha256": digest(task.images), "width": width_text(task, run.config.evaluate.confidence),
                "is_pixel_art": max(run.read_image(task.images[0]).size) <= pixels.PIXEL_ART,
                "images": [
                    {"file": sample.file, "uri": data_uri(run.read_image(sample), thumbs),
                     "alt": f"image {number}, seed {sample.seed}"}
                    for number, sample in enumerate(task.images, 1)
                ],
            }
            for task in to_review if thumbs
        ],
    }  # fmt: skip


def render(name: str, page: Mapping[str, Any]) -> str:
    """The page `name` (report or review) as HTML. All texts are escaped. A content security policy lets the page load
    nothing and run only its own script.

    Raises jinja2.UndefinedError if the template reads something that the dict lacks.
    """
    script = fill(f"{name}.js", {})
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return fill(f"{name}.html.jinja", page, script_digest=digest)
