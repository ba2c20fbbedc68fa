"""Pipelines are found, read and run; what is captured is what the module put out for the prompt."""

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)

from raigen.config import CaptureConfig
from raigen.diffusion.generation import Settings, defaults, generate, generate_images
from raigen.diffusion.hookpoints import Hookpoint, candidates, find_hookpoint
from raigen.diffusion.loading import load_pipeline
from raigen.errors import RaigenError
from tests.support import tiny
from tests.support.tiny import GRID, PIXELS, WIDTH

PROMPT = "a photo of a doctor"
SETTINGS = Settings(3, 2.0, PIXELS, PIXELS)


@pytest.fixture(scope="module")
def pipe(sd_folder):
    return load_pipeline(str(sd_folder), "cpu")


@pytest.fixture(scope="module")
def pipe_xl(sdxl_folder):
    return load_pipeline(str(sdxl_folder), "cpu")


@pytest.fixture(scope="module")
def pipe_3():
    made = tiny.stable_diffusion_3()
    made.set_progress_bar_config(disable=True)
    return made


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(int)


def heard(pipe, module, seeds, settings) -> list:
    """What a hook of three lines hears, in a call of three lines."""
    outputs = []
    handle = module.register_forward_hook(lambda module, args, output: outputs.append(output))
    generator = [torch.Generator().manual_seed(seed) for seed in seeds]
    options = {name: value for name, value in settings._asdict().items() if value is not None}
    pipe([PROMPT] * len(seeds), generator=generator, **options)
    handle.remove()
    return outputs


@pytest.mark.parametrize("guidance", [1.0, 2.0, 7.5])
@pytest.mark.parametrize("name", ["pipe", "pipe_xl"])
def test_captured_is_what_a_plain_hook_hears_of_the_conditional_half(name, guidance, request):
    pipe, seeds = request.getfixturevalue(name), [3, 5]
    settings = SETTINGS._replace(guidance_scale=guidance)
    generated = generate(pipe, PROMPT, seeds, settings, find_hookpoint(pipe))
    outputs = heard(pipe, pipe.unet.mid_block, seeds, settings)
    assert len(outputs) == 3 and len(outputs[0]) == (4 if guidance > 1 else 2)
    expected = torch.stack([output[-2:].flatten(2).transpose(1, 2) for output in outputs], dim=1)
    torch.testing.assert_close(generated.activations, expected, rtol=1e-3, atol=1e-3)
    assert generated.activations.shape == (2, 3, GRID[0] * GRID[1], WIDTH)
    assert generated.activations.dtype == torch.float32
    assert (generated.grid, generated.step_indices) == (GRID, (0, 1, 2))


@pytest.mark.parametrize("name", ["pipe", "pipe_xl", "pipe_3"])
def test_the_half_kept_is_the_one_that_saw_the_prompt(name, request):
    """At the first step both see the same noise, so guidance changes nothing for the prompt's half."""
    pipe = request.getfixturevalue(name)
    hookpoint = find_hookpoint(pipe)
    guided, free, empty = (
        generate(pipe, prompt, [7, 8], SETTINGS._replace(guidance_scale=guidance), hookpoint, [0]).activations
        for prompt, guidance in ((PROMPT, 4.0), (PROMPT, 1.0), ("", 1.0))
    )
    torch.testing.assert_close(guided, free, rtol=1e-3, atol=1e-3)
    assert (guided - empty).abs().max() > 1e-2


def test_an_even_batch_without_guidance_is_kept_whole(pipe):
    four = generate(pipe, PROMPT, [1, 2, 3, 4], SETTINGS._replace(guidance_scale=1.0), find_hookpoint(pipe))
    assert four.activations.shape[0] == 4


def test_tokens_run_row_by_row(pipe):
    """An image twice as wide has twice as many columns, and token (row, column) is row * columns + column."""
    settings = SETTINGS._replace(width=2 * PIXELS)
    generated = generate(pipe, PROMPT, [3], settings, find_hookpoint(pipe), [2])
    output = heard(pipe, pipe.unet.mid_block, [3], settings)[2][1]
    assert generated.grid == (4, 8) and generated.images[0].size == (2 * PIXELS, PIXELS)
    torch.testing.assert_close(generated.activations[0, 0, 2 * 8 + 5], output[:, 2, 5], rtol=1e-4, atol=1e-4)


def test_a_joint_block_gives_its_image_tokens(pipe_3):
    hookpoint = find_hookpoint(pipe_3)
    assert hookpoint.path == "transformer.transformer_blocks.1"
    generated = generate(pipe_3, PROMPT, [3, 5, 6], SETTINGS, hookpoint)
    outputs = heard(pipe_3, hookpoint.module, [3, 5, 6], SETTINGS)
    expected = torch.stack([hidden[3:] for _, hidden in outputs], dim=1)
    torch.testing.assert_close(generated.activations, expected, rtol=1e-3, atol=1e-3)
    assert generated.grid == GRID


