"""The command line, by exact text: help, errors, progress, the final table; and real stages on a small real store."""

import io
import json
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from raigen.cli import flags
from raigen.cli import main as cli
from raigen.cli import progress as progress_room
from raigen.config import (
    STAGE_CONFIGS,
    STAGES,
    AmplifyConfig,
    AuditConfig,
    CaptureConfig,
    CompareConfig,
    DiscoverConfig,
    SearchConfig,
    TrainConfig,
)
from raigen.config.presets import by_stage
from raigen.runs.activations import ActivationStore
from raigen.runs.files import write_text
from raigen.runs.records import Presence, RareAttribute
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Step, Tick

DOCTOR = "a photo of a doctor"
HELP = """\
usage: raigen [-h] {audit,plan,capture,train,discover,look,annotate,evaluate,report,amplify,studio,hookpoints,\
compare,review,dossier,check,share,view,image,completion,version}

Finds the attributes that a text-to-image model knows but hardly ever shows.

╭─ options ────────────────────────────────────────────────────────────────────╮
│ -h, --help      show this help message and exit                              │
╰──────────────────────────────────────────────────────────────────────────────╯
╭─ subcommands ────────────────────────────────────────────────────────────────╮
│ (required)                                                                   │
│   • audit       Audits a prompt, or many prompts with many models. The same  │
│                 command again resumes where it stopped.                      │
│   • plan        Estimates from a few images what an audit takes and the      │
│                 rarest rate that it can show; writes nothing.                │
│   • capture     Generates images and keeps the activations of one layer of   │
│                 the denoiser.                                                │
│   • train       Trains the sparse autoencoder on the captured activations.   │
│   • discover    Scores the neurons and lists the rare ones.                  │
│   • look        Looks around odd images for attributes that too few images   │
│                 show.                                                        │
│   • annotate    Names the listed neurons.                                    │
│   • evaluate    Measures on fresh images how often each named attribute      │
│                 shows.                                                       │
│   • report      Writes the report, one HTML file.                            │
│   • amplify     Amplifies attributes and measures the effect; makes no image │
│                 twice.                                                       │
│   • studio      Opens a page on which you steer by hand, beside unsteered    │
│                 images of the same seeds.                                    │
│   • hookpoints  Lists the layers of a model that can be captured, or ranks   │
│                 them by what is found there.                                 │
│   • compare     Compares the runs of a study, or single runs: what one model │
│                 hides and another shows.                                     │
│   • review      Reads what a person ticked on the review sheet, or noted on  │
│                 the report: checked rates, and names by people.              │
│   • dossier     Writes what an auditor hands in: an audit to print, and the  │
│                 rates, images and verdicts for other programs.               │
│   • check       Decides whether a run or a study keeps the tolerances of a   │
│                 file; the exit status says so: 0 met, 1 violated, 3          │
│                 undecided.                                                   │
│   • share       Writes the autoencoder of a run, with a card, as a folder    │
│                 that others can use by `raigen audit --sae`.                 │
│   • view        Shows a run, a folder of runs or a study in the browser of   │
│                 this machine.                                                │
│   • image       Makes one image of one seed. The lightbox of a report says   │
│                 the command that makes an image again.                       │
│   • completion  Prints a script with which a shell completes commands and    │
│                 flags.                                                       │
│   • version     Prints the version.                                          │
╰──────────────────────────────────────────────────────────────────────────────╯
"""
TABLE = """\
Rare for “a photo of a doctor”
┏━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┓
┃ rank ┃ label                   ┃ score ┃ frequency ┃          presence ┃
┡━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━┩
│    1 │ [red] cat               │ 0.912 │      1.2% │ 1.0% [0.3%, 2.9%] │
│    2 │ no identified attribute │ 0.800 │     10.0% │      not measured │
└──────┴─────────────────────────┴───────┴───────────┴───────────────────┘
To list what is less rare, run the audit again with: --redo discover --max-frequency 0.13
"""
TRUTH = """\
Rare for “a photo of a doctor”
┏━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ rank ┃ label                   ┃ score ┃ frequency ┃          presence ┃ truly rare                          ┃
┡━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│    1 │ [red] cat               │ 0.912 │      1.2% │ 1.0% [0.3%, 2.9%] │ yes: cat in 90% of top, 1.1% of all │
│    2 │ no identified attribute │ 0.800 │     10.0% │      not measured │ no                                  │
└──────┴─────────────────────────┴───────┴───────────┴───────────────────┴─────────────────────────────────────┘
To list what is less rare, run the audit again with: --redo discover --max-frequency 0.13
truly rare: 1 of 2, by the judge of the planted world
found, by planted rate: 0.5 %: 0 of 2 · 1 %: 1 of 1
"""


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def ask_for_help(capsys, *args):
    with pytest.raises(SystemExit) as caught:
        cli.main(args)
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("args", [["--help"], []])
def test_help(args):
    command = [sys.executable, "-X", "utf8", "-m", "raigen.cli.main", *args]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == HELP


