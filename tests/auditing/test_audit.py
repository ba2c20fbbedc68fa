"""An audit skips, resumes and repeats stages: with stand-ins that write files, then with the real stages."""

import contextlib
import csv
import io
import json

import pytest

import raigen
from raigen.auditing.audit import HOMES, run_stage, stage_function, walk
from raigen.auditing.inputs import check_inputs
from raigen.cli import flags
from raigen.cli import main as cli
from raigen.cli.main import main
from raigen.config import STAGES, AuditConfig
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.runs.steps import Step, Tick

# The scheduler's way of making an array warns under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
DOCTOR = "a photo of a doctor"


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run")


def test_an_audit_walks_all_stages_in_order_and_tells_each_step(stages, tmp_path):
    steps = []
    run = raigen.audit(DOCTOR, store=True, run_dir=tmp_path / "run", progress=steps.append, n_images=60, k=4)
    assert stages.calls == list(STAGES)
    assert [(s.stage, s.state) for s in steps[:6]] == [
        ("capture", "begun"), ("capture", "running"), ("capture", "running"), ("capture", "running"),
        ("capture", "finished"), ("train", "begun"),
    ]  # fmt: skip
    assert steps[1].tick == Tick(1, 3, "working")
    assert run.config.train.k == 4
    assert run.facts_of("report") == {"ticks": 3}
    assert run.report().read_text() == "report 0\nreport 1\nreport 2"