def test_a_down_block_gives_its_states(pipe):
    generated = generate(pipe, PROMPT, [3], SETTINGS, find_hookpoint(pipe, "unet.down_blocks.0"))
    assert generated.grid == (4, 4) and generated.activations.shape[-1] == 8


def test_steps_can_be_chosen(pipe):
    hookpoint = find_hookpoint(pipe)
    every = generate(pipe, PROMPT, [1], SETTINGS, hookpoint)
    last = generate(pipe, PROMPT, [1], SETTINGS, hookpoint, [2])
    assert last.step_indices == (2,) and torch.equal(last.activations[:, 0], every.activations[:, 2])
    with pytest.raises(RaigenError, match=r"step_indices: expected numbers from 0 to 2; got \[3\]"):
        generate(pipe, PROMPT, [1], SETTINGS, hookpoint, [3])


@pytest.mark.parametrize("name", ["pipe", "pipe_xl"])
def test_a_seed_makes_the_same_image_in_every_batch(name, request):
    pipe, seeds = request.getfixturevalue(name), list(range(20, 27))
    hookpoint = find_hookpoint(pipe)
    whole = generate(pipe, PROMPT, seeds, SETTINGS, hookpoint)
    assert pixels(whole.images).std(axis=0).mean() > 10  # seeds do make a difference
    for size in (1, 2, 3):
        parts = [image for batch in generate_images(pipe, PROMPT, seeds, SETTINGS, size) for image in batch]
        apart = abs(pixels(parts) - pixels(whole.images))
        assert apart.max() <= 1 and (apart > 0).mean() < 1e-3
    back = generate(pipe, PROMPT, seeds[::-1], SETTINGS, hookpoint)
    torch.testing.assert_close(back.activations.flip(0), whole.activations, rtol=1e-3, atol=1e-3)


def test_looking_inside_changes_no_image(pipe):
    plain, watched = (generate(pipe, PROMPT, [4], SETTINGS, hook) for hook in (None, find_hookpoint(pipe)))
    assert np.array_equal(pixels(plain.images), pixels(watched.images))
    assert plain.activations is None and plain.grid is None and plain.step_indices == ()


def test_the_hook_is_gone_after_success_and_after_an_error(pipe, monkeypatch):
    hookpoint = find_hookpoint(pipe)
    generate(pipe, PROMPT, [1], SETTINGS, hookpoint)
    assert not hookpoint.module._forward_hooks

    def broken(*args, **kwargs):
        assert hookpoint.module._forward_hooks
        raise RuntimeError("broken")

    monkeypatch.setattr(pipe.unet, "forward", broken)
    with pytest.raises(
        RaigenError, match=r"StableDiffusionPipeline failed with num_inference_steps 3, .*: broken\. Try"
    ):
        generate(pipe, PROMPT, [1], SETTINGS, hookpoint)
    assert not hookpoint.module._forward_hooks


def test_too_little_memory_is_said(pipe, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("2 GiB wanted")

    monkeypatch.setattr(pipe.unet, "forward", full)
    with pytest.raises(RaigenError, match=r"2 images at once do not fit .* cpu; give a smaller batch_size"):
        generate(pipe, PROMPT, [1, 2], SETTINGS)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("unet.down_blocks.0.resnets.0.nonlinearity", "ran more than once in step 0"),
        ("text_encoder", "CLIPTextModel is not called with noisy images; name a module of the denoiser"),
        ("vae.decoder", "did not run in step 0; name a module of the denoiser"),
        ("unet.time_embedding", r"puts out \[2, 32\], no grid of image tokens"),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", r"puts out \[2, 24, 16\], no grid"),
    ],
)
def test_a_module_that_cannot_be_captured_is_refused(pipe, path, message):
    hookpoint = find_hookpoint(pipe, path)
    with pytest.raises(RaigenError, match=message):
        generate(pipe, PROMPT, [1], SETTINGS, hookpoint)
    assert not hookpoint.module._forward_hooks


