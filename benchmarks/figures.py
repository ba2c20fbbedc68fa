"""The figures of the benchmark, drawn by Altair."""

from pathlib import Path

import altair as alt

from benchmarks.measures import BANDS
from raigen.run import write_text

Summary = dict[str, dict[str, dict[str, float]]]


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
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("rate (%):N", sort=order, title="rate of the value in the pictures (%)", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("arm:N", sort=list(result), scale=alt.Scale(scheme="tableau20")),
    )
    lines = base.mark_line(point=True).encode(
        y=alt.Y("recall:Q", scale=alt.Scale(domain=[0, 1]), title=f"recall among the first {depth}")
    )
    bars = base.mark_rule().encode(y="low:Q", y2="high:Q")
    chart = (lines + bars).properties(width=520, height=320)
    write_text(path, _as_svg(chart))


def _as_svg(chart: alt.LayerChart) -> str:
    import vl_convert

    return vl_convert.vegalite_to_svg(chart.to_json())
