"""Prints results as tables on stdout."""

import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from raigen.cli.terminal import cell, say
from raigen.config import AuditConfig, SearchConfig
from raigen.report.formatting import duration, times
from raigen.runs.records import (
    Causal,
    HookpointCost,
    HookpointRating,
    Presence,
    RareAttribute,
    difference_text,
    rarest,
    rate_text,
)
from raigen.runs.run import Run
from raigen.runs.study import Entry, Study
from raigen.runs.study_records import kind_text

if TYPE_CHECKING:
    from raigen.auditing.plan import AuditPlan

MANY = 100_000  # images, beyond all audits: what is not rare here never is


def print_hookpoints(costs: list[HookpointCost], n_images: int) -> None:
    """The hookpoints of a model with the size of what they capture; `none` where nothing can be captured."""
    names, rows = ("grid", "width", "an image", f"{n_images} images"), []
    for cost in costs:
        grid = f"{cost.grid[0]} x {cost.grid[1]}" if cost.grid else "none"
        sizes = [_size(cost.bytes_per_image), _size(cost.bytes_per_image * n_images)] if cost.grid else ["", ""]
        rows.append((_name(cost), grid, str(cost.d_in) if cost.grid else "", *sizes))
    _print_table(("hookpoint", *names), rows, right=names)


def print_search(ratings: list[HookpointRating], model: str, config: SearchConfig) -> None:
    """The hookpoints of a model, best first; why some could not be tried; and the command to type next."""
    say(f"{config.n_images} images of “{config.prompt}”, two autoencoders for each hookpoint")
    names, rows = ("score", "stability", "concentration", "dead", "listed"), []
    for rating in ratings:
        if rating.rank is None:
            rows.append(("", _name(rating), "none", "", "", "", ""))
            continue
        shares = (rating.stability, rating.concentration, rating.dead_share)
        cells = (f"{rating.score:.3f}", *(f"{share:.0%}" for share in shares), f"{rating.n_listed:g}")
        rows.append((str(rating.rank), _name(rating), *cells))
    _print_table(("rank", "hookpoint", *names), rows, right=("rank", *names))
    for rating in ratings:
        if rating.reason is not None:
            say(f"{rating.path}: {rating.reason}")
    say("ranked by the mean of the ranks in score, stability and concentration; no label is used")
    command = ["raigen", "audit", config.prompt, "--model", model, "--hookpoint", ratings[0].path]
    say(f"next: {shlex.join(command)}")


def print_plan(plan: "AuditPlan", config: AuditConfig) -> None:
    """What an audit takes and which rates it can show, one per line."""
    from raigen.discovery.reach import reach_of  # not at the top: it loads scipy

    settings, n = plan.settings, config.capture.n_images
    stored = "all steps" if config.capture.store else "the last step"
    rows = [
        ("images", f"{n:,} of {settings.summary()}"),
        ("hookpoint", f"{plan.hookpoint}, {plan.grid[0]} x {plan.grid[1]} tokens of width {plan.d_in}"),
        ("time", f"{duration(plan.seconds_images)} images + {duration(plan.seconds_training)} training + "
                 f"{duration(plan.seconds_relatives)} relatives + {duration(plan.seconds_fresh)} fresh images"),
        ("looking", f"{plan.n_relatives:,} relatives of odd images, for what fewer than ten of {n:,} images show"),
        ("training", f"{plan.tokens:,} tokens in {plan.training_steps:,} steps"),
        ("memory", f"{_size(plan.memory)}, in addition to what the running pipeline needs"),
        ("disk", f"{_size(plan.disk_images)} images + {_size(plan.disk_activations)} activations ({stored}) + "
                 f"{_size(plan.disk_training)} training"),
        *(("too little", sentence) for sentence in plan.shortages),
        ("rarest rate", f"{plan.rarest_rate:.2%} shows ten times in {n:,} images, with probability .95"),
        *((f"for {rate:.1%}", f"{once:,} images show it once, {often:,} ten times")
          for rate, (once, often) in plan.images_for.items()),
        *((f"at {100 * line.rate:g}%", line.text) for line in reach_of(n, plan.n_relatives > 0)),
        *(("few images", warning) for warning in [few_images(config)] if warning),
    ]  # fmt: skip
    _print_table(("", ""), rows)


