"""Pipelines are found and read, whole or not at all; what the Hub refuses is said."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionImg2ImgPipeline
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file

from raigen.config import LoadConfig
from raigen.diffusion.loading import find_source, license_of, load_pipeline
from raigen.errors import RaigenError
from raigen.runs.device import resolve_device
from raigen.world.models import model_path
from tests.support import tiny


def test_loading_is_silent(sd_folder, capsys):
    load_pipeline(str(sd_folder), "cpu")
    assert capsys.readouterr() == ("", "")


def test_a_missing_model_is_said(tmp_path, monkeypatch):
    with pytest.raises(RaigenError, match=r"there is no folder '\./models/nowhere'"):
        load_pipeline("./models/nowhere")
    with pytest.raises(RaigenError, match="there is no folder"):
        load_pipeline(str(tmp_path / "nowhere"))
    with pytest.raises(RaigenError, match=r"someone/nothing: no such folder, .* and the Hub cannot be reached"):
        load_pipeline("someone/nothing")
    with pytest.raises(RaigenError, match=r"has no model_index\.json"):
        load_pipeline(str(tmp_path))
    monkeypatch.setattr("raigen.world.models.BUNDLE", tmp_path)
    with pytest.raises(RaigenError, match=r"Train them with: python -m raigen.world.train"):
        model_path("portraits")


def test_a_folder_has_no_revision(sd_folder):
    assert find_source(str(sd_folder)).commit is None
    with pytest.raises(RaigenError, match=r"revision: .* is a folder, which has none"):
        find_source(str(sd_folder), LoadConfig(revision="main"))


def test_the_license_is_that_of_the_card(sd_folder, tmp_path):
    assert license_of(find_source(str(sd_folder))) is None
    for text, license in (
        ("---\nlicense: openrail++\n---\nA model.", "openrail++"),
        ("---\nlicense: other\nlicense_name: sai-nc\n---\n", "sai-nc"),
        ("A model.", None),
    ):
        (tmp_path / "model_index.json").write_text("{}")
        (tmp_path / "README.md").write_text(text)
        assert license_of(find_source(str(tmp_path))) == license


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError, r"someone/model: the Hub requires you to accept the license of this model; do so at "),
        (RepositoryNotFoundError, "someone/model: the Hub has no such model, or it is private"),
        (RevisionNotFoundError, "someone/model: the Hub has no revision 'v9' of it"),
        (RemoteEntryNotFoundError, r"someone/model: .* the Hub has no model_index\.json"),
    ],
)
def test_what_the_hub_refuses_is_said(monkeypatch, error, message):
    def refuse(*args, **kwargs):
        raise error("no", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr("raigen.diffusion.loading.hf_hub_download", refuse)
    with pytest.raises(RaigenError, match=message):
        load_pipeline("someone/model", "cpu", LoadConfig(revision="v9"))


def test_offline_asks_for_the_cache_alone():
    with pytest.raises(RaigenError, match=r"not in the local cache, .* run it once without --offline"):
        load_pipeline("someone/nothing", "cpu", LoadConfig(offline=True))


def test_the_means_are_used(sd_folder, monkeypatch):
    pipe = load_pipeline(str(sd_folder), "cpu", LoadConfig(dtype="bfloat16", tiling=True))
    assert pipe.unet.dtype == torch.bfloat16 and pipe.vae.use_tiling
    with pytest.raises(RaigenError, match="offload: 'model' keeps parts of the model off a GPU, but the device is cpu"):
        load_pipeline(str(sd_folder), "cpu", LoadConfig(offload="model"))
    with pytest.raises(RaigenError, match="whole diffusers pipeline with the variant 'fp16'"):
        load_pipeline(str(sd_folder), "cpu", LoadConfig(variant="fp16"))


def test_other_kinds_of_pipelines_are_refused(tmp_path, sd_folder):
    DDPMPipeline(tiny.unet(), DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    with pytest.raises(RaigenError, match="expected a text-to-image pipeline; DDPMPipeline is none"):
        load_pipeline(str(tmp_path / "ddpm"))
    for name, message in (
        (StableDiffusionImg2ImgPipeline.__name__, "Img2ImgPipeline is none .it wants strength"),
        ("WanPipeline", "WanPipeline is none .it wants num_frames: video"),
        ("NoPipeline", "has no pipeline 'NoPipeline'; upgrade it"),
    ):
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        shutil.copytree(sd_folder, tmp_path / "other")
        index = tmp_path / "other" / "model_index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": name}))
        with pytest.raises(RaigenError, match=message):
            load_pipeline(str(tmp_path / "other"))
    index.write_text("{}")
    with pytest.raises(RaigenError, match="expected a JSON object with _class_name; found the keys none"):
        load_pipeline(str(tmp_path / "other"))


def test_broken_weights_are_refused(tmp_path, sd_folder):
    shutil.copytree(sd_folder, tmp_path / "sd")
    weights = tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RaigenError, match="expected a whole diffusers pipeline; it cannot be loaded"):
        load_pipeline(str(tmp_path / "sd"))
    weights.unlink()
    with pytest.raises(RaigenError, match="expected a whole diffusers pipeline; it cannot be loaded"):
        load_pipeline(str(tmp_path / "sd"))


def test_missing_weights_are_not_made_up(tmp_path, sd_folder):
    shutil.copytree(sd_folder, tmp_path / "sd")
    path = tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_in.bias"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(RaigenError, match=r"it lacks the weights unet\.conv_in\.bias"):
        load_pipeline(str(tmp_path / "sd"))


def test_devices():
    with pytest.raises(RaigenError, match="expected auto, cpu, cuda or cuda:N; got 'gpu'"):
        resolve_device("gpu")
    with pytest.raises(RaigenError, match="'cuda:99' was requested, but torch sees"):
        resolve_device("cuda:99")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
