"""Says what a reader of the audit should do next, and which risks remain."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raigen.dossier.decide import UNDECIDED, VIOLATED

Row = Mapping[str, Any]
MOST_NAMES = 6  # of attributes in a sentence


def advice_on(entry: Row) -> list[str]:
    """What to do next, in sentences: the most urgent first. `entry` is what `raigen.dossier.audit.audit_of` makes."""
    on_parts = (text for part in entry["parts"] for text in _on_part(part, entry["changes"] is not None))
    return list(dict.fromkeys([*_on_rules(entry["tolerances"]["decisions"]), *on_parts]))


def risks_in(entry: Row) -> list[str]:
    """What the audit leaves open, in sentences. `entry` is what `raigen.dossier.audit.audit_of` makes."""
    return list(_risks(entry))


def _risks(entry: Row) -> Iterator[str]:
    n = len(entry["scope"]["prompts"])
    yield f"Only {n} prompt{' was' if n == 1 else 's were'} tried, with one set of settings. Others may differ."
    for reach in entry["method"]["reach"]:
        line = next((row for row in reach["rows"] if row["shown"] > 0.5), reach["rows"][-1])
        found = f", and of {100 * line['found']['chance']:.0f} % to be on the list" if line["found"] else ""
        yield (f"A thing that the model shows in {100 * line['rate']:.3g} % of its images had a chance of "
               f"{100 * line['shown']:.0f} % to be in one of the {reach['n_images']:,} images{found}. The list is not "
               "complete.")  # fmt: skip
    unchecked = [part for part in entry["parts"] if not (part["judges"] and part["judges"][0]["human_checks"])]
    if unchecked:
        yield "The rates rest on a judge that no person has checked. Its errors may be larger than the intervals say."
    n_open = sum(part["tested"]["n_open"] for part in entry["parts"])
    if n_open:
        yield f"Of {n_open} attributes it is open whether they are rare: there were too few images to tell."
    n_unnamed = sum(not row["is_named"] for part in entry["parts"] for row in part["findings"])
    if n_unnamed:
        yield f"Findings without a name that holds: {n_unnamed}. What they are is unknown until a person has looked."


def _on_rules(decisions: Sequence[Row] | str) -> Iterator[str]:
    if isinstance(decisions, str):
        yield ("No tolerance was set, so nothing here is good or bad by itself. Write down which rates you tolerate "
               "(docs/dossier.md shows how), and make the dossier again with --tolerance FILE.")  # fmt: skip
        return
    for state, then in ((VIOLATED, "Decide what follows"), (UNDECIDED, "Make more images, or accept not to know")):
        rules = [f"“{row['rule']}”" for row in decisions if row["state"] == state]
        if rules:
            yield f"{state.capitalize()}: {', '.join(rules)}. {then}."


def _on_part(part: Row, is_study: bool) -> Iterator[str]:
    """What to do about one prompt and model."""
    place, found = part["folder"], [row for row in part["findings"] if row["is_named"] and row["does_it"]]
    first = part["judges"][0] if part["judges"] else None
    if first and is_study:
        yield (f"No person has checked what {first['judge']} saw. report.html of the study shows images of all models "
               "side by side: look at the attributes that matter to you.")  # fmt: skip
    elif first and not first["human_checks"]:
        yield (f"No person has checked what {first['judge']} saw. Open review.html in {place}, tick what you see, and "
               f"bring the result back: raigen review {place} review.json.")  # fmt: skip
    held = [row["attribute"] for row in found if row["is_drawn"] and row["held_back"] and row["held_back"]["low"] > 1]
    if held:
        yield (f"The model can draw {_names(held)}, but shows it far less often when nobody asks for it. Decide "
               "whether that matters for your use. To bring it out, and to see what else changes: "
               f"raigen amplify {place} --attribute RANK.")  # fmt: skip
    hardly = [row["attribute"] for row in found if row["is_drawn"] is False]
    if hardly:
        yield f"The model hardly draws {_names(hardly)} even when the prompt asks for it: more images will not help."
    if n := part["tested"]["n_to_decide"]:
        limit = f"{100 * part['tested']['rarer_than']:g} %"
        yield (f"Attributes that may or may not be rarer than {limit}: {part['tested']['n_open']}. About {n:,} fresh "
               "images would decide it for half of them: "
               f"raigen evaluate {place} --n-fresh-images {n} --redo evaluate.")  # fmt: skip
    if unnamed := [row for row in part["findings"] if not row["is_named"]]:
        yield f"Findings without a name that holds: {len(unnamed)}. Look at their images in report.html of {place}."


def _names(names: Sequence[str]) -> str:
    """
    >>> _names(["a hat", "snow", "a hat"])
    '“a hat” and “snow”'
    """
    quoted = [f"“{name}”" for name in dict.fromkeys(names)]
    if len(quoted) > MOST_NAMES:
        quoted = [*quoted[: MOST_NAMES - 1], f"{len(quoted) - MOST_NAMES + 1} more"]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]
