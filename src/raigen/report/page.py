"""Gathers everything that the report says about a run: folder -> dict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np

from raigen.config import PORTRAITS, STAGES, ReportConfig
from raigen.discovery.listing import neuron_rows, next_frequency, sentence_of_kind
from raigen.errors import RaigenError
from raigen.judging.presence_table import read_given
from raigen.judging.trust import known_error
from raigen.report import charts
from raigen.report.formatting import DASH
from raigen.runs import pixels
from raigen.runs.records import Presence, RareAttribute, rarest
from raigen.runs.run import Run
from raigen.stats import LEVEL, images_to_decide, p_below, p_rarer, q_values, rate_interval
from raigen.world.worlds import WORLDS

K = TypeVar("K")  # what names an attribute: a neuron, say

# With few marks, for narrow screens.
FULL_AXIS = charts.RateAxis(1.0, tuple(charts.Mark(at, f"{at:g} %") for at in (0.0, 50.0, 100.0)))
EXAMPLES_FOR_A_ROW = 16  # an attribute of rate 16 / n shows at least ten times in n images with probability .95

# What the frequency of a neuron counts, for each score.
SHARE_OF = {"published": "images in which it fires", "coherent": "images that resemble its own"}


class Neurons(NamedTuple):
    """The scored neurons of neurons.csv, the number of the others, and how many neurons were left out for each reason
    (empty in folders of an older raigen)."""

    ids: np.ndarray
    frequency: np.ndarray
    distinctiveness: np.ndarray
    n_unscored: int
    left_out: dict[str, int]


def page_of(
    run: Run,
    attributes: Sequence[RareAttribute],
    neurons: Neurons,
    cards: Sequence[Mapping[str, Any]],
    config: ReportConfig,
) -> dict[str, Any]:
    """Everything that the page says: the dict that the template reads.

    Raises RaigenError when files of the run do not fit each other.
    """
    given = given_of(run)
    measured = measured_of(attributes)
    q_of = q_of_rarer(measured, config.rarer_than, run.config.evaluate.confidence)
    return {
        **_audit(run),
        **_overview(neurons, cards, q_of),
        **_rates(attributes, given),
        "n_scored": len(neurons.ids) - sum(attribute.is_family for attribute in attributes),
        "looked": run.facts.look if run.has_looked else None,
        "n_unscored": neurons.n_unscored,
        "left_out": neurons.left_out,
        "failures": _failures(run),
        "cautions": _cautions(run),
        "rarer_than": config.rarer_than,
        **sides_of(measured, q_of, config.rarer_than, run.config.evaluate.confidence),
        "n_perhaps": sum(attribute.perhaps is not None for attribute in attributes),
        "level": LEVEL,
        "truth": _truth(run, attributes),
        "stages": _run_card(run),
        "machine": run.manifest.get("machine", {}),
        "seconds": sum(record.get("seconds", 0.0) for record in run.manifest["stages"].values()),
    }


def _audit(run: Run) -> dict[str, Any]:
    """What was audited, and how."""
    capture, n_images, score = run.config.capture, len(run.samples()), run.config.discover.score
    return {
        "prompt": capture.prompt,
        "model": capture.model,
        "n_images": n_images,
        "smallest_findable": min(1.0, EXAMPLES_FOR_A_ROW / n_images),
        "confidence": run.config.evaluate.confidence,
        "was_named": run.has_finished("annotate"),
        "n_seeds": 1 + len(run.seed_dirs()),
        "score": score,
        "share_of": SHARE_OF[score],
        "next_frequency": next_frequency(run),
        "loose_guidance": capture.discovery_guidance,
    }


def _overview(neurons: Neurons, cards: Sequence[Mapping[str, Any]], q_of: Mapping[int, float]) -> dict[str, Any]:
    """The chart of all scored neurons, and the cards, each with its pin on the chart and its q."""
    is_listed = np.isin(neurons.ids, [card["attribute"].neuron for card in cards])
    chart = charts.scatter(neurons.frequency, neurons.distinctiveness, is_listed)
    # Pins come in the order of neurons.csv, cards in the order of the ranking.
    pins = dict(zip(neurons.ids[is_listed].tolist(), chart.pins, strict=True))
    return {
        "cards": [{**card, "pin": pins[n], "q": q_of.get(n)} for card in cards for n in [card["attribute"].neuron]],
        "chart": chart,
        "dot_box": charts.DOT_BOX,
        "ramp": ["#{:02x}{:02x}{:02x}".format(*color) for color in pixels.color_map(9).tolist()],
    }


def _rates(attributes: Sequence[RareAttribute], given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rates that judges measured, and the axes on which they are drawn."""
    shown = chain(*(a.presences for a in attributes), *(entry["presences"] for entry in given))
    return {
        "rarest": rarest(attributes),
        "known_errors": {p.judge: error for a in attributes for p in a.presences if (error := known_error(p.judge))},
        "n_unseen": sum(bool(a.name and a.presence and a.presence.n and not a.presence.hits) for a in attributes),
        "was_requested": any(attribute.suggested for attribute in attributes),
        "was_steered": any(attribute.causal for attribute in attributes),
        "given": given,
        "axis": charts.rate_axis([presence.high for presence in shown if presence.n]),
        "full_axis": FULL_AXIS,
    }


