"""Gathers what the report shows of amplification: curves, tables, and the same seeds at growing strength."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from raigen.config import CONTROLLED
from raigen.report.formatting import METHOD_NAMES, strength_text
from raigen.report.neuron_cards import Thumbs, image_of
from raigen.report.pareto import pareto
from raigen.runs import pixels
from raigen.runs.records import Difference, Mean, Presence, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.stats import LEVEL, q_values, rate_interval

N_SEEDS = 5  # images of a strip: the first seeds, not selected
N_STRIPS = 4  # strengths of a method that are shown as images, at most; a control has one
N_MOVED = 5  # other attributes whose drift is shown at once, at least; the rest is folded
LEAST_HALF = 50  # judged images in each half of the seeds, to choose a strength on one half and report it on the other

Entry = Mapping[str, Any]  # the content of an amplification.json


class Strip(NamedTuple):
    """Images of the first seeds, made by one method at one strength, as files of the run folder."""

    name: str
    is_control: bool
    files: tuple[str, ...]


class Amplified(NamedTuple):
    """What was amplified: the entries of each attribute in the order of the list, and mixtures. `n_others` counts the
    entries of attributes that are no longer listed under the same name."""

    curves: list[tuple[RareAttribute, list[Entry]]]
    mixtures: list[Entry]
    n_others: int

    @property
    def n_images(self) -> int:
        """How many images the page will show."""
        return sum(len(strip.files) for _, entries in self.curves for strip in strips_of(entries))


def read_amplified(run: Run, attributes: Sequence[RareAttribute]) -> Amplified:
    """Everything that was amplified in this run."""
    entries = [run.read_json(path, "amplify") for path in run.amplifications()]
    names = {(attribute.neuron, attribute.label) for attribute in attributes}
    order = list(METHOD_NAMES)
    mixtures = [entry for entry in entries if entry["method"] == "mix"]
    shown = [entry for entry in mixtures if all((row["neuron"], row["label"]) in names for row in entry["attributes"])]
    single = [entry for entry in entries if entry["method"] != "mix" and (entry["neuron"], entry["label"]) in names]
    single.sort(key=lambda entry: order.index(entry["method"]))
    curves = [(a, [entry for entry in single if entry["neuron"] == a.neuron]) for a in attributes]
    curves = [(attribute, found) for attribute, found in curves if found]
    return Amplified(curves, shown, len(entries) - len(single) - len(shown))


def curves_of(run: Run, amplified: Amplified, thumbs: Thumbs) -> list[dict[str, Any]]:
    """Everything that the page says about each amplified attribute, as dicts for the template.

    Raises RaigenError if an image is missing or damaged.
    """
    found = []
    for attribute, entries in ((attribute, with_q(entries)) for attribute, entries in amplified.curves):
        strips = [(strip, _images(run, strip, thumbs)) for strip in strips_of(entries)]
        rows = [_row(entry, point) for entry in entries for point in entry["points"]]
        found.append({
            "attribute": attribute,
            "chart": pareto(entries),
            "base": _row(_widest(entries), None),
            "rows": rows,
            "cheapest": cheapest_of(entries),
            "strips": strips,
            "is_pixel_art": max(run.read_image(_samples(run, strips[0][0])[0]).size) <= pixels.PIXEL_ART,
            "drift": drift_of(entries),
            "notes": [note for entry in entries if (note := _note(entry))],
        })  # fmt: skip
    return found


def mixtures_of(amplified: Amplified) -> list[dict[str, Any]]:
    """Everything that the page says about each mixture: the shares of its prompts, each attribute's target and rate."""
    return [
        {
            "n": entry["attributes"][0]["n"],
            "prompts": [prompt for prompt in entry["prompts"] if prompt["share"] > 0],
            "attributes": [row | {"presence": Presence(**row["presence"])} for row in entry["attributes"]],
        }
        for entry in amplified.mixtures
    ]


