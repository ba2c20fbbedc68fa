"""Embeddings are CLIP's own, of unit length, and no image is made up."""

import io
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPModel

from raigen.config import AmplifyConfig, CaptureConfig, DiscoverConfig
from raigen.discovery import embeddings as room
from raigen.discovery.embeddings import Embedder, default_embedder, embedder_of
from raigen.errors import RaigenError
from raigen.judging.clip_judge import ClipJudge
from raigen.judging.judges import judge_of
from raigen.judging.vlm.answers import Answers
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from tests.support.tiny import save_embedder


@pytest.fixture(scope="module")
def embedder(clip_folder):
    return Embedder(str(clip_folder), "cpu", batch_size=2)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)) for _ in range(5)]


def test_embeddings_are_those_of_clip(embedder, images, clip_folder):
    model = CLIPModel.from_pretrained(clip_folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(images=images, return_tensors="pt")["pixel_values"]
    texts = ["a cat", "a doctor in the snow"]
    tokens = embedder.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(pixel_values=pixels, **tokens)
    np.testing.assert_allclose(embedder.images(images), expected.image_embeds, atol=1e-5)
    np.testing.assert_allclose(embedder.texts(texts), expected.text_embeds, atol=1e-5)


def test_embeddings_are_unit_vectors_whatever_the_batch(embedder, images, clip_folder):
    rows = embedder.images(images)
    assert rows.shape == (5, embedder.d_embed) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(Embedder(str(clip_folder), "cpu", batch_size=64).images(images), rows, atol=1e-5)
    np.testing.assert_allclose(embedder.texts(["a", "b c", "d"])[2], embedder.texts(["d"])[0], atol=1e-5)


def test_nothing_in_nothing_out(embedder):
    assert embedder.images([]).shape == embedder.texts([]).shape == (0, embedder.d_embed)


def test_other_modes_are_read_as_rgb(embedder, images):
    gray = images[0].convert("L")
    np.testing.assert_allclose(embedder.images([gray]), embedder.images([gray.convert("RGB")]), atol=1e-6)


def test_a_long_text_is_cut(embedder):
    assert np.allclose(embedder.texts(["x " * 100]), embedder.texts(["x " * 200]))


def test_a_image_that_cannot_be_read_is_an_error(embedder, images, tmp_path):
    path = tmp_path / "half.png"
    images[0].save(path)
    path.write_bytes(path.read_bytes()[:400])
    with Image.open(path) as half, pytest.raises(RaigenError, match=r"half\.png: expected a whole image; it cannot"):
        embedder.images([images[1], half])
    with pytest.raises(RaigenError, match="image 3: expected a whole image"):
        embedder.images([*images[:3], Image.open(io.BytesIO(path.read_bytes()))])


def test_loading_is_silent_without_torchvision(clip_folder, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder = Embedder(str(clip_folder), "cpu")
    assert isinstance(embedder.processor, CLIPImageProcessorPil)
    assert capsys.readouterr() == ("", "")


def test_a_model_that_is_no_clip_is_refused(tmp_path, sd_folder, clip_folder, monkeypatch):
    with pytest.raises(RaigenError, match="nowhere/nothing cannot be loaded"):
        Embedder("nowhere/nothing", "cpu")
    with pytest.raises(RaigenError, match=r"expected a CLIP, SigLIP or DINO model; .* is 'clip_text_model'"):
        Embedder(str(sd_folder / "text_encoder"), "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RaigenError, match="empty cannot be loaded"):
        Embedder(str(tmp_path / "empty"), "cpu")
    shutil.copytree(clip_folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RaigenError, match="cut cannot be loaded"):
        Embedder(str(tmp_path / "cut"), "cpu")
    monkeypatch.setattr("raigen.discovery.embeddings.BUNDLE", tmp_path)
    with pytest.raises(RaigenError, match=r"Train them with: python -m raigen.world.train"):
        Embedder("portraits", "cpu")


def test_missing_weights_are_not_made_up(tmp_path, clip_folder):
    shutil.copytree(clip_folder, tmp_path / "clip")
    path = tmp_path / "clip" / "model.safetensors"
    tensors = load_file(path)
    del tensors["visual_projection.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(RaigenError, match=r"lacks the weights visual_projection\.weight"):
        Embedder(str(tmp_path / "clip"), "cpu")


def test_the_model_is_on_the_device_that_was_asked(clip_folder, monkeypatch, tmp_path):
    assert Embedder(str(clip_folder), "meta").model.device == torch.device("meta")
    run = Run.create(tmp_path / "run")
    run.begin("capture", CaptureConfig("a doctor", device="cpu"))
    run.begin("discover", DiscoverConfig())
    run.finish("discover", Outcome([], {"embedder": str(clip_folder)}), 1.0)
    places = {"cpu": torch.device("meta"), "cuda": torch.device("cpu")}
    monkeypatch.setattr(room, "resolve_device", places.get)
    assert embedder_of(run).model.device == torch.device("meta")
    assert embedder_of(run, "cuda").model.device == torch.device("cpu")
    judge = judge_of("clip", run, Answers(tmp_path / "answers"), AmplifyConfig(attribute=(1,)), "cuda")
    assert isinstance(judge, ClipJudge) and judge.embedder.model.device == torch.device("cpu")


@pytest.mark.parametrize("kind", ["siglip", "siglip2", "dinov2", "dinov3_vit"])
def test_other_models_embed_as_their_authors_say(kind, images, tmp_path):
    save_embedder(kind, tmp_path)
    embedder = Embedder(str(tmp_path), "cpu", batch_size=2)
    rows = embedder.images(images)
    assert rows.shape == (5, embedder.d_embed)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    model, inputs = embedder.model, embedder.processor(images=images[:1], return_tensors="pt")
    with torch.no_grad():
        if kind.startswith("dino"):
            expected = model(**inputs).last_hidden_state[:, 0]  # the class token
        else:
            expected = model.vision_model(**inputs).pooler_output
    np.testing.assert_allclose(rows[:1], torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)
    assert rows[:1] @ rows[1] < 0.99999  # images differ
    if kind.startswith("dino"):
        for ask in (embedder.texts, embedder.cut_texts):
            with pytest.raises(RaigenError, match=rf"embedder: expected one that knows texts, .* is {kind!r}"):
                ask(["a cat"])
        return
    texts = ["a cat", "a doctor"]
    tokens = embedder.tokenizer(texts, padding="max_length", max_length=30, return_tensors="pt")
    with torch.no_grad():
        expected = model.text_model(**tokens).pooler_output
    np.testing.assert_allclose(embedder.texts(texts), torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)
    assert embedder.n_tokens == 30 and embedder.cut_texts(["a cat", "x" * 40]) == [False, True]


def test_the_processor_of_dino_3_does_without_torchvision(images, tmp_path):
    """Resized, scaled to [0, 1], with the mean and the spread of ImageNet, as its preprocessor_config.json says."""
    save_embedder("dinov3_vit", tmp_path)
    path = tmp_path / "preprocessor_config.json"
    said = json.loads(path.read_text()) | {"image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2]}
    path.write_text(json.dumps(said))
    found = Embedder(str(tmp_path), "cpu").processor(images=images[:1], return_tensors="pt")["pixel_values"]
    expected = (np.asarray(images[0], np.float32).transpose(2, 0, 1) / 255 - 0.4) / 0.2
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_the_default_embedder():
    assert default_embedder("portraits") == "portraits"
    assert default_embedder("some/model") == "openai/clip-vit-large-patch14"
