"""Gathers everything that the report of a study says, as one dict."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float

from raigen.comparison.verdicts import Judged
from raigen.config import CompareConfig
from raigen.report import charts
from raigen.report.neuron_cards import Thumbs, data_uri, fitting
from raigen.runs import pixels
from raigen.runs.study import Study
from raigen.runs.study_records import CLOSED, KINDS, OPEN
from raigen.stats import LEVEL

MAX_STRIPS = 60  # attributes with images: those in which the models differ most
HEAT = 70  # percent of color at a rate of 1, so that the text on it stays readable
N_IN_SUMMARY = 5  # changes that the summary names

Places = Mapping[tuple[str, str], Judged]  # by prompt and model


def page_of(study: Study, entry: Mapping[str, Any], judged: Places, config: CompareConfig) -> dict[str, Any]:
    """Everything that the page says. `entry` is the content of comparison.json."""
    cells = _cells(entry)
    kinds = Counter((change["model"], change["kind"]) for change in entry["changes"])
    moved = [change for change in entry["changes"] if change["kind"] not in ("same", "unmeasured")]
    moved.sort(key=lambda change: (change["q"], -abs(change["difference"]["difference"])))
    return {
        **{name: value for name, value in entry.items() if name not in ("cells", "attributes")},
        "names": short_names(entry["models"]),
        "rows": _rows(entry, cells),
        "rivals": [rival for approach in (CLOSED, OPEN) if (rival := _rival(approach, entry, cells))],
        "kinds": KINDS,
        "counts": {model: {kind: kinds[model, kind] for kind in KINDS} for model in entry["models"][1:]},
        "moved_most": [change | {"before": cells[change["label"], change["prompt"], change["baseline"]]["presence"],
                           "after": cells[change["label"], change["prompt"], change["model"]]["presence"]}
                 for change in moved[:N_IN_SUMMARY]],
        "n_moved": len(moved),
        "axis": charts.rate_axis([cell["presence"]["high"] for cell in cells.values() if cell["presence"]["n"]]),
        "strips": _strips(entry, judged, config),
        "shared": _shared(study),
        "unscored": _unscored(judged),
        "runs": [{"prompt": e.prompt, "model": e.model, "link": f"{quote(e.folder)}/report.html",
                  "n_listed": len(judged[e.prompt, e.model].run.attributes)}
                 for e in study.entries if (e.prompt, e.model) in judged],
        "config": config,
        "level": LEVEL,
        "version": judged[entry["prompts"][0], entry["models"][0]].run.manifest.get("machine", {}).get("raigen", ""),
    }  # fmt: skip


def short_names(models: Sequence[str]) -> dict[str, str]:
    """The name of each model on the page: the last part of its name if these parts differ, else all of it.

    >>> short_names(["portraits", "/models/fair"]), short_names(["a/x", "b/x"])
    ({'portraits': 'portraits', '/models/fair': 'fair'}, {'a/x': 'a/x', 'b/x': 'b/x'})
    """
    short = {model: Path(model).name or model for model in models}
    return short if len(set(short.values())) == len(models) else {model: model for model in models}


def _shared(study: Study) -> list[dict[str, Any]]:
    """How often every listed neuron fires for each prompt, for each model whose prompts share an autoencoder."""
    tables: dict[str, dict[str, Any]] = {}
    for row in study.neuron_rates():
        table = tables.setdefault(row["model"], {"model": row["model"], "under": [], "rows": {}})
        if row["under"] not in table["under"]:
            table["under"].append(row["under"])
        of_neuron = table["rows"].setdefault((row["prompt"], row["neuron"]), row | {"rates": {}})
        of_neuron["rates"][row["under"]] = row["rate"]
    return [table | {"rows": list(table["rows"].values())} for table in tables.values()]


def _cells(entry: Mapping[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The cells of the matrix by label, prompt and model, each with its change and its rate when requested."""
    found = {}
    changes, lone = ({(e["label"], e["prompt"], e["model"]): e for e in entry[name]} for name in ("changes", "lone"))
    for cell in entry["cells"]:
        place = cell["label"], cell["prompt"], cell["model"]
        rate = cell["presence"]["rate"]
        heat = round(HEAT * math.sqrt(rate)) if cell["presence"]["n"] else 0
        found[place] = cell | {"change": changes.get(place), "lone": lone.get(place), "heat": heat}
    return found


