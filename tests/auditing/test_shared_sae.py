"""One autoencoder for several prompts: the images are those of single runs, it resumes, and later stages can use it."""

import csv
import json

import pytest
import torch

from raigen.auditing.audit import run_stage, walk
from raigen.auditing.cross_prompt_rates import COLUMNS, cross_prompt_rates
from raigen.auditing.shared_sae import share, sharers
from raigen.auditing.sweep import sweep
from raigen.cli.main import main
from raigen.cli.tables import print_study
from raigen.config import AuditConfig
from raigen.errors import RaigenError
from raigen.runs.files import csv_text, write_tensors
from raigen.runs.records import Presence, RareAttribute
from raigen.runs.run import Run
from raigen.runs.study import Study
from raigen.sae import stream
from raigen.sae.model import MatryoshkaSAE

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
N_IMAGES, N_STEPS, N_TOKENS = 50, 3, 16
PROMPTS = ["a photo of a doctor", "a photo of a nurse"]


@pytest.fixture(scope="module", autouse=True)
def _embedder(clip_folder):
    OPTIONS["embedder"] = str(clip_folder)


OPTIONS: dict[str, str] = {}


def config_for(prompt, sd_folder, **more):
    options = OPTIONS | {
        "n_images": N_IMAGES,
        "batch_size": 16,
        "tokens_per_batch": 512,
        "d_sae": 64,
        "k": 4,
        "min_images": 1,
    }
    return AuditConfig.of(prompt, model=str(sd_folder), **options | more)


@pytest.fixture(scope="module")
def configs(sd_folder):
    return [config_for(prompt, sd_folder) for prompt in PROMPTS]


def shared(configs, folder, stop_after: int | None = None, **more) -> list[Run]:
    """Two runs that share an autoencoder, finished or interrupted after some steps."""
    runs = [Run.create(folder / name) for name in ("one", "two")]
    for n, _ in enumerate(share(runs, configs, **more), 1):
        if n == stop_after:
            break
    return runs


@pytest.fixture(scope="module")
def whole(configs, tmp_path_factory) -> list[Run]:
    return shared(configs, tmp_path_factory.mktemp("shared"))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return MatryoshkaSAE.load(run.sae_dir).state_dict()


def same(a: Run, b: Run) -> bool:
    return all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


def hashes(run: Run) -> list[str]:
    return [sample.sha256 for sample in run.samples()]


def test_all_runs_get_the_autoencoder_of_all_tokens_and_keep_the_last_step_only(whole, configs):
    for run, config in zip(whole, configs, strict=True):
        facts = run.facts_of("train")
        assert facts["tokens"] == 2 * N_IMAGES * N_STEPS * N_TOKENS and facts["shared_by"] == PROMPTS
        assert sharers(run) == tuple(PROMPTS) and not run.checkpoint_path.exists()
        assert run.facts.capture.n_steps == N_STEPS
        assert run.is_done("capture", config.capture) and run.is_done("train", config.train)
        assert sum(path.stat().st_size for path in run.activations_dir.iterdir()) < 2 * N_IMAGES * N_TOKENS * 16 * 2
    assert same(*whole) and hashes(whole[0]) != hashes(whole[1])


def test_the_images_are_those_of_single_runs(whole, configs, tmp_path):
    single = Run.create(tmp_path / "run")
    run_stage(single, "capture", configs[1].capture)
    assert hashes(single) == hashes(whole[1])


@pytest.mark.parametrize("stop_after", [4, 9])  # in the first turn, and in the last
def test_stopped_at_any_point_it_comes_to_the_same_weights(whole, configs, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(stream, "CHECKPOINT_SECONDS", 0.0)
    runs = shared(configs, tmp_path, stop_after)
    assert runs[0].checkpoint_path.exists()
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.images_dir.glob("*.png")}
    assert before
    runs = shared(configs, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in before}  # none was made anew
    assert same(runs[0], whole[0]) and same(*runs)
    assert [hashes(run) for run in runs] == [hashes(run) for run in whole]


