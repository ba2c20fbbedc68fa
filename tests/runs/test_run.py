"""The run folder: what is kept, what is refused, and that nothing half-written is ever seen."""

import builtins
import csv
import errno
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raigen.config import STAGE_CONFIGS, STAGES, CaptureConfig, DiscoverConfig, ReportConfig, TrainConfig
from raigen.errors import RaigenError
from raigen.runs.files import csv_text, plain_cell, sha256, write_bytes, write_tensors, write_text
from raigen.runs.images import write_list
from raigen.runs.records import Causal, Difference, Mean, Presence, RareAttribute, Ratio, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome

DOCTOR = CaptureConfig("a photo of a doctor")


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


def finish(run, stage, config, *paths):
    run.begin(stage, config)
    for path in paths:
        write_text(path, f"made by {stage}")
    run.finish(stage, Outcome(list(paths), {"n": len(paths)}), 1.234)


def test_a_new_folder_is_made_and_opened_again(tmp_path):
    run = Run.create(tmp_path / "deep" / "run")
    assert json.loads(run.manifest_path.read_text()) == {"format": 1, "stages": {}}
    finish(run, "capture", DOCTOR, run.samples_path)
    assert Run.create(run.dir).manifest == Run(run.dir).manifest == run.manifest
    assert Run(str(run.dir)).is_done("capture", DOCTOR)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RaigenError, match=r"holds other files\. Choose another --run-dir"):
        Run.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_is_no_run_says_how_to_start_one(tmp_path):
    with pytest.raises(RaigenError) as caught:
        Run(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected a run folder with a run.json; found none. "
        f'Start one with: raigen audit "a photo of a doctor" --run-dir {tmp_path}'
    )


def test_a_newer_format_and_a_broken_manifest_are_refused(run):
    run.manifest_path.write_text('{"format": 2, "stages": {}}')
    with pytest.raises(RaigenError, match="written in format 2, this raigen reads up to 1; upgrade it"):
        Run(run.dir)
    run.manifest_path.write_text('{"format": 1, "stag')
    with pytest.raises(RaigenError, match=r"expected whole JSON; .*To keep all images that are whole, write .*stages"):
        Run(run.dir)


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"format": "1", "stages": {}}', '{"format": 1, "stages": "x"}'])
def test_a_manifest_of_another_shape_is_one_clear_error(run, text):
    run.manifest_path.write_text(text)
    with pytest.raises(
        RaigenError, match=r"run\.json: expected a .*; found .* To keep all images that are whole, write "
    ):
        Run(run.dir)


def test_the_settings_of_a_newer_raigen_are_named(run):
    run.begin("capture", DOCTOR)
    manifest = run.manifest
    manifest["stages"]["capture"]["config"]["wings"] = 2
    run.manifest_path.write_text(json.dumps(manifest))
    for ask in (lambda: run.config, lambda: run.is_done("capture", DOCTOR)):
        with pytest.raises(RaigenError, match=r"run\.json, capture: expected settings .*wings.*\. Upgrade raigen$"):
            ask()
    manifest["stages"]["capture"] = {}
    run.manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(RaigenError, match=r"run\.json, capture: expected settings that this raigen knows; 'config' is"):
        _ = run.config


SHAPES = ["{}", "[]", "3", '{"a": 1}', '[{"rank": 1}]', '"x"', "null"]


@pytest.mark.parametrize("text", SHAPES)
def test_lists_of_another_shape_are_one_clear_error(run, text):
    remedy = "Make it again with: raigen"
    run.samples_path.write_text(text)
    with pytest.raises(RaigenError, match=rf"samples\.jsonl: expected what raigen capture writes; .*{remedy} capture"):
        run.samples()
    run.attributes_path.write_text(text)
    if text not in ("{}", "[]"):
        with pytest.raises(RaigenError, match=rf"attributes\.json: expected what raigen discover writes; .*{remedy}"):
            _ = run.attributes
    write_tensors(run.codes_path, {"other": torch.zeros(1)})
    with pytest.raises(RaigenError, match=rf"'image_codes' is missing\. {remedy} discover .* --redo discover"):
        run.image_codes()


def test_a_prompt_may_hold_any_character(run):
    for letter in "\u2028\u2029\x85\x0b\x0c":
        sample = Sample(0, f"a photo{letter}of a nurse", 7, "images/000000.png", "")
        write_list(run.samples_path, {0: sample})
        assert run.samples() == [sample]


