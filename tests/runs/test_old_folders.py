"""Runs and studies that earlier code made (tests/golden) are read, reported, compared, amplified and reviewed."""

import csv
import json
import zipfile
from pathlib import Path

import pytest

import raigen
from raigen.cli.main import main
from raigen.config import STAGES
from raigen.runs.run import Run
from raigen.runs.study import Study

GOLDEN = Path(__file__).parents[1] / "golden"
LABELS = ["a red hat", "at night", "glasses"]


@pytest.fixture
def old(tmp_path, monkeypatch, sd_folder, clip_folder) -> Path:
    """A folder with the run, the study and the models that they name."""
    for name in ("run", "study"):
        with zipfile.ZipFile(GOLDEN / f"{name}.zip") as archive:
            archive.extractall(tmp_path)
    (tmp_path / "models").mkdir()
    for name, folder in {"one": sd_folder, "two": sd_folder, "clip": clip_folder}.items():
        (tmp_path / "models" / name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    """The files that are not as they were. A table may have further columns."""

    def lost(name: str) -> bool:
        old, new = (list(csv.DictReader(files[name].decode().splitlines())) for files in (before, after))
        return [{key: row[key] for key in old[0]} for row in new] != old

    different = {name for name in before if before[name] != after.get(name)}
    return {name for name in different if not (name.endswith(".csv") and name in after) or lost(name)}


def test_an_old_run_is_read_whole(old):
    run = Run("run")
    assert [attribute.label for attribute in run.attributes] == LABELS
    assert [attribute.presence.hits for attribute in run.attributes] == [3, 3, 4]
    assert run.attributes[0].causal.correlates_only and run.attributes[1].causal is None
    assert all(len(attribute.corrected) == len(attribute.other_presences) == 1 for attribute in run.attributes)
    for stage in STAGES:
        assert run.config_of(stage) and run.facts_of(stage)
    assert len(run.samples()) == 50 and all(run.read_image(sample).size == (16, 16) for sample in run.samples())


def test_a_report_is_made_of_an_old_run(old, capsys):
    before = files_of(old / "run")
    assert main(["report", "run"]) == 0
    after = files_of(old / "run")
    assert changed(before, after) <= {"run.json", "model-card.md"}
    page = Run("run").report().read_text(encoding="utf-8")
    assert all(f"{label}" in page for label in [*LABELS, "a dog", "correlates only"])
    assert (old / "run/review.html").is_file() and "a red hat" in capsys.readouterr().out


def test_the_same_audit_of_an_old_run_makes_nothing_but_the_report(old):
    run, before = Run("run"), files_of(old / "run")
    options = {k: v for stage in STAGES for k, v in vars(run.config_of(stage)).items() if k not in ("prompt", "model")}
    steps = []
    raigen.audit("a photo of a doctor", model="models/one", run_dir="run", progress=steps.append, **options)
    assert {step.stage for step in steps if step.state != "skipped"} == {"report"}
    assert changed(before, files_of(old / "run")) <= {"run.json", "model-card.md"}


@pytest.mark.parametrize("method", ["contrast", "steer"])
def test_an_old_run_is_amplified_further(old, method):
    kept = {name: data for name, data in files_of(old / "run/amplified").items() if name.endswith(".png")}
    strength = (1.0, 2.0) if method == "contrast" else (0.5, 1.0)
    (entry,) = raigen.amplify("run", attribute=1, method=method, strength=strength, n_images=4)
    assert [point["strength"] for point in entry["points"]] == list(strength)
    after = files_of(old / "run/amplified")
    assert {name: after[name] for name in kept} == kept  # what was there was not made again
    assert sum(name.endswith(".png") for name in after) == len(kept) + 4


def test_an_old_run_takes_what_a_person_ticked(old, capsys):
    assert main(["review", "run", "ticks.json"]) == 0
    checked = [attribute.corrected[-1] for attribute in Run("run").attributes]
    assert {presence.mode for presence in checked} == {"checked"}
    assert "a red hat" in capsys.readouterr().out
    rows = list(csv.DictReader((old / "run/presence.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["label"] for row in rows if row["mode"] == "checked"] == LABELS


def test_evaluating_an_old_run_anew_says_what_its_calibration_lacks(old, capsys):
    Path("mine.txt").write_text("a dog\n")
    Path("mine.py").write_text("def shows(images, label):\n    return [True] * len(images)\n")
    Path("few.csv").write_text("judged,true,label\nyes,yes,a red hat\n")
    assert (
        main(["evaluate", "run", "--judge", "python:mine:shows", "--calibration", "few.csv", "--redo", "evaluate"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a red hat: no calibrated rate, because the calibration of mine:shows")
    assert list(Run("run").facts.evaluate.calibration_cautions) == lines[:3]
    assert [*Run("run").facts.evaluate.judge_errors.values()] == [{"a red hat": [1, 1, 0, 0]}]


def test_an_old_study_is_compared_to_the_same_numbers(old):
    """From the same verdicts. They were CLIP's, by a rule that is no more; so they are handed over in a file."""
    before = json.loads((old / "study/comparison.json").read_text(encoding="utf-8"))
    verdicts, said = (old / "study/verdicts.jsonl").read_bytes(), {"1": "yes", "0": "no"}
    lines = [
        f"study/a-photo-of-a-doctor--{one['model'][-3:]}/fresh/{index:06d}.png,{one['label']},{said[sign]}"
        for one in map(json.loads, verdicts.splitlines()) for index, sign in enumerate(one["shows"])
    ]  # fmt: skip
    Path("old.csv").write_text("file,label,shows\n" + "\n".join(lines))
    study = raigen.compare("study", judge="file:old.csv", n_asked_images=0, n_strip_images=2)
    after = json.loads(study.comparison_path.read_text(encoding="utf-8"))
    for cell in after["cells"]:
        cell["presence"]["judge"] = before["judge"]
        assert cell["presence"].pop("effective_n") is None  # not known to early files
    assert [after[name] for name in ("cells", "changes", "attributes")] == [
        before[name] for name in ("cells", "changes", "attributes")
    ]
    assert study.verdicts_path.read_bytes() == verdicts
    assert study.report_path.is_file() and len(Study("study").table()["q"]) == len(before["cells"])
