"""The gate: rules are read, not run; each is decided by its interval; what holds is seldom called violated."""

import math
import xml.etree.ElementTree as ElementTree
import zipfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from raigen.cli.main import main
from raigen.dossier.decide import MET, UNDECIDED, VIOLATED, decide
from raigen.dossier.evidence import Item, Moved, Part
from raigen.dossier.rules import FORMS, Rule, rule_of
from raigen.dossier.tolerances import Tolerances, read_tolerances
from raigen.errors import RaigenError
from raigen.judging.calibration import calibrated
from raigen.judging.posterior import Calibration
from raigen.judging.rates import ratio_of
from raigen.runs.records import Difference, Presence
from raigen.stats import paired_difference, q_values, rate_interval

GOLDEN = Path(__file__).parents[1] / "golden"


def rate(hits: int, n: int) -> Presence:
    low, high, method = rate_interval(hits, n)
    return Presence(hits / n if n else 0.0, low, high, hits, n, 0, "judge", f"95 % {method}")


def item(label: str, presence: Presence | None = None, asked: Presence | None = None) -> Item:
    ratio = ratio_of(asked, presence, 0.95) if asked and presence else None
    return Item(label, label, "neuron 1", (presence,) if presence else (), asked, ratio)


def part(*items: Item) -> Part:
    return Part("a photo", "model", cast(Any, None), items, (), 0.95)


def state_of(text: str, *items: Item) -> str:
    [decision] = decide([rule_of(text)], [part(*items)], None)
    return decision.state


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('presence("a woman") >= 0.2', ("presence", "a woman", True, 0.2)),
        ("  asked('the \"best\" hat')<=.85 ", ("asked", 'the "best" hat', False, 0.85)),
        ("held_back <= 5", ("held_back", None, False, 5.0)),
        ('held_back("in (the) snow") <= 2.5', ("held_back", "in (the) snow", False, 2.5)),
        ("no attribute  worse than baseline at q <= .05", ("worse", None, False, 0.05)),
    ],
)
def test_a_rule_is_read(text, rule):
    assert rule_of(text) == Rule(text.strip(), *rule)


@pytest.mark.parametrize(
    "text",
    ["", "presence >= ", "presence(woman) >= 0.2", "presence >= 0.2 or True", "rate >= 0.2", "asked > 0.5",
     "__import__('os').system('true')", 'presence("a") >= 0.2; presence("b") >= 0.2', "presence >= -0.2"],
)  # fmt: skip
def test_another_text_is_refused_with_the_forms_of_a_rule(text):
    with pytest.raises(RaigenError, match="expected presence") as raised:
        rule_of(text)
    assert FORMS in str(raised.value) and repr(text) in str(raised.value)


@pytest.mark.parametrize("text", ["presence >= 20", "asked <= 1", "presence >= 0", "held_back <= 0"])
def test_a_limit_that_decides_nothing_is_refused(text):
    with pytest.raises(RaigenError, match="expected a number"):
        rule_of(text)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_an_error_in_words(text):
    with suppress(RaigenError):
        assert rule_of(text).text == text.strip()


def test_a_rate_is_met_violated_or_undecided():
    assert state_of('presence("a hat") >= 0.2', item("a hat", rate(90, 300))) == MET
    assert state_of('presence("a hat") >= 0.2', item("a hat", rate(30, 300))) == VIOLATED
    assert state_of('presence("a hat") >= 0.2', item("a hat", rate(60, 300))) == UNDECIDED
    assert state_of('presence("a hat") <= 0.2', item("a hat", rate(30, 300))) == MET
    assert state_of("asked >= 0.8", item("a hat", rate(3, 300), rate(99, 100))) == MET
    assert state_of("asked >= 0.8", item("a hat", rate(3, 300), rate(1, 10))) == VIOLATED
    assert state_of("held_back <= 5", item("a hat", rate(3, 300), rate(99, 100))) == VIOLATED
    assert state_of("held_back <= 5", item("a hat", rate(150, 300), rate(60, 100))) == MET
    assert state_of("held_back <= 5", item("a hat", rate(0, 300), rate(100, 100))) == VIOLATED  # no upper end


def test_what_was_not_measured_is_undecided_and_never_met():
    assert state_of("asked >= 0.8", item("a hat", rate(3, 300))) == UNDECIDED
    assert state_of('asked("a hat") >= 0.8', item("a hat", rate(3, 300))) == UNDECIDED
    assert state_of('presence("a hat") <= 0.8', item("a hat", rate(0, 0))) == UNDECIDED