def test_done_needs_the_record_and_every_output_whole(run):
    assert not run.is_done("capture", DOCTOR)
    run.begin("capture", DOCTOR)
    assert not run.is_done("capture", DOCTOR)
    image = run.images_dir / "0.png"
    finish(run, "capture", DOCTOR, run.samples_path, image)
    assert run.is_done("capture", DOCTOR)
    image.write_text("shorter")
    assert not run.is_done("capture", DOCTOR)
    image.unlink()
    assert not run.is_done("capture", DOCTOR)


def test_the_record_of_a_finished_stage(run):
    finish(run, "capture", DOCTOR, run.samples_path)
    record = run.manifest["stages"]["capture"]
    assert record["config"] == asdict(DOCTOR)
    assert record["outputs"] == {"samples.jsonl": len("made by capture")}
    assert (record["seconds"], record["facts"]) == (1.23, {"n": 1})
    assert record["started"] <= record["finished"]
    assert run.facts_of("capture") == {"n": 1}
    assert {"python", "cpus", "raigen", "torch", "diffusers"} <= set(run.manifest["machine"])


def test_another_configuration_names_the_field_and_both_values(run):
    run.begin("capture", DOCTOR)
    with pytest.raises(RaigenError) as caught:
        run.is_done("capture", CaptureConfig("a photo of a doctor", n_images=300))
    assert str(caught.value) == (
        f"{run.dir}: capture was run with n_images = 1000, now asked for 300. "
        "Choose another --run-dir, or add --redo capture to replace it and all that follows"
    )


def test_a_detail_may_differ(run):
    finish(run, "capture", DOCTOR, run.samples_path)
    assert run.is_done("capture", CaptureConfig("a photo of a doctor", batch_size=1, device="cpu"))


def test_a_tuple_is_the_same_after_json(run):
    config = TrainConfig(group_sizes=(2, 6))
    finish(run, "train", config, run.metrics_path)
    assert run.is_done("train", config)
    assert run.config_of("train") == config


def test_beginning_a_stage_forgets_those_after_it(run):
    for stage, config in (("capture", DOCTOR), ("train", TrainConfig()), ("discover", DiscoverConfig())):
        finish(run, stage, config)
    run.begin("train", TrainConfig())
    assert list(run.manifest["stages"]) == ["capture", "train"]
    assert run.is_done("capture", DOCTOR)
    assert not run.is_done("train", TrainConfig())


def test_forgetting_drops_the_files_of_the_stage_and_of_those_after_it(run):
    finish(run, "capture", DOCTOR, run.samples_path)
    finish(run, "train", TrainConfig(), run.metrics_path)
    finish(run, "discover", DiscoverConfig(), run.codes_path, run.neurons_path)
    run.forget("train")
    assert list(run.manifest["stages"]) == ["capture"]
    assert run.samples_path.is_file()
    assert not any(path.exists() for path in (run.metrics_path, run.codes_path, run.neurons_path))


def test_configurations_are_the_recorded_ones_or_the_defaults(run):
    with pytest.raises(RaigenError, match=r"nothing was captured yet; run: raigen capture PROMPT --run-dir "):
        run.config.capture  # noqa: B018
    run.begin("capture", DOCTOR)
    run.begin("discover", DiscoverConfig(n_attributes=3))
    assert run.config.capture == DOCTOR
    assert run.config.discover == DiscoverConfig(n_attributes=3)
    assert run.config.report == ReportConfig()


def test_facts_of_an_unfinished_stage_say_what_to_run(run):
    run.begin("train", TrainConfig())
    with pytest.raises(RaigenError, match=r": train has not finished; run: raigen train "):
        run.facts_of("train")


def test_missing_files_say_which_stage_makes_them(run):
    for read, stage in ((lambda: run.attributes, "discover"), (run.report, "report"), (run.samples, "capture")):
        with pytest.raises(RaigenError, match=rf"is missing; make it with: raigen {stage} "):
            read()


