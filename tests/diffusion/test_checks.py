"""Before the first image: a pipeline that does not do what the settings say is refused by name."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PixArtAlphaPipeline,
    StableDiffusionPAGPipeline,
)

from raigen.amplification.steering import steering
from raigen.config import CaptureConfig, SAEConfig, TrainConfig
from raigen.diffusion import checks
from raigen.diffusion.capture import capture_batches
from raigen.diffusion.checks import (
    Need,
    check_guidance,
    check_repeatable,
    shortages,
    training_need,
    unread_tokens,
    watched,
)
from raigen.diffusion.generation import Settings, defaults, generate, layout_of
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.hooks import TokenLayout
from raigen.diffusion.loading import load_pipeline
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.sae.model import MatryoshkaSAE
from tests.diffusion.test_families import rough
from tests.support.families import flux, lumina2, pixart, qwen_image, sana, z_image
from tests.support.tiny import drained, stable_diffusion, stable_diffusion_3, tokenizer, unet

PROMPT = "a b"


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    rough(pipe)
    return pipe


def calls_in(pipe, settings, denoiser="transformer") -> int:
    """How often a call for one image calls the denoiser."""
    calls = []
    handle = pipe.components[denoiser].register_forward_pre_hook(lambda *args: calls.append(1))
    generate(pipe, PROMPT, [3], settings)
    handle.remove()
    return len(calls)


def test_true_guidance_is_what_the_settings_say():
    pipe = quiet(qwen_image())
    config = CaptureConfig(PROMPT, num_inference_steps=2, height=64, width=64)
    settings = defaults(pipe, None, config)
    assert (settings.true_cfg_scale, settings.negative_prompt) == (4.0, " ")
    assert calls_in(pipe, settings) == 2 * 2
    plain = defaults(pipe, None, CaptureConfig(PROMPT, num_inference_steps=2, height=64, width=64, true_cfg_scale=1.0))
    assert plain.negative_prompt is None and calls_in(pipe, plain) == 2
    pipe = quiet(flux())
    for options, n_calls in (({"true_cfg_scale": 4.0}, 4), ({}, 2)):
        given = CaptureConfig(PROMPT, num_inference_steps=2, height=32, width=32, **options)
        assert calls_in(pipe, defaults(pipe, None, given)) == n_calls


def test_guidance_without_effect_is_refused(tmp_path):
    pipe = quiet(flux())
    config = CaptureConfig(PROMPT, num_inference_steps=2, height=32, width=32, negative_prompt="blurry")
    with pytest.raises(RaigenError, match=r"negative_prompt: FluxPipeline .* give a true_cfg_scale above 1"):
        next(capture_batches(Run.create(tmp_path / "flux"), config, pipe=pipe))
    pipe = quiet(stable_diffusion())
    config = CaptureConfig(PROMPT, num_inference_steps=2, guidance_scale=1.0, negative_prompt="blurry")
    with pytest.raises(RaigenError, match=r"negative_prompt: StableDiffusionPipeline .* a guidance_scale above 1"):
        next(capture_batches(Run.create(tmp_path / "sd"), config, pipe=pipe))
    layout = TokenLayout(0, 0, 0, (1, 1), 1)
    with pytest.raises(RaigenError, match=r"true_cfg_scale: .* 4 has no effect; give a negative_prompt"):
        check_guidance(pipe, Settings(1, 1.0, 8, 8, true_cfg_scale=4.0), layout)
    check_guidance(pipe, Settings(1, 1.0, 8, 8, "blurry"), layout._replace(n_branches=2))
    check_guidance(pipe, Settings(1, 1.0, 8, 8, ""), layout)


def test_a_scheduler_that_draws_outside_the_generator_is_refused_by_name(tmp_path):
    pipe = quiet(stable_diffusion_3())
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    run = Run.create(tmp_path / "run")
    config = CaptureConfig(PROMPT, num_inference_steps=4, guidance_scale=1.0, height=16, width=16)
    with pytest.raises(RaigenError, match=r"scheduler: FlowMatchEulerDiscreteScheduler of StableDiffusion3Pipeline "
                                          r"draws noise that does not come from an image's seed"):  # fmt: skip
        drained(capture_batches(run, config, pipe=pipe))
    assert not run.images_dir.exists()


@pytest.mark.parametrize("scheduler", [DDPMScheduler, EulerAncestralDiscreteScheduler, LCMScheduler])
def test_a_scheduler_that_draws_from_the_generator_is_taken(scheduler):
    pipe = quiet(stable_diffusion())
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    settings = Settings(3, 2.0, 16, 16)
    with watched() as draws:
        generate(pipe, PROMPT, [3], settings)
    assert not draws.any
    check_repeatable(pipe, PROMPT, 3, settings)


def test_harmless_draws_are_no_reason_to_refuse():
    pipe = quiet(stable_diffusion())

    def draw(module, args):
        torch.rand(3)

    handle = pipe.unet.register_forward_pre_hook(draw)
    settings, state = Settings(3, 2.0, 16, 16), torch.get_rng_state()
    with watched() as draws:
        check_repeatable(pipe, PROMPT, 3, settings)
    assert not draws.any and torch.equal(state, torch.get_rng_state())  # a check leaves no trace
    with watched() as draws:
        generate(pipe, PROMPT, [3], settings)
    handle.remove()
    assert draws.any


def test_a_denoiser_that_also_sees_other_images_is_refused():
    pipe = quiet(stable_diffusion())
    settings = Settings(3, 2.0, 16, 16)
    layout_of(pipe, PROMPT, settings, find_hookpoint(pipe))
    scheduler, step = pipe.scheduler, pipe.scheduler.step

    def stepped(output, timestep, sample, **options):
        pipe.unet(sample + 0.5, timestep, torch.zeros(1, 24, 16))
        return step(output, timestep, sample, **options)

    scheduler.step = stepped
    with pytest.raises(
        RaigenError, match=r"called its denoiser on 6 different noisy images in 3 steps, as self-attention"
    ):
        generate(pipe, PROMPT, [3], settings, find_hookpoint(pipe))


def test_what_computes_attention_is_put_back():
    plain = stable_diffusion()
    parts = {name: part for name, part in plain.components.items() if name != "image_encoder"}
    pipe = quiet(StableDiffusionPAGPipeline(**parts, requires_safety_checker=False, pag_applied_layers=["mid"]))
    before = dict(pipe.unet.attn_processors)
    generate(pipe, PROMPT, [3], Settings(3, 2.0, 16, 16), find_hookpoint(pipe))
    assert pipe.unet.attn_processors == before
    pipe(PROMPT, num_inference_steps=2, pag_scale=0.0, height=16, width=16)


@pytest.mark.parametrize(
    ("make", "multiple"),
    [(sana, 32), (lambda: pixart(PixArtAlphaPipeline), 16), (stable_diffusion_3, 8), (stable_diffusion, 8)],
)
def test_a_size_that_does_not_fit_is_refused(make, multiple):
    pipe = make()
    for size in (multiple, 3 * multiple):
        assert defaults(pipe, None, CaptureConfig(PROMPT, height=size, width=size)).height == size
    for size in (multiple // 2, 3 * multiple // 2):
        with pytest.raises(
            RaigenError, match=rf"height: {type(pipe).__name__} takes a multiple of {multiple} pixels; got"
        ):
            defaults(pipe, None, CaptureConfig(PROMPT, height=size, width=4 * multiple))


def test_images_of_another_size_are_refused():
    pipe = quiet(flux())
    with pytest.raises(RaigenError, match=r"height: FluxPipeline makes images of 32 x 32 pixels .* where 34 x 34 were"):
        generate(pipe, PROMPT, [3], Settings(1, 3.5, 34, 34))


def test_a_prompt_that_does_not_fit_is_said(sd_folder, tmp_path):
    pipe = load_pipeline(str(sd_folder), "cpu")  # 24 tokens: 22 letters
    assert [unread_tokens(pipe, "a" * n) for n in (21, 22, 23, 40)] == [0, 0, 1, 18]
    short, long = (generate(pipe, "a" * n, [3], Settings(2, 2.0, 16, 16)).images[0] for n in (30, 40))
    assert short.tobytes() == long.tobytes()
    config = CaptureConfig("a" * 40, str(sd_folder), device="cpu")
    first = next(capture_batches(Run.create(tmp_path / "run"), config))
    assert first.tick.note == ("16 x 16 pixels, 3 steps, guidance 2, float32 on cpu, 16 at once; the model does not "
                               "read the last 18 tokens of the prompt")  # fmt: skip
    several = quiet(flux())
    several.register_modules(tokenizer_2=tokenizer(77))
    assert unread_tokens(several, "a" * 40) == 0  # the second text encoder reads all of it


def test_a_disk_that_is_too_small_is_told_before_the_first_image(sd_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**6))
    for options, is_enough in (({}, True), ({"n_images": 2000}, False), ({"n_images": 1000, "store": True}, False)):
        config = CaptureConfig(PROMPT, str(sd_folder), device="cpu", **options)
        stage = capture_batches(Run.create(tmp_path / str(options)), config)
        if is_enough:
            next(stage)
            continue
        with pytest.raises(RaigenError, match=r"images and their activations need 0.0 GB or more, the disk has 0.0 GB"):
            next(stage)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (TrainConfig(d_sae=8), "k: expected 1 <= k < d_sae = 8; got 8"),
        (
            TrainConfig(d_sae=2 * 10**9),
            r"d_sae: to train 2,000,000,000 neurons for tokens of width 16 takes 1,056.0 GB",
        ),
    ],
)
def test_an_autoencoder_that_cannot_be_is_told_before_the_first_image(sd_folder, tmp_path, train, message):
    run, config = Run.create(tmp_path / "run"), CaptureConfig(PROMPT, str(sd_folder), device="cpu")
    run.begin("capture", config)
    run.begin("train", train)
    with pytest.raises(RaigenError, match=message):
        next(capture_batches(run, config))


def test_what_may_not_suffice_is_told_before_the_first_image(sd_folder, tmp_path, monkeypatch):
    """Photographs would not fit, though images that pack well would."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=700_000))
    monkeypatch.setattr(checks, "free_memory", lambda device: 10**6)
    run, config = Run.create(tmp_path / "run"), CaptureConfig(PROMPT, str(sd_folder), n_images=600, device="cpu")
    note = next(capture_batches(run, config)).tick.note
    few = "has 0.0 GB free, about 0.0 GB are needed"
    assert note.endswith(f"16 at once; the disk {few}; the memory of this machine {few}")