def _rows(entry: Mapping[str, Any], cells: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row of the matrix for each attribute; its cells by prompt, then by model."""
    return [
        attribute | {"id": f"attribute-{number}", "prompts": [
            {"prompt": prompt, "cells": [cells[attribute["label"], prompt, model] for model in entry["models"]]}
            for prompt in entry["prompts"]
        ]}
        for number, attribute in enumerate(entry["attributes"], 1)
    ]  # fmt: skip


def _rival(approach: str, entry: Mapping[str, Any], cells: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any] | None:
    """What a set of axes and raigen both found, and what only one of them found; None without a set of this approach.

    Values that were only given belong to neither. Each value comes with its lowest and highest rate.
    """
    rates = [rate for rate in entry["axes"] if rate["approach"] == approach]
    if not rates:
        return None
    lists: dict[str, list[dict[str, Any]]] = {"both": [], "only_found": [], "only_axes": []}
    for attribute in entry["attributes"]:
        asked = [axis for axis in attribute["axes"] if axis["approach"] == approach]
        seen = [cells[attribute["label"], prompt, model]["presence"]
                for prompt in entry["prompts"] for model in entry["models"]]  # fmt: skip
        spread = [presence["rate"] for presence in seen if presence["n"]]
        value = {"label": attribute["label"], "axis": asked[0]["axis"] if asked else None,
                 "low": min(spread, default=None), "high": max(spread, default=None)}  # fmt: skip
        if attribute["findings"] or asked:
            lists["only_axes" if not attribute["findings"] else "both" if asked else "only_found"].append(value)
    return {"approach": approach, "rates": rates, "n_axes": len({rate["axis"] for rate in rates}), **lists}


def _strips(entry: Mapping[str, Any], judged: Places, config: CompareConfig) -> dict[str, dict[str, Any]]:
    """Images of all models with the same seeds, by label, for the prompt in which the models differ most."""
    chosen = sorted((_prompt_of(attribute, entry) for attribute in entry["attributes"]), key=lambda one: one[0])
    runs, count = list(judged.values()), config.n_strip_images
    n_shown = min(MAX_STRIPS, len(chosen)) * len(entry["models"]) * count
    thumbs = fitting(runs[0].run, runs[0].samples, n_shown)
    found = {}
    for _, label, prompt in chosen[:MAX_STRIPS]:
        row = [judged[prompt, model] for model in entry["models"]]
        places = seeds_to_show(np.stack([one.verdicts[label].shows for one in row]), count)
        found[label] = {"prompt": prompt, "models": [_strip(one, label, places, thumbs) for one in row],
                        "is_pixel_art": max(row[0].run.read_image(row[0].samples[0], "evaluate").size)
                        <= pixels.PIXEL_ART}  # fmt: skip
    return found


def _prompt_of(attribute: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[tuple[float, float], str, str]:
    """A sort key (small if the models differ much), the label, and the prompt in which they differ most. Without a
    difference it is the first prompt for which the attribute was found."""
    label = attribute["label"]
    moved = [((c["q"], -abs(c["difference"]["difference"])), label, c["prompt"])
             for c in entry["changes"] if c["label"] == label and c["difference"]]  # fmt: skip
    listed = [finding["prompt"] for finding in attribute["findings"]] or list(entry["prompts"])
    return min(moved, default=((2.0, 0.0), label, listed[0]))


def seeds_to_show(shows: Float[np.ndarray, "model image"], count: int) -> list[int]:
    """The indices of up to `count` images: first those in which some model shows the attribute, then others.

    >>> seeds_to_show(np.array([[0.0, 0, 0, 1], [0, 0, np.nan, 0]]), 2)
    [0, 3]
    """
    is_hit = (shows == 1).any(axis=0)
    order = [*np.flatnonzero(is_hit).tolist(), *np.flatnonzero(~is_hit).tolist()]
    return sorted(order[:count])


def _strip(one: Judged, label: str, places: Sequence[int], thumbs: Thumbs) -> list[dict[str, Any]]:
    images = []
    for place in places:
        sample, shown = one.samples[place], one.verdicts[label].shows[place]
        said = "unscored" if np.isnan(shown) else "shows it" if shown else "does not show it"
        uri = data_uri(one.run.read_image(sample, "evaluate"), thumbs)
        images.append({"uri": uri, "seed": sample.seed, "said": said})
    return images


def _unscored(judged: Places) -> list[tuple[str, int]]:
    """How many verdicts are missing, for each reason."""
    found: Counter[str] = Counter()
    for one in judged.values():
        for verdict in one.verdicts.values():
            found.update(reason.split(":")[0] for reason in (verdict.why or {}).values())
    return found.most_common()