def read_neurons(run: Run, attributes: Sequence[RareAttribute]) -> Neurons:
    """What neurons.csv holds. Raises RaigenError when a listed neuron is not among the scored ones."""
    rows = neuron_rows(run)
    with run.shaped(run.neurons_path, "discover"):
        scored = [row for row in rows if row["distinctiveness"]]  # the others fire in too few images or in none
        ids, frequency, distinctiveness = (
            [kind(row[name]) for row in scored]
            for name, kind in (("neuron", int), ("frequency", float), ("distinctiveness", float))
        )
    families = [attribute for attribute in attributes if attribute.is_family]
    ids += [family.neuron for family in families]
    frequency += [family.frequency for family in families]
    distinctiveness += [family.distinctiveness for family in families]
    missing = sorted({attribute.neuron for attribute in attributes} - set(ids))
    if missing:
        raise RaigenError(
            f"{run.neurons_path}: expected a scored neuron for each entry of {run.attributes_path.name}; "
            f"found none for {missing[0]}. Make both again with: raigen discover {run.dir} --redo discover"
        )
    return Neurons(
        np.array(ids, dtype=int),
        np.array(frequency, dtype=float),
        np.array(distinctiveness, dtype=float),
        len(rows) - len(scored),
        dict(Counter(sentence_of_kind(reason) for row in rows if (reason := row.get("left_out"))).most_common()),
    )


def given_of(run: Run) -> list[dict[str, Any]]:
    """The given attributes, read from presence.csv: a dict of `label`, `presences` and `alpha` for each."""
    found = read_given(run) if run.presence_path.is_file() else {}
    return [{"label": label, **rates._asdict()} for label, rates in found.items()]


def measured_of(attributes: Sequence[RareAttribute]) -> dict[int, Presence]:
    """The rate of each named neuron that the first judge measured."""
    return {a.neuron: a.presence for a in attributes if a.name and a.presence and a.presence.n}


def q_of_rarer(measured: Mapping[K, Presence], rate: float, confidence: float) -> dict[K, float]:
    """The q-value of "rarer than `rate`" for each of these rates."""
    p_values = [
        p_rarer(p.hits, p.n, rate) if p.mode == "raw" else p_below(p.low, p.high, rate, confidence)
        for p in measured.values()
    ]  # fmt: skip
    return dict(zip(measured, q_values(p_values), strict=True))


