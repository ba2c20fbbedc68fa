"""README and findings claim no more than the stored results: tables are those of the files, and a comparison has an
interval."""

import re
from pathlib import Path

import pytest

from benchmarks.common.results import RESULTS, read_rows
from benchmarks.tables import first_ten, paper, tables

ROOT = Path(__file__).parents[2]
README, FINDINGS = ROOT / "README.md", ROOT / "docs" / "findings.md"
REPRODUCE = ROOT / "docs" / "reproduce.md"
CLAIM = re.compile(r"\b(surely|better|as good as)\b", re.IGNORECASE)
INTERVAL = re.compile(r"\[-?[\d.]+, -?[\d.]+\]")


def bare_claims(text: str) -> list[str]:
    """The paragraphs, items of lists and rows of tables that claim a difference without an interval."""
    parts = re.split(r"\n\s*\n|\n(?=- |\||#)", text)
    return [part for part in parts if CLAIM.search(part) and not INTERVAL.search(part)]


def test_a_claim_without_an_interval_is_found():
    text = "It is\nsurely so.\n\n- Better by .1\n  [-.05, .25].\n- It is as good as any.\n| a | better |"
    assert bare_claims(text) == ["It is\nsurely so.", "- It is as good as any.", "| a | better |"]


@pytest.mark.parametrize("page", [README, FINDINGS, ROOT / "docs" / "limits.md"], ids=lambda page: page.name)
def test_every_claim_has_its_interval(page):
    assert bare_claims(page.read_text(encoding="utf-8")) == []


def test_the_table_of_the_readme_is_that_of_the_stored_values():
    assert first_ten(read_rows(RESULTS / "discovery.csv")) in README.read_text(encoding="utf-8")


def test_the_tables_of_the_findings_are_those_of_the_stored_values():
    text = FINDINGS.read_text(encoding="utf-8")
    found = list(tables())
    assert len(found) == 15 and [table for table in found if table not in text] == []


def test_the_tables_of_the_paper_are_those_of_the_stored_values():
    found = paper()
    made = {line.split(" | ")[0].removeprefix("| ") for line in found.splitlines()[2:]}
    assert made == {"1", "6", "7", "8", "10", "11", "12"}
    assert found in REPRODUCE.read_text(encoding="utf-8")
