"""The plan predicts what the audit then does, and writes nothing."""

import json
from types import SimpleNamespace

import pytest
import torch

from raigen.auditing import plan
from raigen.auditing.audit import run_stage, walk
from raigen.auditing.plan import estimate
from raigen.cli.main import main
from raigen.cli.tables import print_plan
from raigen.config import AuditConfig, DiscoverConfig
from raigen.runs.run import Run
from tests.support.tiny import save_embedder

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
OPTIONS = {"n_images": 50, "batch_size": 8, "tokens_per_batch": 256, "d_sae": 64, "k": 4, "n_fresh_images": 10,
           "n_suggested_images": 0}  # fmt: skip


@pytest.fixture(scope="module")
def options(sd_folder, clip_folder):
    return OPTIONS | {"model": str(sd_folder), "embedder": str(clip_folder)}


def test_what_is_planned_is_what_is_done(options, tmp_path):
    config = AuditConfig.of("a photo of a doctor", **options)
    planned = estimate(config)
    run = Run.create(tmp_path / "run")
    for step in walk(run, config):
        if step.stage == "discover":
            break
    captured, trained = run.facts_of("capture"), run.facts_of("train")
    assert (planned.hookpoint, list(planned.grid), planned.d_in) == tuple(
        captured[name] for name in ("hookpoint", "grid", "d_in")
    )
    assert planned.tokens == trained["tokens"] and planned.training_steps == trained["steps"]
    shards = sum(path.stat().st_size for path in run.activations_dir.iterdir())
    assert planned.disk_activations == pytest.approx(shards, rel=0.15)  # the headers of the shards are not counted
    images = sum(path.stat().st_size for path in run.images_dir.iterdir())
    assert planned.disk_images == pytest.approx(images * 60 / 50, rel=0.2)
    assert planned.rarest_rate == pytest.approx(0.29, abs=0.02) and planned.images_for[0.01] == (299, 1568)
    assert min(planned.seconds_images, planned.seconds_training, planned.seconds_fresh, planned.memory) > 0


def test_the_plan_counts_the_images_that_are_asked_for(options):
    """Ten listed attributes, five images each, beside ten fresh and fifty audited ones."""
    without, asked = (
        estimate(AuditConfig.of("a photo of a doctor", **(options | {"n_suggested_images": n}))) for n in (0, 5)
    )
    assert asked.disk_images == pytest.approx(without.disk_images * 110 / 60, rel=1e-3)


