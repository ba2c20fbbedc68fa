"""A chart of amplification: how often the attribute appears, against how similar the images stay."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from raigen.config import CONTROLLED
from raigen.report.charts import Mark, linear_axis, rate_axis
from raigen.report.formatting import DASH, METHOD_NAMES, interval, percent, strength_text
from raigen.runs.records import Presence

APART = (8.0, 6.0)  # percent of the chart, across and down: two texts overlap if they are closer in both


class Dot(NamedTuple):
    """One strength, in percent of the chart from its left and top, with the ends of both intervals. `text` is its
    strength, or empty where it would cover another text; `title` says everything in words."""

    left: float
    top: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    text: str
    title: str


class Line(NamedTuple):
    """One method: its dots by rising strength, and the places that its line joins, with the place of the unsteered
    images. `n` says how many images were judged at each dot."""

    method: str
    name: str
    is_control: bool
    path: tuple[tuple[float, float], ...]
    dots: tuple[Dot, ...]
    n: str


class Pareto(NamedTuple):
    """Fidelity (linear up to 1, at the right) against presence (linear from 0, at the bottom), a line per method."""

    base: Dot
    lines: tuple[Line, ...]
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]


def pareto(entries: Sequence[Mapping[str, Any]]) -> Pareto | None:
    """The chart of one attribute from its amplification.json files; None if no image could be judged.

    A strength without a judged image is left out. The unsteered images come from the entry that judged most of them.
    """
    judged = [entry for entry in entries if entry["base"]["presence"]["n"]]
    if not judged:
        return None
    base = max((entry["base"] for entry in judged), key=lambda base: base["presence"]["n"])
    points = [point for entry in judged for point in _judged(entry)]
    rates = rate_axis([found["presence"]["high"] for found in (base, *points)])
    end, values = linear_axis(max([1 - point["fidelity"]["low"] for point in points], default=0.0) or 0.1)

    def dot(found: Mapping[str, Any], method: str | None, strength: float) -> Dot:
        presence, fidelity = found["presence"], found.get("fidelity") or dict.fromkeys(("mean", "low", "high"), 1.0)
        x, x_low, x_high = (round(100 * (1 - (1 - fidelity[at]) / end), 2) for at in ("mean", "low", "high"))
        y, y_low, y_high = (round(100 - rates.at(presence[at]), 2) for at in ("rate", "low", "high"))
        text = strength_text(method, strength) if method else "unsteered"
        return Dot(x, y, (x_low, min(x_high, 100.0)), (y_low, y_high), text, _title(found, method, text))

    start = dot(base, None, 0.0)
    lines = [_line(entry, [dot(p, entry["method"], p["strength"]) for p in _judged(entry)], start) for entry in judged]
    lines = sorted((line for line in lines if line.dots), key=lambda line: list(METHOD_NAMES).index(line.method))
    return Pareto(
        start, _thinned(lines, start), tuple(Mark(round(100 - 100 * at / end, 3), f"{1 - at:g}") for at in values),
        rates.marks,
    )  # fmt: skip


def _judged(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [point for point in entry["points"] if point["presence"]["n"]]


def _line(entry: Mapping[str, Any], dots: Sequence[Dot], start: Dot) -> Line:
    points = _judged(entry)
    places = [(point["strength"], (dot.left, dot.top)) for point, dot in zip(points, dots, strict=True)]
    nothing = 1.0 if entry["method"] == "select" else 0.0  # the strength at which a method changes nothing
    if nothing not in [strength for strength, _ in places]:
        places.append((nothing, (start.left, start.top)))
    counts = sorted({point["presence"]["n"] for point in points})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}{DASH}{counts[-1]:,}" if counts else ""
    return Line(entry["method"], METHOD_NAMES[entry["method"]], entry["method"] in CONTROLLED,
                tuple(place for _, place in sorted(places)), tuple(dots), n)  # fmt: skip


def _title(found: Mapping[str, Any], method: str | None, text: str) -> str:
    presence, fidelity = Presence(**found["presence"]), found.get("fidelity")
    rate = f"{percent(presence.rate)} ({interval(presence)}) of {presence.n:,} show it"
    near = f", fidelity {fidelity['mean']:.3f} ({fidelity['low']:.3f}{DASH}{fidelity['high']:.3f})" if fidelity else ""
    return f"{METHOD_NAMES[method]}, {text}: {rate}{near}" if method else f"{text}: {rate}"


def _thinned(lines: Sequence[Line], start: Dot) -> tuple[Line, ...]:
    """The lines without texts that would overlap. Methods keep theirs before controls, far dots before near ones."""
    taken = [(start.left, start.top)]
    kept: set[Dot] = set()
    for line in sorted(lines, key=lambda line: line.is_control):
        for dot in sorted(line.dots, key=lambda dot: -abs(dot.top - start.top) - abs(dot.left - start.left)):
            if all(abs(dot.left - x) >= APART[0] or abs(dot.top - y) >= APART[1] for x, y in taken):
                taken.append((dot.left, dot.top))
                kept.add(dot)
    return tuple(
        line._replace(dots=tuple(dot if dot in kept else dot._replace(text="") for dot in line.dots)) for line in lines
    )
