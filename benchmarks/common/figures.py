"""The figures of the benchmarks, drawn with Altair."""

from pathlib import Path
from typing import Any

import altair as alt

from benchmarks.common.intervals import Summary, without_nan
from benchmarks.common.measures import BANDS
from raigen.runs.files import write_text


def recall_figure(result: Summary, path: Path, depth: int = 20) -> None:
    """Recall of rare values against their rate, a line per arm with its interval, as SVG."""
    points = []
    for arm, values in result.items():
        for low, high in BANDS:
            value = values.get(f"recall@{depth} in {100 * low:g}-{100 * high:g} %")
            if value and value["n"]:
                band = f"{100 * low:g}-{100 * high:g}"
                points.append({"arm": arm, "rate (%)": band, "recall": value["mean"], "low": value["low"],
                               "high": value["high"]})  # fmt: skip
    order = [f"{100 * low:g}-{100 * high:g}" for low, high in BANDS]
    base = alt.Chart(alt.Data(values=without_nan(points))).encode(
        x=alt.X("rate (%):N", sort=order, title="rate of the value in the images (%)", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("arm:N", sort=list(result), scale=alt.Scale(rangeMin=28, rangeMax=76)),
        color=alt.Color("arm:N", sort=list(result), scale=alt.Scale(scheme="tableau10")),
    )
    lines = base.mark_line(point=True).encode(
        y=alt.Y("recall:Q", scale=alt.Scale(domain=[0, 1]), title=f"recall among the first {depth}")
    )
    bars = base.mark_rule().encode(y="low:Q", y2="high:Q")
    chart = (lines + bars).properties(width=520, height=320)
    write_text(path, _as_svg(chart))


def _as_svg(chart: Any) -> str:
    import vl_convert

    return vl_convert.vegalite_to_svg(chart.to_json())


def suppression_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Rate seen against rate planted, one point per prompt and value, one panel per guidance scale, as SVG."""
    points = [row for row in rows if row["rate"] is not None and not row["named"]]
    base = alt.Chart().encode(
        x=alt.X("planted:Q", scale=alt.Scale(type="symlog", constant=0.002), title="planted rate")
    )
    dots = base.mark_circle(opacity=0.6).encode(
        y=alt.Y("rate:Q", scale=alt.Scale(type="symlog", constant=0.002), title="rate in the images"),
    )
    line = base.mark_line(color="gray", strokeDash=[4, 4]).encode(y="planted:Q")
    chart = alt.layer(dots, line, data=alt.Data(values=without_nan(points))).properties(width=260, height=260)
    write_text(path, _as_svg(chart.facet(column=alt.Column("guidance_scale:N", title="guidance scale"))))


def ablation_figure(result: Summary, path: Path, name: str = "recall@20") -> None:
    """One small panel per curve: a measure at each point, with its interval, as SVG."""
    points = []
    for arm, values in result.items():
        curve, place = arm.split(": ", 1)
        if values[name]["n"]:
            points.append({"curve": curve, "point": place, **values[name]})
    order = list(dict.fromkeys(point["point"] for point in points))
    base = alt.Chart().encode(x=alt.X("point:N", sort=order, title=None, axis=alt.Axis(labelAngle=-30)))
    marks = base.mark_circle(size=60).encode(y=alt.Y("mean:Q", scale=alt.Scale(domain=[0, 1]), title=name))
    bars = base.mark_rule().encode(y="low:Q", y2="high:Q")
    chart = alt.layer(marks, bars, data=alt.Data(values=without_nan(points))).properties(width=200, height=140)
    panels = chart.facet(facet=alt.Facet("curve:N", title=None), columns=4).resolve_scale(x="independent")
    write_text(path, _as_svg(panels))


def coverage_figure(rows: list[dict[str, Any]], path: Path, n: int = 1000) -> None:
    """Coverage of 95 % intervals against the true rate for audits of `n` images, as SVG: a panel per judge, a line per
    mode and kind of calibration."""
    points = []
    for row in rows:
        if row["n"] == n:
            name = "raw" if row["mode"] == "raw" else f"{row['mode']}, {row['calibration']}"
            judge = f"Se {row['sensitivity']:g}, Sp {row['specificity']:g}"
            points.append({"line": name, "judge": judge, "rate (%)": f"{100 * row['rate']:g}", **row})
    base = alt.Chart().encode(
        x=alt.X("rate (%):N", sort=None, title="true rate (%)", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("line:N", sort=None, title=None, scale=alt.Scale(scheme="tableau10")),
    )
    lines = base.mark_line(point=True).encode(
        y=alt.Y("coverage:Q", scale=alt.Scale(domain=[0, 1]), title="intervals that hold the true rate")
    )
    goal = alt.Chart().mark_rule(strokeDash=[4, 4], color="gray").encode(y=alt.datum(0.95))
    chart = alt.layer(goal, lines, data=alt.Data(values=without_nan(points))).properties(width=220, height=220)
    write_text(path, _as_svg(chart.facet(column=alt.Column("judge:N", title=None, sort=None))))
