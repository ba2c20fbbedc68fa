"""A person notes on the report what a finding is, brings the file back, and the name stands everywhere as theirs."""

import csv
import json
import time
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from raigen.cli.main import main
from raigen.errors import RaigenError
from raigen.judging.annotate import as_annotated
from raigen.judging.notes import hashes_of, holds_notes, notes_of, take_notes
from raigen.runs.files import write_text
from raigen.runs.run import Run
from tests.support.run_folder import make_run, text_of, view, write


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", n_attributes=2)


def noted(run: Run, place: int = 0, **changes) -> Path:
    """A file as the browser makes it, with one note."""
    a = run.attributes[place]
    note = {"neuron": a.neuron, "images": hashes_of(run, [a])[a.neuron], "label": a.title, "by": "Ada",
            "verdicts": ["wrong name"], "name": "a striped hat", "text": "look\nagain"}  # fmt: skip
    path = run.dir.parent / "notes.json"
    path.write_text(json.dumps({"format": 1, "notes": [note | changes]}))
    return path


def test_a_given_name_stands_as_named_by_its_author(run: Run, capsys) -> None:
    old = run.attributes[0]
    write_text(run.annotations_path, json.dumps({"neuron": old.neuron, "label": old.label}) + "\n")
    annotated = run.annotations_path.read_bytes()
    assert main(["review", str(run.dir), str(noted(run))]) == 0
    assert f"rank 1, {old.label}: “a striped hat”, named by Ada" in capsys.readouterr().out
    new = run.attributes[0]
    assert (new.name, new.title, new.label, new.judged_as) == ("a striped hat", "a striped hat", old.label, old.label)
    assert new.presence == old.presence and run.annotations_path.read_bytes() == annotated
    text = text_of(run)
    assert f"named by Ada, a person. CLIP said “{old.label}”; what is measured below is of this label" in text
    assert (
        f"of fresh images show “{old.label}”" in text
        and "Ada: wrong name; better: “a striped hat”; “look again”" in text
    )
    for path in (run.table_path, run.presence_path):
        row = next(csv.DictReader(path.read_text().splitlines()))
        assert (row["label"], row["named_by"], row["judged_as"]) == ("a striped hat", "Ada", old.label)
    assert f"| a striped hat (named by Ada; measured as {old.label}) |" in run.card_path.read_text()
    assert "a striped hat" in run._repr_html_()
    assert run.table()["label"][0] == "a striped hat" and '"a striped hat"' not in run.annotations_path.read_text()
    assert old.label in (run.figures_dir / "presence.svg").read_text()  # the rate is of the old label


def test_the_next_evaluation_measures_the_given_name(run: Run) -> None:
    take_notes(run, noted(run))
    (first, second) = as_annotated(run)
    assert (first.label, first.labeled_by, first.presence, first.judged_as) == ("a striped hat", "Ada", None, None)
    assert first.suggested_prompt == "a photo of a doctor, a striped hat" and second.label == run.attributes[1].label


def test_a_later_note_replaces_the_earlier_one_of_the_same_person(run: Run) -> None:
    take_notes(run, noted(run))
    take_notes(run, noted(run, by="Bob", name="a cap", text=""))
    assert run.attributes[0].name == "a cap" and [note.by for note in notes_of(run)] == ["Ada", "Bob"]
    take_notes(run, noted(run, by="Bob", name="", text="no better idea"))
    assert run.attributes[0].name == "a striped hat" and run.attributes[0].named_by == "Ada"
    assert [note.text for note in notes_of(run)] == ["look\nagain", "no better idea"]
    take_notes(run, noted(run, name="", verdicts=["agree"]))
    assert run.attributes[0].given_name is None and run.attributes[0].name == run.attributes[0].label


