"""Training recovers planted dictionaries, tracks dead neurons, and writes its files."""

import json

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from raigen.config import CaptureConfig, TrainConfig
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore, TokenBatch
from raigen.runs.run import Run
from raigen.sae.dead import DeadNeuronTracker
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.seeds import inference_quality
from raigen.sae.train import Training, fit, train
from tests.support.tiny import drained

FREQUENT, RARE = 16, 8


def planted(n: int, d_in: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A dictionary [feature, d_in] and tokens made of it: 16 features in 10 % of them, 8 in 1 %, noise, a mean."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.nn.functional.normalize(torch.randn(FREQUENT + RARE, d_in, generator=generator), dim=1)
    rates = torch.tensor([0.1] * FREQUENT + [0.01] * RARE)
    shape = (n, FREQUENT + RARE)
    codes = (torch.rand(shape, generator=generator) < rates) * (0.7 + 0.6 * torch.rand(shape, generator=generator))
    return dictionary, codes @ dictionary + 0.02 * torch.randn(n, d_in, generator=generator) + 0.3


def run_fit(tokens: Tensor, config: TrainConfig, size: int = 512, search_dtype: torch.dtype | None = None):
    sae = MatryoshkaSAE(config.sae_config(tokens.shape[1]))
    sae.search_dtype = search_dtype
    return sae, list(fit(sae, tokens.split(size), config))


@pytest.mark.parametrize("search_dtype", [None, torch.bfloat16])
def test_a_planted_dictionary_is_recovered(search_dtype):
    dictionary, tokens = planted(60_000)
    config = TrainConfig(d_sae=96, group_sizes=(32, 64), k=2, lr=1e-3)
    sae, steps = run_fit(tokens, config, search_dtype=search_dtype)
    assert [step.step for step in steps] == list(range(1, 119)) and steps[-1].tokens == 60_000
    cosines = (dictionary @ sae.W_dec.detach().T).max(dim=1).values
    assert cosines[:FREQUENT].mean() > 0.95 and cosines[FREQUENT:].mean() > 0.9
    coarse = (dictionary @ sae.W_dec.detach()[:32].T).max(dim=1).values
    assert coarse.mean() > 0.9  # the coarse group has room for all of them
    assert steps[-1].fvu[0] > 0.98 and steps[-1].fvu[2] < 0.1  # the bias explains nothing, all neurons nearly all
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(96))
    # Inference, token by token, is as sparse and as good as training was.
    sae.calibrate(tokens[-8192:])
    quality = inference_quality(sae, planted(68_192)[1][60_000:])  # the same dictionary, tokens never seen
    assert quality["l0"] == pytest.approx(2, rel=0.02) and quality["fvu"] < 0.1
    assert quality["fvu"] == quality["fvu_per_prefix"][2] < quality["fvu_per_prefix"][0]


def test_training_repeats_and_follows_its_seed():
    _, tokens = planted(5_000)
    config = TrainConfig(d_sae=64, k=2)
    (first, steps), (again, _) = run_fit(tokens, config), run_fit(tokens, config)
    other, _ = run_fit(tokens, TrainConfig(d_sae=64, k=2, sae_seed=1))
    assert torch.equal(first.W_dec, again.W_dec) and not torch.equal(first.W_dec, other.W_dec)
    assert steps[-1].loss < steps[0].loss


def test_rescaled_tokens_train_the_same_autoencoder():
    _, tokens = planted(10_000)
    config = TrainConfig(d_sae=64, k=2, dead_after_tokens=1000)
    plain, steps = run_fit(tokens, config)
    scaled, scaled_steps = run_fit(tokens * 1024, config)  # a power of two: every operation is exact
    assert torch.equal(plain.W_dec, scaled.W_dec) and torch.equal(plain.W_enc, scaled.W_enc)
    assert torch.equal(plain.b_enc * 1024, scaled.b_enc) and torch.equal(plain.b_dec * 1024, scaled.b_dec)
    assert scaled.threshold == plain.threshold * 1024 and steps[-1].fvu == scaled_steps[-1].fvu


def test_training_goes_on_with_weights_that_are_there():
    _, tokens = planted(4_000)
    config = TrainConfig(d_sae=64, k=2)
    sae, steps = run_fit(tokens, config)
    more = list(fit(sae, tokens.split(512), config))
    assert more[0].loss < steps[-1].loss * 1.05 < steps[0].loss