def test_stopped_before_the_second_run_got_it_only_that_is_made_up_for(whole, configs, tmp_path):
    steps = len(list(share([Run.create(tmp_path / name) for name in ("a", "b")], configs)))
    runs = shared(configs, tmp_path, steps - 1)  # the last step is the capture of the second run, found done
    assert sharers(runs[0]) and not sharers(runs[1])
    assert [step.state for step in share(runs, configs)] == ["skipped"]
    assert same(*runs) and sharers(runs[1])
    assert list(share(runs, configs)) == []


def test_a_checkpoint_of_other_prompts_is_not_taken_up(whole, configs, sd_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "CHECKPOINT_SECONDS", 0.0)
    first, _ = shared(configs, tmp_path, 9)
    others = [configs[0], config_for("a photo of a cat", sd_folder)]
    list(share([first, Run.create(tmp_path / "cat")], others))
    assert first.facts.train.tokens == 2 * N_IMAGES * N_STEPS * N_TOKENS
    assert not same(first, whole[0]) and hashes(first) == hashes(whole[0])


def test_an_autoencoder_of_other_prompts_is_refused_and_redo_trains_anew(configs, sd_folder, tmp_path):
    runs = shared(configs, tmp_path)
    more = [*configs, config_for("a photo of a cat", sd_folder)]
    three = [*runs, Run.create(tmp_path / "cat")]
    with pytest.raises(RaigenError, match=r"is shared by “a photo of a doctor”, “a photo of a nurse”, but .*--redo tr"):
        list(share(three, more))
    assert not three[2].manifest["stages"]
    before = [hashes(run) for run in runs]
    list(share(three, more, redo="train"))
    assert [len(sharers(run)) for run in three] == [3, 3, 3] and [hashes(run) for run in runs] == before


def test_an_autoencoder_of_its_own_is_refused(configs, tmp_path):
    own = Run.create(tmp_path / "one")
    for step in walk(own, configs[0]):
        if step.stage == "discover":
            break
    with pytest.raises(RaigenError, match=r"its autoencoder is its own, but one shared by"):
        shared(configs, tmp_path)


def test_a_model_that_is_not_there_binds_the_folders_to_nothing(configs, tmp_path):
    wrong = [AuditConfig.of(prompt, model=str(tmp_path / "nowhere"), n_images=N_IMAGES) for prompt in PROMPTS]
    runs = [Run.create(tmp_path / name) for name in ("one", "two")]
    with pytest.raises(RaigenError, match="nowhere"):
        list(share(runs, wrong))
    assert [run.manifest["stages"] for run in runs] == [{}, {}]


