"""Texts that steer a terminal, turn a line around, hide, or run in a spreadsheet: nothing that raigen writes for people
holds them, wherever they come from."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from raigen.auditing.sweep import SweepStep
from raigen.cli.progress import bars, sweep_bars
from raigen.cli.serve import index
from raigen.cli.tables import print_result
from raigen.cli.terminal import say, warn
from raigen.comparison.axes import axis_of
from raigen.config import ReportConfig, in_a_line, labels_of, visible
from raigen.dossier.dossier import dossier
from raigen.judging.vlm.questions import read_annotation, read_proposal
from raigen.report.html import plain
from raigen.runs.files import FORMULA, csv_text, json_text, plain_cell, write_text
from raigen.runs.records import RareAttribute
from raigen.runs.run import Run
from raigen.runs.steps import Step, Tick
from raigen.runs.study import Entry, Study
from tests.support.run_folder import make_run, write

SOURCE = Path(__file__).parents[2] / "src" / "raigen"
ESCAPES = "\x1b[31m\x1b]0;pwn\x07\x9b2J\b\r"  # color, title of the window, clear the screen, overwrite the line
TURNS = "\u202e\u2066\u200f\u061c"  # override, isolate, marks
HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\xad\u3164\U000e0041"  # no width, a soft hyphen, a filler, a tag
HOSTILE = ESCAPES + TURNS + HIDDEN + "\ud83d"  # and half a character
DANGEROUS = re.compile(f"[\x1b\x07\x9b\b\r{TURNS}{HIDDEN}\ud83d]")
TEXTS = {"prompt", "label", "judge", "keywords", "suggested_prompt", "labeled_by", "model", "scheduler", "hookpoint",
         "embedder", "model_id", "evidence", "why_not", "interval", "left_out", "former_label", "license",
         "python", "raigen", "band"}  # fmt: skip


def spoiled(entry, name=""):
    """The entry with hostile characters in the midst of every text that a stranger may have written."""
    if isinstance(entry, dict):
        return {key: spoiled(value, key) for key, value in entry.items()}
    if isinstance(entry, list) and name != "judge":  # a setting that is checked
        return [spoiled(value, name) for value in entry]
    hostile = HOSTILE[:-1] if name == "prompt" else HOSTILE  # half a prompt is refused
    return f"={entry[:2]}{hostile}{entry[2:]}" if name in TEXTS and isinstance(entry, str) and entry else entry


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A finished run in which every text is hostile, with its report."""
    run = make_run(tmp_path_factory.mktemp("hostile") / "run", n_attributes=3)
    write_text(run.annotations_path, json.dumps({"neuron": 21, "label": "a hat", "evidence": "in all of A"}) + "\n")
    for path in (*run.dir.glob("*.json"), *run.dir.glob("*.jsonl")):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        write_text(path, "\n".join(json.dumps(spoiled(json.loads(line))) for line in lines) + "\n")
    for path in (run.presence_path, run.neurons_path):  # as an earlier raigen wrote them
        rows = list(csv.reader(io.StringIO(path.read_text())))
        texts = [number for number, name in enumerate(rows[0]) if name in TEXTS]
        for row in rows[1:]:
            for number in texts:
                row[number] = row[number] and f"={row[number]}{DANGEROUS.sub('', HOSTILE)}\u202e\x1b[31m"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    run = Run(run.dir)
    write(run, ReportConfig())
    dossier(run, images=False)
    return run


def test_no_file_that_people_open_holds_a_hostile_character(hostile):
    files = [hostile.report_path, hostile.sheet_path, hostile.card_path, hostile.table_path,
             hostile.images_dir / "metadata.jsonl", hostile.fresh_dir / "metadata.jsonl",
             *hostile.figures_dir.glob("*.svg"), *hostile.dossier_dir.glob("*.*"),
             *hostile.dossier_dir.glob("data/**/*.json*")]  # fmt: skip
    assert len(files) > 14
    for path in files:
        assert not DANGEROUS.search(path.read_text(encoding="utf-8")), path.name
    for path in hostile.figures_dir.glob("*.svg"):
        ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert not DANGEROUS.search(index(hostile.dir))


