"""Prints results as tables on stdout."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raigen.config import AuditConfig, SearchConfig
from raigen.report.formatting import duration, times
from raigen.runs.records import Causal, HookpointCost, HookpointRating, Presence, RareAttribute, rarest
from raigen.runs.run import Run
from raigen.runs.study import Entry, Study

if TYPE_CHECKING:
    from raigen.auditing.plan import AuditPlan


def print_hookpoints(costs: list[HookpointCost], n_images: int) -> None:
    """What each hookpoint would give and cost; of those that cannot be captured, why."""
    table = Table()
    table.add_column("hookpoint")
    for name in ("grid", "width", "an image", f"{n_images} images"):
        table.add_column(name, justify="right")
    for cost in costs:
        grid = f"{cost.grid[0]} x {cost.grid[1]}" if cost.grid else "none"
        sizes = [_size(cost.bytes_per_image), _size(cost.bytes_per_image * n_images)] if cost.grid else ["", ""]
        name = f"{cost.path} (default)" if cost.is_default else cost.path
        table.add_row(*map(escape, (name, grid, str(cost.d_in) if cost.grid else "", *sizes)))
    _console().print(table)


def print_search(ratings: list[HookpointRating], model: str, config: SearchConfig) -> None:
    """What was found at each hookpoint, the best first; why the others could not be tried; what to type next."""
    print(f"{config.n_images} images of “{config.prompt}”, two autoencoders for each hookpoint")
    table = Table()
    table.add_column("rank", justify="right")
    table.add_column("hookpoint")
    for name in ("score", "stability", "concentration", "dead", "listed"):
        table.add_column(name, justify="right")
    for rating in ratings:
        name = f"{rating.path} (default)" if rating.is_default else rating.path
        if rating.rank is None:
            table.add_row("", escape(name), "none", "", "", "", "")
            continue
        shares = (rating.stability, rating.concentration, rating.dead_share)
        cells = (f"{rating.score:.3f}", *(f"{share:.0%}" for share in shares), f"{rating.n_listed:g}")
        table.add_row(*map(escape, (str(rating.rank), name, *cells)))
    _console().print(table)
    for rating in ratings:
        if rating.reason is not None:
            print(f"{rating.path}: {rating.reason}")
    print("ranked by the mean of the ranks in score, stability and concentration; no label is looked at")
    command = ["raigen", "audit", config.prompt, "--model", model, "--hookpoint", ratings[0].path]
    print(f"next: {shlex.join(command)}")


def print_plan(plan: "AuditPlan", config: AuditConfig) -> None:
    """What an audit takes and could show, a line for each."""
    settings, n = plan.settings, config.capture.n_images
    table = Table(show_header=False)
    table.add_column("what")
    table.add_column("amount")
    guidance = "" if settings.guidance_scale is None else f", guidance {settings.guidance_scale:g}"
    stored = "all steps" if config.capture.store else "the last step"
    rows = [
        ("images", f"{n:,} of {settings.height} x {settings.width}, {settings.num_inference_steps} steps{guidance}"),
        ("looked into", f"{plan.hookpoint}, {plan.grid[0]} x {plan.grid[1]} tokens of width {plan.d_in}"),
        ("time", f"{duration(plan.seconds_images)} images + {duration(plan.seconds_training)} training + "
                 f"{duration(plan.seconds_fresh)} fresh images"),
        ("training", f"{plan.tokens:,} tokens in {plan.training_steps:,} steps"),
        ("memory", f"{_size(plan.memory)}, beside what the pipeline needs while it runs"),
        ("disk", f"{_size(plan.disk_images)} images + {_size(plan.disk_activations)} activations ({stored})"),
        ("rarest rate", f"{plan.rarest_rate:.2%} shows ten times in {n:,} images, with probability .95"),
        *((f"for {rate:.1%}", f"{once:,} images show it once, {often:,} ten times")
          for rate, (once, often) in plan.images_for.items()),
    ]  # fmt: skip
    for row in rows:
        table.add_row(*map(escape, row))
    _console().print(table)


def _size(n_bytes: int) -> str:
    """
    >>> _size(655_360), _size(655_360_000_000)
    ('0.7 MB', '655.4 GB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=140, force_terminal=False, color_system=None)


def print_result(run: Run) -> None:
    """The listed attributes, what is truly rare among them where that is known, and where the report lies."""
    truth = json.loads(run.truth_path.read_text(encoding="utf-8")) if run.truth_path.is_file() else None
    print_attributes(run, truth)
    if truth is not None:
        print(f"truly rare: {truth['n_hits']} of {len(truth['attributes'])}, by the judge of the planted world")
        bands = (f"{row['band']}: {row['found']} of {row['planted']}" for row in truth["recall"])
        print(f"found, by planted rate: {' · '.join(bands)}")
    print(f"report: {run.report()}")


def print_study(study: Study) -> None:
    """Of each run how much it listed, what is rarest there (with a shared autoencoder also under which other prompt the
    neuron fires most often), and where it lies."""
    table, is_shared = Table(), study.rates_path.is_file()
    elsewhere = ("fires most under",) if is_shared else ()
    for name in ("prompt", "model", "listed", "named", "rarest", "presence", *elsewhere, "folder"):
        table.add_column(name, justify="right" if name in ("listed", "named", "presence") else "left")
    for entry in study.entries:
        run = Run(study.dir_of(entry)) if Run.is_at(study.dir_of(entry)) else None
        under = (_most_under(study, entry, _rarest(run)),) if is_shared else ()
        table.add_row(*map(escape, (entry.prompt, entry.model, *_run_cells(run), *under, entry.folder)))
    _console().print(table)
    print(f"what the models differ in: raigen compare {study.dir}")


def print_comparison(study: Study) -> None:
    """The differences that hold, the surest first, and where the report lies."""
    found = study.comparison()
    moved = [change for change in found["changes"] if change["kind"] not in ("same", "unmeasured")]
    table = Table()
    for name in ("attribute", "prompt", "model", "baseline", "difference", "q", "change"):
        table.add_column(name, justify="right" if name in ("difference", "q") else "left")
    for change in sorted(moved, key=lambda change: change["q"]):
        by = change["difference"]
        interval = f"{by['difference']:+.1%} [{by['low']:+.1%}, {by['high']:+.1%}]"
        names = (change["label"], change["prompt"], change["model"], change["baseline"])
        table.add_row(*map(escape, (*names, interval, f"{change['q']:.2g}", change["kind"])))
    if moved:
        _console().print(table)
    n, listed = len(found["changes"]), len(found["attributes"])
    print(f"{len(moved)} of {n} differences hold (q <= 0.05): {listed} attributes, "
          f"{found['n_fresh_images']} images of each prompt and model; judge: {found['judge']}")  # fmt: skip
    print(f"report: {study.report_path}")


def _rarest(run: Run | None) -> RareAttribute | None:
    return rarest(run.attributes) if run is not None and run.attributes_path.is_file() else None


def _most_under(study: Study, entry: Entry, attribute: RareAttribute | None) -> str:
    """Of the prompts that share an autoencoder, but for the entry's own, that under which the neuron fires most."""
    if attribute is None:
        return ""
    key = (entry.model, entry.prompt, str(attribute.neuron))
    rows = [row for row in study.neuron_rates() if (row["model"], row["prompt"], row["neuron"]) == key]
    shares = {row["under"]: row["rate"] for row in rows}
    here = shares.pop(entry.prompt, 0.0)
    if not shares:
        return ""
    most = max(shares, key=lambda prompt: shares[prompt])
    return f"{most}: {shares[most]:.1%} (here {here:.1%})"


def _run_cells(run: Run | None) -> list[str]:
    if run is None or not run.attributes_path.is_file():
        return ["not done", "", "", ""]
    attribute = rarest(run.attributes)
    named = sum(attribute.label is not None for attribute in run.attributes)
    return [
        str(len(run.attributes)), str(named), (attribute.label or "") if attribute else "",
        presence(attribute.presence) if attribute else "",
    ]  # fmt: skip


def print_attributes(run: Run, truth: Mapping[str, Any] | None = None) -> None:
    """The listed attributes; with `truth`, also which are truly rare."""
    print(f"Rare for “{run.config.capture.prompt}”")
    if run.attributes:
        _console().print(_table(run, truth))
    else:
        print("No neuron is both rare and distinct enough to be listed.")
    from raigen.discovery.listing import next_frequency

    lowest = next_frequency(run)
    if lowest is not None:
        print(f"To list what is less rare, run the audit again with: --redo discover --max-frequency {lowest}")


def print_amplified(found: Sequence[Mapping[str, Any]]) -> None:
    """What came of each amplification: a line for each strength, or for each attribute of a mixture."""
    for entry in found:
        if entry["method"] == "mix":
            _print_mixture(entry)
            continue
        print(f"{entry['label']} (neuron {entry['neuron']}), {entry['method']}")
        table = Table()
        for name in ("strength", "presence", "gain", "lift", "fidelity", "readable", "profession", "cost", "s/image"):
            table.add_column(name, justify="right")
        before = entry["base"] | {"strength": "unsteered", "gain": None, "lift": None, "fidelity": None, "cost": None}
        for point in (before, *entry["points"]):
            table.add_row(*map(escape, _point_cells(point)))
        _console().print(table)


def _point_cells(point: Mapping[str, Any]) -> list[str]:
    strength, gain, fidelity = point["strength"], point["gain"], point["fidelity"]
    shares = [point[name]["rate"] if point[name] else None for name in ("readable", "right_profession")]
    return [
        strength if isinstance(strength, str) else f"{strength:g}",
        presence(Presence(**point["presence"])),
        "" if gain is None else f"{gain['difference']:+.1%} [{gain['low']:+.1%}, {gain['high']:+.1%}]",
        *(_number(value, form) for value, form in (
            (point["lift"], ".1f"), (fidelity and fidelity["mean"], ".3f"), (shares[0], ".1%"), (shares[1], ".1%"),
            (point["cost"], ".1f"), (point["seconds_per_image"], ".2f"))),
    ]  # fmt: skip


def _print_mixture(entry: Mapping[str, Any]) -> None:
    for prompt in entry["prompts"]:
        print(f"{prompt['share']:.1%} “{prompt['prompt']}”")
    table = Table()
    for name in ("attribute", "target", "presence"):
        table.add_column(name)
    for row in entry["attributes"]:
        table.add_row(*map(escape, (row["label"], f"{row['target']:.1%}", presence(Presence(**row["presence"])))))
    _console().print(table)


def _asked(attribute: RareAttribute) -> str:
    if attribute.suggested is None:
        return "not tried"
    ratio = attribute.ratio and attribute.ratio.ratio
    return presence(attribute.suggested) + ("" if ratio is None else f", x {times(ratio)}")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _causal(causal: Causal | None) -> str:
    if causal is None:
        return "not tried"
    gain = f"{causal.gain.difference:+.1%}, q {causal.q:.2g}"
    return f"correlates only ({gain})" if causal.correlates_only else gain


def _table(run: Run, truth: Mapping[str, Any] | None) -> Table:
    table = Table()
    table.add_column("rank", justify="right")
    table.add_column("label")
    for name in ("score", "frequency", "presence"):
        table.add_column(name, justify="right")
    asked = any(attribute.suggested for attribute in run.attributes)
    if asked:
        table.add_column("when asked for", justify="right", no_wrap=True)
    scored = any(attribute.causal for attribute in run.attributes)
    if scored:
        table.add_column("steered")
    if truth is not None:
        table.add_column("truly rare")
    truths = {row["neuron"]: row for row in truth["attributes"]} if truth else {}
    for attribute in run.attributes:
        row = [
            str(attribute.rank),
            attribute.label or "no identified attribute",
            f"{attribute.minority_score:.3f}",
            f"{attribute.frequency:.1%}",
            presence(attribute.presence),
        ]
        if asked:
            row.append(_asked(attribute))
        if scored:
            row.append(_causal(attribute.causal))
        if truth is not None:
            row.append(_truth(truths[attribute.neuron]))
        table.add_row(*map(escape, row))
    return table


def presence(rate: Presence | None) -> str:
    """
    >>> presence(Presence(0.02, 0.01, 0.04, 6, 300, 0, "clip", "95 % Wilson"))
    '2.0% [1.0%, 4.0%]'
    """
    return "not measured" if rate is None else f"{rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}]"


def _truth(row: Mapping[str, Any]) -> str:
    return f"yes: {row['value']} in {row['share']:.0%} of top, {row['rate']:.1%} of all" if row["hit"] else "no"
