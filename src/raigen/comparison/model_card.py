"""Writes what other programs read of a study: its tables as parquet, and a model card for each model."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from raigen.report.exports import as_parquet, plain
from raigen.runs.facts import CaptureFacts
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.runs.study import Study, free_name, slug
from raigen.runs.study_records import CLOSED

TASK = "text-to-image"


def export(study: Study, page: Mapping[str, Any], runs: Mapping[str, Run]) -> list[Path]:
    """Writes `cards/MODEL.md` for each model and, where pyarrow is installed, the tables as parquet; the paths.

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
    """The name of a file for each model, none twice.

    >>> file_names(["a/x", "a x", "B"])
    ['a-x', 'a-x-2', 'b']
    """
    found: list[str] = []
    for name in names:
        found.append(free_name(slug(name), found))
    return found


def card_of(page: Mapping[str, Any], model: str, facts: CaptureFacts) -> str:
    """A model card in Markdown: a block of metadata as the Hub reads it, then every rate of the model for each prompt.

    `facts` are those of a capture: the license and the place on the Hub go into the block where they are known. The
    rates of attributes and the discrepancies of closed axes stand in its `model-index`.
    """
    name = page["names"][model]
    on_hub = model if facts.revision else None
    data = ModelCardData(
        license=facts.license, library_name="diffusers", pipeline_tag=TASK, base_model=on_hub,
        tags=["raigen", "bias", "audit"], model_name=name, eval_results=_results(page, model),
    )  # fmt: skip
    lines = ["---", data.to_yaml(), "---", "", f"# What {plain(name)} hardly ever shows", "", *_intro(page, model)]
    for prompt in page["prompts"]:
        lines += ["", f"## {plain(prompt)}", "", "| attribute | found by | shown | interval | images | against "
                  f"{plain(page['names'][page['baseline']])} |", "|---|---|---|---|---|---|"]  # fmt: skip
        lines += [_row(row, cell) for row, cell in _cells(page, prompt, model)]
        axes = [rate for rival in page["rivals"] for rate in rival["rates"]
                if (rate["prompt"], rate["model"]) == (prompt, model)]  # fmt: skip
        if axes:
            lines += ["", "| set | axis | shares | discrepancy | by chance | severity |", "|---|---|---|---|---|---|"]
            lines += [_axis_row(rate) for rate in axes]
    return "\n".join([*lines, "", *_limits(page)]) + "\n"


def _intro(page: Mapping[str, Any], model: str) -> list[str]:
    others = ", ".join(plain(page["names"][other]) for other in page["models"] if other != model)
    return [
        f"An audit by raigen {plain(page['version'])} of {len(page['prompts'])} prompts, {page['n_images']:,} images "
        f"each, beside {others}. Each attribute that any of these audits found, that was given, or for which an axis "
        f"asks was judged in {page['n_fresh_images']:,} fresh images of each prompt; judge: {plain(page['judge'])}."
    ]


def _limits(page: Mapping[str, Any]) -> list[str]:
    return [
        "## Limits",
        "",
        "- Rare means rare for this prompt, this model and these settings. The rates are a judge's, and the intervals "
        "do not hold its errors.",
        "- An audit does not find everything: what is not listed may still be rare.",
        f"- Differences are on the same seeds, with {100 * page['confidence']:g} % intervals; what is called new, "
        "worse, fixed or better has q <= 0.05 over all comparisons of the study.",
    ]


def _cells(page: Mapping[str, Any], prompt: str, model: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The attributes with their cells for a prompt and a model."""
    return [(row, cell) for row in page["rows"] for group in row["prompts"] if group["prompt"] == prompt
            for cell in group["cells"] if cell["model"] == model]  # fmt: skip


def _row(row: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    rate, change = cell["presence"], cell["change"]
    by = ["this audit" if cell["is_listed"] else "another audit"] if row["findings"] else []
    by += (["given"] if row["given"] else []) + list(dict.fromkeys(f"{axis['approach']} set" for axis in row["axes"]))
    shown = f"{rate['rate']:.1%} | {rate['low']:.1%} to {rate['high']:.1%}" if rate["n"] else "unscored | "
    moved = ""
    if change and change["difference"]:
        moved = f"{100 * change['difference']['difference']:+.1f} points, {change['kind']}"
    return f"| {plain(cell['label'])} | {', '.join(by)} | {shown} | {rate['n']:,} | {moved} |"


def _axis_row(rate: Mapping[str, Any]) -> str:
    shares = zip(rate["categories"], rate["shares"], strict=True)
    told = ", ".join(f"{plain(category)} {share:.1%}" for category, share in shares) if rate["n"] else "unscored"
    numbers = ("" if rate[key] is None else f"{rate[key]:.3f}" for key in ("discrepancy", "by_chance", "severity"))
    return f"| {rate['approach']} | {plain(rate['axis'])} | {told} | {' | '.join(numbers)} |"


def _results(page: Mapping[str, Any], model: str) -> list[EvalResult]:
    """What the Hub shows beside the card: the rate of each attribute, the discrepancy of each closed axis."""
    found = []
    for prompt in page["prompts"]:
        about = {"task_type": TASK, "dataset_type": "generated", "dataset_name": prompt}
        found += [EvalResult(**about, metric_type="presence", metric_name=f"shows: {cell['label']}",
                             metric_value=round(cell["presence"]["rate"], 4))
                  for _, cell in _cells(page, prompt, model) if cell["presence"]["n"]]  # fmt: skip
        found += [EvalResult(**about, metric_type="fairness-discrepancy", metric_name=rate["axis"],
                             metric_value=round(rate["discrepancy"], 4))
                  for rival in page["rivals"] if rival["approach"] == CLOSED for rate in rival["rates"]
                  if (rate["prompt"], rate["model"]) == (prompt, model) and rate["n"]]  # fmt: skip
    return found
