"""Exports a study for other programs: its tables as parquet, and a model card for each model."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from raigen.report.exports import TASK, as_parquet, hub_metadata, rate_result
from raigen.report.html import fill
from raigen.runs.facts import CaptureFacts
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.runs.study import Study, free_name, slug
from raigen.runs.study_records import CLOSED


def export(study: Study, page: Mapping[str, Any], runs: Mapping[str, Run]) -> list[Path]:
    """Writes `cards/MODEL.md` for each model and, if pyarrow is installed, the tables as parquet. Returns the paths.

    `page` is the dict of the report, `runs` holds a run of each model.
    """
    names = page["names"]
    paths = [study.cards_dir / f"{name}.md" for name in file_names([names[model] for model in page["models"]])]
    for path, model in zip(paths, page["models"], strict=True):
        write_text(path, card_of(page, model, runs[model].facts.capture))
    if find_spec("pyarrow"):
        paths += [as_parquet(path) for path in (study.table_path, study.axes_path)]
    return paths


def file_names(names: Sequence[str]) -> list[str]:
    """A file name for each model; no two are equal.

    >>> file_names(["a/x", "a x", "B"])
    ['a-x', 'a-x-2', 'b']
    """
    found: list[str] = []
    for name in names:
        found.append(free_name(slug(name), found))
    return found


def card_of(page: Mapping[str, Any], model: str, facts: CaptureFacts) -> str:
    """A model card in Markdown: a block of metadata that the Hub reads (see `raigen.report.exports.hub_metadata`), then
    every rate of the model for each prompt. The `model-index` of the block has the rates of attributes and the
    discrepancies of closed axes."""
    name = page["names"][model]
    parts = [{"prompt": prompt, "cells": _cells(page, prompt, model), "axes": _axes(page, prompt, model)}
             for prompt in page["prompts"]]  # fmt: skip
    results = [result for part in parts for result in _results(part)]
    metadata = hub_metadata(name, model, facts, results)
    others = [page["names"][other] for other in page["models"] if other != model]
    return fill("study-card.md.jinja", page, metadata=metadata, name=name, others=others, parts=parts,
                found_by=_found_by)  # fmt: skip


def _cells(page: Mapping[str, Any], prompt: str, model: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The attributes with their cells for a prompt and a model."""
    return [(row, cell) for row in page["rows"] for group in row["prompts"] if group["prompt"] == prompt
            for cell in group["cells"] if cell["model"] == model]  # fmt: skip


def _axes(page: Mapping[str, Any], prompt: str, model: str) -> list[Mapping[str, Any]]:
    """How the images of a model for a prompt are distributed over each axis, closed and open."""
    return [rate for rival in page["rivals"] for rate in rival["rates"]
            if (rate["prompt"], rate["model"]) == (prompt, model)]  # fmt: skip


def _found_by(row: Mapping[str, Any], cell: Mapping[str, Any]) -> list[str]:
    """Where an attribute comes from: audits, the user, sets of axes."""
    audits = ["this audit" if cell["is_listed"] else "another audit"] if row["findings"] else []
    sets = dict.fromkeys(f"{axis['approach']} set" for axis in row["axes"])
    return [*audits, *(["given"] if row["given"] else []), *sets]


def _results(part: Mapping[str, Any]) -> list[EvalResult]:
    """What the Hub shows beside the card for one prompt: the rate of each attribute, the discrepancy of each closed
    axis."""
    rates = [rate_result(part["prompt"], cell["label"], cell["presence"]["rate"]) for _, cell in part["cells"]
             if cell["presence"]["n"]]  # fmt: skip
    axes = [
        EvalResult(task_type=TASK, dataset_type="generated", dataset_name=part["prompt"],
                   metric_type="fairness-discrepancy", metric_name=rate["axis"],
                   metric_value=round(rate["discrepancy"], 4))
        for rate in part["axes"] if rate["approach"] == CLOSED and rate["n"]
    ]  # fmt: skip
    return rates + axes