def test_any_iterable_of_batches_will_do():
    _, tokens = planted(1_000)
    config = TrainConfig(d_sae=64, k=2)
    images = torch.zeros(250, dtype=torch.int64)
    plain, _ = run_fit(tokens, config, size=250)
    sae = MatryoshkaSAE(config.sae_config(32))
    steps = fit(sae, (TokenBatch(part.half().double(), images) for part in tokens.half().split(250)), config)
    assert next(steps).step == 1 and next(steps).step == 2  # one batch at a time
    assert sum(1 for _ in steps) == 2
    torch.testing.assert_close(sae.W_dec, plain.W_dec, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([torch.randn(8, 4), torch.randn(8, 5)], "step 2: expected tokens of width 4.*; got 5"),
        ([torch.randn(8, 4), torch.full((8, 4), float("nan"))], "step 2: expected finite tokens; token 0"),
        ([torch.ones(8, 4)], "step 1: expected tokens that differ; all 8 are equal"),
    ],
)
def test_bad_tokens_are_named_with_their_step(batches, message):
    config = TrainConfig(d_sae=16, k=2)
    with pytest.raises(RaigenError, match=message):
        list(fit(MatryoshkaSAE(config.sae_config(4)), batches, config))


def neurons(*fired: int) -> Tensor:
    return torch.tensor([1 if neuron in fired else 0 for neuron in range(3)], dtype=torch.bool)