def test_no_data_of_a_page_holds_a_hostile_character_or_ends_its_element(hostile):
    (data,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', hostile.report_path.read_text(), re.S)
    read = json.loads(data)
    assert read["findings"][0]["title"].startswith("=") and read["command"] == ""  # the prompt cannot be shown as it is
    assert not DANGEROUS.search(json.dumps(read, ensure_ascii=False)) and not re.search("[<>&]", data)


def test_what_is_left_of_a_text_is_told(hostile):
    page, card = hostile.report_path.read_text(), hostile.card_path.read_text()
    assert "=a [31m]0;pwn2Jphoto of a doctor" in page
    assert "=a \\[31m\\]0;pwn2J photo of a doctor" in card
    entry = json.loads((hostile.images_dir / "metadata.jsonl").read_text().split("\n")[0])
    assert entry["prompt"] == hostile.config.capture.prompt  # for programs: escaped, not changed


def test_no_cell_of_a_table_is_a_formula(hostile):
    rows = list(csv.DictReader(io.StringIO(hostile.table_path.read_text())))
    assert [row["label"][:2] for row in rows] == ["'=", "'=", "'="]
    numbers = re.compile(r"-?[\d.]+(e-?\d+)?")
    assert not [cell for row in rows for cell in row.values() if cell.startswith(FORMULA) and not numbers.match(cell)]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\n=", "\u200b=", "\x1b=", "\uff1d", "\uff20"])
def test_a_formula_in_any_disguise_becomes_a_text(start):
    (_, cell) = csv.reader(io.StringIO(csv_text(["label"], [{"label": start + "1+1"}])))
    assert cell[0].startswith("'") and plain_cell(cell[0]) == visible(start + "1+1")


def test_a_text_in_json_comes_back_as_it_was():
    text = "béret \u202e\x1b\u200b\ud83d \U000e0041 \u0645\u06cc\u200c\u062e\u0648"
    said = json_text({"label": text})
    assert json.loads(said) == {"label": text} and "béret" in said and "\u0645\u06cc\u200c\u062e\u0648" in said
    said.encode()
    assert not re.search("[\u202e\x1b\u200b\U000e0041]", said)


def test_joiners_stay_where_a_script_needs_them():
    assert visible("\u0645\u06cc\u200c\u062e\u0648 👩\u200d⚕️") == "\u0645\u06cc\u200c\u062e\u0648 👩\u200d⚕️"
    assert visible("a ha\u200dt, a\u200c") == "a hat, a"


def test_the_terminal_gets_no_hostile_character(hostile, capsys):
    print_result(hostile)
    say(HOSTILE), warn(HOSTILE)
    shown = capsys.readouterr()
    assert "photo of a doctor" in shown.out and not DANGEROUS.search(shown.out + shown.err)
    attribute = RareAttribute(1, 2, 0.5, 0.1, 0.2, (), label="a\x1b[31m\u202e hat")
    assert not DANGEROUS.search(repr(attribute) + repr(hostile) + hostile._repr_html_())


def test_a_terminal_of_another_encoding_gets_question_marks(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    say("“a béret”")
    stream.seek(0)
    assert stream.read() == "?a b?ret?\n"


def test_markup_in_a_name_is_no_markup_for_bars():
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    with Progress(TextColumn("[dim]{task.fields[note]}"), console=console) as progress:
        show = bars(progress)
        show(Step("capture", "running", Tick(0, 2, "[/] a\x1b]0;pwn")))
        show(Step("annotate", "running", Tick(1, 2, "[/red] hat\u202e")))
        sweep_bars(progress)(SweepStep(1, 1, Entry("[/b] \x1b]0;pwn", "m", "f"), Step("capture", "begun"), None))
    shown = console.file.getvalue()
    assert "[/] a]0;pwn" in shown and "[/red] hat" in shown and "[/b]" in shown and "\x1b]0" not in shown


def test_names_are_clean_where_they_enter(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("a \x1b[31mhat\u202e\na [31mhat\n\u200b\n", encoding="utf-8")
    assert labels_of(file) == ["a [31mhat"]
    axis = axis_of("closed", "ha\u202eir", ["bald\x1b", "long\u200b hair"])
    assert (axis.name, axis.categories) == ("hair", ("bald", "long hair"))
    said = {"evidence": "e\u200b", "attribute": f"a{HOSTILE} hat", "suggested_prompt": "p\u202e", "n_showing": 9,
            "n_control": 0, "keywords": ["k\x9b"]}  # fmt: skip
    found = read_annotation(json.dumps(said))
    assert found is not None
    assert (found.evidence, found.attribute, found.suggested_prompt, found.keywords) == (
        "e", in_a_line(f"a{HOSTILE} hat"), "p", ("k",))  # fmt: skip
    assert not DANGEROUS.search(found.attribute)
    assert read_proposal('{"axes": [{"name": "h\\u202e", "classes": ["a\\u200b", "b"]}]}') == {"h": ["a", "b"]}


def test_a_study_of_hostile_names_can_be_written(tmp_path):
    study, prompt = Study.create(tmp_path / "study"), "a" + HOSTILE.replace("\u3164", "")  # a folder may be named by it
    study.enroll([prompt], ["m\u202e"], {})
    assert study.entries[0].prompt == prompt
    assert not DANGEROUS.search(study.manifest_path.read_text() + study._repr_html_())


def test_markdown_has_no_half_open_code():
    assert plain("a`b\n\n# c") == "a\\`b \\# c"


@pytest.mark.parametrize(
    ("call", "home"),
    [
        (r"(?<![\w.])print\(", ("cli/terminal.py", "runs/folder.py", "auditing/sweep.py", "studio/launch.py")),
        (r"csv\.(DictW|w)riter", ("runs/files.py",)),
        (r"ensure_ascii", ("runs/files.py",)),
        (r"get_template|from_string", ("report/html.py",)),
        (r"stdout\.write|stderr\.write", ()),
    ],
)
def test_whatever_is_written_for_people_passes_one_door(call, home):
    found = set()
    for path in SOURCE.rglob("*.py"):
        code = re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.S)
        if re.search(call, code) and "train" not in path.parts:
            found.add(path.relative_to(SOURCE).as_posix())
    assert found == set(home)