def test_the_same_audit_again_does_nothing(stages, tmp_path):
    raigen.audit(DOCTOR, store=True, run_dir=tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    steps = []
    raigen.audit(DOCTOR, store=True, run_dir=tmp_path / "run", progress=steps.append)
    assert steps == [Step(name, "skipped") for name in STAGES]
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_the_folder_follows_the_prompt(stages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert raigen.audit("A photo of a doctor, 医者!", store=True).dir.as_posix() == "runs/a-photo-of-a-doctor-医者"
    assert raigen.audit("?" * 99, store=True).dir.as_posix() == "runs/prompt"
    assert len(raigen.audit("very " * 99, store=True).dir.name) <= 60


def test_bad_options_make_no_folder(tmp_path):
    with pytest.raises(RaigenError, match="n_images"):
        raigen.audit(DOCTOR, store=True, run_dir=tmp_path / "run", n_images=3)
    with pytest.raises(RaigenError, match="unknown option 'n_neurons'"):
        raigen.audit(DOCTOR, store=True, run_dir=tmp_path / "run", n_neurons=3)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_capture_goes_on_where_it_stopped(stages, run):
    config = AuditConfig.of(DOCTOR, store=True)
    stages.fails, stages.fails_after = {"capture": KeyboardInterrupt()}, 2
    with pytest.raises(KeyboardInterrupt):
        list(walk(run, config))
    assert run.samples_path.read_text() == "capture 0\ncapture 1"
    stages.fails = {}
    steps = list(walk(run, config))
    assert steps[1].tick == Tick(3, 3, "working")
    assert run.samples_path.read_text() == "capture 0\ncapture 1\ncapture 2"


def test_a_begun_capture_is_bound_to_its_configuration(stages, run):
    stages.fails, stages.fails_after = {"capture": RaigenError("NaN")}, 1
    with pytest.raises(RaigenError, match="NaN"):
        list(walk(run, AuditConfig.of(DOCTOR, store=True)))
    with pytest.raises(RaigenError, match="capture was run with base_seed = 0, now asked for 1"):
        list(walk(run, AuditConfig.of(DOCTOR, store=True, base_seed=1)))


def test_a_first_try_that_made_nothing_binds_the_folder_to_nothing(stages, run):
    stages.fails = {"capture": RaigenError("no such model")}
    with pytest.raises(RaigenError, match="no such model"):
        list(walk(run, AuditConfig.of(DOCTOR, store=True, model="portrats")))
    stages.fails = {}
    list(walk(run, AuditConfig.of(DOCTOR, store=True, model="portraits")))
    assert run.is_done("report", AuditConfig.of(DOCTOR, store=True).report)


def test_a_failed_stage_keeps_those_before_it(stages, run):
    config = AuditConfig.of(DOCTOR, store=True)
    stages.fails = {"discover": RaigenError("broken")}
    with pytest.raises(RaigenError, match="broken"):
        list(walk(run, config))
    stages.fails, stages.calls = {}, []
    list(walk(run, config))
    assert stages.calls == ["discover", "look", "annotate", "evaluate", "report"]


def test_a_lost_output_is_made_again_with_what_follows(stages, run):
    config = AuditConfig.of(DOCTOR, store=True)
    list(walk(run, config))
    run.attributes_path.unlink()
    stages.calls = []
    list(walk(run, config))
    assert stages.calls == ["discover", "look", "annotate", "evaluate", "report"]


def test_redo_does_a_stage_anew_with_another_configuration(stages, run):
    list(walk(run, AuditConfig.of(DOCTOR, store=True)))
    other = AuditConfig.of(DOCTOR, store=True, percentile=80.0)
    with pytest.raises(
        RaigenError, match=r"discover was run with percentile = None, now asked for 80\.0\. .*--redo discover"
    ):
        list(walk(run, other))
    stages.calls = []
    list(walk(run, other, redo="discover"))
    assert stages.calls == ["discover", "look", "annotate", "evaluate", "report"]
    assert run.config.discover.percentile == 80.0


def test_redo_of_a_stopped_capture_starts_over(stages, run):
    stages.fails, stages.fails_after = {"capture": KeyboardInterrupt()}, 2
    with pytest.raises(KeyboardInterrupt):
        list(walk(run, AuditConfig.of(DOCTOR, store=True)))
    stages.fails = {}
    steps = list(walk(run, AuditConfig.of(DOCTOR, store=True, guidance_scale=1.0), redo="capture"))
    assert steps[1].tick == Tick(1, 3, "working")


def test_redo_loses_nothing_when_an_earlier_stage_disagrees(stages, run):
    list(walk(run, AuditConfig.of(DOCTOR, store=True)))
    with pytest.raises(RaigenError, match="capture was run with n_images = 1000, now asked for 300"):
        list(walk(run, AuditConfig.of(DOCTOR, store=True, n_images=300), redo="train"))
    assert run.is_done("report", AuditConfig.of(DOCTOR, store=True).report)


def test_one_stage_alone_asks_for_those_before_it(stages, run):
    config = AuditConfig.of(DOCTOR, store=True)
    run_stage(run, "capture", config.capture)
    with pytest.raises(RaigenError, match=r": train has not finished; run: raigen train "):
        run_stage(run, "discover", config.discover)
    run_stage(run, "train", config.train)
    steps = []
    run_stage(run, "discover", config.discover, on_tick=steps.append)
    assert (steps[0], steps[-1].state) == (Step("discover", "begun"), "finished")
    run_stage(run, "discover", config.discover)
    assert stages.calls == ["capture", "train", "discover"]
    run_stage(run, "discover", config.discover, redo=True)
    assert stages.calls == ["capture", "train", "discover", "discover"]
    with pytest.raises(RaigenError, match=r": annotate has not finished; run: raigen annotate "):
        run_stage(run, "evaluate", config.evaluate)
    run_stage(run, "report", config.report)
    assert stages.calls[-1] == "report"


def test_a_run_in_use_is_left_alone(stages, run, tmp_path):
    with run.locked(), pytest.raises(RaigenError, match="another raigen process is writing here"):
        list(walk(run, AuditConfig.of(DOCTOR, store=True)))
    assert stages.calls == []
    list(walk(run, AuditConfig.of(DOCTOR, store=True)))  # the lock is free again
    assert json.loads(run.manifest_path.read_text())["stages"].keys() == set(STAGES)


def test_every_stage_is_a_function_in_the_module_of_its_name():
    for name in STAGES:
        assert stage_function(name).__module__ == HOMES[name]
    with pytest.raises(RaigenError, match="unknown stage 'amplifyy'; the stages are capture, train, "):
        stage_function("amplifyy")


@pytest.mark.parametrize(
    ("name", "more"), [("annotate", {"vocabulary": "nope"}), ("evaluate", {"calibration": "/nope.csv"})]
)
def test_redo_reads_its_inputs_before_it_drops_anything(stages, run, monkeypatch, name, more):
    """A mistyped file costs nothing, and a later start without flags has the recorded settings."""
    config = AuditConfig.of(DOCTOR, store=True, n_fresh_images=40, min_auroc=0.9)
    list(walk(run, config))
    before = {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()}
    wrong = AuditConfig.of(DOCTOR, store=True, n_fresh_images=40, min_auroc=0.9, **more)
    monkeypatch.setattr("raigen.auditing.audit.check_inputs", check_inputs)
    with pytest.raises(RaigenError, match="there is no file"):
        run_stage(run, name, getattr(wrong, name), redo=True)
    with pytest.raises(RaigenError, match="there is no file"):
        list(walk(run, wrong, redo=name))
    assert {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()} == before


def test_redo_keeps_the_settings_of_what_it_drops(stages, run):
    config = AuditConfig.of(DOCTOR, store=True, n_fresh_images=40, min_auroc=0.9)
    list(walk(run, config))
    stages.fails = {"annotate": RaigenError("no server")}
    with pytest.raises(RaigenError, match="no server"):
        run_stage(run, "annotate", config.annotate, redo=True)
    assert run.manifest["stages"].keys() == {"capture", "train", "discover", "look"}
    assert run.config.annotate.min_auroc == 0.9 and run.config.evaluate.n_fresh_images == 40
    command = flags.parse(["evaluate", str(run.dir)], cli.COMMANDS)
    assert command.config.n_fresh_images == 40
    run.forget("capture")
    with pytest.raises(RaigenError, match="nothing was captured yet"):
        _ = run.config


# The real stages, on a tiny real pipeline.


@pytest.fixture(scope="module")
def whole(sd_folder, clip_folder, tmp_path_factory):
    """The arguments of an audit that has run once, its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    args = ["audit", DOCTOR, "--model", sd_folder, "--embedder", clip_folder, "--run-dir", folder, "--n-images", 50,
            "--d-sae", 64, "--group-sizes", 24, 40, "--k", 8, "--tokens-per-batch", 256, "--percentile", 50,
            "--min-images", 2, "--n-attributes", 3, "--n-top-images", 4, "--n-fresh-images", 4,
            "--n-suggested-images", 2]  # fmt: skip
    args = [str(arg) for arg in args]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(args) == 0
    return args, Run(folder), out.getvalue(), err.getvalue()


def test_an_audit_of_a_real_pipeline_ends_in_a_report_and_nothing_but_our_lines(whole):
    _, run, out, err = whole
    assert out.splitlines()[-1] == f"report: {run.report_path}"
    few, first, *lines = err.splitlines()
    assert few.startswith("50 images are few: ")
    assert first == "capture: 16 x 16 pixels, 3 steps, guidance 2, float32 on cpu, 16 at once"
    assert [line.split(": done in ")[0] for line in lines] == list(STAGES)
    assert "\x1b" not in out + err
    assert run.report().read_text(encoding="utf-8").startswith("<!doctype html>")
    assert 1 <= len(run.attributes) <= 3


def test_the_same_audit_of_a_real_pipeline_again_changes_no_file(whole, capsys):
    args, run, out, _ = whole
    before = {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()}
    assert main(args) == 0
    assert capsys.readouterr() == (out, "".join(f"{stage}: done before\n" for stage in STAGES))
    assert {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()} == before


def test_redo_of_the_naming_finds_the_same_names(whole, capsys):
    args, _, out, _ = whole
    assert main([*args, "--redo", "annotate"]) == 0
    again = capsys.readouterr()
    assert again.out == out
    states = [line.split(": done ")[1].split()[0] for line in again.err.splitlines()]
    assert states == ["before"] * 4 + ["in"] * 3


def test_an_audit_that_finds_nothing_rare_says_so(whole, capsys):
    args, run, _, _ = whole
    assert main([*args, "--redo", "discover", "--max-frequency", "1e-9"]) == 0
    out = capsys.readouterr().out
    assert "No neuron is both rare and distinct enough to be listed." in out
    hint = out.split("--redo discover --max-frequency ")[1].split()[0]
    assert main([*args, "--redo", "discover", "--max-frequency", hint]) == 0  # what it says is true
    assert run.attributes
    longer = capsys.readouterr().out.split("--redo discover --max-frequency ")[1].split()[0]
    assert float(longer) > float(hint) and f"--max-frequency {longer}<" in run.report().read_text(encoding="utf-8")
    assert main([*args, "--redo", "discover", "--max-frequency", hint, "--n-attributes", "1"]) == 0
    assert "--max-frequency" not in capsys.readouterr().out  # as long as it may be
    assert main([*args, "--redo", "discover", "--max-frequency", "1e-9"]) == 0
    assert run.attributes == []
    page = run.report().read_text(encoding="utf-8")
    assert "no candidate for a rare attribute" in page
    reasons = {row["left_out"] for row in csv.DictReader(run.neurons_path.read_text(encoding="utf-8").splitlines())}
    assert "not rare: frequency above 1e-09" in reasons
    assert 'id="attributes"' not in page and '"#attributes"' not in page
