"""Exports a run for other programs: metadata beside its images, tables as parquet, a card in Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from raigen.report.html import fill
from raigen.runs.facts import CaptureFacts
from raigen.runs.files import csv_text, json_text, write_bytes, write_text
from raigen.runs.records import (
    HELD_BACK,
    ON_LABEL,
    RATES,
    SUGGESTED,
    RareAttribute,
    Sample,
    held_back_columns,
    label_columns,
    suggested_columns,
)
from raigen.runs.run import Run

TASK = "text-to-image"
SCORES = ("rank", "neuron", "label", "minority_score", "frequency", "distinctiveness")
FIRST_RATE = tuple(name for name in RATES if name != "mode")  # the first judge's, always raw
EFFECTS = ("gain", "over_direction", "over_neuron")  # of a causal score
CAUSAL = (
    "causal_strength", "causal_rate", *(f"causal_{name}{end}" for name in EFFECTS for end in ("", "_low", "_high")),
    "causal_n", "causal_p", "causal_q", "correlates_only", "causal_method", "causal_n_neurons", "causal_n_directions",
)  # fmt: skip


def export(run: Run, page: Mapping[str, Any]) -> list[Path]:
    """Writes all exports and returns their paths. `page` is the dict of the report.

    With `metadata.jsonl` beside the images, `datasets.load_dataset("imagefolder", data_dir=...)` reads each folder.
    Parquet is written if pyarrow is installed (`pip install 'raigen[export]'`).
    """
    attributes, samples = run.attributes, run.samples()
    paths = [run.card_path, run.images_dir / "metadata.jsonl"]
    write_text(run.card_path, fill("run-card.md.jinja", page, metadata=_metadata(run, attributes)))
    write_text(paths[1], _lines(samples, _activations(run, attributes)))
    if run.judgements_path.is_file():
        paths.append(run.fresh_dir / "metadata.jsonl")
        write_text(paths[-1], _lines(run.samples(run.fresh_samples_path), _verdicts(run, attributes)))
    write_text(run.table_path, table_of(attributes))
    paths.append(run.table_path)
    if find_spec("pyarrow"):
        tables = [path for path in (run.table_path, run.neurons_path, run.presence_path) if path.is_file()]
        paths += [as_parquet(path) for path in tables]
    return paths


def _metadata(run: Run, attributes: Sequence[RareAttribute]) -> str:
    """The block that the Hub reads, with the first judge's rate of each named attribute."""
    capture = run.config.capture
    rates = {a.name: a.presence.rate for a in attributes if a.name and a.presence and a.presence.n}
    results = [rate_result(capture.prompt, label, rate) for label, rate in rates.items()]
    return hub_metadata(Path(capture.model).name, capture.model, run.facts.capture, results)


def hub_metadata(name: str, model: str, facts: CaptureFacts, results: Sequence[EvalResult]) -> str:
    """The metadata of a model card, as the Hub reads them: YAML, with `results` as its `model-index`.

    The license and the place on the Hub come from `facts`, the facts of a capture, if they are known.
    """
    return ModelCardData(
        license=facts.license, library_name="diffusers", pipeline_tag=TASK,
        base_model=model if facts.revision else None, tags=["raigen", "bias", "audit"], model_name=name,
        eval_results=list(results),
    ).to_yaml()  # fmt: skip


def rate_result(prompt: str, label: str, rate: float) -> EvalResult:
    """A rate in [0, 1] as the Hub shows it beside a card."""
    return EvalResult(task_type=TASK, dataset_type="generated", dataset_name=prompt, metric_type="presence",
                      metric_name=f"shows: {label}", metric_value=round(rate, 4))  # fmt: skip


def table_of(attributes: Sequence[RareAttribute]) -> str:
    """attributes.csv: for each listed attribute its scores, its raw rate, its rate when the prompt requests it, the
    effect of steering its neuron, and what is known against its label.

    A cell is empty if it was not measured. A difference has its interval in the columns `_low` and `_high`.
    """
    return csv_text([*SCORES, *FIRST_RATE, *SUGGESTED, *CAUSAL, *ON_LABEL, *HELD_BACK], map(_row, attributes))


def _row(a: RareAttribute) -> dict[str, Any]:
    row = (
        {name: getattr(a, name) for name in SCORES}
        | label_columns(a)
        | dict(zip(SUGGESTED, suggested_columns(a), strict=True))
        | held_back_columns(a)
    )
    if a.presence is not None:
        row |= {name: getattr(a.presence, name) for name in FIRST_RATE}
    if a.causal is not None:
        names = ("strength", "rate", "p", "q", "method", "n_neurons", "n_directions")
        row |= {f"causal_{name}": getattr(a.causal, name) for name in names}
        row |= {"causal_n": a.causal.gain.n, "correlates_only": int(a.causal.correlates_only)}
        for name in EFFECTS:
            gap, start = getattr(a.causal, name), f"causal_{name}"
            row |= {start: gap.difference, f"{start}_low": gap.low, f"{start}_high": gap.high}
    return row


def _activations(run: Run, attributes: Sequence[RareAttribute]) -> Iterator[dict[str, Any]]:
    """How strongly each listed neuron fires, for each audited image."""
    codes = run.image_codes()
    for row in codes:
        yield {f"neuron_{attribute.neuron}": round(float(row[attribute.neuron]), 6) for attribute in attributes}


def _verdicts(run: Run, attributes: Sequence[RareAttribute]) -> Iterator[dict[str, Any]]:
    """Whether the first judge sees each attribute, for each fresh image; None if it gave no answer."""
    judges = {attribute.neuron: attribute.presence.judge for attribute in attributes if attribute.presence}
    shows: dict[str, dict[str, Any]] = {}
    for line in run.read_lines(run.judgements_path, "evaluate"):
        if line["neuron"] in judges and line["judge"] == judges[line["neuron"]]:
            shows.setdefault(line["file"], {})[f"neuron_{line['neuron']}"] = line["shows"]
    names = {f"neuron_{neuron}": None for neuron in judges}
    for sample in run.samples(run.fresh_samples_path):
        yield names | shows.get(sample.file, {})


def _lines(samples: Sequence[Sample], more: Iterator[dict[str, Any]]) -> str:
    entries = [
        {"file_name": Path(sample.file).name, "prompt": sample.prompt, "seed": sample.seed, **columns}
        for sample, columns in zip(samples, more, strict=True)
    ]
    return "".join(json_text(entry) + "\n" for entry in entries)


def as_parquet(path: Path) -> Path:
    """Writes a CSV file as parquet beside it, and returns the path. Needs pyarrow."""
    pyarrow, csv, parquet = map(import_module, ("pyarrow", "pyarrow.csv", "pyarrow.parquet"))
    table, buffer = csv.read_csv(path), pyarrow.BufferOutputStream()
    parquet.write_table(table, buffer)
    write_bytes(path.with_suffix(".parquet"), buffer.getvalue().to_pybytes())
    return path.with_suffix(".parquet")