def few_images(config: AuditConfig) -> str | None:
    """A warning for an audit of so few images that it lists what is not rare, with the number that suffices.

    >>> few_images(AuditConfig.of("a photo of a doctor", n_images=200))
    '200 images are few: the list goes up to a frequency of 15%; with 600 images, up to 5%'
    """
    n, rare, discover = config.capture.n_images, config.report.rarer_than, config.discover
    if discover.max_frequency is not None or discover.pruning(MANY).max_frequency > rare:
        return None  # the list ends where the user says, or never ends at what is rare
    enough = next(more for more in range(n, MANY + 1) if discover.pruning(more).max_frequency <= rare)
    shares = f"{discover.pruning(n).max_frequency:.0%}; with {enough:,} images, up to {rare:.0%}"
    return None if enough == n else f"{n:,} images are few: the list goes up to a frequency of {shares}"


def print_result(run: Run) -> None:
    """The listed attributes, which of them are truly rare where that is known, and the path of the report."""
    is_known = run.has_finished("evaluate") and run.truth_path.is_file()
    truth = run.read_json(run.truth_path, "evaluate") if is_known else None
    print_attributes(run, truth)
    print_cautions(run)
    if truth is not None:
        say(f"truly rare: {truth['n_hits']} of {len(truth['attributes'])}, by the judge of the planted world")
        bands = (f"{row['band']}: {row['found']} of {row['planted']}" for row in truth["recall"])
        say(f"found, by planted rate: {' · '.join(bands)}")
    _print_unjudged(run)
    _print_unseen(run)
    say(f"report: {run.report()}")


def print_trust(run: Run) -> None:
    """What a file of verdicts lacks, and what can be done about the judges."""
    from raigen.judging.review import tasks
    from raigen.judging.trust import disagreements, ways

    _print_unjudged(run)
    for way in ways(run, str(run.dir), tasks(run), disagreements(run)):
        say(f"{way.title}: {way.text}")
    say(f"next: raigen report {run.dir}")


def _print_unjudged(run: Run) -> None:
    for file, (found, asked) in run.facts.evaluate.unjudged.items() if run.has_finished("evaluate") else ():
        if found < asked:
            say(
                f"{file}: {found:,} of {asked:,} verdicts are there (one for each image and label). "
                f"{run.unjudged_path} lists what is missing; {run.fresh_samples_path} lists the fresh images, too. "
                f"Write yes or no into its column shows, add the lines to {file}, and give the same command again"
            )


def print_cautions(run: Run) -> None:
    """What a reader must know: an autoencoder that fits these images badly, and each label whose calibration
    contradicts the judge, or lacks images."""
    if run.has_finished("train") and (caution := run.facts.train.caution):
        say(caution)
    if run.has_finished("evaluate"):
        for line in run.facts.evaluate.cautions:
            say(line)


def _print_unseen(run: Run) -> None:
    """What was set aside, and how much was not seen."""
    from raigen.discovery.reach import unseen_of  # not at the top: it loads scipy

    if run.set_aside:
        say(f"set aside, because they may be combinations of frequent things or repetitions: {len(run.set_aside)} "
            f"(in {run.aside_path.name})")  # fmt: skip
    if unseen := unseen_of(run):
        say(f"not seen: {unseen.text}")


