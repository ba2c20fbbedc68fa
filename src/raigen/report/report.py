"""Writes one self-contained page about a run: folder -> dict -> HTML."""

from collections.abc import Generator, Sequence
from typing import Any

from raigen.config import ReportConfig, shaped
from raigen.discovery.reach import reach_of, unseen_of
from raigen.judging.notes import VERDICTS, hashes_of, notes_of
from raigen.judging.review import Task, digest, tasks
from raigen.judging.trust import disagreements, ways, width_text
from raigen.report.amplified import curves_of, mixtures_of, read_amplified
from raigen.report.explorer import explorer_of
from raigen.report.exports import export
from raigen.report.html import render
from raigen.report.neuron_cards import N_ASIDE, cards, data_uri, disputed, fitting, read_codes, set_aside, thumbs_for
from raigen.report.page import page_of, read_neurons
from raigen.report.relations import reach_rows, together
from raigen.report.svg import draw
from raigen.runs import pixels
from raigen.runs.files import write_text
from raigen.runs.records import RareAttribute
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick

COVER_RATE = 0.005  # the rate for which the cover says what the audit could have found


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
    n_more = amplified.n_images + n_disputed + N_ASIDE * len(run.set_aside)
    thumbs = thumbs_for(run, attributes, config, n_more, len(explorer.atlas.uri))
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
        **_what_else(run, attributes),
        "set_aside": set_aside(run, thumbs),
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


def _what_else(run: Run, attributes: Sequence[RareAttribute]) -> dict[str, Any]:
    """How the findings relate to each other, and what the audit could not have found."""
    shown = run.is_shown()
    codes = run.image_codes()[shown]
    lines = reach_of(len(codes), run.has_looked)
    return {
        "together": together(attributes, codes, run.config.evaluate.confidence),
        "n_pairs": len(attributes) * (len(attributes) - 1) // 2,
        "unseen": unseen_of(run),
        "n_shown": len(codes),
        "reach": reach_rows(lines),
        "at_reach": next(line for line in lines if line.rate == COVER_RATE),
    }


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
