"""Training while images are generated: nothing is stored, it resumes bit for bit, and a second pass gives the same."""

import json

import pytest
import torch

from raigen.auditing.audit import run_stage, walk
from raigen.config import AuditConfig, TrainConfig
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore, CapturedBatch
from raigen.runs.run import Run
from raigen.runs.steps import Tick
from raigen.sae import stream
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.stream import ImageStream, drawn
from raigen.sae.train import train
from tests.support.tiny import drained

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
N_IMAGES, N_STEPS, N_TOKENS, D_IN = 50, 3, 16, 16
TRAIN = {"tokens_per_batch": 256, "d_sae": 64, "k": 4}


@pytest.fixture(scope="module")
def config(sd_folder, clip_folder):
    return AuditConfig.of(
        "a photo of a doctor", model=str(sd_folder), embedder=str(clip_folder), n_images=N_IMAGES, batch_size=8, **TRAIN
    )


def streamed(config: AuditConfig, folder, stop_after: int | None = None) -> Run:
    """Walks until the autoencoder is trained, or stops after so many steps of the walk."""
    run = Run.create(folder)
    for n, step in enumerate(walk(run, config), 1):
        if step.stage == "discover" or n == stop_after:
            break
    return run


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Run:
    return streamed(config, tmp_path_factory.mktemp("stream") / "run")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return MatryoshkaSAE.load(run.sae_dir).state_dict()


def test_every_token_is_trained_on_once_and_only_the_last_step_is_kept(whole):
    store = ActivationStore(whole.activations_dir)
    assert (store.n_images, store.step_indices) == (N_IMAGES, (N_STEPS - 1,))
    assert whole.facts.capture.n_steps == N_STEPS
    facts = whole.facts_of("train")
    assert facts["tokens"] == N_IMAGES * N_STEPS * N_TOKENS and facts["training_seconds"] > 0
    assert facts["l0"] == pytest.approx(4, rel=0.1)
    lines = [json.loads(line) for line in whole.metrics_path.read_text().splitlines()]
    assert lines[-1]["step"] == facts["steps"] and not whole.checkpoint_path.exists()  # the training was recorded


@pytest.mark.parametrize("stop_after", [3, 5, 7])
def test_stopped_at_any_point_it_comes_to_the_same_weights(config, whole, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(stream, "CHECKPOINT_SECONDS", 0.0)
    run = streamed(config, tmp_path / "run", stop_after)
    assert run.checkpoint_path.exists() == (stop_after > 2)
    run = streamed(config, tmp_path / "run")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(run)[name]), name
    assert run.metrics_path.read_text() == whole.metrics_path.read_text()
    assert [s.sha256 for s in run.samples()] == [s.sha256 for s in whole.samples()]


@pytest.mark.parametrize("stage", ["capture", "train"])
def test_killed_before_its_record_a_training_makes_no_image_again(config, whole, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(stream, "CHECKPOINT_SECONDS", 0.0)
    finish, made = Run.finish, []

    def killed(self, name, *args):
        if name == stage:
            raise KeyboardInterrupt
        finish(self, name, *args)

    monkeypatch.setattr(Run, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        streamed(config, tmp_path / "run")
    monkeypatch.setattr(Run, "finish", finish)
    monkeypatch.setattr("raigen.diffusion.capture.generate", lambda *args: made.append(args))
    run = streamed(config, tmp_path / "run")
    assert made == [] and not run.checkpoint_path.exists()
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(whole).items())


def test_a_broken_checkpoint_costs_the_training_only(config, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "CHECKPOINT_SECONDS", 0.0)
    run = streamed(config, tmp_path / "run", 5)
    run.checkpoint_path.write_bytes(b"broken")
    run = streamed(config, tmp_path / "run")
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(whole).items())