def test_a_label_that_nobody_judged_is_an_error_that_says_what_to_type():
    with pytest.raises(RaigenError, match=r"a hot.*the judged ones are a hat.*--attributes FILE"):
        state_of('presence("a hot") >= 0.2', item("a hat", rate(3, 300)))
    with pytest.raises(RaigenError, match="expected a study with a baseline; got a run"):
        state_of("no attribute worse than baseline at q <= .05", item("a hat", rate(3, 300)))


def test_the_worst_case_of_a_rule_counts_and_comes_first():
    items = [item(label, rate(hits, 300)) for label, hits in (("a", 90), ("b", 30), ("c", 3))]
    [decision] = decide([rule_of("presence >= 0.1")], [part(*items)], None)
    assert decision.state == VIOLATED
    assert [(case.label, case.state) for case in decision.cases] == [("c", VIOLATED), ("b", UNDECIDED), ("a", MET)]


def test_so_many_images_decide_an_undecided_case():
    measured = item("a hat", rate(72, 400))
    [case] = decide([rule_of("presence >= 0.2")], [part(measured)], None)[0].cases
    needed = case.n_to_decide
    assert case.state == UNDECIDED and needed and needed > 400
    assert state_of("presence >= 0.2", item("a hat", rate(round(0.18 * needed * 1.1), round(needed * 1.1)))) == VIOLATED
    assert (
        state_of("presence >= 0.2", item("a hat", rate(round(0.18 * needed * 0.8), round(needed * 0.8)))) == UNDECIDED
    )


def test_more_cases_widen_every_interval():
    alone = decide([rule_of("presence >= 0.2")], [part(item("a", rate(45, 300)))], None)[0].cases[0]
    many = decide([rule_of("presence >= 0.2")], [part(*(item(f"a {i}", rate(45, 300)) for i in range(20)))], None)
    assert many[0].cases[0].low < alone.low and many[0].cases[0].high > alone.high
    assert alone.method == "95 % Clopper-Pearson" and many[0].cases[0].method == "99.75 % Clopper-Pearson"


def violating(limit: float, n: int, m: int) -> int:
    """The most hits of `n` at which `presence >= limit` is violated beside m - 1 other cases; -1 for none."""
    others = [item(f"other {number}", rate(n, n)) for number in range(m - 1)]
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        cases = decide([rule_of(f"presence >= {limit}")], [part(item("a", rate(middle, n)), *others)], None)[0].cases
        is_violated = next(case for case in cases if case.label == "a").state == VIOLATED
        low, high = (middle, high) if is_violated else (low, middle)
    return low


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.floats(0.005, 0.95), st.integers(10, 3000), st.integers(1, 30))
def test_false_violations_are_rare_at_every_limit(limit, n, m):
    """Of m rates that all lie exactly at the limit, so that every rule is met, one is called violated in at most 5 % of
    audits. The chance is exact: no audit is simulated."""
    limit = round(limit, 4)
    worst = violating(limit, n, m)
    assert m * (binom.cdf(worst, n, limit) if worst >= 0 else 0.0) <= 0.05


def simulated(rng: np.random.Generator, rates: list[float], n: int, n_asked: int) -> Part:
    return part(*(
        item(f"{number}", rate(int(rng.binomial(n, one)), n), rate(int(rng.binomial(n_asked, 0.8)), n_asked))
        for number, one in enumerate(rates)
    ))  # fmt: skip


def test_false_violations_are_rare_in_simulated_audits():
    """All kinds of rules at once, and every rule truly met, some exactly at the limit."""
    rules = [
        rule_of(text)
        for text in ('presence("0") >= 0.2', 'presence("1") <= 0.05', "asked >= 0.8", 'held_back("1") <= 16')
    ]
    n_wrong, n_audits = 0, 200
    for seed in range(n_audits):
        audit = simulated(np.random.default_rng(seed), [0.2, 0.05, 0.1, 0.3], 300, 60)
        n_wrong += any(decision.state == VIOLATED for decision in decide(rules, [audit], None))
    assert n_wrong <= 0.05 * n_audits


