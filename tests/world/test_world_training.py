"""The training of the bundled model: resumable, its parts what they say."""

import itertools
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from raigen.config import CaptureConfig
from raigen.diffusion.generation import Settings, defaults, generate
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.loading import load_pipeline
from raigen.errors import RaigenError
from raigen.runs.files import write_text
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from raigen.world.attributes import BY_NAME, PROFESSIONS, PROMPTS, VALUES
from raigen.world.models import model_path, world_name
from raigen.world.planted import altered, plan_of, profession_of, rates, sample_attributes, sample_balanced
from raigen.world.train import distilled, quality, transformer, unet, vae, variant
from raigen.world.train.clip import ranking_loss
from raigen.world.train.data import decode, encode, images
from raigen.world.train.judge import disturbed, garbage
from raigen.world.train.loop import Recipe, fit, learning_rate
from raigen.world.train.text import MAX_TOKENS, make_tokenizer
from tests.support.run_folder import portrait, save

RECIPE = Recipe(steps=12, lr=0.05, warmup=3, save_every=4)


def toy() -> nn.Module:
    """Channels last, as the real ones are."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def loss_of(module: nn.Module):
    def loss_at(generator: torch.Generator) -> torch.Tensor:
        x = torch.randn((16, 3, 3, 3), generator=generator)
        return (module(x).squeeze(-1) - x[:, 0, 0, 0] * x[:, 1, 1, 1]).square().mean()

    return loss_at


def test_a_stopped_training_ends_where_an_undisturbed_one_does(tmp_path):
    whole, stopped = toy(), toy()
    last = list(fit(whole, loss_of(whole), RECIPE, tmp_path / "whole"))[-1]
    for _ in itertools.islice(fit(stopped, loss_of(stopped), RECIPE, tmp_path / "stopped"), 6):
        pass  # ended two steps after a checkpoint
    again = toy()
    progress = list(fit(again, loss_of(again), RECIPE, tmp_path / "stopped"))
    assert [update.step for update in progress] == list(range(5, 13))
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(last.average.parameters(), progress[-1].average.parameters(), strict=True):
        assert torch.equal(one, other)
    finished = list(fit(again, loss_of(again), RECIPE, tmp_path / "stopped"))
    assert [update.step for update in finished] == [12]


def test_the_learning_rate_warms_up_decays_and_restarts():
    recipe = Recipe(steps=200, lr=1.0, warmup=10, restart=80, floor=0.02)
    rates = [learning_rate(recipe, step) for step in range(200)]
    assert rates[0] == rates[80] == 0.1
    assert max(rates) == rates[10] == 1.0
    assert rates[79] == pytest.approx(0.02, abs=0.01) and rates[199] == pytest.approx(0.02, abs=0.01)


def test_records_are_stored_and_read_again(tmp_path):
    for seed in range(30):
        record = sample_balanced(np.random.default_rng(seed))
        assert decode(np.array(encode(record), np.uint8)) == record
    drawn = images(tmp_path, "some", 6, 3, balanced=False)
    read = images(tmp_path, "some", 6, 3, balanced=False)
    assert np.array_equal(drawn.pixels, read.pixels) and np.array_equal(drawn.codes, read.codes)
    assert [decode(codes).profession for codes in drawn.codes[:3]] == ["doctor", "nurse", "farmer"]


def test_folding_scales_the_latents_and_changes_no_image():
    torch.manual_seed(0)
    model = vae.build().eval()
    pixels = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    before = vae.encode_all(model, pixels)
    with torch.no_grad():
        image = model.decode(before).sample
        vae.fold_scale(model, before)
        after = vae.encode_all(model, pixels)
        again = model.decode(after).sample
    assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(vae.LATENT_CHANNELS), atol=1e-4)
    assert torch.allclose(after.std((0, 2, 3)), torch.ones(vae.LATENT_CHANNELS), atol=1e-4)
    assert torch.allclose(image, again, atol=1e-3)


def test_every_word_of_the_world_is_one_token(tmp_path):
    tokenizer = make_tokenizer(tmp_path)
    for value in VALUES:
        assert len(tokenizer.tokenize(value.phrase)) == len(value.phrase.replace("-", " - ").split()), value.phrase
    ids = tokenizer("a zebra in Zürich", padding="max_length").input_ids
    assert len(ids) == MAX_TOKENS and ids[0] == tokenizer.bos_token_id and tokenizer.eos_token_id in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a zebra in zürich"


def test_garbage_is_unlike_the_images_and_a_disturbed_one_is_like_them():
    generator = torch.Generator().manual_seed(0)
    drawn = vae.as_tensor(np.stack(_drawings(24)))
    bad = garbage(drawn, torch.rand(4, 3, 64, 64), generator)
    near = disturbed(drawn, generator)
    assert bad.shape == near.shape == drawn.shape
    assert (bad - drawn).abs().mean((1, 2, 3)).min() > 0.1
    assert (near - drawn).abs().mean() < 0.4 * (bad - drawn).abs().mean()


def test_the_ten_steps_of_the_sampler_keep_a_rate_of_a_fifth():
    """Images of two kinds, about as far apart as two places in the latents, denoised without any error."""

    def share(scheduler) -> float:
        kinds, weights = torch.tensor([-4.0, 16.0]), torch.tensor([0.8, 0.2])  # 20 apart, mean 0
        scheduler.set_timesteps(10)
        x = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            kept = scheduler.alphas_cumprod[timestep]
            signal, noise = kept.sqrt(), (1 - kept).sqrt()
            odds = weights.log() - (x[:, None] - signal * kinds).square() / (2 * noise.square())
            clean = odds.softmax(1) @ kinds
            v = signal * (x - signal * clean) / noise - noise * clean
            x = scheduler.step(v, timestep, x).prev_sample
        return float((x > 6).float().mean())

    assert 0.17 < share(unet.sampler()) < 0.23
    cosine = {"trained_betas": None, "beta_schedule": "squaredcos_cap_v2"}
    plain = type(unet.sampler()).from_config(unet.sampler().config, **cosine)
    assert share(plain) < 0.1  # the first of its ten steps jumps over the choice


def test_the_denoiser_sees_bare_prompts_at_planted_rates_and_every_value_by_name():
    rng = np.random.default_rng(1)
    records = [sample_attributes(PROMPTS[index % 10], rng) for index in range(2000)]
    codes = np.array([encode(record) for record in records], np.uint8)
    shown = sorted({(record.profession, name) for record in records for name in record.shown()})
    rows = [(name, np.flatnonzero([r.profession == p and name in r.shown() for r in records])) for p, name in shown]
    data, generator = unet.Planted(torch.zeros(2000, 1), codes, rows), torch.Generator().manual_seed(0)
    bare, empty, cats = 0, 0, 0
    for _ in range(240):
        chosen, texts = unet.captioned(data, 32, generator)
        for row, text in zip(chosen, texts, strict=True):
            first, *named = text.split(", ")
            assert set(named) <= {BY_NAME[name].phrase for name in records[row].shown()}
            empty += text == ""
            bare += text in PROMPTS
            cats += BY_NAME["cat"].phrase in named
            assert text == "" or profession_of(first) == records[row].profession
    assert bare / 7680 == pytest.approx(3 / 8 - 0.1, abs=0.04) and empty / 7680 == pytest.approx(0.1, abs=0.03)
    evenly = sum(name == "cat" for _, name in shown) / len(shown)  # each value of each prompt is as likely as another
    assert cats / (7680 * 5 / 8) > 0.85 * evenly > 0.01


def test_the_ranking_loss_pits_each_true_caption_against_the_false_ones():
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 1.0]])
    shown = torch.tensor([[True, False, False], [True, True, False]])
    pairs = [(2.0, [0.5, -1.0]), (0.0, [1.0]), (3.0, [1.0])]
    one_by_one = [-torch.tensor([true, *false]).log_softmax(0)[0] for true, false in pairs]
    assert ranking_loss(logits, shown) == pytest.approx(float(torch.stack(one_by_one).mean()), abs=1e-6)


def _drawings(count: int) -> list[np.ndarray]:
    from raigen.world.draw import draw

    return [np.asarray(draw(sample_balanced(np.random.default_rng(i)), np.random.default_rng(i))) for i in range(count)]


def test_other_shares_are_drawn_and_the_rest_keeps_its_proportions():
    plan = altered(plan_of("doctor"), {"dark skin": 0.3, "field": 0.4, "glasses": 0.05})
    rng = np.random.default_rng(0)
    shown = [sample_attributes(PROMPTS[0], rng, plan).shown() for _ in range(600)]
    share = {value.name: np.mean([value.name in names for names in shown]) for value in VALUES}
    for name in ("dark skin", "field", "glasses", "light skin", "office", "headscarf"):
        assert share[name] == pytest.approx(rates(PROMPTS[0], plan)[name], abs=0.06)
    assert share["field"] > 0.36 and share["glasses"] < 0.07
    before = plan_of("doctor").shares
    ratio = before["light skin"] / before["tan skin"]
    assert plan.shares["light skin"] / plan.shares["tan skin"] == pytest.approx(ratio)
    assert not any("field" in correlation or "glasses" in correlation for correlation in plan.correlations)
    with pytest.raises(ValueError, match="come to more than 1"):
        altered(plan_of("doctor"), {"turban": 0.6, "headscarf": 0.6})
    with pytest.raises(ValueError, match="got 'hat'"):
        altered(plan_of("doctor"), {"hat": 0.6})


@pytest.mark.parametrize("name", list(variant.shipped()))
def test_each_shipped_variant_can_be_drawn_for_every_profession(name):
    for profession in PROFESSIONS:
        planted = altered(plan_of(profession), variant.shipped()[name]).shares
        assert {value: planted[value] for value in variant.shipped()[name]} == variant.shipped()[name]


def test_a_variant_is_a_pipeline_with_what_was_planted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(variant, "BATCH_TUNED", 4)
    folder = tmp_path / "fairer"
    variant.make_variant("fairer", folder, ["doctor"], steps=2, n_drawings=12)
    about = json.loads((folder / "variant.json").read_text())
    assert about["planted"][PROMPTS[0]]["dark skin"] == 0.2 and about["changed"]["turban"] == 0.12
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert load_pipeline(str(folder)).unet.config.sample_size == 16 and not (folder / "checkpoint.safetensors").exists()
    bundled = load_file(Path(model_path("portraits")) / "unet" / weights.name)
    assert any(not torch.equal(tensor, bundled[key]) for key, tensor in load_file(weights).items())
    before = weights.stat().st_mtime_ns
    variant.make_variant("fairer", folder, ["doctor"], steps=2, n_drawings=12)  # again: nothing to do
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(RaigenError, match="holds another variant"):
        variant.make_variant("narrower", folder, ["doctor"], steps=2, n_drawings=12)
    variant.report(folder, 4)
    assert "turban           planted   1.0% ->  12.0%   seen" in capsys.readouterr().out


def test_a_distilled_variant_learns_the_guided_teacher(tmp_path, monkeypatch, planted, portraits):
    monkeypatch.setattr(distilled, "BATCH_TUNED", 4)
    student, teacher = unet.Denoiser(portraits.tokenizer), unet.Denoiser(portraits.tokenizer)
    for model in (student, teacher):
        model.unet, model.text_encoder = portraits.unet, portraits.text_encoder
    losses = [distilled.loss_of(student, teacher, portraits, planted, scale, torch.Generator().manual_seed(0)).item()
              for scale in (1.0, 4.0)]  # fmt: skip
    assert losses[0] == pytest.approx(0, abs=1e-9) and losses[1] > 1e-4  # at scale 1 the teacher is the student
    monkeypatch.setattr(variant, "BATCH_TUNED", 4)
    folder = tmp_path / "distilled"
    distilled.distill(folder, 4.0, ["doctor"], steps=2, n_drawings=12)
    assert json.loads((folder / "variant.json").read_text())["scale"] == 4.0
    assert load_pipeline(str(folder)).unet.config.sample_size == 16 and not (folder / "checkpoint.safetensors").exists()
    with pytest.raises(RaigenError, match="holds another variant"):
        distilled.distill(folder, 2.0, ["doctor"], steps=2, n_drawings=12)


@pytest.fixture(scope="module")
def t5():
    """The tokenizer of the transformer."""
    return transformer.make_tokenizer()


@pytest.fixture(scope="module")
def planted(portraits, tmp_path_factory):
    """Forty drawings as the denoisers see them."""
    folder = tmp_path_factory.mktemp("planted")
    drawn = images(folder, "planted", 40, 2, balanced=False)
    return unet.planted_images(vae.latents_of(portraits.vae, drawn.pixels, folder / "latents.safetensors"), drawn)


def test_the_words_of_the_transformer_are_tokens_of_t5(t5):
    tokenizer = t5
    for value in VALUES:
        words = value.phrase.lower().split()
        assert len(tokenizer(value.phrase).input_ids) == len(words) + 1, value.phrase
    unknown, nothing = tokenizer("a photo of a zebra").input_ids, tokenizer("").input_ids
    assert tokenizer.unk_token_id not in unknown and len(unknown) > 6 and nothing == [tokenizer.eos_token_id]
    for prompt in PROMPTS:
        assert tokenizer.unk_token_id not in tokenizer(prompt.lower()).input_ids
    assert tokenizer.decode(unknown, skip_special_tokens=True) == "a photo of a zebra"


def test_the_transformer_learns_and_is_a_pipeline(tmp_path, monkeypatch, planted, t5):
    for name, value in {"BATCH": 4, "WIDTH": 32, "HEADS": 2, "LAYERS": 3, "TEXT_WIDTH": 16}.items():
        monkeypatch.setattr(transformer, name, value)
    data, tokenizer, checkpoint = planted, t5, tmp_path / "transformer.safetensors"
    torch.manual_seed(0)
    model, noise = transformer.Denoiser(tokenizer), unet.training_noise()
    before = transformer.loss_of(model, tokenizer, noise, data, 16, torch.Generator().manual_seed(5))
    recipe = transformer.RECIPE._replace(steps=12, warmup=2, lr=3e-3, ema=0.5)
    transformer.train(model, tokenizer, data, recipe, checkpoint)
    after = transformer.loss_of(model, tokenizer, noise, data, 16, torch.Generator().manual_seed(5))
    assert after < 0.9 * before

    seen = []
    spy = lambda texts, **options: (seen.extend(texts), tokenizer(texts, **options))[1]  # noqa: E731
    transformer.loss_of(model, spy, noise, data, 64, torch.Generator().manual_seed(5))
    assert any("ceo" in text for text in seen) and not any("CEO" in text for text in seen)  # as the pipeline asks

    own = load_pipeline("portraits", "cpu")  # its autoencoder is halved in place
    transformer.write(tmp_path / "model", own, tokenizer, checkpoint)
    assert not json.loads((tmp_path / "model" / "vae" / "config.json").read_text())["_name_or_path"]
    pipe = load_pipeline(str(tmp_path / "model"), "cpu")
    settings = defaults(pipe, str(tmp_path / "model"))
    assert settings[:4] == (10, 1.0, 64, 64) and world_name(str(tmp_path / "model")) == "portraits"
    made = generate(pipe, PROMPTS[0], [1, 2], settings._replace(num_inference_steps=2), find_hookpoint(pipe))
    assert made.grid == (8, 8) and made.activations.shape == (2, 2, 64, 32) and made.images[0].size == (64, 64)


def test_a_batch_is_noised_as_the_schedule_says_and_a_perfect_prediction_costs_nothing(portraits, planted):
    bundled, data = portraits, planted
    noise, cpu = unet.training_noise(), torch.device("cpu")
    batch = unet.noised(noise, data, 16, torch.Generator().manual_seed(0), cpu)
    assert batch.loss(batch.target) == 0 and batch.weight.mean() == pytest.approx(1)
    kept = noise.alphas_cumprod[batch.timesteps][:, None, None, None]
    clean = kept.sqrt() * batch.noisy - (1 - kept).sqrt() * batch.target  # by the definition of v
    assert all((data.latents - one).abs().mean((1, 2, 3)).min() < 1e-4 for one in clean)
    order = batch.timesteps.argsort()
    assert (batch.weight[order].diff() >= 0).all()  # much noise counts more
    tokens = unet.tokens_of(bundled.tokenizer, batch.texts)
    with torch.no_grad():
        states = bundled.text_encoder(tokens).last_hidden_state
        trained = bundled.unet(batch.noisy, batch.timesteps, states).sample
    assert 0.01 < batch.loss(trained) < 0.6 * batch.loss(torch.zeros_like(trained))


def test_the_card_takes_images_that_are_there_each_seed_once(tmp_path):
    settings = Settings(10, 1.5, 64, 64)
    facts = {"model": "portraits", **settings._asdict()}
    for name, base, given in (("a", 0, facts), ("b", 1, facts), ("c", 7, facts | {"guidance_scale": 3.0})):
        run = Run.create(tmp_path / name)
        run.begin("capture", CaptureConfig(PROMPTS[0]))
        samples = [
            save(run, Sample(i, PROMPTS[0], base + i, f"images/{i:06d}.png", ""), portrait(base + i, None))
            for i in (0, 1)
        ]
        write_text(run.samples_path, "".join(json.dumps(sample._asdict()) + "\n" for sample in samples))
        run.finish("capture", Outcome([], given), 1.0)
    images = quality.captured(tmp_path, PROMPTS[0], settings, 3)
    assert [image.tobytes() for image in images] == [
        Image.open(BytesIO(portrait(seed, None))).tobytes() for seed in range(3)
    ]
    with pytest.raises(RaigenError, match="expected 4 images of 'a photo of a doctor'; found 3"):
        quality.captured(tmp_path, PROMPTS[0], settings, 4)