def test_rows_that_are_no_images_are_refused(pipe):
    module = pipe.unet.mid_block
    generate(pipe, PROMPT, [1, 2], SETTINGS, find_hookpoint(pipe))  # where its tokens lie is known from here on
    thrice = module.register_forward_hook(lambda module, args, output: torch.cat([output, output[:1]]))
    with pytest.raises(RaigenError, match="puts out 5 rows for 2 images"):
        generate(pipe, PROMPT, [1, 2], SETTINGS, Hookpoint("unet.mid_block", module))
    thrice.remove()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_names_seed_and_step(pipe, value):
    calls = []
    generate(pipe, PROMPT, [45, 46], SETTINGS, find_hookpoint(pipe))  # where its tokens lie is known from here on

    def spoil(module, args, output):
        calls.append(output)
        output = output.clone()
        if len(calls) == 2:
            output[2 + 1, 0, 0, 0] = value  # the prompt's half of the second image
        return output

    spoiler = pipe.unet.mid_block.register_forward_hook(spoil)
    with pytest.raises(RaigenError, match=r"unet\.mid_block put out a number that is not finite for seed 46 in step 1"):
        generate(pipe, PROMPT, [45, 46], SETTINGS, find_hookpoint(pipe))
    spoiler.remove()


def test_a_model_that_breaks_down_at_once_is_refused(pipe):
    spoiler = pipe.unet.mid_block.register_forward_hook(lambda module, args, output: output * float("nan"))
    with pytest.raises(RaigenError, match=r"unet\.mid_block put out a number that is not finite in step 0"):
        generate(pipe, "a photo of a nurse", [1], SETTINGS, find_hookpoint(pipe))
    spoiler.remove()


def test_no_seeds_are_refused(pipe):
    with pytest.raises(RaigenError, match="seeds: expected at least one"):
        generate(pipe, PROMPT, [], SETTINGS)


def test_hookpoints(pipe):
    assert find_hookpoint(pipe) == ("unet.mid_block", pipe.unet.mid_block)
    inner = find_hookpoint(pipe, "unet.mid_block.attentions.0")
    assert inner.module is pipe.unet.mid_block.attentions[0]
    with pytest.raises(RaigenError, match=r"no module 'unet.midblock'; near it: unet.mid_block,"):
        find_hookpoint(pipe, "unet.midblock")
    with pytest.raises(RaigenError, match=r"no module 'mid_block'; near it: .*unet.mid_block"):
        find_hookpoint(pipe, "mid_block")


def test_settings_come_from_the_call_then_the_folder_then_the_pipeline(pipe, pipe_xl, sd_folder, sdxl_folder):
    assert defaults(pipe, str(sd_folder)) == Settings(3, 2.0, PIXELS, PIXELS)
    assert defaults(pipe_xl, str(sdxl_folder)) == Settings(50, 5.0, PIXELS, PIXELS)
    config = CaptureConfig(PROMPT, guidance_scale=0.0, height=24)
    assert defaults(pipe, str(sd_folder), config) == Settings(3, 0.0, 24, PIXELS)
    with pytest.raises(RaigenError, match="height: StableDiffusionPipeline takes a multiple of 8 pixels; got 20"):
        defaults(pipe, str(sd_folder), CaptureConfig(PROMPT, height=20))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "raigen.json: expected whole JSON"),
        ('{"guidance_scale": "high"}', "expected a number from 0 to 100000 for guidance_scale; got 'high'"),
        ('{"num_inference_steps": 2.5}', "expected a whole number from 1 to 100000 for num_inference_steps; got 2.5"),
    ],
)
def test_a_broken_raigen_json_is_refused(pipe, tmp_path, text, message):
    (tmp_path / "raigen.json").write_text(text)
    with pytest.raises(RaigenError, match=message):
        defaults(pipe, str(tmp_path))


def test_a_loaded_pipeline_is_ready(pipe, capsys):
    assert not pipe.unet.training and pipe.unet.dtype == torch.float32
    assert pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    list(generate_images(pipe, PROMPT, [1], SETTINGS, 1))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("scheduler", [PNDMScheduler, HeunDiscreteScheduler, EulerDiscreteScheduler])
def test_each_evaluation_of_the_denoiser_is_a_step(sd_folder, scheduler):
    """Also where the scheduler evaluates it twice at the same time."""
    pipe = load_pipeline(str(sd_folder), "cpu")
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, skip_prk_steps=True)
    generated = generate(pipe, PROMPT, [3, 5], SETTINGS, find_hookpoint(pipe))
    outputs = heard(pipe, pipe.unet.mid_block, [3, 5], SETTINGS)
    assert generated.step_indices == tuple(range(len(pipe.scheduler.timesteps))) and len(outputs) >= 3
    expected = torch.stack([output[2:].flatten(2).transpose(1, 2) for output in outputs], dim=1)
    torch.testing.assert_close(generated.activations, expected, rtol=1e-3, atol=1e-3)


def test_candidates_have_the_default_among_them(pipe, pipe_3):
    assert [point.path for point in candidates(pipe)] == [
        "unet.mid_block", "unet.down_blocks.0", "unet.down_blocks.1", "unet.up_blocks.0", "unet.up_blocks.1",
    ]  # fmt: skip
    assert find_hookpoint(pipe_3) in candidates(pipe_3) and len(candidates(pipe_3)) == 3
