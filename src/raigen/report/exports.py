"""Writes what other programs read of a run: metadata beside its images, tables as parquet, a card in Markdown."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raigen.report.formatting import q_text, ratio_text
from raigen.runs.files import write_bytes, write_text
from raigen.runs.records import SUGGESTED, Causal, Presence, RareAttribute, Sample, suggested_columns
from raigen.runs.run import Run

SCORES = ("rank", "neuron", "label", "minority_score", "frequency", "distinctiveness")
RATES = ("rate", "low", "high", "hits", "n", "unscored", "judge", "interval")  # of a presence
EFFECTS = ("gain", "over_direction", "over_neuron")  # of a causal score


def export(run: Run, page: Mapping[str, Any]) -> list[Path]:
    """Writes everything; the paths. `page` is the dict of the report.

    `metadata.jsonl` beside the images makes each folder one that `datasets.load_dataset("imagefolder", data_dir=...)`
    reads. Parquet is written where pyarrow is installed (`pip install 'raigen[export]'`).
    """
    attributes, samples = run.attributes, run.samples()
    paths = [run.card_path, run.images_dir / "metadata.jsonl"]
    write_text(run.card_path, model_card(page))
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


def table_of(attributes: Sequence[RareAttribute]) -> str:
    """attributes.csv: a line per listed attribute with its scores, its raw rate, that when it is asked for, and what
    steering its neuron did.

    What was not measured is empty. A difference has its interval in the columns `_low` and `_high`.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    effects = [name + end for name in EFFECTS for end in ("", "_low", "_high")]
    causal = ["causal_strength", "causal_rate", *(f"causal_{name}" for name in effects), "causal_n", "causal_p",
              "causal_q", "correlates_only", "causal_method"]  # fmt: skip
    writer.writerow([*SCORES, *RATES, *SUGGESTED, *causal])
    for a in attributes:
        rates = [getattr(a.presence, name) if a.presence else "" for name in RATES]
        row = [""] * len(causal)
        if a.causal is not None:
            moves = [getattr(a.causal, name) for name in EFFECTS]
            row = [a.causal.strength, a.causal.rate, *(end for m in moves for end in (m.difference, m.low, m.high)),
                   a.causal.gain.n, a.causal.p, a.causal.q, int(a.causal.correlates_only), a.causal.method]  # fmt: skip
        writer.writerow([*(getattr(a, name) for name in SCORES), *rates, *suggested_columns(a), *row])
    return buffer.getvalue()


def model_card(page: Mapping[str, Any]) -> str:
    """The run card as a section for a model card, in Markdown.

    Labels are other people's texts: what Markdown or HTML would take for markup is escaped.
    """
    lines = [
        f"## Rare attributes of “{plain(page['prompt'])}”",
        "",
        f"Found by raigen {plain(page['machine'].get('raigen', ''))} in {page['n_images']:,} images of "
        f"`{page['model']}`. Rare means rare for this prompt, this model and these settings; the rates are a judge's.",
        "",
        "| rank | attribute | neuron | frequency | mode | presence | interval | judge |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for attribute in (card["attribute"] for card in page["cards"]):
        name = plain(attribute.label or "no identified attribute")
        start = f"| {attribute.rank} | {name} | {attribute.neuron} | {attribute.frequency:.2%} |"
        rates = [rate for rate in (attribute.presence, *attribute.other_presences, *attribute.corrected) if rate]
        lines += [f"{start} {_rate(rate)}" for rate in rates] or [f"{start} | not measured | | |"]
    for entry in page["given"]:
        lines += [f"| | {plain(entry['label'])} (given) | | | {_rate(rate)}" for rate in entry["presences"]]
    asked = [card["attribute"] for card in page["cards"] if card["attribute"].suggested]
    if asked:
        lines += ["", "### When asked for", "", *(f"- {plain(a.label or '')}: {_asked(a)}" for a in asked)]
    tested = [card["attribute"] for card in page["cards"] if card["attribute"].causal]
    if tested:
        lines += ["", "### Steered", ""] + [f"- {plain(a.label or '')}: {_causal(a.causal)}" for a in tested]
    for title, counts in (("Left out", page["left_out"].items()), ("Failures", page["failures"])):
        lines += ["", f"### {title}", "", *([f"- {plain(reason)}: {n:,}" for reason, n in counts] or ["- none"])]
    for stage in page["stages"]:
        lines += ["", f"### {stage['name']}", ""]
        lines += [f"- {plain(name)}: {plain(text)}" for name, text in stage["lines"]]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    r"""A text as Markdown that shows it as it is, on one line.

    >>> plain("a|b <i> *c* [d](e)")
    'a\\|b \\<i\\> \\*c\\* \\[d\\]\\(e\\)'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#|&!])", r"\\\1", " ".join(text.split()))


def _asked(attribute: RareAttribute) -> str:
    found, ratio = attribute.suggested, attribute.ratio
    assert found is not None  # only such are listed
    prompt = f"“{plain(attribute.suggested_prompt or '')}”"
    if not found.n:
        return f"{prompt}, unscored"
    rate = f"{found.rate:.2%} ({found.hits} of {found.n:,}; {found.low:.2%} to {found.high:.2%})"
    return f"{prompt} shows it in {rate}" + (f", {ratio_text(*astuple(ratio))}" if ratio else "")


def _causal(causal: Causal) -> str:
    gain = causal.gain
    verdict = "correlates only" if causal.correlates_only else "causal"
    return (f"{verdict}; shown by {causal.rate:.2%} at strength {causal.strength:g}, {gain.difference:+.2%} "
            f"({gain.low:+.2%} to {gain.high:+.2%}) on {gain.n:,} seeds, q {q_text(causal.q)} of beating a random "
            "direction and a random neuron")  # fmt: skip


def _rate(presence: Presence) -> str:
    if not presence.n:
        return f"{presence.mode} | unscored | | {plain(presence.judge)} |"
    counts = f"{presence.hits} of {presence.n:,}"
    return (
        f"{presence.mode} | {presence.rate:.2%} ({counts}) | {presence.low:.2%} to {presence.high:.2%} "
        f"({presence.interval}) | {plain(presence.judge)} |"
    )


def _activations(run: Run, attributes: Sequence[RareAttribute]) -> Iterator[dict[str, Any]]:
    """For each audited image, how strongly each listed neuron fires on it."""
    codes = run.image_codes()
    for row in codes:
        yield {f"neuron_{attribute.neuron}": round(float(row[attribute.neuron]), 6) for attribute in attributes}


def _verdicts(run: Run, attributes: Sequence[RareAttribute]) -> Iterator[dict[str, Any]]:
    """For each fresh image, whether the first judge sees each attribute in it; null where it has no answer."""
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
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def as_parquet(path: Path) -> Path:
    """Writes the CSV file as parquet, beside it; where pyarrow is installed."""
    pyarrow, csv, parquet = map(import_module, ("pyarrow", "pyarrow.csv", "pyarrow.parquet"))
    table, buffer = csv.read_csv(path), pyarrow.BufferOutputStream()
    parquet.write_table(table, buffer)
    write_bytes(path.with_suffix(".parquet"), buffer.getvalue().to_pybytes())
    return path.with_suffix(".parquet")