def print_attributes(run: Run, truth: Mapping[str, Any] | None = None) -> None:
    """The listed attributes; with `truth`, also which of them are truly rare."""
    say(f"Rare for “{run.config.capture.prompt}”")
    if run.attributes:
        _print_rare(run.attributes, truth)
    else:
        say("No neuron is both rare and distinct enough to be listed.")
    from raigen.discovery.listing import next_frequency

    lowest = next_frequency(run)
    if lowest is not None:
        say(f"To list what is less rare, run the audit again with: --redo discover --max-frequency {lowest}")


def _print_rare(attributes: Sequence[RareAttribute], truth: Mapping[str, Any] | None) -> None:
    columns = {
        "rank": [str(attribute.rank) for attribute in attributes],
        "label": [attribute.title for attribute in attributes],
        "score": [f"{attribute.minority_score:.3f}" for attribute in attributes],
        "frequency": [f"{attribute.frequency:.1%}" for attribute in attributes],
        "presence": [presence(attribute.presence) for attribute in attributes],
    }
    if any(attribute.suggested for attribute in attributes):
        columns["when requested"] = [_suggested(attribute) for attribute in attributes]
    if any(attribute.causal for attribute in attributes):
        columns["steered"] = [_causal(attribute.causal) for attribute in attributes]
    if truth is not None:
        truths = {row["neuron"]: row for row in truth["attributes"]}
        columns["truly rare"] = [_truth(truths[attribute.neuron]) for attribute in attributes]
    right = ("rank", "score", "frequency", "presence", "when requested")
    _print_table(tuple(columns), zip(*columns.values(), strict=True), right)


def print_study(study: Study) -> None:
    """For each run of a study: how many neurons it listed and named, the rarest attribute, and the folder. With a
    shared autoencoder also the other prompt for which that attribute's neuron fires most often."""
    is_shared, rows = study.rates_path.is_file(), []
    for entry in study.entries:
        run = Run(study.dir_of(entry)) if Run.is_at(study.dir_of(entry)) else None
        listed = run.attributes if run is not None and run.attributes_path.is_file() else None
        under = (_most_under(study, entry, rarest(listed or [])),) if is_shared else ()
        rows.append((entry.prompt, entry.model, *_run_cells(listed), *under, entry.folder))
    elsewhere = ("fires most under",) if is_shared else ()
    names = ("prompt", "model", "listed", "named", "rarest", "presence", *elsewhere, "folder")
    _print_table(names, rows, right=("listed", "named", "presence"))
    say(f"what the models differ in: raigen compare {study.dir}")


def _most_under(study: Study, entry: Entry, attribute: RareAttribute | None) -> str:
    """The other prompt with the same autoencoder for which the attribute's neuron fires most often."""
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


def _run_cells(listed: Sequence[RareAttribute] | None) -> list[str]:
    if listed is None:
        return ["not done", "", "", ""]
    first, named = rarest(listed), sum(attribute.name is not None for attribute in listed)
    return [str(len(listed)), str(named), *([first.label or "", presence(first.presence)] if first else ["", ""])]


def print_comparison(study: Study) -> None:
    """The differences that hold, those with the lowest q first, and the path of the report."""
    found = study.comparison()
    moved = [change for change in found["changes"] if change["kind"] not in ("same", "unmeasured")]
    names = ("label", "prompt", "model", "baseline")
    rows = [(*map(change.get, names), difference_text(change["difference"]), f"{change['q']:.2g}",
             kind_text(change["kind"]))
            for change in sorted(moved, key=lambda change: change["q"])]  # fmt: skip
    if rows:
        names = ("attribute", "prompt", "model", "baseline", "difference", "q", "change")
        _print_table(names, rows, right=("difference", "q"))
    n, listed = len(found["changes"]), len(found["attributes"])
    say(f"{len(moved)} of {n} differences hold (q <= 0.05): {listed} attributes, "
          f"{found['n_fresh_images']} images of each prompt and model; judge: {found['judge']}")  # fmt: skip
    for spread in found.get("spreads", ()):
        vendi, common = spread["vendi"], spread["commonest"]
        say(f"spread of {spread['model']}, “{spread['prompt']}”: as diverse as {vendi['mean']:.2f} wholly different "
            f"images [{vendi['low']:.2f}, {vendi['high']:.2f}]; {common['mean']:.0%} like the commonest "
            f"[{common['low']:.0%}, {common['high']:.0%}]")  # fmt: skip
    say(f"report: {study.report_path}")


