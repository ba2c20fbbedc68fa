"""The bundled model: real formats, a judge that reads, and a whole audit through the command line."""

import contextlib
import io
import json
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import AutoTokenizer, CLIPModel

import raigen
from raigen.cli.main import main
from raigen.diffusion.generation import defaults, generate, generate_images
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.loading import load_pipeline
from raigen.world.attributes import PROMPTS
from raigen.world.judge import judge
from raigen.world.models import BUNDLED, EMBLEMS, FOLDERS, TRANSFORMER, world_name
from raigen.world.train import quality, transformer
from raigen.world.train.__main__ import ABOUT
from raigen.world.worlds import world_of
from tests.support.forked import succeeds, without_raigen

BUNDLE = Path(str(files("raigen.world"))) / "bundle"
CARDS = {BUNDLED: BUNDLE, TRANSFORMER: BUNDLE / FOLDERS[TRANSFORMER], EMBLEMS: BUNDLE / "emblems"}
DOCTOR = PROMPTS[0]


def load_with_nothing_of_ours() -> None:
    without_raigen()
    sys.modules["raigen"] = None  # type: ignore[assignment]  # from here on, an import of it fails
    pipe = DiffusionPipeline.from_pretrained(BUNDLE / "pipeline")
    clip = CLIPModel.from_pretrained(BUNDLE / "clip")
    parts = [pipe, clip, AutoTokenizer.from_pretrained(BUNDLE / "clip"), *pipe.components.values()]
    homes = {type(part).__module__.split(".")[0] for part in parts if part is not None}
    assert homes == {"diffusers", "transformers"}
    assert (type(pipe).__name__, type(clip).__name__) == ("StableDiffusionPipeline", "CLIPModel")
    assert pipe.unet.mid_block.resnets[0].out_channels >= 128 and pipe.unet.config.sample_size == 16
    image = pipe("a photo of a doctor", num_inference_steps=2, guidance_scale=1.0).images[0]
    assert image.size == (64, 64)


def test_diffusers_and_transformers_load_it_with_nothing_of_ours():
    assert succeeds(load_with_nothing_of_ours)


def test_it_is_small_and_holds_no_pickle():
    sizes = {path: path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file()}
    second, third = (sum(size for path, size in sizes.items() if BUNDLE / folder in path.parents)
                     for folder in ("transformer", "emblems"))  # fmt: skip
    assert 5e6 < second <= 15e6 and 5e6 < third <= 10e6 and sum(sizes.values()) - second - third <= 20e6
    configs = [json.loads(path.read_text()) for path in sizes if path.name == "config.json"]
    assert len(configs) == 11 and not any(config.get("_name_or_path") for config in configs)  # of who made them
    assert not [path for path in sizes if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]