def test_autoencoders_of_other_seeds_are_trained_beside_the_first(config, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "CHECKPOINT_SECONDS", 0.0)
    both = AuditConfig.of("a photo of a doctor", model=config.capture.model, n_images=N_IMAGES, batch_size=8,
                          embedder=config.discover.embedder, n_seeds=2, **TRAIN)  # fmt: skip
    streamed(both, tmp_path / "run", 5)
    run = streamed(both, tmp_path / "run")
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(whole).items())  # the first alone
    assert run.seed_dirs() == [run.sae_dir / "seed-1"] and run.facts.train.n_seeds == 2
    # As the first of that seed would be, but for the order of the tokens: trained, and another one.
    other = MatryoshkaSAE.load(run.seed_dirs()[0])
    assert other.threshold > 0 and not torch.equal(other.W_dec, MatryoshkaSAE.load(run.sae_dir).W_dec)
    undisturbed = streamed(both, tmp_path / "again")
    for name, value in MatryoshkaSAE.load(undisturbed.seed_dirs()[0]).state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    run.forget("train")
    assert run.seed_dirs() == []


def test_scaled_inputs_are_resumed_and_folded_into_weights_for_the_last_step(config, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "CHECKPOINT_SECONDS", 0.0)
    scaled = AuditConfig.of("a photo of a doctor", model=config.capture.model, n_images=N_IMAGES, batch_size=8,
                            embedder=config.discover.embedder, input_scaling=True, **TRAIN)  # fmt: skip
    undisturbed = streamed(scaled, tmp_path / "undisturbed")
    streamed(scaled, tmp_path / "run", 5)
    run = streamed(scaled, tmp_path / "run")
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(run)[name]), name
    assert not torch.equal(weights(run)["b_dec"], weights(whole)["b_dec"])
    store, sae = ActivationStore(run.activations_dir), MatryoshkaSAE.load(run.sae_dir)
    tokens = torch.cat([chunk.activations.flatten(0, 1) for chunk in store.step(N_STEPS - 1)])
    assert float((sae.encode(tokens) > 0).sum(1).float().mean()) == pytest.approx(4, rel=0.4)
    assert run.facts.train.l0 == pytest.approx(4, rel=0.15)


def test_training_alone_makes_the_images_again_and_comes_to_the_same_weights(config, whole, tmp_path):
    run = Run.create(tmp_path / "run")
    run_stage(run, "capture", config.capture)
    before = {path: path.stat().st_mtime_ns for path in (*run.images_dir.iterdir(), *run.activations_dir.iterdir())}
    run_stage(run, "train", config.train)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(whole).items())


def part_of(activations: torch.Tensor, first: int = 0) -> CapturedBatch:
    indices = list(range(first, first + len(activations)))
    steps = tuple(range(activations.shape[1]))
    return CapturedBatch(indices, activations, steps, Tick(indices[-1] + 1, 100))


def test_steps_and_positions_are_drawn_anew_for_every_image():
    """Tokens that say where they are from: (image, step, position)."""
    places = torch.cartesian_prod(torch.arange(40), torch.arange(6), torch.arange(9)).view(40, 6, 9, 3).float()
    config = TrainConfig(steps_per_image=2, tokens_per_step=3)
    batch = drawn(part_of(places), config)
    assert batch.tokens.shape == (40 * 2 * 3, 3)
    assert torch.equal(batch.tokens[:, 0].long(), batch.images)
    assert len(batch.tokens.unique(dim=0)) == len(batch.tokens)
    assert batch.tokens[:, 1].long().bincount(minlength=6).min() > 15  # of 240: every step, about evenly
    assert batch.tokens[:, 2].long().bincount(minlength=9).min() > 10
    again = drawn(part_of(places[10:20], first=10), config)
    assert torch.equal(again.tokens, batch.tokens[60:120])  # by the image, not by the batch


def test_epochs_replay_the_source_and_small_memory_is_enough(tmp_path):
    activations = torch.randn(60, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    asked = []

    def source(firsts):
        (first,) = firsts
        asked.append(first)
        yield CapturedBatch([], None, (), Tick(0, 60))
        for start in range(first, 60, 10):
            yield part_of(activations[start : start + 10], start)

    run = Run.create(tmp_path / "run")
    config = TrainConfig(d_sae=32, k=2, tokens_per_batch=64, epochs=3)
    _, outcome = drained(train(run, config, ImageStream(60, source)))
    assert asked == [0, 0, 0] and outcome.facts["tokens"] == 3 * 60 * 8


def test_a_token_beyond_float16_is_named(tmp_path):
    activations = torch.zeros(3, 2, 4, 8)
    activations[1, 1, 2, 3] = 1e6
    with pytest.raises(RaigenError, match="activations of image 11 at step 1: expected finite numbers"):
        drawn(part_of(activations, first=10), TrainConfig())