def test_a_study_goes_through_all_stages_and_tells_the_rates_elsewhere(sd_folder, clip_folder, tmp_path, capsys):
    args = ["audit", *PROMPTS, "--model", str(sd_folder), "--study", str(tmp_path / "s"), "--n-images", str(N_IMAGES),
            "--embedder", str(clip_folder), "--vocabulary", "portraits", "--n-fresh-images", "8", "--tokens-per-batch",
            "512", "--d-sae", "64", "--k", "4", "--n-suggested-images", "0", "--n-label-images", "0", "--max-frequency",
            "1", "--n-attributes", "3"]  # fmt: skip
    assert main([*args, "--shared-sae"]) == 0
    study = Study(tmp_path / "s")
    runs = study.runs()
    assert all(run.report().is_file() and sharers(run) == tuple(PROMPTS) for run in runs) and same(*runs)
    with study.rates_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * sum(len(run.attributes) for run in runs) > 0
    assert {row["under"] for row in rows} == set(PROMPTS) and all(0 <= float(row["rate"]) <= 1 for row in rows)
    assert "fires most under" in capsys.readouterr().out
    assert main([*args, "--shared-sae"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith("done before")
    assert main(args) == 2
    assert "this study has shared_sae = True, now asked for False" in capsys.readouterr().err
    assert main(["audit", "a photo of a cat", *args[1:], "--shared-sae"]) == 2  # and is not added in vain
    error = capsys.readouterr().err
    assert error.count("is shared by") == 1 and "but one shared by “a photo of a cat”" in error
    assert len(Study(tmp_path / "s").entries) == 2 and not list((tmp_path / "s").glob("*cat*"))


def test_what_cannot_be_shared_is_said_at_once(tmp_path, capsys):
    study = ["--study", str(tmp_path / "s"), "--shared-sae"]
    for args, message in (
        ([PROMPTS[0]], "shared_sae: expected two prompts or more, to share an autoencoder; got 1"),
        ([*PROMPTS, "--store"], "shared_sae: expected none with --store"),
        ([*PROMPTS, "--ray", "auto"], "shared_sae: expected none with a Ray cluster"),
    ):
        assert not (tmp_path / "s").exists()
        assert main(["audit", *args, *study]) == 2
        assert capsys.readouterr().err.startswith(f"raigen: {message}")
    assert not json.loads((tmp_path / "s" / "study.json").read_text())["runs"]


def test_one_model_that_fails_does_not_stop_the_other(sd_folder, tmp_path, stages):
    study = Study.create(tmp_path / "s")
    config = config_for(PROMPTS[0], sd_folder)
    wrong = str(tmp_path / "nowhere")
    news = []
    with pytest.raises(RaigenError, match="2 of 4 runs failed"):
        news.extend(sweep(study, config, PROMPTS, [wrong, str(sd_folder)], shared_sae=True))
    ends = {step.number: step.error is None for step in news if step.step is None}
    assert ends == {1: False, 2: False, 3: True, 4: True}
    assert stages.calls == ["discover", "look", "annotate", "evaluate", "report"] * 2


def with_codes(run: Run, codes: list[list[float]], neuron: int) -> Run:
    write_tensors(run.codes_path, {"image_codes": torch.tensor(codes)})
    run.write_attributes([RareAttribute(1, neuron, 0.9, 0.1, 0.8, ())])
    return run


def test_rates_are_those_of_clear_firing_by_the_mark_of_the_own_prompt(whole):
    one = [[0.0, 8.0]] * 10 + [[0.0, 1.9], [0.0, 2.0]] + [[4.0, 0.0]] * 8  # neuron 1 fires clearly from 2 up
    two = [[0.0, 100.0]] * 5 + [[1.0, 0.0]] * 5 + [[0.9, 1.0]] * 10
    runs = [with_codes(whole[0], one, 1), with_codes(whole[1], two, 0)]
    found = {(row["prompt"], row["under"]): row["rate"] for row in cross_prompt_rates(runs)}
    doctor, nurse = PROMPTS
    assert found == pytest.approx({
        (doctor, doctor): 11 / 20, (doctor, nurse): 5 / 20, (nurse, nurse): 15 / 20, (nurse, doctor): 8 / 20,
    })  # fmt: skip
    assert cross_prompt_rates(runs[:1]) == []


def test_the_table_of_a_study_says_under_which_prompt_a_neuron_fires_most(tmp_path, capsys):
    study = Study.create(tmp_path / "s")
    (entry, *_) = study.enroll(PROMPTS, ["m"], {})
    presence = Presence(0.01, 0.003, 0.029, 3, 300, 0, "judge", "wilson")
    Run.create(study.dir_of(entry)).write_attributes(
        [RareAttribute(1, 7, 0.9, 0.1, 0.8, (), "a cat", presence=presence)]
    )
    told = [dict(zip(COLUMNS, ("m", PROMPTS[0], 1, 7, "a cat", under, rate), strict=True))
            for under, rate in ((PROMPTS[0], 0.02), ("a rare one", 0.01), (PROMPTS[1], 0.125))]  # fmt: skip
    study.rates_path.write_text(csv_text(COLUMNS, told))
    print_study(study)
    out = capsys.readouterr().out
    assert "12.5%" in out and "2.0%)" in out and "a rare one" not in out
