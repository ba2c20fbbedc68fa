"""Judges that users bring: a function is called in batches and checked, a file is read, both are noticed to change."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raigen.auditing.audit import run_stage
from raigen.cli.main import main
from raigen.config import AnnotateConfig, CompareConfig, EvaluateConfig
from raigen.errors import RaigenError
from raigen.judging.fresh import first_seed
from raigen.judging.judges import Judge, Subject
from raigen.judging.own_judges import FileJudge, FunctionJudge, need_paths, read_verdicts
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from tests.support.run_folder import make_run, portrait, save

HAT = "a red hat"
CONFIG = {"n_fresh_images": 4, "n_suggested_images": 0}
FLAGS = ["--n-fresh-images", "4", "--n-suggested-images", "0"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with one name, and four fresh images; the current folder is the one that it lies in."""
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("run"), until="discover")
    first, *others = [attribute.unnamed() for attribute in run.attributes]
    run.write_attributes([replace(first, label=HAT), *others])
    run.begin("annotate", run.config.annotate)
    run.finish("annotate", Outcome([], {}), 1.0)
    capture = run.config.capture
    with run.fresh_samples_path.open("a") as file:
        for index in range(4):
            sample = Sample(index, capture.prompt, first_seed(capture) + index, f"fresh/{index:06d}.png", "")
            file.write(json.dumps(save(run, sample, portrait(index, None))._asdict()) + "\n")
    return run


def judge_of(name: str, body: str) -> FunctionJudge:
    """A function `shows` of a module of this name in the current folder."""
    Path(f"{name}.py").write_text(f"def shows(images, label):\n    {body}\n")
    return FunctionJudge(f"python:{name}:shows")


def gray(n: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (index + 1, 0, 0)) for index in range(n)]


def test_a_function_is_called_in_batches_with_the_label(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge = judge_of("batches", "return [(type(images) is list and len(images) == 32, .75) for image in images]")
    ticks = []
    (found, other) = judge.verdicts(gray(70), [Subject(HAT), Subject("bald")], ticks.append)
    assert isinstance(judge, Judge) and found.judge == judge.name and judge.name.startswith("batches:shows, source ")
    assert found.shows.tolist() == other.shows.tolist() == [1.0] * 64 + [0.0] * 6 and set(found.confidence) == {0.75}
    assert [tick.done for tick in ticks] == [32, 64, 96, 128, 134, 140] and ticks[-1].total == 140
    named = judge_of("labels", f"return [image.mode == 'RGB' and label == {HAT!r} for image in images]")
    assert [verdicts.shows.tolist() for verdicts in named.verdicts(gray(1), [Subject(HAT), Subject("bald")])] == [
        [1.0], [0.0],
    ]  # fmt: skip


def test_what_a_function_leaves_open_is_unscored_and_black_images_are_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge = judge_of("opens", "import numpy; return [None, numpy.bool_(True), (False, 1), True]")
    (found,) = judge.verdicts([*gray(3), Image.new("RGB", (4, 4))], [Subject(HAT)])
    assert np.array_equal(found.shows, [np.nan, 1, 0, np.nan], equal_nan=True)
    assert np.array_equal(found.confidence, [np.nan, np.nan, 1, np.nan], equal_nan=True)
    assert found.why == {0: "the function gave no verdict", 3: "the image is black"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [True]", "expected 2 verdicts for 2 images; it returned 1"),
        ("return (True for image in images)", "expected a list of 2 verdicts; it returned generator"),
        ("return 'no'", "expected a list of 2 verdicts; it returned str"),
        ("return ['yes', 'no']", "each verdict to be True, False, None, or a pair .* returned 'yes' for 'a red hat'"),
        ("return [0.7, 0.2]", "each verdict to be True, False, None.* it returned 0.7"),
        ("return [(True, 1.5), None]", r"a confidence in \[0, 1\]; it returned \(True, 1.5\)"),
        ("return [(True, True), None]", r"it returned \(True, True\)"),
        ("return [(True, float('nan')), None]", r"it returned \(True, nan\)"),
        ("return images[7]", "no error for 'a red hat'; it raised IndexError: list index out of range"),
    ],
)
def test_what_a_function_may_not_do_is_told(tmp_path, monkeypatch, body, message):
    monkeypatch.chdir(tmp_path)
    judge = judge_of("wrong_" + str(abs(hash(body))), body)
    with pytest.raises(RaigenError, match=message) as caught:
        judge.verdicts(gray(2), [Subject(HAT)])
    assert str(caught.value).startswith("judge python:wrong_") and "give the same command again" in str(caught.value)


def test_a_function_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("holds.py").write_text("shows = 3\n")
    Path("breaks.py").write_text("1 / 0\n")
    for address, message in (
        ("python:nowhere:shows", "expected the function shows in the module nowhere, installed or in the folder"),
        ("python:no.where:shows", "No module named 'no'"),
        ("python:holds:gone", "has no attribute 'gone'"),
        ("python:holds:shows", "expected a function; shows is int"),
        ("python:breaks:shows", "ZeroDivisionError: division by zero"),
    ):
        with pytest.raises(RaigenError, match=message):
            FunctionJudge(address)
    for config in (EvaluateConfig, CompareConfig):
        with pytest.raises(RaigenError, match=r"python:PACKAGE.MODULE:FUNCTION, file:VERDICTS.csv, openai:MODEL"):
            config(judge="python:holds")
    with pytest.raises(RaigenError, match="annotator: expected clip, openai"):
        AnnotateConfig(annotator="file:a.csv")