def test_what_a_training_takes_is_set_against_each_memory(tmp_path, monkeypatch):
    train = TrainConfig(d_sae=100, k=4, n_seeds=2, reservoir_mb=1)
    weights = 4 * (2 * 50 * 100 + 50 + 100) * 2
    need = training_need(train, False, 50, 10**6, disk=7)
    mixed = 2**20 // 108 * 108
    assert need == (7 + weights + 3 * weights + mixed, 4 * weights, mixed + 4 * 50 * 16_384)
    assert training_need(train, True, 50, 100, disk=7) == (7 + weights, 4 * weights, 100 * 108 + 4 * 50 * 100)
    free = {"cuda": 4 * weights, "cpu": 4 * weights}
    monkeypatch.setattr(checks, "free_memory", lambda device: free[device.type])
    folder = tmp_path / "not" / "there"
    assert shortages(folder, torch.device("cuda"), Need(0, 4 * weights, 0)) == []
    assert "memory of cuda has" in shortages(folder, torch.device("cuda"), Need(0, 4 * weights + 1, 0))[0]
    assert "memory of this machine has" in shortages(folder, torch.device("cuda"), Need(0, 0, 4 * weights + 1))[0]
    assert shortages(folder, torch.device("cpu"), Need(0, 2 * weights, 2 * weights)) == []
    assert len(shortages(folder, torch.device("cpu"), Need(10**18, 2 * weights, 2 * weights + 1))) == 2