def test_a_judge_that_errs_makes_no_more_false_violations():
    """The rate is corrected for errors that are known from 200 images; the truth is at the limit."""
    n_wrong, n_audits, sensitivity, specificity, truth = 0, 150, 0.85, 0.95, 0.2
    for seed in range(n_audits):
        rng = np.random.default_rng(seed)
        known = Calibration(rng.binomial(100, sensitivity), 100, rng.binomial(100, specificity), 100)
        hits = int(rng.binomial(300, truth * sensitivity + (1 - truth) * (1 - specificity)))
        corrected = calibrated(rate(hits, 300), known, 0.95)
        assert corrected is not None
        measured = Item("a", "a", "neuron 1", (rate(hits, 300), corrected))
        rules = [rule_of('presence("a") >= 0.2'), rule_of("presence <= 0.9")]
        decisions = decide(rules, [part(measured)], None)
        n_wrong += any(decision.state == VIOLATED for decision in decisions)
        assert decisions[0].cases[0].value == corrected.rate  # not the judge's own rate
    assert n_wrong <= 0.05 * n_audits


def test_a_calibrated_interval_at_its_own_level_stays_as_it_is():
    corrected = calibrated(rate(40, 300), Calibration(80, 100, 95, 100), 0.95)
    assert corrected is not None
    [case] = decide([rule_of("presence >= 0.12")], [part(Item("a", "a", "given", (rate(40, 300), corrected)))], None)[
        0
    ].cases
    assert (case.low, case.high) == (pytest.approx(corrected.low), pytest.approx(corrected.high))
    assert "calibrated" in case.method and "judge's errors" in case.note


def moved(rng: np.random.Generator, n: int, gains: list[float]) -> list[Moved]:
    """The differences of attributes whose rate of .3 rises by each of `gains`, on n seeds."""
    found = []
    for number, gain in enumerate(gains):
        before, after = rng.random(n) < 0.3, rng.random(n) < 0.3 + gain
        found.append(
            Moved(f"{number}", "a photo", "new", paired_difference(after.astype(float), before.astype(float)), None)
        )
    return found


def counted(rng: np.random.Generator, n: int, gains: list[float]) -> list[Moved]:
    """The same, from counts alone: without intervals."""
    rates = 0.3 + np.array(gains)
    gained, lost = rng.binomial(n, rates * 0.7), rng.binomial(n, 0.3 * (1 - rates))
    ps = np.minimum(1.0, 2 * binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))
    return [Moved(f"{number}", "a photo", "new", Difference(float(up - down) / n, n, -1.0, 1.0, float(p)), None)
            for number, (up, down, p) in enumerate(zip(gained, lost, ps, strict=True))]  # fmt: skip


WORSE = rule_of("no attribute worse than baseline at q <= .05")


def test_false_losses_are_rare_even_if_many_attributes_gain():
    """Ten attributes are as they were, and thirty show far more often. A q over two-sided tests would let those that
    gained vouch for the others."""
    wrong, by_two_sided = 0, 0
    for seed in range(200):
        differences = counted(np.random.default_rng(seed), 200, [0.0] * 10 + [0.4] * 30)
        [decision] = decide([WORSE], [], differences)
        wrong += decision.state == VIOLATED
        found = [one.difference for one in differences if one.difference]
        qs = q_values([one.p for one in found])
        by_two_sided += any(q <= 0.05 and one.difference < 0 for one, q in zip(found, qs, strict=True))
    assert wrong <= 0.05 * 200 < by_two_sided


def test_a_loss_is_seen_and_what_could_not_be_seen_is_said():
    [decision] = decide([WORSE], [], moved(np.random.default_rng(0), 200, [-0.25, 0.0]))
    assert decision.state == VIOLATED and decision.cases[0].label == "0" and decision.cases[0].high < 0
    [decision] = decide([WORSE], [], moved(np.random.default_rng(0), 200, [0.0, 0.0]))
    assert decision.state == MET and "cannot be ruled out" in decision.note
    [decision] = decide([WORSE], [], moved(np.random.default_rng(0), 5, [0.0, 0.0]))
    assert decision.state == UNDECIDED and decision.cases[0].n_to_decide == 6
    [decision] = decide([WORSE], [], [Moved("a", "a photo", "new", None, None)])
    assert decision.state == UNDECIDED and "no seed" in decision.cases[0].note
    assert decide([WORSE], [], [])[0].state == UNDECIDED