def test_a_changed_function_judges_again(run):
    Path("changing.py").write_text("def shows(images, label):\n    return [True] * len(images)\n")
    config = EvaluateConfig(judge=("python:changing:shows",), **CONFIG)
    run_stage(run, "evaluate", config)
    first, facts = run.attributes[0].presence, run.facts.evaluate
    assert (first.hits, first.n) == (4, 4) and first.judge == facts.judge and list(facts.sources) == ["changing.py"]
    assert run.is_done("evaluate", config)
    Path("changing.py").write_text("def shows(images, label):\n    return [False] * len(images)  # now\n")
    assert not run.is_done("evaluate", config)
    run_stage(run, "evaluate", config)
    second = run.attributes[0].presence
    assert (second.hits, second.n) == (0, 4) and second.judge != first.judge
    assert run.facts.evaluate.sources != facts.sources
    Path("changing.py").unlink()
    assert run.is_done("evaluate", config)


def test_a_file_is_written_after_the_images_are_made(run, capsys):
    command = ["evaluate", "run", "--judge", "file:v.csv", *FLAGS]
    assert main(command) == 0
    out = capsys.readouterr().out
    with run.unjudged_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    fresh = [row for row in rows if "/fresh/" in row["file"]]
    assert f"v.csv: 0 of {len(rows)} verdicts are there" in out and "give the same command again" in out
    assert [(row["file"], row["label"], row["shows"]) for row in fresh] == [
        (f"run/fresh/{index:06d}.png", HAT, "") for index in range(4)
    ]
    assert len(rows) > 4 and all(Path(row["file"]).is_file() for row in rows)  # those of the label's score, too
    assert run.attributes[0].presence.n == 0 and run.attributes[0].presence.unscored == 4
    Path("v.csv").write_text("file,label,shows,confidence\n" + "".join(
        f"{row['file']},{row['label']},{shows},{sure}\n" for row, shows, sure in zip(fresh, ("yes", "no", "", "No"),
                                                                                   (0.9, "", "", 1), strict=True)
    ))  # fmt: skip
    assert main(command) == 0
    assert f"v.csv: 3 of {len(rows)} verdicts" in capsys.readouterr().out
    presence = run.attributes[0].presence
    assert (presence.hits, presence.n, presence.unscored) == (1, 3, 1) and presence.judge.startswith("v.csv, sha256 ")
    lines = run.read_lines(run.judgements_path, "evaluate")
    assert [(line["shows"], line["confidence"]) for line in lines] == [
        (True, 0.9), (False, None), (None, None), (False, 1.0),
    ]  # fmt: skip
    assert lines[2]["why"] == "the file has no verdict"
    assert run.facts.evaluate.unjudged == {"v.csv": [3, len(rows)]} and main(["report", "run"]) == 0
    assert "v.csv: 3 of" in capsys.readouterr().out


def test_files_and_seeds_name_images_of_the_run(run):
    seed = first_seed(run.config.capture)
    Path("v.csv").write_text(f"\ufefffile,seed,label,shows\nfresh/000000.png,,{HAT},1\n,{seed + 1},{HAT},true\n")
    judge = FileJudge("file:v.csv", run)
    samples = run.samples(run.fresh_samples_path)
    assert [judge._verdict(sample, HAT)[0] for sample in samples[:2]] == [1.0, 1.0]
    suggested = samples[1]._replace(prompt="another prompt", file="asked/x/000001.png")
    assert np.isnan(judge._verdict(suggested, HAT)[0])  # it has the seed of a fresh image


def test_a_file_about_other_images_is_refused_with_a_list_of_what_to_judge(run):
    Path("v.csv").write_text(f"file,label,shows\nelsewhere/000000.png,{HAT},yes\n")
    with pytest.raises(RaigenError, match=r"such as run/fresh/000000.png with the label 'a red hat'; it has none, but "
                                          "elsewhere/000000.png"):  # fmt: skip
        run_stage(run, "evaluate", EvaluateConfig(judge=("file:v.csv",), **CONFIG))
    assert "run/fresh/000003.png,a red hat," in run.unjudged_path.read_text()
    with pytest.raises(RaigenError, match="is written anew each time; save your verdicts under another name"):
        FileJudge("file:run/unjudged.csv", run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,label,shows\n", "expected the columns label, shows, file or seed, .* found picture, label, shows"),
        ("file,label\n", "shows is missing, found file, label"),
        ("", "label is missing, found none"),
        ("file,label,shows\na,b,maybe\n", "line 2: expected yes, no or nothing in the column shows; got 'maybe'"),
        ("file,label,shows,confidence\na,b,yes,2\n", r"line 2: expected a confidence in \[0, 1\] or nothing; got '2'"),
        ("file,label,shows,confidence\na,b,yes,high\n", "got 'high'"),
        ("file,label,shows\na,b,yes\na,b,yes\na,b,no\n", "line 4: expected one verdict on a and 'b'; another line"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_told(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("v.csv").write_text(text)
    with pytest.raises(RaigenError, match=message):
        read_verdicts(Path("v.csv"))
    with pytest.raises(RaigenError, match=r"there is no file 'gone.csv'"):
        read_verdicts(Path("gone.csv"))


def test_for_several_runs_a_file_names_images_by_their_paths(run):
    Path("v.csv").write_text(f"file,label,shows\nrun/fresh/000000.png,{HAT},yes\n")
    need_paths("file:v.csv", [run.dir])
    with pytest.raises(RaigenError, match="on images of every run; it has none of other"):
        need_paths("file:v.csv", [run.dir, Path("other")])
    Path("v.csv").write_text(f"file,label,shows\nfresh/000000.png,{HAT},yes\n")
    with pytest.raises(RaigenError, match=r"several runs have an image of that name; it has 'fresh/000000.png'"):
        need_paths("file:v.csv", [run.dir])