def test_a_distilled_model_is_told_with_its_settings(sd_folder, tmp_path):
    folder = shutil.copytree(sd_folder, tmp_path / "my-sd-turbo", ignore=shutil.ignore_patterns("raigen.json"))
    for options, said in (({}, "4 steps, guidance 0, float32 on cpu, 16 at once; this looks like a distilled model by "
                               "its name, which takes few steps and little guidance"),
                          ({"num_inference_steps": 20, "guidance_scale": 2.0}, "20 steps, guidance 2, ")):  # fmt: skip
        config = CaptureConfig(PROMPT, str(folder), device="cpu", **options)
        first = next(capture_batches(Run.create(tmp_path / str(len(options))), config))
        assert said in first.tick.note and "distilled" in first.tick.note
    plain = CaptureConfig(PROMPT, str(sd_folder), device="cpu")
    assert "distilled" not in next(capture_batches(Run.create(tmp_path / "plain"), plain)).tick.note


def with_scheduler(pipe, kind, **options):
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **options)
    return pipe


def embedding_guidance():
    """A U-Net that reads the guidance as a number, as latent consistency models do."""
    pipe = stable_diffusion()
    pipe.register_modules(unet=unet(time_cond_proj_dim=8))
    return pipe


TRAILING = {"timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        (stable_diffusion, "me/my-sd", (50, 7.5, None)),
        (stable_diffusion, "stabilityai/sd-turbo", (4, 0.0, None)),
        (stable_diffusion, "ByteDance/SDXL-Lightning-8step", (8, 0.0, None)),
        (stable_diffusion, "ByteDance/Hyper-SD", (4, 0.0, None)),
        (stable_diffusion, "turbo/hyper-realism", (50, 7.5, None)),
        (z_image, "Tongyi-MAI/Z-Image-Turbo", (8, 0.0, None)),
        (z_image, "ostris/Z-Image-De-Turbo", (50, 5.0, None)),
        (flux, "black-forest-labs/FLUX.1-schnell", (4, 0.0, 1.0)),
        (lambda: flux(True), "me/flux-turbo", (4, 3.5, 1.0)),
        (qwen_image, "lightx2v/Qwen-Image-Lightning", (4, None, 1.0)),
        (embedding_guidance, "me/lcm", (4, 7.5, None)),
        (lambda: with_scheduler(stable_diffusion(), LCMScheduler), "me/x", (4, 0.0, None)),
        (lambda: with_scheduler(stable_diffusion(), DDPMScheduler, **TRAILING), "me/x", (4, 0.0, None)),
        (lambda: with_scheduler(stable_diffusion(), DDPMScheduler, rescale_betas_zero_snr=True, **TRAILING), "me/x",
         (50, 7.5, None)),
    ],
)  # fmt: skip
def test_a_distilled_model_has_its_own_defaults(make, model, expected):
    pipe = make()
    size = {"height": 64, "width": 64}
    found = defaults(pipe, model, CaptureConfig(PROMPT, model, **size))
    assert (found.num_inference_steps, found.guidance_scale, found.true_cfg_scale) == expected
    named = defaults(pipe, model, CaptureConfig(PROMPT, model, num_inference_steps=30, **size))
    assert named.num_inference_steps == 30 and named.guidance_scale == expected[1]