def test_a_store_and_epochs_change_the_plan(options):
    plain, stored, twice = (
        estimate(AuditConfig.of("a photo of a doctor", **options, **more))
        for more in ({}, {"store": True}, {"epochs": 2, "steps_per_image": 2, "tokens_per_step": 5})
    )
    assert stored.disk_activations == 3 * plain.disk_activations
    assert twice.tokens == 2 * 50 * 2 * 5 and plain.tokens == 50 * 3 * 16
    in_reservoir, at_the_end = (2 * 16 + 8) * (50 * 3 * 16 // 4 - 256), 4 * 16 * (50 * 3 * 16 - 50 * 2 * 5)
    assert plain.memory - twice.memory == in_reservoir + at_the_end


def test_training_is_timed_on_the_device_that_was_asked(options, monkeypatch):
    asked, placed = [], plan.placed
    monkeypatch.setattr(plan, "placed", lambda sae, device: asked.append(device) or placed(sae, device))
    estimate(AuditConfig.of("a photo of a doctor", device="cpu", **options))
    assert asked == [torch.device("cpu")]


def test_the_command_prints_it_and_leaves_no_folder(sd_folder, clip_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = ["plan", "a photo of a doctor", "--model", str(sd_folder), "--n-images", "60"]
    assert main([*args, "--embedder", str(clip_folder)]) == 0
    out = capsys.readouterr().out
    assert "60 of 16 x 16 pixels, 3 steps" in out and "unet.mid_block, 4 x 4 tokens of width 16" in out
    assert "2,880 tokens in 12 steps" in out and "(the last step)" in out
    assert "60 images are few: the list goes up to a frequency of 50%; with 600 images, up to 5%" in out
    assert main([*args, "--embedder", str(clip_folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["hookpoint"], found["grid"], found["tokens"]) == ("unet.mid_block", [4, 4], 2880)
    assert found["settings"]["num_inference_steps"] == 3 and found["images_for"]["0.01"] == [299, 1568]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--embedder", "./nowhere"], "embedder: expected a CLIP, SigLIP or DINO model"),
        (["--vocabulary", "nowhere.txt"], "vocabulary: expected one of"),
        (["--attributes", "nowhere.txt"], "attributes: expected a text file"),
        (["--calibration", "nowhere.csv"], "calibration: expected a CSV file"),
        (["--judge", "portraits"], "judge: expected clip or a vision-language model"),
        (["--judge", "scripted:nowhere"], "scripted:nowhere: expected a file of answers"),
        (["--judge", "openai:gpt-4o-mini"], "expected a key in the environment"),
        (["--judge", "transformers:./nowhere"], "expected an image-text-to-text model in a folder or on the Hub"),
        (["--annotator", "scripted:nowhere"], "scripted:nowhere: expected a file of answers"),
        (["--device", "cuda:99"], "device: 'cuda:99' was requested"),
        (["--model", "./nowhere"], "there is no folder './nowhere'"),
        (["--k", "64", "--d-sae", "64"], "k: expected 1 <= k < d_sae = 64"),
        (["--second-view", "./nowhere"], "embedder: expected a CLIP, SigLIP or DINO model"),
        (
            ["--second-view", "./nowhere", "--score", "published"],
            "second_view: expected looks with the published score",
        ),
        (["--store", "--tokens-per-step", "4"], "tokens_per_step: expected none with a store"),
    ],
)
@pytest.mark.parametrize("command", ["audit", "plan"])
def test_what_needs_no_image_is_checked_before_the_first(
    sd_folder, clip_folder, tmp_path, monkeypatch, capsys, command, flags, message
):
    monkeypatch.setattr("raigen.diffusion.generation._call", None)  # no image can be made
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in flags else ["--model", str(sd_folder)]
    assert main([command, "a photo of a doctor", *model, "--embedder", str(clip_folder), *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flags", [(), ("--annotator", "scripted:ANSWERS", "--judge", "clip")])
def test_names_and_rates_by_clip_need_an_embedder_with_texts(sd_folder, tmp_path, monkeypatch, capsys, flags):
    monkeypatch.setattr("raigen.diffusion.generation._call", None)  # no image can be made
    (tmp_path / "answers.jsonl").write_text('{"question": "a", "answer": {"answer": "yes"}}\n')
    save_embedder("dinov2", tmp_path / "dino")
    flags = [flag.replace("ANSWERS", str(tmp_path / "answers.jsonl")) for flag in flags]
    args = ["a photo of a doctor", "--model", str(sd_folder), "--run-dir", str(tmp_path / "run"), *flags]
    assert main(["audit", *args, "--embedder", str(tmp_path / "dino")]) == 2
    err = capsys.readouterr().err
    assert "embedder: expected one that knows texts" in err and "'dinov2'. Give a CLIP or SigLIP model" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--d-sae", "8"], "k: expected 1 <= k < d_sae = 8; got 8"),  # what k is depends on the width of a token
        (["--d-sae", "8", "--store"], "k: expected 1 <= k < d_sae = 8; got 8"),
        (
            ["--negative-prompt", "blurry", "--guidance-scale", "1"],
            "negative_prompt: StableDiffusionPipeline called its",
        ),
    ],
)
@pytest.mark.parametrize("command", ["audit", "plan"])
def test_what_needs_a_single_step_is_checked_before_the_first_image(
    sd_folder, clip_folder, tmp_path, monkeypatch, capsys, command, flags, message
):
    monkeypatch.chdir(tmp_path)
    args = [
        command,
        "a photo of a doctor",
        "--model",
        str(sd_folder),
        "--embedder",
        str(clip_folder),
        "--n-images",
        "50",
    ]
    assert main([*args, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))


@pytest.fixture(scope="module")
def trained(options, tmp_path_factory):
    """A run with a store, through training."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "run")
    for step in walk(run, AuditConfig.of("a photo of a doctor", **options, store=True)):
        if step.stage == "discover":
            break
    return run


def test_the_second_view_is_a_setting(trained, options, tmp_path):
    save_embedder("dinov2", tmp_path / "dino")
    found = {}
    for view in ("looks", str(tmp_path / "dino")):
        config = DiscoverConfig(embedder=options["embedder"], second_view=view, max_frequency=1.0)
        run_stage(trained, "discover", config, redo="discover" in trained.manifest["stages"])
        assert trained.facts.discover.second_view == view
        found[view] = trained.neurons_path.read_text()
    looks, dino = found.values()
    assert looks != dino  # the scores depend on it


def test_an_autoencoder_that_cannot_be_drops_nothing(trained, capsys):
    run = trained
    weights = (run.sae_dir / "model.safetensors").read_bytes()
    assert main(["train", str(run.dir), "--redo", "train", "--d-sae", "4", "--k", "3", "--tokens-per-step", "2"]) == 2
    assert "tokens_per_step: expected none with a store" in capsys.readouterr().err
    assert main(["train", str(run.dir), "--redo", "train", "--d-sae", "2000000000"]) == 2
    assert "d_sae: to train 2,000,000,000 neurons" in capsys.readouterr().err
    assert (run.sae_dir / "model.safetensors").read_bytes() == weights and run.has_finished("train")


def test_the_plan_says_what_does_not_suffice(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**4))
    run_dir = tmp_path / "elsewhere" / "run"
    planned = estimate(AuditConfig.of("a photo of a doctor", **options), run_dir)
    assert planned.disk_training == 4 * 4 * (2 * 16 * 64 + 16 + 64) + (2 * 16 + 8) * 50 * 3 * 16 // 4
    assert [sentence.split(" has ")[0] for sentence in planned.shortages] == ["the disk"] and not run_dir.exists()
    print_plan(planned, AuditConfig.of("a photo of a doctor", **options))
    out = capsys.readouterr().out
    assert "too little" in out and "the disk has 0.0 GB free" in out


def test_a_prompt_without_room_for_names_is_told_before_the_first_image(sd_folder, clip_folder, tmp_path, capsys):
    args = ["plan", "a photo of a doctor " * 5, "--model", str(sd_folder), "--embedder", str(clip_folder)]
    assert main(args) == 2
    assert "a prompt that leaves room for a name in the 77 tokens that CLIP reads" in capsys.readouterr().err