def strips_of(entries: Sequence[Entry]) -> list[Strip]:
    """The unsteered images, then up to `N_STRIPS` strengths of each method, evenly spaced and with the strongest.

    `select` keeps other seeds, so it has no strip. A control has one, at the strength of `point_of`.
    """
    strips = [Strip("unsteered", False, tuple(_widest(entries)["base"]["files"][:N_SEEDS]))]
    for entry in entries:
        method, points = entry["method"], entry["points"]
        if method == "select" or not points:
            continue
        if method in CONTROLLED:
            points = [point_of(entry, entries)]
        step = max(1.0, (len(points) - 1) / (N_STRIPS - 1))
        chosen = sorted({round(len(points) - 1 - place * step) for place in range(min(N_STRIPS, len(points)))})
        for point in (points[index] for index in chosen):
            text = f"{METHOD_NAMES[method]}, {strength_text(method, point['strength'])}"
            strips.append(Strip(text, method in CONTROLLED, tuple(point["files"][:N_SEEDS])))
    return strips


def point_of(entry: Entry, entries: Sequence[Entry]) -> Mapping[str, Any]:
    """The strength that represents a method: the weakest one with the highest presence on the first half of the seeds
    (on all, if the halves are small). A control is shown at the strength of the method it controls, or else at its
    strongest."""
    points = sorted(entry["points"], key=lambda point: abs(point["strength"]))
    if entry["method"] not in CONTROLLED:
        return max(points, key=_rate_to_choose)
    steered = [other for other in entries if other["method"] == CONTROLLED[entry["method"]] and other["points"]]
    wanted = point_of(steered[0], entries)["strength"] if steered else None
    return next((point for point in points if point["strength"] == wanted), points[-1])