def test_the_settings_in_a_folder_and_those_of_a_call_count_more(sd_folder, tmp_path):
    folder = shutil.copytree(sd_folder, tmp_path / "my-lcm")  # its raigen.json says 3 steps, guidance 2
    pipe = load_pipeline(str(folder), "cpu")
    assert defaults(pipe, str(folder))[:2] == (3, 2.0)
    (folder / "raigen.json").unlink()
    assert defaults(pipe, str(folder))[:2] == (4, 0.0)
    assert defaults(pipe, None)[:2] == (50, 7.5)  # for a plain call of the pipeline
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    assert defaults(pipe, None)[:2] == (50, 7.5)


def test_a_tokenizer_without_words_is_refused(sd_folder, tmp_path):
    for missing in ("tokenizer.json", "vocab.json"):
        folder = shutil.copytree(sd_folder, tmp_path / missing)
        for path in (folder / "tokenizer").glob("*"):
            if path.name in ("tokenizer.json", "vocab.json", "merges.txt"):
                path.unlink()
    with pytest.raises(RaigenError, match=r"expected a whole diffusers pipeline; its tokenizer knows \d words"):
        load_pipeline(str(folder), "cpu")
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(RaigenError, match=r"expected a whole diffusers pipeline; "):
        load_pipeline(str(folder), "cpu")


def test_a_variant_that_is_there_is_named(sd_folder, tmp_path):
    folder = shutil.copytree(sd_folder, tmp_path / "fp16")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(RaigenError, match=r"It has \*\.fp16\.safetensors: add --variant fp16"):
        load_pipeline(str(folder), "cpu")


@pytest.mark.parametrize(
    ("make", "side", "options"),
    [(flux, 32, {}), (stable_diffusion_3, 32, {}), (qwen_image, 64, {"negative_prompt": " ", "true_cfg_scale": 4.0}),
     (lumina2, 64, {}), (z_image, 64, {})],
)  # fmt: skip
def test_a_compiled_transformer_is_heard_and_steered_as_it_is_uncompiled(make, side, options):
    pipe = quiet(make())
    settings = Settings(2, None if options else 2.0, side, side, **options)
    path = find_hookpoint(pipe).path
    plain = generate(pipe, PROMPT, [3], settings, find_hookpoint(pipe, path))
    sae = MatryoshkaSAE(SAEConfig(plain.activations.shape[-1], 8, (8,), 2))
    with torch.no_grad():
        sae.W_dec.normal_(generator=torch.Generator().manual_seed(0))

    def steered():
        with steering(pipe, sae, {3: 20.0}, settings=settings, prompt=PROMPT):
            return generate(pipe, PROMPT, [3], settings).images[0].tobytes()

    expected = steered()
    assert expected != plain.images[0].tobytes()
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    compiled = generate(pipe, PROMPT, [3], settings, find_hookpoint(pipe, path))
    assert torch.equal(plain.activations, compiled.activations)
    assert steered() == expected
