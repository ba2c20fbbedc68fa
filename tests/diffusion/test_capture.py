"""A capture makes the same files however often it is stopped, damaged or cut into other batches."""

import errno
import json
import os
import re
import shutil
import signal
import time
from multiprocessing import Pipe

import numpy as np
import pytest
import torch

from raigen.config import CaptureConfig
from raigen.diffusion.capture import capture
from raigen.diffusion.generation import defaults, generate
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.loading import load_pipeline
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore
from raigen.runs.run import Run
from tests.support.forked import forked
from tests.support.tiny import drained


@pytest.fixture(scope="module")
def config(sd_folder):
    return CaptureConfig(
        "a photo of a doctor", str(sd_folder), n_images=50, base_seed=100, batch_size=16, store=True, device="cpu"
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A run that was never disturbed, with what capture said of it."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "whole")
    ticks, outcome = drained(capture(run, config))
    return run, ticks, outcome


@pytest.fixture
def copied(finished, tmp_path) -> Run:
    return Run(shutil.copytree(finished[0].dir, tmp_path / "run"))


def contents(run: Run) -> dict[str, object]:
    """What every file holds. Of a safetensors file its header, for the library writes metadata in random order."""
    found = {}
    for path in run.dir.rglob("*"):
        if path.is_file() and path.name != "run.json":
            held: object = path.read_bytes()
            if path.suffix == ".safetensors":
                size = int.from_bytes(held[:8], "little")
                held = (json.loads(held[8 : 8 + size]), held[8 + size :])
            found[path.relative_to(run.dir).as_posix()] = held
    return found


def assert_same_images(run: Run, other: Run) -> None:
    """Equal but for float noise: at most one level, in less than a thousandth of the values."""
    pixels, expected = (
        np.stack([np.asarray(each.read_image(sample)).astype(int) for sample in each.samples()])
        for each in (run, other)
    )
    apart = abs(pixels - expected)
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3
    stored, known = (ActivationStore(each.activations_dir).images(range(50), 2) for each in (run, other))
    assert (stored - known).abs().max() < 2e-3 * known.abs().max()


def test_a_run_holds_images_activations_and_their_list(finished, config):
    run, ticks, outcome = finished
    assert [tick[:2] for tick in ticks] == [(0, 50), (16, 50), (32, 50), (48, 50), (50, 50)]
    samples = run.samples()
    assert [sample.index for sample in samples] == list(range(50))
    assert [sample.seed for sample in samples] == list(range(100, 150))
    assert samples[12].file == "images/000012.png" and samples[12].prompt == config.prompt
    assert len({sample.sha256 for sample in samples}) == 50
    store = ActivationStore(run.activations_dir)
    assert (store.n_images, store.n_steps, store.grid, store.d_in) == (50, 3, (4, 4), 16)
    names = {path.relative_to(run.dir).as_posix() for path in outcome.outputs}
    assert names == contents(run).keys() and len(names) == len(outcome.outputs) == 1 + 50 + 4


def test_what_is_stored_is_what_the_pipeline_makes(finished, config):
    run = finished[0]
    pipe = load_pipeline(config.model, "cpu")
    made = generate(pipe, config.prompt, [117], defaults(pipe, config.model, config), find_hookpoint(pipe))
    assert run.read_image(run.samples()[17]).tobytes() == made.images[0].tobytes()
    for step in range(3):
        stored = ActivationStore(run.activations_dir).images([17], step)
        torch.testing.assert_close(stored[0], made.activations[0, step], rtol=2e-3, atol=2e-2)


def test_the_facts_say_how_it_was_done(finished, config):
    facts = dict(finished[2].facts)
    assert facts.pop("seconds_per_image") > 0 and re.fullmatch("[0-9a-f]{64}", facts.pop("weights"))
    assert facts == {
        "model": config.model, "revision": None, "licence": None, "pipeline": "StableDiffusionPipeline",
        "scheduler": "DPMSolverMultistepScheduler", "num_inference_steps": 3, "guidance_scale": 2.0, "height": 16,
        "width": 16, "negative_prompt": None, "true_cfg_scale": None,
        "hookpoint": "unet.mid_block", "grid": [4, 4], "d_in": 16, "n_steps": 3, "device": "cpu",
        "dtype": "float32", "offload": "none", "safety_checker": False, "black_images": [], "unread_tokens": 0,
    }  # fmt: skip
    json.dumps(facts)


def test_the_batch_size_changes_no_image(finished, config, tmp_path):
    run = Run.create(tmp_path / "run")
    drained(capture(run, CaptureConfig(**{**vars(config), "batch_size": 50})))
    assert_same_images(run, finished[0])


def test_what_others_put_into_the_folders_stays(copied, finished, config, tmp_path):
    """Notes, clutter of other systems, folders and links beside our files are neither deleted nor in the way."""
    foreign = []
    for folder in (copied.images_dir, copied.activations_dir):
        for name in (".ipynb_checkpoints", "@eaDir", "000000.png.d"):
            (folder / name).mkdir()
        (folder / "link").symlink_to(tmp_path)
        names = ("my-notes.csv", "crop.png", "Thumbs.db", "._000000.safetensors", "metadata.jsonl", "1.png")
        foreign += [folder / name for name in names]
    for path in foreign:
        path.write_text("mine")
    (copied.images_dir / "000007.png").write_bytes(b"torn")  # so that there is something to do
    (copied.images_dir / "000099.png").write_bytes(b"of a longer capture")
    (copied.images_dir / "000098.png.part").write_bytes(b"half a file")
    drained(capture(copied, config))
    assert all(path.read_text() == "mine" for path in foreign) and (copied.images_dir / "link").is_symlink()
    assert not (copied.images_dir / "000099.png").exists() and not (copied.images_dir / "000098.png.part").exists()
    assert ActivationStore(copied.activations_dir).n_images == 50
    assert_same_images(copied, finished[0])


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85"])
def test_a_stopped_capture_goes_on_whatever_the_prompt_holds(config, tmp_path, letter):
    run = Run.create(tmp_path / "run")
    odd = CaptureConfig(**{**vars(config), "prompt": f"a photo of a doctor{letter}smiling"})
    stopped = capture(run, odd)
    assert [next(stopped).done for _ in range(3)] == [0, 16, 32]
    stopped.close()
    ticks, _ = drained(capture(run, odd))
    assert ticks[0].done == 32 and len(run.samples()) == 50


def test_a_finished_capture_is_only_looked_through(copied, finished, config):
    ticks, outcome = drained(capture(copied, config))
    assert [tick[:2] for tick in ticks] == [(50, 50)]
    assert outcome.facts["seconds_per_image"] is None
    assert contents(copied) == contents(finished[0])


def spoil_image(run):
    path = run.images_dir / "000020.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


def tear_last_line(run):
    text = run.samples_path.read_bytes()
    run.samples_path.write_bytes(text[:-30])


def cut_list(run):
    lines = run.samples_path.read_text().splitlines(keepends=True)
    run.samples_path.write_text("".join(lines[:40]))


def cut_shard(run):
    path = run.activations_dir / "000016.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def leave_rubbish(run):
    (run.images_dir / "000050.png.part").write_bytes(b"half")
    (run.images_dir / "000050.png").write_bytes(b"more")
    shutil.copy(run.activations_dir / "000048.safetensors", run.activations_dir / "000050.safetensors")


DAMAGES = {
    "a missing image": (lambda run: (run.images_dir / "000007.png").unlink(), 34),
    "another image": (spoil_image, 34),
    "a missing shard": (lambda run: (run.activations_dir / "000000.safetensors").unlink(), 34),
    "a cut shard": (cut_shard, 34),
    "a torn line": (tear_last_line, 48),
    "a cut list": (cut_list, 32),
    "no list": (lambda run: run.samples_path.unlink(), 0),
    "rubbish": (leave_rubbish, 50),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_damaged_batches_are_made_again(copied, finished, config, damage):
    spoil, n_kept = DAMAGES[damage]
    spoil(copied)
    ticks, _ = drained(capture(copied, config))
    assert (ticks[0].done, ticks[-1].done) == (n_kept, 50)
    assert contents(copied) == contents(finished[0])


def test_a_resume_may_cut_other_batches(copied, finished, config):
    for first in (16, 32, 48):
        (copied.activations_dir / f"{first:06d}.safetensors").unlink()
    ticks, _ = drained(capture(copied, CaptureConfig(**{**vars(config), "batch_size": 20})))
    assert [tick.done for tick in ticks] == [16, 36, 50]
    assert_same_images(copied, finished[0])


def test_files_of_another_prompt_are_not_taken_over(copied, config):
    other = CaptureConfig(**{**vars(config), "prompt": "a photo of a nurse"})
    ticks, _ = drained(capture(copied, other))
    assert ticks[0].done == 0
    assert {sample.prompt for sample in copied.samples()} == {other.prompt}


def test_a_killed_capture_loses_at_most_a_batch(finished, config, tmp_path):
    run = Run.create(tmp_path / "run")
    receiver, sender = Pipe(duplex=False)

    def capture_and_tell():
        for tick in capture(run, config):
            sender.send(tick.done)

    child = forked(capture_and_tell)
    sender.close()  # ours: the pipe ends when the child does
    while receiver.recv() < 32:
        pass
    time.sleep(0.03)  # into the next batch
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    ticks, _ = drained(capture(run, config))
    assert ticks[0].done >= 32
    assert contents(run) == contents(finished[0])


@pytest.mark.parametrize("n_writes", [5, 18, 19, 30])  # in the first batch, its shard, its list, the second batch
def test_a_full_disk_is_said_and_mended(finished, config, tmp_path, monkeypatch, n_writes):
    run = Run.create(tmp_path / "run")
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > n_writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("raigen.runs.files.os.fsync", full)
        with pytest.raises(RaigenError, match=r"the disk is full .* What was done is kept: free some space"):
            drained(capture(run, config))
    assert not list(run.dir.rglob("*.part"))
    drained(capture(run, config))
    assert contents(run) == contents(finished[0])


def test_a_wrong_hookpoint_stops_before_the_first_image(config, tmp_path):
    run = Run.create(tmp_path / "run")
    with pytest.raises(RaigenError, match=r"near it: unet\.mid_block"):
        drained(capture(run, CaptureConfig(**{**vars(config), "hookpoint": "unet.mid"})))
    assert [path.name for path in run.dir.iterdir()] == ["run.json"]


def test_a_hookpoint_that_cannot_be_captured_leaves_no_file(config, tmp_path):
    run = Run.create(tmp_path / "run")
    with pytest.raises(RaigenError, match="name a module of the denoiser"):
        drained(capture(run, CaptureConfig(**{**vars(config), "hookpoint": "vae.decoder"})))
    assert [path.name for path in run.dir.iterdir()] == ["run.json"]


def test_black_images_of_a_safety_checker_are_counted(config, tmp_path, monkeypatch):
    from diffusers import StableDiffusionPipeline

    def blackened(self, image, device, dtype):
        image[3:4] = -1.0
        return image, None

    monkeypatch.setattr(StableDiffusionPipeline, "run_safety_checker", blackened)
    run = Run.create(tmp_path / "run")
    _, outcome = drained(capture(run, config))
    assert outcome.facts["black_images"] == [3, 19, 35]  # one in each batch but the last, which has two images


def test_images_that_are_all_black_stop_it(config, tmp_path, monkeypatch):
    from diffusers import StableDiffusionPipeline

    monkeypatch.setattr(
        StableDiffusionPipeline, "run_safety_checker", lambda self, image, device, dtype: (image * 0 - 1, None)
    )
    run = Run.create(tmp_path / "run")
    with pytest.raises(RaigenError, match=r"came out black; .* Try --dtype float32"):
        drained(capture(run, config))
