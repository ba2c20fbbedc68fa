"""A run is of one model: resumes and later stages load the very weights and settings of its first image, or refuse."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from raigen.amplification.rendering import Renderer
from raigen.config import AmplifyConfig, CaptureConfig, SAEConfig, TrainConfig
from raigen.diffusion import loading
from raigen.diffusion.capture import capture
from raigen.diffusion.loading import load_pipeline, origin_of
from raigen.diffusion.recorded import recorded_pipeline
from raigen.errors import RaigenError
from raigen.judging.fresh import fresh_images, fresh_list, loader
from raigen.runs.run import Run
from raigen.sae.model import MatryoshkaSAE
from tests.support.tiny import drained

PROMPT = "a photo of a doctor"


@pytest.fixture
def folder(sd_folder, tmp_path):
    return shutil.copytree(sd_folder, tmp_path / "model")


def retrain(folder) -> None:
    """Moves a thousandth of every weight of one layer, as a short fine-tuning would."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["mid_block.attentions.0.proj_in.weight"] *= 1.1
    save_file(tensors, path, {"format": "pt"})


def captured(folder, dir, n_batches=None, **options) -> tuple[Run, CaptureConfig]:
    """A run whose capture was stopped after some batches, or has finished."""
    run = Run.create(dir)
    config = CaptureConfig(PROMPT, str(folder), n_images=50, batch_size=20, device="cpu", **options)
    run.begin("capture", config)
    stage = capture(run, config)
    if n_batches is None:
        run.finish("capture", drained(stage)[1], 1.0)
    else:
        for _ in range(1 + n_batches):
            next(stage)
        stage.close()
    return run, config


def test_a_model_folder_that_changes_is_refused_at_the_resume_and_later(folder, tmp_path):
    stopped, config = captured(folder, tmp_path / "stopped", 1)
    finished, _ = captured(folder, tmp_path / "finished")
    recorded_pipeline(finished)
    retrain(folder)
    stopped.begin("capture", config)  # as a second start does
    message = "its weights have changed since the first image of"
    with pytest.raises(RaigenError, match=message):
        drained(capture(stopped, config))
    assert len(stopped.samples()) == 20
    with pytest.raises(RaigenError, match=message):
        drained(fresh_images(finished, 2, fresh_list(finished), loader(finished)))
    finished.begin("train", TrainConfig())
    MatryoshkaSAE(SAEConfig(16, 8, (2, 6), 2)).save(finished.sae_dir)
    finished.finish("train", type(drained(capture(Run.create(tmp_path / "x"), config))[1])([], {}), 1.0)
    with pytest.raises(RaigenError, match=message):
        _ = Renderer(finished, AmplifyConfig(attribute=(1,), device="cpu")).pipe
    finished.forget("capture")  # a new beginning is free
    finished.begin("capture", config)
    drained(capture(finished, config))


def test_other_settings_in_the_folder_change_no_later_image(folder, tmp_path):
    run, config = captured(folder, tmp_path / "run")
    stopped, _ = captured(folder, tmp_path / "stopped", 1)
    (folder / "raigen.json").write_text(json.dumps({"num_inference_steps": 1, "guidance_scale": 9.0}))
    _, (first, _) = drained(fresh_images(run, 2, fresh_list(run), loader(run)))
    again, _ = captured(folder, tmp_path / "other")  # with the new settings
    _, (other, _) = drained(fresh_images(again, 2, fresh_list(again), loader(again)))
    assert again.facts.capture.num_inference_steps == 1 and run.facts.capture.num_inference_steps == 3
    assert not np.array_equal(
        np.asarray(run.read_image(first, "evaluate")), np.asarray(again.read_image(other, "evaluate"))
    )
    stopped.begin("capture", config)
    facts = drained(capture(stopped, config))[1].facts
    assert (facts["num_inference_steps"], facts["guidance_scale"]) == (3, 2.0)
    assert [sample.sha256 for sample in stopped.samples()] == [sample.sha256 for sample in run.samples()]


def test_a_run_of_an_earlier_raigen_keeps_its_settings_too(folder, tmp_path):
    run, _ = captured(folder, tmp_path / "run")
    manifest = run.manifest
    del manifest["stages"]["capture"]["model"]
    run._write_manifest(manifest)
    before = drained(fresh_images(run, 1, fresh_list(run), loader(run)))[1][0].sha256
    run.fresh_samples_path.unlink()
    (folder / "raigen.json").write_text(json.dumps({"num_inference_steps": 1}))
    assert drained(fresh_images(run, 1, fresh_list(run), loader(run)))[1][0].sha256 == before


def test_later_stages_load_the_commit_of_the_first_image(sd_folder, tmp_path, monkeypatch):
    """A Hub whose branch main moves on after the capture."""
    heads, loaded = {"main": "a" * 40}, []

    def fetch(path, file, revision=None, local_files_only=False):
        at = tmp_path / "snapshots" / heads.get(revision or "main", revision)
        if not at.exists():
            shutil.copytree(sd_folder, at)
        return str(at / file)

    real = loading.DiffusionPipeline.from_pretrained

    def from_pretrained(path, revision=None, local_files_only=False, **options):
        loaded.append(revision)
        return real(tmp_path / "snapshots" / revision, **options)

    monkeypatch.setattr(loading, "hf_hub_download", fetch)
    monkeypatch.setattr(loading.DiffusionPipeline, "from_pretrained", from_pretrained)
    for stop in (1, None):
        heads["main"] = "a" * 40
        run, config = captured("someone/model", tmp_path / f"run-{stop}", stop)
        heads["main"] = "b" * 40
        if stop:
            run.begin("capture", config)
            drained(capture(run, config))
        else:
            drained(fresh_images(run, 2, fresh_list(run), loader(run)))
            assert run.facts.capture.revision == "a" * 40
    assert loaded == ["a" * 40] * 4


def test_the_fingerprint_is_of_the_values_not_of_their_type(sd_folder):
    plain, half = (load_pipeline(str(sd_folder), "cpu", loading.LoadConfig(dtype=d)) for d in ("float32", "bfloat16"))
    assert origin_of(plain) == origin_of(half) and half.unet.dtype == torch.bfloat16
