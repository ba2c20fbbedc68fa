"""The pages are true: examples run, commands parse, links lead somewhere, and the README stays short."""

import re
import shlex
import zipfile
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

import raigen
from raigen.cli.main import COMMANDS as COMMANDS_OF_RAIGEN
from raigen.cli.main import main
from raigen.cli.reference import reference
from raigen.config import AmplifyConfig
from raigen.judging.own_judges import FunctionJudge, read_verdicts
from raigen.judging.protocol import Subject

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\.venv/bin/)?raigen (.*)$", re.MULTILINE)


def commands_of(text: str) -> list[str]:
    """The arguments of every raigen command in the fenced code of a page; a backslash joins lines."""
    shells = [code for language, code in FENCE.findall(text) if language in ("", "bash", "sh")]
    return [command for code in shells for command in COMMAND.findall(code.replace("\\\n", " "))]


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    anchors, seen = set(), Counter()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return anchors


COMMANDS = [(page, command) for page in PAGES for command in commands_of(page.read_text(encoding="utf-8"))]


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "log.md"], ids=lambda page: page.name)
def test_lines_of_prose_fit_a_screen(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    assert [line for line in prose if len(line) > 120 and not line.lstrip().startswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_place(page):
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme():
    found, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        found.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")))
        new |= {(page.parent / link).resolve() for link in links if link.endswith(".md") and ":" not in link} - found
    assert set(PAGES) - found == set()


def test_the_map_names_files_that_exist():
    text = FENCE.sub("", (DOCS / "architecture.md").read_text(encoding="utf-8"))
    files = set(re.findall(r"`((?:[\w.]+/)+(?:[\w.]+\.(?:py|toml|jinja|md))?)`", text))
    missing = [file for file in files if not (ROOT / "src" / "raigen" / file).exists() and not (ROOT / file).exists()]
    assert sorted(missing) == ["asked/"]  # of a run folder
    rooms = {path.name for path in (ROOT / "src" / "raigen").iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= set(re.findall(r"^### (\w+)", text, re.MULTILINE))


def test_the_reference_of_commands_is_that_of_the_code():
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert text == reference(), "write it again: python -m raigen.cli.reference > docs/commands.md"


def test_the_reference_has_every_command_and_every_flag():
    text = reference()
    assert [name.lower() for name in re.findall(r"^## (\w+)$", text, re.MULTILINE)] == [
        command.__name__.lower() for command in COMMANDS_OF_RAIGEN
    ]
    rows = [row for row in text.split("\n## amplify\n")[1].split("\n## ")[0].split("\n") if row.startswith("| `--")]
    assert len(rows) == len(fields(AmplifyConfig)) and any(row.startswith("| `--n-images` | `200` | ") for row in rows)


class ParsedError(Exception):
    """The command line was read; raised in place of running the command."""


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page.name}: {text}" for page, text in COMMANDS])
def test_every_command_parses(page, command, monkeypatch):
    read = tyro.cli

    def stop(*args, **options):
        raise ParsedError(type(read(*args, **options)).__name__.lower())

    monkeypatch.setattr(tyro, "cli", stop)
    args = shlex.split(command, comments=True)
    if args[-1] == "--help":
        with pytest.raises(SystemExit, match=r"^0$"):
            main(args)
    else:
        with pytest.raises(ParsedError, match=f"^{args[0]}$"):
            main(args)


def test_there_are_commands_to_check():
    names = {command.split()[0] for _, command in COMMANDS}
    assert {"audit", "view", "amplify", "compare", "annotate", "evaluate", "review"} <= names
    assert commands_of("```\nraigen audit x \\\n  --k 4  # why\nmake demo\n```\n```python\nraigen y\n```\n") == [
        "audit x    --k 4  # why"
    ]


def test_the_lines_of_python_in_the_readme(tmp_path, monkeypatch, capsys):
    with zipfile.ZipFile(ROOT / "tests" / "golden" / "run.zip") as archive:
        archive.extractall(tmp_path)
    run = raigen.Run(tmp_path / "run")
    run.report_path.write_text("a report")  # left out of the archive
    monkeypatch.setattr(raigen, "audit", lambda prompt: run)
    [example] = [code for language, code in FENCE.findall((ROOT / "README.md").read_text()) if language == "python"]
    assert len([line for line in example.splitlines() if line.strip()]) == 3
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert all(attribute.label in printed for attribute in run.attributes) and "fresh images" in printed
    assert printed.startswith(repr(run))


@pytest.fixture
def names(request, tmp_path, monkeypatch) -> dict:
    """What stands after all examples of a page have run, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    page = DOCS / request.param
    examples = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert examples
    found: dict = {}
    for example in examples:
        exec(compile(example, page.name, "exec"), found)
    return found


@pytest.mark.parametrize("names", ["your-own-vectors.md"], indirect=True)
def test_training_on_vectors_of_ones_own(names):
    assert names["step"].step == 40 and names["step"].fvu[-1] < names["step"].fvu[0]
    assert (names["codes"] > 0).sum(dim=1).float().mean() == pytest.approx(8, abs=0.5)
    assert len(names["paths"]) == 4 and all(path.is_file() for path in names["paths"])


@pytest.mark.parametrize("names", ["steering.md"], indirect=True)
def test_steering_a_pipeline_of_ones_own(names):
    rows = {strength: np.stack([np.asarray(image) for image in row]) for strength, row in names["rows"].items()}
    before, after = (np.stack([np.asarray(image) for image in names[name]]) for name in ("before", "after"))
    assert np.array_equal(rows[0.0], before) and np.array_equal(after, before)
    moved = [np.abs(rows[strength].astype(float) - before).mean() for strength in (0.5, 1.0, 2.0)]
    assert 0 < moved[0] < moved[1] < moved[2]
    assert Path("steered.png").is_file() and names["sheet"].width > names["before"][0].width * 3
    modules = list(names["pipe"].unet.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


@pytest.mark.parametrize("names", ["judging.md"], indirect=True)
def test_a_judge_of_ones_own(names):
    text = (DOCS / "judging.md").read_text(encoding="utf-8")
    code = {language: code for language, code in FENCE.findall(text) if language in ("python", "csv")}
    Path("my_judge.py").write_text(code["python"])
    images = [Image.new("RGB", (8, 8), (value, value, value)) for value in (30, 200)]
    dark, other = FunctionJudge("python:my_judge:is_dark").verdicts(
        images, [Subject("a dark picture"), Subject("bald")]
    )
    assert dark.shows.tolist() == [1, 0] and np.isnan(other.shows).all()
    assert names["is_dark"](images, "a dark picture")[0] == (True, pytest.approx(0.675))
    Path("verdicts.csv").write_text(code["csv"])
    assert [shows for shows, _ in read_verdicts(Path("verdicts.csv")).values()] == [
        1,
        0,
        pytest.approx(np.nan, nan_ok=True),
    ]