def test_a_stopped_training_goes_on_to_the_same_weights():
    """The state goes through a file between two steps: weights, Adam, threshold and dead neurons."""
    _, tokens = planted(6_000)
    config = TrainConfig(d_sae=64, k=2, dead_after_tokens=400, dead_after_images=2)
    batches = [TokenBatch(part, torch.arange(len(part)) // 100 + 5 * i) for i, part in enumerate(tokens.split(500))]
    whole = MatryoshkaSAE(config.sae_config(32))
    undisturbed = list(fit(whole, batches, config))
    assert max(step.n_dead for step in undisturbed) > 0
    first = MatryoshkaSAE(config.sae_config(32))
    training = Training(first, config)
    begun = list(fit(first, batches[:5], config, training))
    kept = load(save(training.state()))
    second = MatryoshkaSAE(config.sae_config(32))
    again = Training(second, config)
    again.restore(kept)
    assert begun + list(fit(second, batches[5:], config, again)) == undisturbed
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_dead_clock_waits_for_tokens_and_for_images():
    clock = DeadNeuronTracker(3, after_tokens=100, after_images=3)
    clock.update(neurons(0, 1), 90, torch.tensor([0, 1, 2, 3]))
    assert clock.dead.tolist() == [False] * 3  # images have passed for neuron 2, tokens have not
    clock.update(neurons(0), 10, torch.tensor([0, 1]))
    assert clock.dead.tolist() == [False, False, True]
    clock.update(neurons(0), 500, torch.tensor([1, 0]))
    assert clock.dead.tolist() == [False, False, True]  # neuron 1: tokens have passed, but 2 distinct images only
    clock.update(neurons(0), 1, torch.tensor([7]))
    assert clock.dead.tolist() == [False, True, True]
    clock.update(neurons(1), 1, torch.tensor([7]))
    assert clock.dead.tolist() == [False, False, True]  # alive again
    clock.update(neurons(), 98, torch.tensor([0, 1, 2, 3]))
    assert clock.dead.tolist() == [False, False, True]
    clock.update(neurons(), 1, torch.tensor([0]))
    assert clock.dead.tolist() == [True, False, True]  # 100 tokens since neuron 0 fired, 99 since neuron 1 did
    clock.update(neurons(), 1, torch.tensor([0]))
    assert clock.dead.tolist() == [True, True, True]


def test_without_image_indices_only_tokens_count():
    clock = DeadNeuronTracker(3, after_tokens=100, after_images=10**9)
    clock.update(neurons(0), 99)
    assert clock.dead.tolist() == [False] * 3
    clock.update(neurons(0), 1)
    assert clock.dead.tolist() == [False, True, True]


def test_a_dead_neuron_is_brought_back():
    """The auxiliary loss teaches a silent neuron the feature that is left in the residual."""
    _, tokens = planted(40_000)

    def n_dead(after_tokens):
        config = TrainConfig(d_sae=48, group_sizes=(16, 32), k=2, lr=1e-3, dead_after_tokens=after_tokens)
        sae = MatryoshkaSAE(config.sae_config(32))
        sae.initialize(tokens, torch.Generator().manual_seed(0))
        with torch.no_grad():
            sae.W_enc[:, :16] *= 0.02  # the coarse group is too weak to be among the largest
        last = list(fit(sae, tokens.split(512), config))[-1]
        return last.n_dead, int((sae.encode(tokens)[:, :16] > 0).any(dim=0).logical_not().sum())

    assert n_dead(10**9) == (0, 16)  # they never count as dead
    assert n_dead(2_000)[1] <= 4


@pytest.fixture
def run(tmp_path):
    made = Run.create(tmp_path / "run")
    _, tokens = planted(60 * 2 * 16)
    activations = tokens.view(60, 2, 16, 32)
    for first in (0, 40):
        ActivationStore.write(made.activations_dir, first, activations[first : first + 40], (4, 4), (3, 9))
    return made


def test_the_stage_trains_and_leaves_its_files(run):
    config = TrainConfig(d_sae=64, k=2, tokens_per_batch=128, epochs=2, lr=1e-3)
    ticks, outcome = drained(train(run, config))
    assert [(tick.done, tick.total) for tick in ticks] == [(step, 30) for step in range(1, 31)]
    assert ticks[-1].note.startswith("fvu 0.")
    assert outcome.outputs == [run.sae_dir / "config.json", run.sae_dir / "model.safetensors", run.metrics_path]
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30] and len(lines[0]["fvu"]) == 3
    facts = json.loads(json.dumps(outcome.facts))
    assert {name: facts[name] for name in ("d_in", "d_sae", "group_sizes", "k", "steps", "tokens")} == {
        "d_in": 32, "d_sae": 64, "group_sizes": [16, 48], "k": 2, "steps": 30, "tokens": 3840,
    }  # fmt: skip
    assert facts["dead_share"] == facts["n_dead"] / 64 and 0 < facts["fvu"] < 1
    assert facts["l0"] == pytest.approx(2, rel=0.1)  # on tokens other than those that set the threshold
    assert MatryoshkaSAE.load(run.sae_dir).config == config.sae_config(32)


def test_the_stage_repeats_bit_for_bit(run):
    config = TrainConfig(d_sae=64, k=2, tokens_per_batch=128)
    weights = []
    for _ in range(2):
        drained(train(run, config))
        weights.append(MatryoshkaSAE.load(run.sae_dir).W_dec)
    drained(train(run, TrainConfig(d_sae=64, k=2, tokens_per_batch=128, sae_seed=1)))
    assert torch.equal(*weights) and not torch.equal(weights[0], MatryoshkaSAE.load(run.sae_dir).W_dec)


def test_scaled_inputs_make_the_scale_of_a_step_matter_no_more(run, tmp_path):
    again, store = Run.create(tmp_path / "again"), ActivationStore(run.activations_dir)
    both = torch.stack([torch.cat([chunk.activations for chunk in store.step(step)]) for step in (3, 9)], 1)
    ActivationStore.write(again.activations_dir, 0, both[:40] * torch.tensor([4, 0.5])[:, None, None], (4, 4), (3, 9))
    ActivationStore.write(again.activations_dir, 40, both[40:] * torch.tensor([4, 0.5])[:, None, None], (4, 4), (3, 9))
    plain, scaled = (TrainConfig(d_sae=64, k=2, tokens_per_batch=128, input_scaling=yes) for yes in (False, True))
    weights = {}
    for config in (plain, scaled):
        for each in (run, again):
            drained(train(each, config))
            weights[config, each] = MatryoshkaSAE.load(each.sae_dir)
    assert torch.allclose(weights[scaled, run].W_dec, weights[scaled, again].W_dec, atol=1e-4)
    assert torch.allclose(weights[scaled, run].b_dec, weights[scaled, again].b_dec * 2, atol=1e-4)
    assert not torch.allclose(weights[plain, run].W_dec, weights[plain, again].W_dec, atol=1e-2)


def test_with_few_images_having_seen_them_all_is_enough_to_call_a_neuron_dead(run):
    config = TrainConfig(d_sae=512, k=1, tokens_per_batch=128, epochs=4, dead_after_tokens=500)
    assert config.dead_after_images > 60
    _, outcome = drained(train(run, config))
    assert outcome.facts["n_dead"] > 0


@pytest.mark.parametrize(("chosen", "expected"), [("cuda:1", "cuda:1"), ("auto", "cuda"), ("cpu", "cpu")])
def test_the_autoencoder_is_trained_on_the_device_of_the_capture(run, monkeypatch, chosen, expected):
    run.begin("capture", CaptureConfig("a photo of a doctor", device=chosen))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = []
    monkeypatch.setattr("raigen.sae.seeds.placed", lambda sae, device: devices.append(device) or sae)
    drained(train(run, TrainConfig(d_sae=64, k=2)))
    assert devices == [torch.device(expected)]


def test_the_stage_needs_activations(tmp_path):
    with pytest.raises(RaigenError, match=r"expected activations; found none. Run: raigen capture"):
        next(train(Run.create(tmp_path / "run"), TrainConfig()))