def print_amplified(found: Sequence[Mapping[str, Any]]) -> None:
    """The measurements of each amplification: a line for each strength, or for each attribute of a mixture."""
    names = ("strength", "presence", "gain", "lift", "fidelity", "readable", "profession", "cost", "s/image")
    for entry in found:
        if entry["method"] == "mix":
            _print_mixture(entry)
            continue
        say(f"{entry['label']} (neuron {entry['neuron']}), {entry['method']}")
        before = entry["base"] | {"strength": "unsteered", "gain": None, "lift": None, "fidelity": None, "cost": None}
        _print_table(names, map(_point_cells, (before, *entry["points"])), right=names)


def _point_cells(point: Mapping[str, Any]) -> list[str]:
    strength, gain, fidelity = point["strength"], point["gain"], point["fidelity"]
    shares = [point[name]["rate"] if point[name] else None for name in ("readable", "right_profession")]
    return [
        strength if isinstance(strength, str) else f"{strength:g}",
        presence(Presence(**point["presence"])),
        "" if gain is None else difference_text(gain),
        *("" if value is None else format(value, form) for value, form in (
            (point["lift"], ".1f"), (fidelity and fidelity["mean"], ".3f"), (shares[0], ".1%"), (shares[1], ".1%"),
            (point["cost"], ".1f"), (point["seconds_per_image"], ".2f"))),
    ]  # fmt: skip


def _print_mixture(entry: Mapping[str, Any]) -> None:
    for prompt in entry["prompts"]:
        say(f"{prompt['share']:.1%} “{prompt['prompt']}”")
    rows = [(row["label"], f"{row['target']:.1%}", presence(Presence(**row["presence"])))
            for row in entry["attributes"]]  # fmt: skip
    _print_table(("attribute", "target", "presence"), rows)


def _print_table(names: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> None:
    """A table with a header, unless all `names` are empty; the columns in `right` are aligned to the right."""
    table = Table(show_header=any(names))
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name == "when requested")
    for row in rows:
        table.add_row(*map(cell, row))
    plain = {} if sys.stdout.isatty() else {"width": 140, "force_terminal": False, "color_system": None}
    Console(**plain).print(table)


def _name(hookpoint: HookpointCost | HookpointRating) -> str:
    return f"{hookpoint.path} (default)" if hookpoint.is_default else hookpoint.path


def _size(n_bytes: int) -> str:
    """
    >>> _size(655_360), _size(655_360_000_000)
    ('0.7 MB', '655.4 GB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def presence(rate: Presence | None) -> str:
    """
    >>> presence(Presence(0.02, 0.01, 0.04, 6, 300, 0, "clip", "95 % Wilson"))
    '2.0% [1.0%, 4.0%]'
    """
    if rate is None:
        return "not measured"
    return rate_text(rate) if rate.n else "unscored"


def _suggested(attribute: RareAttribute) -> str:
    if attribute.suggested is None:
        return "not tried"
    ratio = attribute.ratio and attribute.ratio.ratio
    return presence(attribute.suggested) + ("" if ratio is None else f", x {times(ratio)}")


def _causal(causal: Causal | None) -> str:
    if causal is None:
        return "not tried"
    gain = f"{causal.gain.difference:+.1%}, q {causal.q:.2g}"
    return f"correlates only ({gain})" if causal.correlates_only else gain


def _truth(row: Mapping[str, Any]) -> str:
    return f"yes: {row['value']} in {row['share']:.0%} of top, {row['rate']:.1%} of all" if row["hit"] else "no"