def test_a_name_helps_where_nothing_was_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write(run)
    take_notes(run, noted(run, place=3))
    write(run)
    assert run.attributes[3].label is None and run.attributes[3].title == "a striped hat"
    text = text_of(run)
    assert "named by Ada, a person." in text and "No phrase separates" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "0" * 16}, "expected notes on what .* lists; the note on .* is about other images"),
        ({"neuron": 5}, "is about other images"),
        ({"by": "\u200b"}, "expected a name under each note.*Your name"),
        ({"verdicts": ["great"]}, "expected the file that the report downloads; the verdicts"),
        ({"verdicts": 3}, "expected the file that the report downloads"),
        ({"text": "a" * 10_001}, "more than 10,000 characters"),
    ],
)
def test_notes_that_do_not_fit_are_refused(run: Run, changes, message) -> None:
    before = run.attributes_path.read_bytes()
    with pytest.raises(RaigenError, match=message):
        take_notes(run, noted(run, **changes))
    assert run.attributes_path.read_bytes() == before and not run.notes_path.exists()


def test_notes_and_ticks_are_told_apart(run: Run, tmp_path: Path) -> None:
    assert holds_notes(noted(run))
    path = tmp_path / "x.json"
    path.write_text('{"format": 1, "reviewed": []}')
    assert not holds_notes(path) and not holds_notes(tmp_path / "nothing.json")
    path.write_text('{"format": 2, "notes": []}')
    with pytest.raises(RaigenError, match="expected notes of format 1; got 2"):
        take_notes(run, path)


def test_notes_on_findings_that_are_gone_are_not_shown(run: Run) -> None:
    take_notes(run, noted(run))
    run.write_attributes(run.attributes[1:])
    assert notes_of(run) == []


def test_hostile_notes_are_harmless(run: Run) -> None:
    write(run)
    take_notes(run, noted(run, by="A\x1b[31m<b>", name="</script><script>alert(1)", text="\u202e<img src=x>"))
    write(run)
    html = run.report().read_text()
    assert html.count("</script>") == 2 and "<img src=x>" not in html and "\u202e" not in html and "\x1b" not in html
    assert run.attributes[0].named_by == "A[31m<b>"


def test_a_person_notes_in_the_browser_and_brings_it_back(run: Run, browser: Chrome, tmp_path: Path) -> None:
    write(run)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    view(browser, 1280)
    address = run.report().resolve().as_uri()
    browser.get(address)
    save = browser.find_element(By.ID, "note-save")
    note = browser.find_element(By.CSS_SELECTOR, "details.note")
    note.find_element(By.TAG_NAME, "summary").click()
    note.find_element(By.CSS_SELECTOR, "[name='not visible']").click()
    note.find_element(By.NAME, "name").send_keys("a cap")
    assert not save.is_enabled() and "1 note; your name is missing" in browser.find_element(By.ID, "note-count").text
    browser.find_element(By.ID, "note-by").send_keys("Ada")
    assert save.is_enabled()
    browser.refresh()  # the browser keeps it
    note = browser.find_element(By.CSS_SELECTOR, "details.note")
    assert note.find_element(By.NAME, "name").get_attribute("value") == "a cap"
    assert note.find_element(By.CSS_SELECTOR, "[name='not visible']").is_selected()
    browser.find_element(By.ID, "note-save").click()
    path = tmp_path / "notes.json"
    for _ in range(100):
        if path.is_file():
            break
        time.sleep(0.05)
    (named,) = take_notes(run, path)
    assert (named.name, named.named_by, notes_of(run)[0].verdicts) == ("a cap", "Ada", ("not visible",))
    assert browser.get_log("browser") == []


def test_where_the_browser_keeps_nothing_the_page_does(run: Run, browser: Chrome) -> None:
    write(run)
    block = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('blocked'); } })"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": block})
    try:
        browser.get(run.report().resolve().as_uri())
        note = browser.find_element(By.CSS_SELECTOR, "details.note")
        note.find_element(By.TAG_NAME, "summary").click()
        note.find_element(By.NAME, "name").send_keys("a cap")
        assert "1 note, not kept by this browser" in browser.find_element(By.ID, "note-count").text
        browser.execute_script("document.getElementById('note-save').disabled = true")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script["identifier"]})
        browser.get("about:blank")
