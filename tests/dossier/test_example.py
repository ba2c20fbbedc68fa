"""The example and the tolerance file of the docs are what raigen writes and reads."""

import json
import re
import zipfile
from pathlib import Path

import jsonschema

from raigen.dossier.audit import TODO, audit_of
from raigen.dossier.evidence import parts_of
from raigen.dossier.rules import rule_of
from raigen.dossier.tolerances import Tolerances, read_tolerances
from raigen.report.html import fill
from raigen.runs.run import Run

ROOT = Path(__file__).parents[2]
EXAMPLE, PAGE = ROOT / "docs" / "dossier-example", (ROOT / "docs" / "dossier.md").read_text(encoding="utf-8")
SCHEMA = ROOT / "tests" / "dossier" / "every_eval_ever" / "eval.schema.json"


def test_the_example_has_the_form_of_today(tmp_path):
    with zipfile.ZipFile(ROOT / "tests" / "golden" / "run.zip") as archive:
        archive.extractall(tmp_path)
    example = json.loads((EXAMPLE / "audit.json").read_text(encoding="utf-8"))
    ours = audit_of(parts_of(Run(tmp_path / "run")), None, Tolerances(), [])
    assert list(example) == list(ours) and list(example["parts"][0]) == list(ours["parts"][0])
    assert list(example["parts"][0]["findings"][0]) == list(ours["parts"][0]["findings"][0])
    assert fill("audit.md.jinja", example) == (EXAMPLE / "audit.md").read_text(encoding="utf-8")
    jsonschema.validate(json.loads((EXAMPLE / "evaluation.json").read_text()), json.loads(SCHEMA.read_text()))
    rules = read_tolerances(EXAMPLE / "tolerances.toml").rules
    assert [row["rule"] for row in example["tolerances"]["decisions"]] == [rule.text for rule in rules]
    assert example["todo"]["n"] == (EXAMPLE / "audit.md").read_text().count(f"**{TODO.strip()}")


def test_the_tolerance_file_of_the_docs_is_read(tmp_path):
    [toml] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "tolerances.toml").write_text(toml)
    found = read_tolerances(tmp_path / "tolerances.toml")
    assert len(found.rules) == 3 and found.relationship == "first_party" and found.grounds_of("wearing a turban")


def test_every_rule_of_the_docs_is_one():
    table = [row.split("|")[1].strip(" `") for row in PAGE.splitlines() if "NUMBER` |" in row]
    assert len(table) == 4 and all(rule_of(text.replace("NUMBER", "0.5")).limit == 0.5 for text in table)
