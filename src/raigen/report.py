"""Turns a run folder into one self-contained page: folder -> dict -> HTML."""

import base64
import csv
import hashlib
import io
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from raigen import figures
from raigen.config import STAGES, ReportConfig
from raigen.errors import RaigenError
from raigen.records import Outcome, Presence, RareAttribute, Sample, Tick
from raigen.run import Run, write_text

THUMBNAIL = 192  # pixels of the longer side in the page: shown at 128, so sharp enough on dense screens, and small
OVERLAY = 64  # pixels of an overlay's longer side: it holds no detail, the browser smooths it
DASH = "\N{EN DASH}"  # from ... to
EXAMPLES_FOR_A_ROW = 16  # an attribute of rate 16 / n shows at least ten times in n pictures with probability .95


class Picture(NamedTuple):
    """A picture in the page: data URI of it, of what lies over it (or None), and what it is in words."""

    uri: str
    overlay: str | None
    alt: str


class Neurons(NamedTuple):
    """The columns of neurons.csv for the neurons that were scored, and the number of the others."""

    ids: np.ndarray
    frequency: np.ndarray
    distinctiveness: np.ndarray
    n_unscored: int


def report(run: Run, config: ReportConfig) -> Generator[Tick, None, Outcome]:
    """Writes `report.html` into the run folder: pictures, charts, styles and scripts are all inside the file.

    Needs what `capture`, `train` and `discover` made; names, rates and the planted truth are shown if they are there.
    Raises RaigenError when a needed file is missing or does not fit the others.
    """
    attributes = run.attributes
    cards = []
    yield Tick(0, len(attributes) + 1, "reading")
    for card in _cards(run, attributes, config.n_control_images):
        cards.append(card)
        yield Tick(len(cards), len(attributes) + 1, f"neuron {card['attribute'].neuron}")
    html = render(page_of(run, attributes, cards))
    write_text(run.report_path, html)
    yield Tick(len(attributes) + 1, len(attributes) + 1, run.report_path.name)
    return Outcome([run.report_path], {"bytes": len(html.encode())})