def test_the_batch_size_changes_no_image(portraits):
    settings = defaults(portraits, BUNDLED)._replace(num_inference_steps=4, guidance_scale=1.5)
    hookpoint = find_hookpoint(portraits)
    seeds = [3, 4, 5, 6, 7]
    whole = generate(portraits, DOCTOR, seeds, settings, hookpoint)
    assert whole.activations is not None and whole.activations.shape == (5, 4, 64, 128)
    for start in (0, 2, 4):
        part = generate(portraits, DOCTOR, seeds[start : start + 2], settings, hookpoint)
        for one, other in zip(whole.images[start:], part.images, strict=False):
            difference = np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))
            assert difference.max() <= 1 and (difference > 0).mean() < 0.001
        torch.testing.assert_close(part.activations, whole.activations[start : start + 2], atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def card() -> dict:
    """What the model card says."""
    return json.loads((BUNDLE / "quality.json").read_text())


def test_the_card_tells_the_truth_about_the_judge(portraits, card):
    for way, measured in quality.judge_quality(portraits.vae, 200).items():
        assert measured["readable"] >= card["judge"][way]["readable"] - 0.03
        for field, accuracy in measured["fields"].items():
            assert accuracy == pytest.approx(card["judge"][way]["fields"][field], abs=0.05), (way, field)
        assert np.mean(list(measured["balanced"].values())) >= 0.95


def test_the_card_tells_the_truth_about_garbage(portraits, card):
    for kind, share in quality.garbage_quality(portraits.vae, 60).items():
        assert share == pytest.approx(card["unreadable"][kind], abs=0.15), kind


def test_the_card_tells_the_truth_about_clip(card):
    measured = quality.clip_quality(300)["right caption of 20"]
    assert measured == pytest.approx(card["clip"]["right caption of 20"], abs=0.08)
    assert measured > 0.15  # chance is 0.05


@pytest.mark.parametrize("model", FOLDERS)
def test_the_cards_tell_the_truth_about_the_images(portraits, model):
    pipe = portraits if model == BUNDLED else load_pipeline(model, "cpu")
    card = json.loads((CARDS[model] / "quality.json").read_text())
    settings = defaults(pipe, model)
    assert card["settings"] == settings._asdict()
    world = world_of(model)
    assert world is not None
    prompt = world.prompts[0]
    [images] = generate_images(pipe, prompt, range(30), settings, 30)
    said, measured = card["prompts"][prompt], quality.seen(prompt, images, world)
    assert measured["readable"] == pytest.approx(said["readable"], abs=0.2)
    for name, rate in said["seen"].items():
        assert measured["seen"][name] == pytest.approx(rate, abs=0.3), name


@pytest.mark.parametrize(("model", "about"), [(BUNDLED, ABOUT), (TRANSFORMER, transformer.ABOUT)])
def test_the_cards_are_what_their_figures_make(model, about, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "sheet", lambda model: Image.new("RGB", (8, 8)))
    quality.write_card(tmp_path, model, about, json.loads((CARDS[model] / "quality.json").read_text()))
    for name in ("README.md", "quality.json"):
        assert (tmp_path / name).read_text() == (CARDS[model] / name).read_text()


def test_the_second_model_is_a_transformer_whose_prompts_are_left_as_they_are(monkeypatch):
    pipe = load_pipeline(TRANSFORMER, "cpu")
    assert type(pipe).__name__ == "PixArtAlphaPipeline" and world_name(TRANSFORMER) == BUNDLED
    seen, ready = [], pipe._text_preprocessing
    monkeypatch.setattr(
        pipe, "_text_preprocessing", lambda text, clean_caption: (seen.append(clean_caption), ready(text))[1]
    )
    assert find_hookpoint(pipe).path == "transformer.transformer_blocks.4"
    settings = defaults(pipe, TRANSFORMER)._replace(num_inference_steps=3, guidance_scale=1.5)
    whole = generate(pipe, DOCTOR, [3, 4, 5], settings, find_hookpoint(pipe))
    part = generate(pipe, DOCTOR, [4], settings, find_hookpoint(pipe))
    assert whole.activations is not None and whole.activations.shape == (3, 3, 64, 160)
    torch.testing.assert_close(part.activations, whole.activations[1:2], atol=1e-3, rtol=1e-3)
    assert seen and not any(seen)


def test_unreadable_images_show_nothing():
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    verdict = judge([Image.fromarray(array) for array in noise])
    assert not verdict.readable.any() and not verdict.shows.any()
    assert ((verdict.confidence >= 0) & (verdict.confidence <= 1)).all()


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A folder, and what the same command prints the first and the second time."""
    folder, printed = tmp_path_factory.mktemp("runs") / "doctor", []
    command = ["audit", DOCTOR, "--run-dir", str(folder), "--n-images", "50", "--n-fresh-images", "12",
               "--num-inference-steps", "4", "--min-images", "3", "--n-suggested-images", "1",
               "--d-sae", "256"]  # fmt: skip
    for _ in range(2):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            assert main(command) == 0
        printed.append((out.getvalue(), err.getvalue()))
    return folder, printed


def test_an_audit_ends_in_a_table_and_a_report(audited):
    folder, ((first, _), (second, told)) = audited
    assert "truly rare:" in first and first.rstrip().endswith("report.html")
    assert told.count("done before") == 7 and second == first
    run = raigen.Run(folder)
    assert run.report().stat().st_size < 3e6
    assert 1 <= len(run.attributes) <= 10
    for attribute in run.attributes:
        assert len(attribute.top_images) == 10 and (folder / attribute.top_images[0]).is_file()
        assert attribute.labeled_by == "CLIP"
        if attribute.label:
            assert attribute.presence and attribute.presence.n + attribute.presence.unscored == 12
            assert attribute.presence.low <= attribute.presence.rate <= attribute.presence.high
    truth = json.loads(run.truth_path.read_text())
    assert [entry["neuron"] for entry in truth["attributes"]] == [attribute.neuron for attribute in run.attributes]
    assert sum(band["planted"] for band in truth["recall"]) == 12
