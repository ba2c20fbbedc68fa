"""presence.csv, the table of measured rates: written, read, and completed with checked rates."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from raigen.judging.rates import Rates
from raigen.runs.files import csv_text, plain_cell
from raigen.runs.records import ON_LABEL, RATES, SUGGESTED, Presence, RareAttribute, label_columns, suggested_columns
from raigen.runs.run import Run

COLUMNS = ("rank", "neuron", "label", *RATES, "judges_alpha", *SUGGESTED, *ON_LABEL, "effective_n")


def table(attributes: Sequence[RareAttribute], given: Mapping[str, Rates] | None = None) -> str:
    """A line per attribute, judge and mode: first the discovered attributes, then the `given` ones, by label, which
    have no rank and no neuron. The rate with the suggested prompt stands on every line of an attribute."""
    rows: list[dict[str, Any]] = []
    for a in attributes:
        about = {"rank": a.rank, "neuron": a.neuron} | label_columns(a)
        about |= dict(zip(SUGGESTED, suggested_columns(a), strict=True))
        rows += [about | _rate(presence, a.judges_alpha) for presence in a.presences]
    for label, (presences, alpha) in (given or {}).items():
        rows += [{"label": label} | _rate(presence, alpha) for presence in presences]
    return csv_text(COLUMNS, rows)


def read_given(run: Run) -> dict[str, Rates]:
    """The rates of the given attributes of a run, by label.

    Raises RaigenError when the run has no presence.csv, saying how to make it.
    """
    found: dict[str, Rates] = {}
    rows = csv.DictReader(io.StringIO(run.read_text(run.presence_path, "evaluate")))
    with run.shaped(run.presence_path, "evaluate"):
        for row in rows:
            if not row["neuron"]:
                label = plain_cell(row["label"])
                former = found[label].presences if label in found else ()
                alpha = float(row["judges_alpha"]) if row.get("judges_alpha") else None
                found[label] = Rates((*former, Presence.from_row(row)), alpha)
    return found


def with_checked(text: str, attributes: Sequence[RareAttribute]) -> str:
    """The table with the checked rates of `attributes` in place of earlier ones, after the other rates of each."""
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = list(rows[0])
    new = {str(attribute.neuron): attribute.corrected[-1] for attribute in attributes}
    rows = [row for row in rows if not (row["mode"] == "checked" and row["neuron"] in new)]
    for neuron, presence in new.items():
        last = int(np.flatnonzero([row["neuron"] == neuron for row in rows])[-1])
        values = {name: value for name, value in asdict(presence).items() if name in columns}
        rows.insert(last + 1, rows[last] | values)
    return csv_text(columns, rows)


def _rate(presence: Presence, alpha: float | None) -> dict[str, Any]:
    return asdict(presence) | {"judges_alpha": None if alpha is None else f"{alpha:.4f}"}