def cheapest_of(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """The line of the strength with the fewest images for each one that shows the attribute; None if none does.

    It is chosen on the seeds at even places, and its presence and cost are those of the seeds at odd places, so that no
    image is counted at a strength that it helped to choose. `chosen_on` says so: `half`; `all` if the halves are too
    small or were not kept, and `nothing` if there was no choice.
    """
    tried = [(entry, point) for entry in entries if entry["method"] not in CONTROLLED
             for point in entry["points"] if point["presence"]["hits"]]  # fmt: skip
    if not tried:
        return None
    halved = len(tried) > 1 and all(_is_halved(point) for _, point in tried)
    entry, point = min(tried, key=lambda each: _cost(each[1], each[1]["halves"][0] if halved else each[1]["presence"]))
    row: dict[str, Any] = _row(entry, point) | {
        "chosen_on": "half" if halved else "all" if len(tried) > 1 else "nothing"
    }
    if halved:
        hits, n = point["halves"][1]["hits"], point["halves"][1]["n"]
        confidence = entry["setup"].get("confidence", 0.95)
        low, high, method = rate_interval(hits, n, confidence)
        row["presence"] = replace(
            row["presence"], rate=hits / n, low=low, high=high, hits=hits, n=n, mode="raw",
            interval=f"{100 * confidence:g} % {method}",
        )  # fmt: skip
        row["cost"] = _cost(point, point["halves"][1]) if hits else None
    return row


def _cost(point: Mapping[str, Any], seen: Mapping[str, Any]) -> float:
    """Images made for each one that shows the attribute, by the hits among the `seen` images of the point."""
    share = seen["n"] / point["presence"]["n"]
    return point["n_made"] * share / seen["hits"] if seen["hits"] else math.inf


def _is_halved(point: Mapping[str, Any]) -> bool:
    """Whether both halves of the seeds were judged often enough. Early files have no halves."""
    return min((half["n"] for half in point.get("halves", ())), default=0) >= LEAST_HALF


def _rate_to_choose(point: Mapping[str, Any]) -> float:
    seen = point["halves"][0] if _is_halved(point) else point["presence"]
    return seen["hits"] / max(1, seen["n"])


def with_q(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The entries of an attribute with the q of each other attribute's change corrected for all changes that the page
    shows: of all attributes, methods and strengths."""
    changes = [row for entry in entries for point in entry["points"] for row in point["off_target"]]
    qs = iter(q_values([row["p"] for row in changes]))
    return [
        {**entry, "points": [point | {"off_target": [row | {"q": next(qs)} for row in point["off_target"]]}
                             for point in entry["points"]]}
        for entry in entries
    ]  # fmt: skip


def drift_of(entries: Sequence[Entry]) -> dict[str, Any]:
    """How all other attributes changed under each method (at its `point_of`): those that changed significantly or far,
    and the rest."""
    with_points = [entry for entry in entries if entry["points"]]
    columns, moves = [], []
    for entry in with_points:
        point = point_of(entry, entries)
        text = strength_text(entry["method"], point["strength"])
        columns.append(
            {"name": METHOD_NAMES[entry["method"]], "text": text, "is_control": entry["method"] in CONTROLLED}
        )
        moves.append({row["label"]: row for row in point["off_target"]})
    rows = []
    for label in dict.fromkeys(label for column in moves for label in column):
        cells = [column.get(label) for column in moves]
        known = [cell for cell in cells if cell]
        rows.append({"label": label, "before": known[0]["before"], "cells": cells,
                     "q": min(cell["q"] for cell in known),
                     "far": max(abs(cell["difference"]) for cell in known)})  # fmt: skip
    rows.sort(key=lambda row: -row["far"])
    n_moved = sum(row["q"] <= LEVEL for row in rows)
    moved = [row for place, row in enumerate(rows) if row["q"] <= LEVEL or place < N_MOVED]
    return {"columns": columns, "moved": moved, "still": [row for row in rows if row not in moved], "n_moved": n_moved}


def _widest(entries: Sequence[Entry]) -> Entry:
    """The entry with the most unsteered images."""
    return max(entries, key=lambda entry: entry["base"]["n"])


def _row(entry: Entry, point: Mapping[str, Any] | None) -> dict[str, Any]:
    """A line of the table: one strength of a method, or the unsteered images if `point` is None."""
    found, method = point or entry["base"], entry["method"]
    presence, fidelity, gain = Presence(**found["presence"]), found.get("fidelity"), found.get("gain")
    off_target = found.get("off_target", [])
    return {
        "name": METHOD_NAMES[method] if point else "unsteered",
        "is_control": bool(point) and method in CONTROLLED,
        "strength": strength_text(method, point["strength"]) if point else "",
        "presence": presence,
        "gain": Difference(**gain) if gain else None,
        "lift": found.get("lift"),
        "fidelity": Mean(**fidelity) if fidelity else None,
        "readable": (found["readable"] or {}).get("rate"),
        "right": (found["right_profession"] or {}).get("rate"),
        "diversity": found["diversity"],
        "n_moved": sum(row["q"] <= LEVEL for row in off_target),
        "n_others": len(off_target),
        "cost": found["cost"] if point else 1 / presence.rate if presence.hits else None,
    }


def _note(entry: Entry) -> str:
    """The settings of a recipe that are not the defaults, and the strength that broke the images."""
    recipe, notes = entry["recipe"], []
    if recipe.get("strengths"):  # early files have none
        turned = zip(recipe["neurons"], recipe["strengths"], strict=True)
        notes.append(f"{METHOD_NAMES[recipe['method']]} of {', '.join(f'{one} by {far:g}' for one, far in turned)}")
    elif len(recipe["neurons"]) > 1:
        notes.append(f"with neurons {', '.join(map(str, recipe['neurons'][1:]))} steered by the same strength")
    if recipe["steps"]:
        notes.append(f"in steps {recipe['steps'][0]} to {recipe['steps'][1]} only")
    if recipe["every_branch"]:
        notes.append("in every branch of the guidance")
    if recipe["mask"]:
        notes.append("within a mask")
    if entry["stopped"]:
        broken = entry["stopped"]
        notes.append(f"strength {broken['strength']:g} {broken['why']}, the last good one is {broken['last_good']:g}")
    return f"{METHOD_NAMES[entry['method']]}: {'; '.join(notes)}" if notes else ""


def _images(run: Run, strip: Strip, thumbs: Thumbs) -> list[Any]:
    samples = _samples(run, strip)
    return [image_of(run, sample, f"{strip.name},", thumbs, stage="amplify") for sample in samples]


def _samples(run: Run, strip: Strip) -> list[Sample]:
    """The images of a strip. They lie in a folder for each recipe; each list is read once."""
    folders = dict.fromkeys(Path(file).parent for file in strip.files)
    listed = {sample.file: sample for folder in folders for sample in run.samples(run.dir / folder / "samples.jsonl")}
    return [listed[file] for file in strip.files]