def sides_of(
    measured: Mapping[K, Presence], q_values: Mapping[K, float], rate: float, confidence: float
) -> dict[str, int | None]:
    """How many of these rates are shown to lie under `rate`, how many lie over it, and of how many it is open; and how
    many fresh images would decide it for at least half of these, None if nothing is open."""
    unsure = [presence for key, presence in measured.items() if q_values[key] > LEVEL and presence.low <= rate]
    needed = sorted(
        images_to_decide(lambda n, share=presence.rate: rate_interval(round(share * n), n, confidence), rate)
        for presence in unsure
    )
    n_rarer = sum(q <= LEVEL for q in q_values.values())
    return {
        "n_tested": len(measured),
        "n_rarer": n_rarer,
        "n_open": len(unsure),
        "n_over": len(measured) - n_rarer - len(unsure),
        "n_to_decide": needed[(len(needed) - 1) // 2] if needed else None,
    }


def _failures(run: Run) -> list[tuple[str, int]]:
    """What failed, in words, and how often."""
    found: list[tuple[str, int]] = []
    if black := run.facts.capture.black_images:
        found.append(("audited images are wholly black and were left out", len(black)))
    if cut := run.facts.capture.unread_tokens:
        found.append(("tokens at the end of the prompt were not read by the image model", cut))
    if run.has_finished("annotate") and (unanswered := run.facts.annotate.n_unanswered):
        found.append(("neurons have no name, because the model that was asked gave no answer", unanswered))
    if run.has_finished("evaluate"):
        unscored = run.facts.evaluate.n_unscored
        found += [(f"verdicts are missing: {reason}", count) for reason, count in unscored.items()]
    if run.label_scores_path.is_file():
        lines = run.read_lines(run.label_scores_path, "evaluate")
        with run.shaped(run.label_scores_path, "evaluate"):
            missing = sum(score.get("n_unscored", 0) for line in lines for score in (line, line.get("shuffled", {})))
        if missing:
            found.append(("verdicts are missing in the scores of labels", missing))
    return found


def _cautions(run: Run) -> list[str]:
    """What a reader must know before believing a number."""
    badly_fitting = run.facts.train.caution if run.has_finished("train") else None
    rates = run.facts.evaluate.cautions if run.has_finished("evaluate") else ()
    return [*([badly_fitting] if badly_fitting else []), *rates]


def _truth(run: Run, attributes: Sequence[RareAttribute]) -> dict[str, Any] | None:
    """The planted truth about this run; None for a model without one."""
    if not run.truth_path.is_file():
        return None
    truth = run.read_json(run.truth_path, "evaluate")
    with run.shaped(run.truth_path, "evaluate"):
        world = WORLDS[truth.get("world", PORTRAITS)]  # older files do not name it
        if [entry["neuron"] for entry in truth["attributes"]] != [attribute.neuron for attribute in attributes]:
            raise RaigenError(
                f"{run.truth_path}: expected the neurons of {run.attributes_path.name}, in their order; got others. "
                f"Make it again with: raigen evaluate {run.dir} --redo evaluate"
            )
        for entry, attribute in zip(truth["attributes"], attributes, strict=True):
            entry["right"] = entry["hit"] and attribute.label == world.phrase(entry["value"])
        return truth | {"n_right": sum(entry["right"] for entry in truth["attributes"])}


def _run_card(run: Run) -> list[dict[str, Any]]:
    """The settings, facts and duration of each stage that finished."""
    stages = []
    for stage in STAGES:
        if stage == "report" or not run.has_finished(stage):
            continue
        facts = run.facts_of(stage)
        # None means that the model chose; the stage then noted the value that was used under the same name.
        settings = {name: value for name, value in asdict(run.config_of(stage)).items() if value is not None}
        lines = list(chain.from_iterable(_lines(name, value) for name, value in {**settings, **facts}.items()))
        if stage == "capture":
            seeds = [sample.seed for sample in run.samples()]
            lines.append(("seeds", f"{min(seeds)}{DASH}{max(seeds)}"))
        stages.append({"name": stage, "lines": lines, "seconds": run.manifest["stages"][stage]["seconds"]})
    return stages


def _lines(name: str, value: Any) -> list[tuple[str, str]]:
    """A JSON value as lines of name and text; a dict becomes one line for each of its entries."""
    if isinstance(value, Mapping):
        return list(chain.from_iterable(_lines(f"{name}.{key}", inner) for key, inner in value.items()))
    if isinstance(value, list | tuple):
        return [(name, ", ".join(_text(item) for item in value) or "none")]
    return [(name, _text(value))]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
