"""Writes every figure of the report as a file of its own, SVG and PNG."""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from raigen.config import CONTROLLED
from raigen.report.html import fill
from raigen.runs.files import write_bytes, write_text
from raigen.runs.run import Run

WIDTH, HEIGHT, ROW = 680, 460, 28  # pixels; a row of the chart of rates
PNG_SCALE = 2  # pixels of the PNG for one of the SVG, for dense screens and print
LONGEST = 34  # letters of a name beside a rate
COLORS = {
    "base": "#1c1d21", "steer": "#b3401a", "set": "#7a3fa0", "prompt": "#1f6aa5", "select": "#1c7346",
    "contrast": "#8a5a00", **dict.fromkeys(CONTROLLED, "#5c616b"),
}  # fmt: skip


class Frame(NamedTuple):
    """The frame of a drawing: its title, the words at its axes, and its key, which explains each `method` by a `text`.
    Sizes are in pixels."""

    title: str
    up: str
    right: str
    key: tuple[dict[str, str], ...] = ()
    left: int = 70
    top: int = 80
    bottom: int = 60
    width: int = WIDTH
    height: int = HEIGHT


def draw(run: Run, page: Mapping[str, Any]) -> list[Path]:
    """Writes the figures, deletes those of an earlier report, and returns the paths. `page` is the dict of the report.

    PNG is written if vl-convert is installed (`pip install 'raigen[export]'`).
    """
    paths, as_png = [], import_module("vl_convert").svg_to_png if find_spec("vl_convert") else None
    for name, kind, frame, content in _figures(page):
        text = fill("figure.svg.jinja", {"kind": kind, "colors": COLORS, **frame._asdict(), **content}).lstrip()
        paths.append(run.figures_dir / f"{name}.svg")
        write_text(paths[-1], text)
        if as_png is not None:
            paths.append(run.figures_dir / f"{name}.png")
            write_bytes(paths[-1], as_png(text, scale=PNG_SCALE))
    for path in {*run.figures_dir.glob("*.svg"), *run.figures_dir.glob("*.png")}.difference(paths):
        path.unlink()
    return paths


def _figures(page: Mapping[str, Any]) -> Iterator[tuple[str, str, Frame, dict[str, Any]]]:
    """The name, kind, frame and content of each figure."""
    prompt, box, scale = page["prompt"], {"dot_box": page["dot_box"]}, 100 / page["dot_box"]
    pins = [{"at": card["pin"], "rank": card["attribute"].rank} for card in page["cards"]]
    frame = Frame(f"Neurons for “{prompt}”", "more distinct ↑", f"share of {page['share_of']} (logarithmic)")
    # Circles, not strokes: the converter to PNG would distort strokes together with their box.
    dots = [(float(x) * scale, float(y) * scale) for x, y in re.findall(r"M(\d+) (\d+)", "".join(page["chart"].dots))]
    yield "overview", "overview", frame, {"chart": page["chart"], "pins": pins, "dots": dots}
    rows = [
        {"name": _short(a.judged_as or a.title), "presence": a.presence}  # what the rate is of
        for a in (card["attribute"] for card in page["cards"])
        if a.label and a.presence and a.presence.n
    ]
    if rows:
        right = f"share of fresh images that show it, {page['confidence'] * 100:g} % intervals"
        frame = Frame(f"Rates for “{prompt}”", "", right, left=250, top=56, height=56 + ROW * len(rows) + 60)
        yield "presence", "presence", frame, {"axis": page["axis"], "rows": rows}
    for card in page["cards"]:
        neuron = card["attribute"].neuron
        frame = Frame(f"How strongly neuron {neuron} fires", f"tallest bar: {card['histogram'].fullest} images",
                      "activation", height=280)  # fmt: skip
        yield f"fires-{neuron}", "fires", frame, {"chart": card["histogram"], **box}
    for curve in page["curves"]:
        if curve["chart"] is not None:
            a, chart, base = curve["attribute"], curve["chart"], curve["base"]["presence"]
            texts = [("base", f"unsteered, n = {base.n:,}")]
            texts += [(line.method, f"{line.name}, n = {line.n} each") for line in chart.lines]
            frame = Frame(_short(a.label), "share that shows it ↑", "fidelity to the unsteered image →",
                          tuple({"method": method, "text": text} for method, text in texts), bottom=130,
                          height=HEIGHT + 70)  # fmt: skip
            yield f"pareto-{a.neuron}", "pareto", frame, {"chart": chart}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