TOLERANCES = """
set_by = "the model team"
set_on = 2026-11-28
rules = ['presence("a dog") <= 0.9', "held_back <= 5"]
[protected]
headwear = ["a red hat"]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules = [", "expected a file in TOML"),
        ("rule = []", "expected the entries set_by, .* got 'rule'"),
        ("rules = 'presence >= 0.2'", "expected a list of texts as rules"),
        ("rules = ['presence >= 0.2', 'presense >= 0.2']", "rule 2: expected presence"),
        ("set_by = ''", "expected a text as set_by"),
        ("protected = ['a hat']", r"expected a table \[protected\]"),
        ("[protected]\nreligion = 'a hat'", "expected a list of texts as protected.religion"),
        ("relationship = 'friend'", "expected first_party, third_party"),
    ],
)
def test_a_tolerance_file_of_another_form_is_refused_in_words(tmp_path, text, message):
    path = tmp_path / "tolerances.toml"
    path.write_text(text)
    with pytest.raises(RaigenError, match=message) as raised:
        read_tolerances(path)
    assert str(path) in str(raised.value)


def test_a_tolerance_file_is_read_whole(tmp_path):
    path = tmp_path / "tolerances.toml"
    path.write_text(TOLERANCES)
    found = read_tolerances(path)
    assert found.set_by == "the model team" and found.set_on == "2026-11-28" and len(found.rules) == 2
    assert found.grounds_of("a red hat") == ["headwear"] and found.grounds_of("a dog") == []


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A run and a study that were evaluated and compared."""
    for name in ("run", "study"):
        with zipfile.ZipFile(GOLDEN / f"{name}.zip") as archive:
            archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "rules", "status"),
    [
        ("run", ['presence("a dog") <= 0.9'], 0),
        ("run", ['presence("a dog") <= 0.9', 'presence("a dog") >= 0.99', "held_back <= 5"], 1),
        ("run", ['presence("a dog") <= 0.9', "held_back <= 5"], 3),
        ("study", ['presence("a cat") >= 0.01', "no attribute worse than baseline at q <= .05"], 0),
        ("run", ['presence("a cat") >= 0.01'], 2),
        ("run", [], 2),
    ],
)
def test_the_exit_status_says_what_was_decided(old, place, rules, status, capsys):
    Path("tolerances.toml").write_text(f"rules = {rules!r}")
    assert main(["check", place, "--tolerance", "tolerances.toml"]) == status
    printed = capsys.readouterr()
    if status == 2:
        assert "expected" in printed.err and not (old / place / "dossier").exists()
        return
    suite = ElementTree.fromstring((old / place / "dossier" / "check.xml").read_bytes())
    states = [line.partition(":")[0] for line in printed.out.splitlines()[: len(rules)]]
    assert [test.get("name") for test in suite.iter("testcase")] == rules
    assert (suite.get("failures"), suite.get("skipped")) == tuple(str(states.count(s)) for s in (VIOLATED, UNDECIDED))
    assert len(list(suite.iter("failure"))) == states.count(VIOLATED)
    summary = (old / place / "dossier" / "check.md").read_text()
    assert all(f"`{rule}`" in summary for rule in rules)
    if status == 3:
        assert "fresh images would decide it" in summary and len(list(suite.iter("skipped"))) == 1


def test_the_check_of_a_folder_that_is_neither_says_what_to_type(old, capsys):
    Path("tolerances.toml").write_text("rules = ['presence >= 0.2']")
    assert main(["check", ".", "--tolerance", "tolerances.toml"]) == 2
    assert "raigen audit" in capsys.readouterr().err


def test_hostile_labels_leave_the_xml_and_the_summary_whole(old):
    label = "</testcase>|`\x1b[31m\u202e<b>"
    from raigen.dossier.check import _junit, rows_of
    from raigen.report.html import fill

    decisions = decide([rule_of(f'presence("{label}") >= 0.2')], [part(item(label, rate(3, 300)))], None)
    [test] = ElementTree.fromstring(_junit(decisions)).iter("testcase")
    assert "\x1b" not in (test.get("name") or "") and "</testcase>" in (test.get("name") or "")
    summary = fill("check.md.jinja", {"rows": rows_of(decisions)})
    assert "\x1b" not in summary and "\u202e" not in summary
    [row] = [line for line in summary.splitlines() if line.startswith("| `")]
    assert row.replace("\\|", "").count("|") == 4


def test_tolerances_without_rules_are_no_gate():
    assert Tolerances().rules == () and decide((), [part()], None) == []


def test_ratios_have_no_upper_end_only_if_the_attribute_never_shows():
    cases = [decide([rule_of("held_back <= 50")], [part(item("a", rate(hits, 300), rate(9, 10)))], None)[0].cases[0]
             for hits in (0, 1, 30)]  # fmt: skip
    assert [math.isinf(case.high) for case in cases] == [True, False, False]
    assert all(before.low >= after.low for before, after in pairwise(cases))