def page_of(run: Run, attributes: Sequence[RareAttribute], cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that the page says, as the dict that the template reads."""
    capture = run.config_of("capture")
    neurons = _neurons(run)
    listed = np.array([attribute.neuron for attribute in attributes], dtype=int)
    is_listed = np.isin(neurons.ids, listed)
    chart = figures.scatter(neurons.frequency, neurons.distinctiveness, is_listed)
    # Pins come in the order of the table; the page wants them by neuron.
    pins = dict(zip(neurons.ids[is_listed].tolist(), chart.pins, strict=True))
    missing = sorted(set(listed.tolist()) - set(pins))
    if missing:
        raise RaigenError(
            f"{run.neurons_path}: expected a scored neuron for each entry of {run.attributes_path.name}; "
            f"found none for {missing[0]}. Make both again with: raigen discover {run.dir} --redo discover"
        )
    return {
        "prompt": capture.prompt,
        "model": capture.model,
        "n_images": len(run.samples()),
        "smallest_findable": min(1.0, EXAMPLES_FOR_A_ROW / len(run.samples())),
        "confidence": run.config_of("evaluate").confidence,
        "was_named": _has_finished(run, "annotate"),
        "cards": [{**card, "pin": pins[card["attribute"].neuron]} for card in cards],
        "rarest": _rarest(attributes),
        "chart": chart,
        "dot_box": figures.DOT_BOX,
        "ramp": ["#{:02x}{:02x}{:02x}".format(*color) for color in figures.color_map(9).tolist()],
        "n_scored": len(neurons.ids),
        "n_unscored": neurons.n_unscored,
        "axis": figures.rate_axis([p.high for a in attributes if (p := a.presence) and p.n]),
        "truth": _truth(run, attributes),
        "stages": _run_card(run),
        "machine": run.manifest.get("machine", {}),
        "seconds": sum(record.get("seconds", 0.0) for record in run.manifest["stages"].values()),
    }


def render(page: Mapping[str, Any]) -> str:
    """The page as HTML. All texts are escaped; a content policy keeps the page from loading or running anything else.

    Raises jinja2.UndefinedError when the dict lacks something that the template reads.
    """
    environment = Environment(
        loader=PackageLoader("raigen"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "interval": interval, "duration": duration}
    script = environment.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.jinja").render(page, script_digest=digest)


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


def _cards(run: Run, attributes: Sequence[RareAttribute], n_control: int) -> Generator[dict[str, Any], None, None]:
    """The pictures of each attribute: its top pictures with overlays, and as seeded random ones for control."""
    samples = run.samples()
    by_file = {sample.file: sample for sample in samples}
    heatmaps = run.read_tensors(run.heatmaps_path, "discover")["heatmaps"].numpy()
    deepest = max((len(attribute.top_images) for attribute in attributes), default=0)
    if len(heatmaps) != len(attributes) or (len(attributes) and heatmaps.shape[1] < deepest):
        raise RaigenError(
            f"{run.heatmaps_path}: expected heatmaps of {len(attributes)} neurons x {deepest} pictures; "
            f"got {heatmaps.shape}. Make them again with: raigen discover {run.dir} --redo discover"
        )
    for attribute, maps in zip(attributes, heatmaps, strict=True):
        unknown = [file for file in attribute.top_images if file not in by_file]
        if unknown:
            raise RaigenError(
                f"{run.attributes_path}: expected pictures listed in {run.samples_path.name}; found {unknown[0]!r}. "
                f"Make it again with: raigen discover {run.dir} --redo discover"
            )
        top = [by_file[file] for file in attribute.top_images]
        rest = [sample for sample in samples if sample.file not in attribute.top_images]
        rng = np.random.default_rng([run.config_of("capture").base_seed, attribute.neuron])
        chosen = sorted(rng.choice(len(rest), size=min(n_control, len(rest)), replace=False).tolist())
        peak = float(maps[: len(top)].max(initial=0.0))
        yield {
            "attribute": attribute,
            "peak": peak,
            "top": [_picture(run, s, "strongest", m, peak) for s, m in zip(top, maps[: len(top)], strict=True)],
            "control": [_picture(run, rest[index], "random") for index in chosen],
            "is_pixel_art": max(run.read_image(top[0]).size) <= figures.PIXEL_ART if top else False,
        }  # fmt: skip


def _picture(run: Run, sample: Sample, kind: str, heatmap: np.ndarray | None = None, peak: float = 0.0) -> Picture:
    image = run.read_image(sample)
    overlay = None
    if heatmap is not None:
        size = figures.thumbnail(Image.new("L", image.size), OVERLAY).size
        overlay = _data_uri(figures.heatmap_overlay(heatmap, size, peak))
    return Picture(_data_uri(figures.thumbnail(image, THUMBNAIL)), overlay, f"{kind} picture, seed {sample.seed}")


def _data_uri(image: Image.Image) -> str:
    return "data:image/webp;base64," + base64.b64encode(figures.webp(image)).decode()


def _neurons(run: Run) -> Neurons:
    rows = list(csv.DictReader(io.StringIO(run.read_text(run.neurons_path, "discover"))))
    scored = [row for row in rows if row["distinctiveness"]]  # the others fire in too few pictures, or in none
    return Neurons(
        np.array([int(row["neuron"]) for row in scored], dtype=int),
        np.array([float(row["frequency"]) for row in scored]),
        np.array([float(row["distinctiveness"]) for row in scored]),
        len(rows) - len(scored),
    )


def _rarest(attributes: Sequence[RareAttribute]) -> RareAttribute | None:
    """The named attribute with the lowest measured rate, if any was measured."""
    measured = [a for a in attributes if a.label is not None and a.presence is not None and a.presence.n]
    return min(measured, key=lambda a: a.presence.rate if a.presence else 1.0, default=None)


def _has_finished(run: Run, stage: str) -> bool:
    return bool(run.manifest["stages"].get(stage, {}).get("finished"))


def _truth(run: Run, attributes: Sequence[RareAttribute]) -> dict[str, Any] | None:
    """What the planted world knows about this run, or None elsewhere."""
    if not run.truth_path.is_file():
        return None
    truth = json.loads(run.truth_path.read_text(encoding="utf-8"))
    if [entry["neuron"] for entry in truth["attributes"]] != [attribute.neuron for attribute in attributes]:
        raise RaigenError(
            f"{run.truth_path}: expected the neurons of {run.attributes_path.name}, in their order; got others. "
            f"Make it again with: raigen evaluate {run.dir} --redo evaluate"
        )
    return truth


def _run_card(run: Run) -> list[dict[str, Any]]:
    """For each stage that finished: its settings, what it noted, and its duration."""
    stages = []
    for stage in STAGES:
        if stage == "report" or not _has_finished(run, stage):
            continue
        facts = run.facts_of(stage)
        # A setting of None was left to the model: what the stage noted under the same name is what was used.
        settings = {name: value for name, value in asdict(run.config_of(stage)).items() if value is not None}
        lines = list(chain.from_iterable(_lines(name, value) for name, value in {**settings, **facts}.items()))
        if stage == "capture":
            seeds = [sample.seed for sample in run.samples()]
            lines.append(("seeds", f"{min(seeds)}{DASH}{max(seeds)}"))
        stages.append({"name": stage, "lines": lines, "seconds": run.manifest["stages"][stage]["seconds"]})
    return stages


def _lines(name: str, value: Any) -> list[tuple[str, str]]:
    """A JSON value as lines of name and text; a dict becomes one line for each of its entries."""
    if isinstance(value, Mapping):
        return list(chain.from_iterable(_lines(f"{name}.{key}", inner) for key, inner in value.items()))
    if isinstance(value, list | tuple):
        return [(name, ", ".join(_text(item) for item in value) or "none")]
    return [(name, _text(value))]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
