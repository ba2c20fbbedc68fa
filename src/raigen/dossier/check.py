"""Checks a run or a study against the tolerances of a person, for continuous integration."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

from raigen.config import visible
from raigen.dossier.decide import MET, UNDECIDED, VIOLATED, Case, Decision, decide
from raigen.dossier.evidence import moved_of, parts_of
from raigen.dossier.rules import ASKED, HELD_BACK, WORSE
from raigen.dossier.tolerances import Tolerances
from raigen.errors import RaigenError
from raigen.report.formatting import times
from raigen.report.html import fill
from raigen.runs.files import write_bytes, write_text
from raigen.runs.run import Run
from raigen.runs.study import Study

STATUS = {
    MET: 0,
    VIOLATED: 1,
    UNDECIDED: 3,
}  # the exit status if this is the worst; 2 is an error that the user can fix


def check(place: Run | Study, tolerances: Tolerances) -> list[Decision]:
    """Decides each rule of `tolerances`, and writes the result as check.xml (JUnit) and check.md into the dossier.

    Raises RaigenError if there are no rules, if a rule names what nobody measured, and as
    `raigen.dossier.evidence.parts_of` does.
    """
    if not tolerances.rules:
        raise RaigenError("tolerance: expected at least one rule; got none. Write one, such as: "
                          """rules = ['presence("a woman") >= 0.2']""")  # fmt: skip
    decisions = decide(tolerances.rules, parts_of(place), moved_of(place))
    write_bytes(place.dossier_dir / "check.xml", _junit(decisions))
    write_text(place.dossier_dir / "check.md", fill("check.md.jinja", {"rows": rows_of(decisions)}))
    return decisions


def exit_status(decisions: Sequence[Decision]) -> int:
    """0: all rules are met. 1: one is violated. 3: none is violated, and one is undecided."""
    states = [decision.state for decision in decisions]
    return next((STATUS[state] for state in (VIOLATED, UNDECIDED) if state in states), STATUS[MET])


def rows_of(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """For each rule its text, what became of it (`state`), and for each case the same and a sentence; the worst are
    first."""
    return [
        {"rule": decision.rule.text, "state": decision.state, "note": decision.note,
         "cases": [{"state": case.state, "text": _sentence(decision.rule.quantity, case)} for case in decision.cases],
         "n_of": {state: sum(case.state == state for case in decision.cases) for state in STATUS}}
        for decision in decisions
    ]  # fmt: skip


def _sentence(quantity: str, case: Case) -> str:
    """What was measured in a case, and what would decide it."""
    about = f"“{case.label}” in “{case.prompt}” by {case.model}: {case.state}"
    if not case.n:
        return f"{about}, {case.note}"
    form = times if quantity == HELD_BACK else "{:+.1%}".format if quantity == WORSE else "{:.1%}".format
    value = "never shown unless asked for" if case.value is None else form(case.value)
    ends = " to ".join("no upper end" if end == math.inf else form(end) for end in (case.low, case.high))
    text = f"{about}, {value} ({ends}; {case.method}; n = {case.n:,})"
    if case.n_to_decide is not None:
        many = "more than a million" if case.n_to_decide >= 1_000_000 else f"about {case.n_to_decide:,}"
        kind = "images of the prompt that asks for it" if quantity == ASKED else "fresh images"
        text += f"; {many} {kind} would decide it"
    return text + (f" ({case.note})" if case.note else "")


def _junit(decisions: Sequence[Decision]) -> bytes:
    """JUnit's XML: a test for each rule; a violated one is a failure, an undecided one is skipped."""
    n_of = {state: str(sum(decision.state == state for decision in decisions)) for state in STATUS}
    about = {"name": "raigen check", "tests": str(len(decisions)), "failures": n_of[VIOLATED], "errors": "0",
             "skipped": n_of[UNDECIDED]}  # fmt: skip
    root = ElementTree.Element("testsuites", about)
    suite = ElementTree.SubElement(root, "testsuite", about)
    for row in rows_of(decisions):
        test = ElementTree.SubElement(suite, "testcase", {"classname": "tolerance", "name": visible(row["rule"])})
        text = visible("\n".join(filter(None, (*(case["text"] for case in row["cases"]), row["note"]))))
        if row["state"] == MET:
            ElementTree.SubElement(test, "system-out").text = text
        else:
            kind = "failure" if row["state"] == VIOLATED else "skipped"
            ElementTree.SubElement(test, kind, {"message": f"{row['state']}: {visible(row['rule'])}"}).text = text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
