"""What a model's layers would give and cost is told before anything is captured."""

import json

import pytest

from raigen.cli import main as cli
from raigen.config import CaptureConfig, HookpointsConfig, TrainConfig
from raigen.config.presets import PRESETS, by_stage, preset
from raigen.diffusion.survey import list_hookpoints
from raigen.errors import RaigenError
from tests.support.tiny import WIDTH


def test_a_survey_says_what_a_capture_would_store(sd_folder):
    found = list_hookpoints(str(sd_folder), HookpointsConfig(device="cpu", width=32))
    assert (found.pipeline, found.commit, found.n_steps) == ("StableDiffusionPipeline", None, 3)
    by_path = {cost.path: cost for cost in found.hookpoints}
    middle = by_path["unet.mid_block"]
    assert middle.is_default and (middle.grid, middle.d_in) == ((4, 8), WIDTH)
    assert middle.bytes_per_image == 3 * 4 * 8 * WIDTH * 2
    assert by_path["unet.up_blocks.1"].grid == (8, 16)
    assert sum(cost.is_default for cost in found.hookpoints) == 1


def test_the_command_prints_them(sd_folder, capsys):
    assert cli.main(["hookpoints", str(sd_folder), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("StableDiffusionPipeline, a folder, no license named; 3 steps, 16 x 16 pixels\n")
    assert "unet.mid_block (default)" in text and "4 x 4" in text
    assert cli.main(["hookpoints", str(sd_folder), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pipeline"], found["n_steps"]) == ("StableDiffusionPipeline", 3)
    assert {"path": "unet.mid_block", "grid": [4, 4]}.items() <= next(
        h for h in found["hookpoints"] if h["is_default"]
    ).items()
    assert cli.main(["hookpoints", str(sd_folder), "--dtype", "int8"]) == 2
    assert capsys.readouterr().err.startswith("raigen: dtype: expected one of auto, float32")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_legal_configuration(name):
    stages = by_stage(name)
    assert CaptureConfig("a photo of a doctor", **stages["capture"]).n_images == 5000
    assert sum(len(options) for options in stages.values()) == len(preset(name))
    width = 3072 if "flux" in name else 1280
    shape = TrainConfig(**stages["train"]).sae_config(width)
    assert (shape.d_sae, shape.k) == (16 * width, 32)
    with pytest.raises(RaigenError, match="preset: expected one of paper-sd14"):
        preset("paper")


def test_flags_count_above_the_preset(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["audit", "a photo of a doctor", "--preset", "paper-sd14", "--model", "./nowhere", "--n-fresh-images", "0"]
    assert cli.main(args) == 2
    assert capsys.readouterr().err == "raigen: n_fresh_images: expected 1 or more; got 0\n"
    assert cli.main(args[:-2]) == 2
    assert "there is no folder './nowhere'" in capsys.readouterr().err