def test_a_second_writer_is_turned_away_and_the_lock_ends_with_its_holder(run):
    code = f"from raigen.runs.run import Run\nwith Run({str(run.dir)!r}).locked(): pass"

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    with run.locked():
        assert "another raigen process is writing here; wait for it or choose another --run-dir" in other().stderr
    assert other().returncode == 0


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text(path, "old")
    opened = builtins.open

    def full(file, mode="r", *args, **kwargs):
        handle = opened(file, mode, *args, **kwargs)
        if "w" in mode:
            handle.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return handle

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(RaigenError, match=r"a\.json: the disk is full \(12,345 bytes .*give the same command again"):
        write_bytes(path, b"x" * 12345)
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_fills_up_while_writing(tmp_path, monkeypatch):
    monkeypatch.setattr("raigen.runs.files.not_through_links", lambda path, flags: os.open("/dev/full", flags))
    with pytest.raises(RaigenError, match="the disk is full"):
        write_text(tmp_path / "a.json", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_be_written_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
    with pytest.raises(RaigenError, match=r"a\.json: expected a place to write to; no\. Choose another folder"):
        write_text(tmp_path / "a.json", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old" * 1000)
    code = (
        "import os, raigen.runs.files as r\nfrom pathlib import Path\n"
        "r.os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
        f"r.write_bytes(Path({str(path)!r}), b'new' * 1000)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert path.read_bytes() == b"old" * 1000


def test_tensors_come_back_and_a_broken_file_says_how_to_remake_it(run):
    codes = torch.arange(6.0).reshape(2, 3)
    write_tensors(run.codes_path, {"codes": codes.T})
    assert torch.equal(run.read_tensors(run.codes_path, "discover")["codes"], codes.T)
    run.codes_path.write_bytes(run.codes_path.read_bytes()[:-4])
    with pytest.raises(RaigenError) as caught:
        run.read_tensors(run.codes_path, "discover")
    assert str(caught.value).startswith(f"{run.codes_path}: expected a whole safetensors file; it is broken (")
    assert str(caught.value).endswith(f"Make it again with: raigen discover {run.dir} --redo discover")


def test_a_image_is_the_one_that_was_written_or_an_error(run):
    path = run.images_dir / "0.png"
    path.parent.mkdir()
    Image.new("RGB", (4, 4), "red").save(path)
    sample = Sample(0, "a photo of a doctor", 7, "images/0.png", sha256(path.read_bytes()))
    write_text(run.samples_path, json.dumps(sample._asdict()) + "\n")
    assert run.samples() == [sample]
    assert run.read_image(sample).getpixel((0, 0)) == (255, 0, 0)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        RaigenError, match=r"0\.png \(seed 7\) is not the file that was written\. Make it again with: delete it, "
    ):
        run.read_image(sample)
    path.unlink()
    with pytest.raises(RaigenError, match=r"0\.png \(seed 7\) is missing\. Make it again with: raigen capture .*"):
        run.read_image(sample)


rates = st.floats(0, 1)
presences = st.builds(
    Presence, rates, rates, rates, st.integers(0), st.integers(0), st.integers(0), st.text(), st.text()
)
differences = st.builds(Difference, rates, st.integers(1), rates, rates, rates)
attributes = st.builds(
    RareAttribute,
    rank=st.integers(1),
    neuron=st.integers(0),
    minority_score=rates,
    frequency=rates,
    distinctiveness=st.floats(0, 2),
    top_images=st.lists(st.text()).map(tuple),
    label=st.none() | st.text(),
    keywords=st.lists(st.text()).map(tuple),
    suggested_prompt=st.none() | st.text(),
    label_auroc=st.none() | rates,
    labeled_by=st.none() | st.text(),
    presence=st.none() | presences,
    suggested=st.none() | presences,
    ratio=st.none() | st.builds(Ratio, st.none() | rates, rates, st.none() | rates),
    causal=st.none()
    | st.builds(Causal, rates, rates, differences, differences, differences, rates, rates, st.booleans()),
)


@settings(max_examples=40)
@given(attributes)
def test_an_attribute_comes_back_from_json(attribute):
    assert RareAttribute.from_json(json.loads(json.dumps(asdict(attribute)))) == attribute


def test_attributes_are_read_from_the_file(run):
    attribute = RareAttribute(1, 12, 0.9, 0.01, 0.8, ("images/3.png",))
    write_text(run.attributes_path, json.dumps([asdict(attribute)]))
    assert run.attributes == [attribute]


def test_the_written_layout_names_every_path(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "disk-layout.md").read_text(encoding="utf-8")
    run = Run.create(tmp_path / "run")
    paths = [value for name, value in vars(run).items() if name.endswith(("_path", "_dir"))]
    paths.append(run.amplification_path("12-steer"))
    assert len(paths) > 15
    assert [path.name for path in paths if path.name not in text] == []


@pytest.mark.parametrize(
    ("record", "heading"),
    [
        (RareAttribute, "attributes.json"),
        (Presence, "attributes.json"),
        (Causal, "attributes.json"),
        (Ratio, "attributes.json"),
        (Difference, "attributes.json"),
        (Mean, "amplified/"),
        (Sample, "samples.jsonl"),
    ],
)
def test_the_written_layout_names_every_field(record, heading):
    text = (Path(__file__).parents[2] / "docs" / "disk-layout.md").read_text(encoding="utf-8")
    section = text[text.index(f"## `{heading}`") :].split("\n## ")[0]
    names = record._fields if hasattr(record, "_fields") else [field.name for field in fields(record)]
    assert [name for name in names if f"`{name}`" not in section] == []


def test_fresh_images_outlive_another_judge_and_training_but_not_another_capture(tmp_path):
    run = Run.create(tmp_path / "run")
    for stage in STAGES[:6]:
        config = STAGE_CONFIGS[stage](**({"prompt": "a photo of a doctor"} if stage == "capture" else {}))
        run.begin(stage, config)
        outputs = (
            [run.fresh_samples_path, run.fresh_dir / "000000.png", run.presence_path] if stage == "evaluate" else []
        )
        for path in outputs:
            write_text(path, "x")
        run.finish(stage, Outcome(outputs, {}), 1.0)
    run.forget("annotate")
    assert not run.presence_path.exists() and run.fresh_samples_path.exists()
    write_text(run.compared_samples_path, "x")
    write_text(run.amplification_path("3-steer"), "x")
    run.forget("train")  # none of these images hangs on the autoencoder; what was steered does
    assert run.fresh_samples_path.exists() and (run.fresh_dir / "000000.png").exists()
    assert run.compared_samples_path.exists() and not run.amplified_dir.exists()
    run.forget("capture")
    assert not run.fresh_samples_path.exists() and not run.compared_dir.exists()


def test_a_broken_list_is_named_with_the_stage_that_makes_it(tmp_path):
    run = Run.create(tmp_path / "run")
    for path in (run.attributes_path, run.annotations_path, run.samples_path):
        path.write_text('[{"rank": 1, "neu')
    with pytest.raises(RaigenError, match=r"attributes\.json: expected whole JSON; .* --redo discover$"):
        _ = run.attributes
    with pytest.raises(RaigenError, match=r"annotations\.jsonl: expected whole JSON; .* --redo annotate$"):
        run.read_lines(run.annotations_path, "annotate")
    with pytest.raises(RaigenError, match=rf"raigen capture {run.dir}$"):  # which keeps the images that are whole
        run.samples()


def test_autoencoders_of_other_seeds_go_with_the_training_even_when_it_noted_none(tmp_path):
    run = Run.create(tmp_path / "run")
    run.begin("capture", DOCTOR)
    run.begin("train", TrainConfig(n_seeds=2))
    run.seed_dir(1).mkdir(parents=True)
    (run.seed_dir(1) / "config.json").write_text("{}")
    assert run.seed_dirs() == [run.seed_dir(1)]
    run.forget("train")
    assert run.seed_dirs() == []


NO_LOCKS = [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EIO]
NO_FILES = [errno.EROFS, errno.EACCES, errno.ENOSPC]


@pytest.mark.parametrize(
    ("broken", "number"), [*(("fcntl.flock", n) for n in NO_LOCKS), *(("os.open", n) for n in NO_FILES)]
)
def test_where_nothing_can_be_locked_a_line_says_so_and_work_goes_on(run, monkeypatch, capsys, number, broken):
    def none(*args):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as changed:
        changed.setattr(broken, none)
        with run.locked():
            assert run.manifest["stages"] == {}
    assert f"raigen: {run.dir} cannot be locked (" in capsys.readouterr().err
    with run.locked():  # again, whatever the first left behind
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_a_place_that_cannot_be_written_to_is_named(run, monkeypatch, number):
    def none(*args, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", none)
    with pytest.raises(RaigenError, match=r"x\.txt: expected a place to write to; .* Choose another folder"):
        write_text(run.dir / "x.txt", "x")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_wait_for_the_disk_is_written_to(run, monkeypatch, number):
    def none(file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", none)
    write_text(run.dir / "x.txt", "x")
    assert (run.dir / "x.txt").read_text() == "x"


def test_a_run_folder_that_is_a_file_or_lies_below_one_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(RaigenError, match="expected a place to write to; "):
            Run.create(place)
        assert not Run.is_at(place)


def test_what_other_systems_leave_in_a_new_folder_is_not_in_the_way(tmp_path):
    for name in (".DS_Store", "Thumbs.db", ".directory", "desktop.ini"):
        (tmp_path / name).touch()
    (tmp_path / "@eaDir").mkdir()
    assert Run.create(tmp_path).manifest["stages"] == {}


def test_a_label_is_no_formula_in_a_spreadsheet_and_comes_back_as_it_was():
    labels = ['=cmd|"/c calc"!A1', "+1 hat", "-a", "@x", "\thidden", "a hat", "'tis", "-0.5", "1e-9"]
    text = csv_text(["label", "rate"], [{"label": label, "rate": -0.5} for label in labels])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["label"][:1] for row in rows] == ["'"] * 5 + ["a", "'", "-", "1"]
    assert [plain_cell(row["label"]) for row in rows] == labels and {row["rate"] for row in rows} == {"-0.5"}