def flags_of(stage):
    names = [(f.name.replace("_", "-"), f.type is bool) for f in fields(STAGE_CONFIGS[stage])]
    return ["PROMPT" if name == "prompt" else f"--{name}{',' if switch else ' '}" for name, switch in names]


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_of_a_stage_is_a_flag(stage, capsys):
    text = ask_for_help(capsys, stage, "--help")
    assert [flag for flag in flags_of(stage) if flag not in text] == []


def test_every_field_is_a_flag_of_the_audit(capsys):
    text = ask_for_help(capsys, "audit", "--help")
    assert [flag for stage in STAGES for flag in flags_of(stage) if flag not in text] == []


def test_every_field_of_amplify_is_a_flag_with_its_help(capsys):
    text = ask_for_help(capsys, "amplify", "--help")
    assert [f.name for f in fields(AmplifyConfig) if f"--{f.name.replace('_', '-')}" not in text] == []
    assert "Ranks of listed attributes" in text and "Images for each point" in text


def test_lists_of_numbers_have_commas_or_spaces():
    given = ["amplify", "run", "--attribute", "3,5", "--strength", "-0.5,1", "2", "--method", "set"]
    options = flags.parse(given, cli.COMMANDS).amplify
    assert (options.attribute, options.strength, options.also) == ((3, 5), (-0.5, 1.0, 2.0), ())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_can_complete_commands_and_flags(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("amplify", "studio", "--n-fresh-images"))
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_version(capsys):
    assert cli.main(["version"]) == 0
    assert capsys.readouterr() == ("raigen 0.1.0\n", "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("audit", DOCTOR, "--n-images", "3"),
         "raigen: n_images: expected at least 50: fewer images cannot show what is rare; got 3\n"),
        (("audit", DOCTOR, "--n-fresh-images", "0"), "raigen: n_fresh_images: expected 1 or more; got 0\n"),
        (("audit",), "raigen: prompt: expected a text, such as: raigen audit \"a photo of a doctor\"; or --prompts\n"),
        (("audit", DOCTOR, "--model", "a", "--model", "b", "--run-dir", "here"),
         "raigen: run_dir: each run of a study has its own folder; name the study's with --study DIR\n"),
        (("audit", "--prompts", "nothing"), "raigen: prompts: expected professions, scenes or a text file with one "
         "prompt a line; got 'nothing'\n"),
        (("capture", " "), "raigen: prompt: expected a text that is not empty; got ' '\n"),
        (("train", "nowhere"), "raigen: nowhere: expected a run folder with a run.json; found none. "
         'Start one with: raigen audit "a photo of a doctor" --run-dir nowhere\n'),
    ],
)  # fmt: skip
def test_a_mistake_is_told_on_stderr_without_a_traceback(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(args) == 2
    assert capsys.readouterr() == ("", message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("audit", DOCTOR, "--n-imags", "60"), "Perhaps you meant:"),
        (("audit", DOCTOR, "--n-images", "many"), "invalid"),
        (("audit", DOCTOR, "--redo", "everything"), "--redo"),
        (("audti", DOCTOR), "audti"),
    ],
)
def test_what_cannot_be_parsed_exits_with_two(args, expected, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(args)
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.fixture
def captured(tmp_path):
    """A run whose capture is done: 50 images of 4 tokens of width 8."""
    run = Run.create(tmp_path / "run")
    config = CaptureConfig(DOCTOR, n_images=50, store=True)
    run.begin("capture", config)
    activations = torch.randn(50, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    shard = ActivationStore.write(run.activations_dir, 0, activations, grid=(2, 2), step_indices=(3,))
    run.finish("capture", Outcome([shard], {}), 1.0)
    return run


def test_a_stage_keeps_what_it_was_given_before(captured, capsys):
    run = str(captured.dir)
    assert cli.main(["train", run, "--d-sae", "16", "--k", "2", "--tokens-per-batch", "64"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("train: done in ") and err.count("\n") == 1
    config = TrainConfig(d_sae=16, k=2, tokens_per_batch=64)
    assert captured.config.train == config

    assert cli.main(["train", run]) == 0
    assert capsys.readouterr().err == "train: done before\n"

    assert cli.main(["train", run, "--k", "3"]) == 2
    assert capsys.readouterr().err == (
        f"raigen: {run}: train was run with k = 2, now asked for 3. "
        "Choose another --run-dir, or add --redo train to replace it and all that follows\n"
    )
    assert cli.main(["train", run, "--k", "3", "--redo", "train"]) == 0
    assert captured.config.train == replace(config, k=3)
    assert captured.is_done("train", replace(config, k=3))


def test_a_capture_goes_on_from_its_folder_or_its_prompt(captured, capsys, monkeypatch):
    for args in (("capture", str(captured.dir)), ("capture", DOCTOR, "--run-dir", str(captured.dir))):
        assert cli.main(args) == 0
        assert capsys.readouterr().err == "capture: done before\n"
    assert cli.main(["capture", "a photo of a nurse", "--run-dir", str(captured.dir)]) == 2
    assert "capture was run with prompt = 'a photo of a doctor'" in capsys.readouterr().err


def test_a_missing_stage_is_told_with_the_command_that_makes_it(captured, capsys):
    assert cli.main(["discover", str(captured.dir)]) == 2
    message = f"raigen: {captured.dir}: train has not finished; run: raigen train {captured.dir}\n"
    assert capsys.readouterr().err == message


def test_a_request_to_end_is_answered_with_a_word():
    code = (
        "import os, signal, sys, time\nsys.argv = ['raigen', 'version']\nimport raigen.cli.main as room\n"
        "room.Version.execute = lambda self: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(9))\n"
        "sys.exit(room.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\nraigen: stopped; the same command goes on from here\n")


def test_an_error_of_the_system_is_one_line(monkeypatch, capsys):
    def execute(self):
        raise OSError(36, "File name too long", "x" * 300)

    monkeypatch.setattr(cli.Version, "execute", execute)
    assert cli.main(["version"]) == 2
    said = capsys.readouterr().err
    assert (
        said.startswith("raigen: 'xxxx")
        and said.endswith(": expected a file or folder that can be used; File name too long\n")
        and len(said) < 300
    )


def test_ctrl_c_says_how_to_go_on(captured, capsys, monkeypatch):
    def stopped(run, config):
        yield Tick(1, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["raigen.auditing.audit"], "stage_function", lambda name: stopped)
    assert cli.main(["train", str(captured.dir)]) == 130
    assert capsys.readouterr().err == "\nraigen: stopped; the same command goes on from here\n"


def test_a_bug_keeps_its_traceback(captured, monkeypatch):
    def broken(name):
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["raigen.auditing.audit"], "stage_function", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", str(captured.dir)])


@pytest.fixture
def finished(tmp_path):
    """A run in which all is done, as the manifest and the last files have it."""
    run = Run.create(tmp_path / "run")
    found = [
        RareAttribute(1, 12, 0.912, 0.012, 0.8, ("images/3.png",), label="[red] cat",
                      presence=Presence(0.01, 0.003, 0.029, 3, 300, 0, "judge", "wilson")),
        RareAttribute(2, 7, 0.8, 0.1, 0.7, ("images/4.png",)),
    ]  # fmt: skip
    config = AuditConfig.of(DOCTOR, n_images=50)
    for stage in STAGES:
        run.begin(stage, getattr(config, stage))
        outputs = {"discover": run.attributes_path, "report": run.report_path}
        if stage in outputs:
            write_text(outputs[stage], json.dumps([asdict(attribute) for attribute in found]))
        run.finish(stage, Outcome([outputs[stage]] if stage in outputs else [], {}), 1.0)
    write_text(run.neurons_path, "neuron,frequency,left_out\n12,0.012,\n3,0.123,not rare: frequency above 0.1\n")
    return run


def test_the_audit_ends_in_a_table_and_the_path_of_the_report(finished, capsys):
    assert cli.main(["audit", DOCTOR, "--n-images", "50", "--run-dir", str(finished.dir)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{TABLE}report: {finished.report_path}\n"
    assert err == "".join(f"{stage}: done before\n" for stage in STAGES)
    assert "\x1b" not in out + err


@pytest.mark.parametrize(("flags", "said"), [
    (["--n-images", "200"],
     "200 images are few: the list goes up to a frequency of 15%; with 600 images, up to 5%\n"),
    (["--n-images", "600"], ""),
    (["--n-images", "200", "--max-frequency", "0.2"], ""),
])  # fmt: skip
def test_an_audit_of_few_images_says_beforehand_that_it_lists_what_is_not_rare(
    tmp_path, monkeypatch, capsys, flags, said
):
    monkeypatch.setattr("raigen.cli.audit.walk", lambda *args: iter(()))
    monkeypatch.setattr("raigen.cli.audit.print_result", lambda run: None)
    assert cli.main(["audit", DOCTOR, *flags, "--run-dir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == said


def test_the_bundled_model_also_tells_the_truth(finished, capsys):
    truth = {
        "attributes": [
            {"neuron": 12, "value": "cat", "share": 0.9, "rate": 0.011, "hit": True},
            {"neuron": 7, "value": None, "share": 0.3, "rate": None, "hit": False},
        ],
        "recall": [{"band": "0.5 %", "planted": 2, "found": 0}, {"band": "1 %", "planted": 1, "found": 1}],
        "n_hits": 1,
    }
    write_text(finished.truth_path, json.dumps(truth))
    assert cli.main(["report", str(finished.dir)]) == 0
    assert capsys.readouterr().out == f"{TRUTH}report: {finished.report_path}\n"


def test_the_audit_does_not_take_another_configuration(finished, capsys):
    assert cli.main(["audit", DOCTOR, "--run-dir", str(finished.dir)]) == 2
    assert "capture was run with n_images = 50, now asked for 1000" in capsys.readouterr().err
    assert finished.is_done("discover", DiscoverConfig())


def test_bars_tell_what_was_done_before_and_what_is_going_on():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        show = progress_room.bars(progress)
        show(Step("capture", "skipped"))
        show(Step("train", "begun"))
        show(Step("train", "running", Tick(3, 8, "fvu 0.2")))
        progress.refresh()
        assert "3/8 fvu 0.2" in console.file.getvalue()
        show(Step("train", "finished", seconds=61.2))
    assert "capture 1/1 done before" in console.file.getvalue()
    assert "train   8/8 done in 1 min 1 s" in console.file.getvalue()


def test_a_bar_tells_how_fast_a_stage_goes_on():
    now = 0.0
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    columns = (TextColumn("{task.description}"), progress_room.RateColumn())
    with Progress(*columns, console=console, auto_refresh=False, get_time=lambda: now) as progress:
        show = progress_room.bars(progress)
        for done in range(5):
            show(Step("capture", "running", Tick(done, 8)))
            now += 0.25
        progress.refresh()
    assert "capture 4.0/s" in console.file.getvalue()


@pytest.mark.parametrize("has_widgets", [True, False])
def test_bars_are_drawn_in_a_notebook_that_has_widgets(has_widgets, monkeypatch):
    monkeypatch.setattr(progress_room, "find_spec", lambda name: object() if has_widgets else None)
    assert progress_room.draws(Console(force_jupyter=True)) is has_widgets
    assert progress_room.draws(Console(file=io.StringIO(), force_jupyter=False)) is False


def test_plain_lines_come_at_intervals_with_the_time_left(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress_room.time, "monotonic", lambda: now)
    show = progress_room.plain_lines()
    show(Step("capture", "begun"))
    for done in range(100, 200):  # resumed at 100; one image a second
        now += 1.0
        show(Step("capture", "running", Tick(done, 300)))
    show(Step("capture", "finished", seconds=100.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "capture: 114 of 300, 3 min 6 s left"
    assert lines[-1] == "capture: done in 1 min 40 s"
    assert len(lines) == 7


def test_the_time_left_in_a_later_part_of_a_stage_is_told_by_that_part_alone(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress_room.time, "monotonic", lambda: now)
    show = progress_room.plain_lines()
    for pace, total in ((10.0, 4), (1.0, 40)):  # four slow images, then forty quick questions
        for done in range(total + 1):
            show(Step("evaluate", "running", Tick(done, total)))
            now += pace
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["evaluate: 2 of 4, 20.0 s left", "evaluate: 4 of 4, 0.0 s left"]
    assert lines[2:] == ["evaluate: 5 of 40, 35.0 s left", "evaluate: 20 of 40, 20.0 s left",
                         "evaluate: 35 of 40, 5.0 s left"]  # fmt: skip


def test_the_audit_has_one_flag_for_both_stages_that_ask():
    command = flags.parse(["audit", DOCTOR, "--max-calls", "7", "--judge", "clip", "scripted:a"], cli.COMMANDS)
    config = command.config(DOCTOR, "portraits")
    assert config.annotate.max_calls == config.evaluate.max_calls == 7
    assert config.evaluate.judge == ("clip", "scripted:a") and config.annotate.annotator == "clip"


def test_a_preset_reaches_every_stage_of_the_audit_and_leaves_other_flags_alone():
    command = flags.parse(["audit", DOCTOR, "--preset", "paper-sdxl", "--k", "5", "--model", "a", "--model", "b"],
                          cli.COMMANDS)  # fmt: skip
    assert (command.train.d_sae, command.discover.score, command.evaluate.n_fresh_images) == (20480, "published", 1000)
    assert (command.train.k, command.prompt) == (5, (DOCTOR,)) and set(command.model) == {"a", "b"}
    assert command.capture.model == by_stage("paper-sdxl")["capture"]["model"]


def test_the_sizes_of_groups_have_commas_or_spaces_and_none_is_left_out():
    sizes = [flags.parse(["audit", DOCTOR, *given], cli.COMMANDS).train.group_sizes
             for given in ([], ["--group-sizes", "3,5"], ["--group-sizes", "3", "5"])]  # fmt: skip
    assert sizes == [None, (3, 5), (3, 5)]


def test_a_help_text_is_one_paragraph_whatever_the_lines_of_its_docstring(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    text = ask_for_help(capsys, "train", "--help")
    assert "--dead-after-tokens must have passed, too. Among 600 images" in text


def test_every_help_text_stands_alone():
    texts = [text for config in (*STAGE_CONFIGS.values(), AmplifyConfig, SearchConfig, CompareConfig)
             for text in flags.docstrings(config).values()]  # fmt: skip
    assert [
        text for text in texts if not (text[0].isupper() or text[0] == "`") or text[-1] != "." or "..." in text
    ] == []
