"""Says what was tried to bring attributes out, and what else that changed."""

from collections.abc import Mapping
from typing import Any

from raigen.config import CONTROLLED
from raigen.dossier.evidence import Part
from raigen.report.amplified import point_of, read_amplified, with_q
from raigen.report.formatting import METHOD_NAMES, strength_text
from raigen.runs.records import RareAttribute
from raigen.stats import LEVEL

Row = dict[str, Any]


def mitigation_of(part: Part) -> list[Row]:
    """A dict for each method that amplified an attribute: the rate before and after, and the other attributes that
    changed (q <= .05 over all that were measured for the attribute). Controls are left out."""
    found = []
    for attribute, entries in read_amplified(part.run, part.run.attributes).curves:
        entries = with_q(entries)
        for entry in entries:
            if entry["method"] not in CONTROLLED and entry["points"]:
                found.append(_row(attribute, entry, point_of(entry, entries)))
    return found


def _row(attribute: RareAttribute, entry: Row, point: Mapping[str, Any]) -> Row:
    causal = attribute.causal if attribute.causal and attribute.causal.method == entry["method"] else None
    moved = [row for row in point["off_target"] if row["q"] <= LEVEL]
    return {
        "attribute": attribute.title, "method": METHOD_NAMES[entry["method"]],
        "strength": strength_text(entry["method"], point["strength"]),
        "before": entry["base"]["presence"], "after": point["presence"], "gain": point["gain"],
        "n_others": len(point["off_target"]),
        "off_target": [{name: row[name] for name in ("label", "before", "after", "difference", "low", "high", "q")}
                       for row in moved],
        "beats_controls": None if causal is None else not causal.correlates_only,
    }  # fmt: skip
