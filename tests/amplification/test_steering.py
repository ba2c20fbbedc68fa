"""Steering: what is added, where, in which step and branch; and that nothing of it stays."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook

import raigen
from raigen.amplification.steering import contrast_of, pushed, unit_in
from raigen.config import SAEConfig
from raigen.diffusion.generation import Settings, generate, layout_of
from raigen.diffusion.hookpoints import candidates, find_hookpoint
from raigen.discovery.codes import typical_peak
from raigen.errors import RaigenError
from raigen.sae.model import MatryoshkaSAE
from tests.support.families import flux
from tests.support.tiny import stable_diffusion

PROMPT, SEEDS = "a photo of a doctor", [3, 4]
SETTINGS = Settings(num_inference_steps=3, guidance_scale=4.0, height=32, width=32)


def sae_of(d_in: int) -> MatryoshkaSAE:
    made = MatryoshkaSAE(SAEConfig(d_in, 24, (8, 16), 4))
    made.initialize(torch.randn(64, d_in, generator=torch.Generator().manual_seed(0)))
    made.threshold.fill_(0.5)
    return made.eval()


@pytest.fixture(scope="module")
def pipe():
    made = stable_diffusion()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def sae(pipe):
    point = find_hookpoint(pipe)
    return sae_of(layout_of(pipe, PROMPT, SETTINGS, point).d_in)


def made(pipe, **options):
    """Images and activations of all steps, inside the steering of `options` where there are any."""
    return generate(pipe, PROMPT, SEEDS, SETTINGS._replace(**options), find_hookpoint(pipe))


def pixels(generated) -> np.ndarray:
    return np.stack([np.asarray(image) for image in generated.images])


def hooks(pipe) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pipe.unet.modules())


def test_strength_times_scale_times_the_decoder_row_is_added_in_the_first_step(pipe, sae):
    plain = made(pipe)
    with raigen.steering(pipe, sae, {5: 2.0, 9: -1.0}, scales={5: 0.5}, settings=SETTINGS):
        steered = made(pipe)
    expected = plain.activations[:, 0] + 1.0 * sae.W_dec[5].detach() - 1.0 * sae.W_dec[9].detach()
    torch.testing.assert_close(steered.activations[:, 0], expected, atol=1e-5, rtol=1e-4)
    assert not np.array_equal(pixels(plain), pixels(steered))
    assert hooks(pipe) == 0


def test_a_contrast_is_added_position_by_position_and_its_form_is_checked(pipe, sae):
    plain = made(pipe)
    pattern = contrast_of(plain.activations[:, 0], [1])
    torch.testing.assert_close(pattern, (plain.activations[1, 0] - plain.activations[0, 0]) / 2)
    with raigen.steering(pipe, sae, {5: 2.0}, method="contrast", patterns={5: pattern}, settings=SETTINGS):
        moved = made(pipe)
    torch.testing.assert_close(moved.activations[:, 0], plain.activations[:, 0] + 2 * pattern, atol=1e-5, rtol=1e-4)
    with raigen.steering(pipe, sae, {5: 0.0}, method="contrast", patterns={5: pattern}, settings=SETTINGS):
        assert torch.equal(made(pipe).activations, plain.activations)
    for patterns, got in (({}, "none"), ({5: pattern[:3]}, r"\(3, ")):
        with (
            pytest.raises(RaigenError, match=f"patterns: expected one of .* for neuron 5; got {got}"),
            raigen.steering(pipe, sae, {5: 1.0}, method="contrast", patterns=patterns, settings=SETTINGS),
        ):
            pass


@pytest.mark.parametrize("method", ["steer", "set"])
def test_strength_zero_is_the_identity_bit_for_bit(pipe, sae, method):
    plain = made(pipe)
    with raigen.steering(pipe, sae, {5: 0.0}, method=method, settings=SETTINGS):
        steered = made(pipe)
    assert torch.equal(plain.activations, steered.activations) and np.array_equal(pixels(plain), pixels(steered))


def test_only_the_wanted_steps_are_touched(pipe, sae):
    plain = made(pipe)
    with raigen.steering(pipe, sae, {5: 3.0}, steps=range(1, 2), settings=SETTINGS):
        steered = made(pipe)
    assert torch.equal(plain.activations[:, 0], steered.activations[:, 0])
    moved = steered.activations[:, 1] - plain.activations[:, 1]
    torch.testing.assert_close(moved, (3 * sae.W_dec[5].detach()).expand_as(moved), atol=1e-5, rtol=1e-4)
    later = steered.activations[:, 2] - plain.activations[:, 2]  # the image has changed, but nothing was added
    assert 0 < later.abs().max() < 0.5 * moved.abs().max()


@pytest.mark.parametrize("every_branch", [False, True])
def test_only_the_branch_of_the_prompt_is_touched_unless_every_one_is(pipe, sae, every_branch):
    heard = []
    with raigen.steering(pipe, sae, {5: 3.0}, settings=SETTINGS, every_branch=every_branch):
        handle = pipe.unet.mid_block.register_forward_hook(lambda module, args, output: heard.append(output))
        made(pipe)
        handle.remove()
    handle = pipe.unet.mid_block.register_forward_hook(lambda module, args, output: heard.append(output))
    made(pipe)
    handle.remove()
    n_steps = len(heard) // 2
    moved = (heard[0] - heard[n_steps]).abs().amax((1, 2, 3)) > 1e-4
    assert moved.tolist() == [every_branch, every_branch, True, True]  # without the prompt, then with it


def test_without_guidance_the_only_branch_is_touched(pipe, sae):
    plain = made(pipe, guidance_scale=1.0)
    with raigen.steering(pipe, sae, {5: 3.0}, settings=SETTINGS._replace(guidance_scale=1.0)):
        steered = made(pipe, guidance_scale=1.0)
    moved = steered.activations[:, 0] - plain.activations[:, 0]
    torch.testing.assert_close(moved, (3 * sae.W_dec[5].detach()).expand_as(moved), atol=1e-5, rtol=1e-4)


def test_a_mask_says_where(pipe, sae):
    mask = torch.zeros(64, 64)
    mask[:32] = 1  # the upper half
    plain = made(pipe)
    with raigen.steering(pipe, sae, {5: 3.0}, mask=mask, settings=SETTINGS):
        steered = made(pipe)
    rows, columns = plain.grid
    moved = (steered.activations[:, 0] - plain.activations[:, 0]).norm(dim=-1).view(2, rows, columns)
    assert moved[:, : rows // 2].min() > 2.9 and moved[:, rows // 2 :].max() == 0


def test_set_moves_the_code_towards_its_scale_and_keeps_the_error(sae):
    tokens = 3 * torch.randn(2, 5, sae.config.d_in, generator=torch.Generator().manual_seed(1))
    codes = sae.encode(tokens.flatten(0, 1)).view(2, 5, -1)
    for strength in (0.5, 1.0):
        moved = pushed(tokens, sae, [7], [strength], [4.0], "set") - tokens
        expected = strength * (4.0 - codes[..., 7:8]) * sae.W_dec[7].detach()
        torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-4)


def test_a_users_own_call_is_steered_and_an_exception_leaves_no_hook(pipe, sae):
    def call():
        seeds = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        return pipe(PROMPT, num_inference_steps=2, num_images_per_prompt=2, generator=seeds, output_type="np").images

    plain = call()
    with raigen.steering(pipe, sae, {5: 4.0}):
        assert not np.array_equal(call(), plain)
    assert np.array_equal(call(), plain)
    with pytest.raises(KeyError), raigen.steering(pipe, sae, {5: 4.0}):
        raise KeyError
    assert hooks(pipe) == 0 and np.array_equal(call(), plain)


def test_a_transformer_is_steered_at_its_image_tokens_only():
    pipe = flux()
    pipe.set_progress_bar_config(disable=True)
    settings = Settings(num_inference_steps=2, guidance_scale=0.0, height=32, width=48)
    point = find_hookpoint(pipe)
    sae = sae_of(layout_of(pipe, PROMPT, settings, point).d_in)
    heard = []
    for strength in (0.0, 3.0):
        with raigen.steering(pipe, sae, {5: strength}, settings=settings):
            handle = point.module.register_forward_hook(lambda module, args, output: heard.append(output))
            generate(pipe, PROMPT, SEEDS, settings)
            handle.remove()
    text, image = ((heard[len(heard) // 2][part] - heard[0][part]).abs().amax() for part in (0, 1))
    assert text == 0 and image > 1


def loaded(dtype: torch.dtype = torch.float32):
    made = stable_diffusion().to(dtype)
    made.set_progress_bar_config(disable=True)
    return made


def wrapped():
    made = loaded()
    made.unet = torch.compile(made.unet, backend="eager")
    return made


def compiled_in_place():
    made = loaded()
    made.unet.mid_block.compile(backend="eager")  # as diffusers' `compile_repeated_blocks` does
    return made


def offloaded():
    """Weights come from a store, layer by layer: as `enable_sequential_cpu_offload` does, with a CPU to compute on."""
    made = loaded()
    for part in (made.unet, made.vae, made.text_encoder):
        cpu_offload(part, torch.device("cpu"))
    return made


def offloaded_by_part():
    """One part at a time where it computes: as `enable_model_cpu_offload` does, with a CPU to compute on."""
    made, before = loaded(), None
    for part in (made.text_encoder, made.unet, made.vae):
        _, before = cpu_offload_with_hook(part, torch.device("cpu"), prev_module_hook=before)
    return made


@pytest.fixture(scope="module")
def fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def expected(sae) -> dict[str, np.ndarray]:
    """The images of the plain pipeline: unsteered, and steered by either method."""
    pipe = loaded()
    return {"plain": pixels(generate(pipe, PROMPT, SEEDS, SETTINGS)), **steered_pixels(pipe, sae, 20.0)}


def steered_pixels(pipe, sae, strength: float, settings: Settings = SETTINGS) -> dict[str, np.ndarray]:
    """Images by method, without looking inside as a user would make them."""
    found = {}
    for method in ("steer", "set"):
        with raigen.steering(pipe, sae, {5: strength}, method=method, settings=settings):
            found[method] = pixels(generate(pipe, PROMPT, SEEDS, settings))
    return found


@pytest.mark.parametrize("make", [wrapped, compiled_in_place, offloaded, offloaded_by_part])
def test_a_pipeline_that_was_compiled_or_offloaded_is_steered_as_the_plain_one_is(
    make: Callable, sae, expected, fresh_compiler
):
    pipe = make()
    plain = pixels(generate(pipe, PROMPT, SEEDS, SETTINGS))  # first: what is compiled now knows of no hook
    steered = steered_pixels(pipe, sae, 20.0)
    for method, found in steered.items():
        assert np.array_equal(found, expected[method]) and not np.array_equal(found, plain)
    assert np.array_equal(plain, expected["plain"])
    assert all(np.array_equal(found, plain) for found in steered_pixels(pipe, sae, 0.0).values())
    assert np.array_equal(pixels(generate(pipe, PROMPT, SEEDS, SETTINGS)), plain) and hooks(pipe) == 0


def test_the_modules_of_a_compiled_denoiser_keep_their_paths():
    assert find_hookpoint(wrapped()).path == find_hookpoint(wrapped(), "unet.mid_block").path == "unet.mid_block"
    assert [point.path for point in candidates(wrapped())] == [point.path for point in candidates(loaded())]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("seeds", [[3], [3, 4, 5]])
def test_half_precision_is_steered_in_every_batch_and_with_and_without_guidance(sae, dtype, guidance, seeds):
    pipe, settings = loaded(dtype), SETTINGS._replace(guidance_scale=guidance)

    def states(strength: float, method: str = "steer") -> tuple[torch.Tensor, np.ndarray]:
        heard = []
        with raigen.steering(pipe, sae, {5: strength}, method=method, settings=settings):
            handle = pipe.unet.mid_block.register_forward_hook(lambda module, args, output: heard.append(output))
            found = pixels(generate(pipe, PROMPT, seeds, settings))
            handle.remove()
        return heard[0], found

    plain, images = states(0.0)
    assert np.array_equal(images, pixels(generate(pipe, PROMPT, seeds, settings)))
    assert np.array_equal(states(0.0, "set")[1], images)
    steered, others = states(20.0)
    moved = (steered - plain).float()[-len(seeds) :]  # the branch that is told the prompt
    wanted = (20 * sae.W_dec[5].detach())[:, None, None].expand_as(moved)
    torch.testing.assert_close(moved, wanted, atol=20 * torch.finfo(dtype).eps, rtol=0)
    assert steered.dtype == dtype and torch.equal(steered[: -len(seeds)], plain[: -len(seeds)])
    assert not np.array_equal(others, images)


@pytest.mark.parametrize(
    ("strengths", "width", "message"),
    [({24: 1.0}, None, "expected neurons from 0 to 23; got 24"), ({3: 1.0}, 7, "this autoencoder is for width 7")],
)
def test_bad_steering_is_refused(pipe, sae, strengths, width, message):
    with pytest.raises(RaigenError, match=message), raigen.steering(pipe, sae_of(width) if width else sae, strengths):
        pass


def test_the_scale_of_a_neuron_is_that_of_its_strongest_images():
    peaks = torch.arange(100.0)[:, None] * torch.tensor([1.0, 2.0])
    assert typical_peak(peaks.numpy()).tolist() == [94.5, 189.0]
    assert unit_in(peaks.numpy(), 1) == 189.0


@pytest.mark.parametrize(
    ("chosen", "called", "message"),
    [
        (1.0, 7.5, r"branches of guidance in step 0: this call has 2, with `settings` it has 1\. Give settings="),
        (4.0, 1.0, r"branches of guidance in step 0: this call has 1, with `settings` it has 2\. Give settings="),
    ],
)
def test_a_call_with_other_guidance_than_the_settings_is_an_error(pipe, sae, chosen, called, message):
    """Else nothing would be steered, or the branch without the prompt would be."""
    with (
        pytest.raises(RaigenError, match=message),
        raigen.steering(pipe, sae, {5: 20.0}, settings=SETTINGS._replace(guidance_scale=chosen)),
    ):
        pipe(PROMPT, num_inference_steps=3, guidance_scale=called, height=32, width=32)
    assert hooks(pipe) == 0
    with raigen.steering(pipe, sae, {5: 20.0}, settings=SETTINGS._replace(guidance_scale=chosen), every_branch=True):
        pipe(PROMPT, num_inference_steps=3, guidance_scale=called, height=32, width=32)


def test_guidance_that_ends_before_the_last_step_is_an_error(pipe, sae):
    from diffusers.callbacks import SDCFGCutoffCallback

    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
    with (
        pytest.raises(RaigenError, match=r"branches of guidance in step 2: this call has 1, with"),
        raigen.steering(pipe, sae, {5: 20.0}, steps=[2], settings=SETTINGS),
    ):
        pipe(PROMPT, num_inference_steps=3, guidance_scale=4.0, height=32, width=32, callback_on_step_end=cutoff,
             callback_on_step_end_tensor_inputs=["prompt_embeds"])  # fmt: skip
    assert hooks(pipe) == 0


def test_the_steps_of_every_call_are_counted_from_0(pipe, sae):
    options = {"settings": SETTINGS, "steps": [0]}
    with raigen.steering(pipe, sae, {5: 3.0}, **options):
        both = [pixels(made(pipe)) for _ in range(2)]
    assert np.array_equal(*both) and not np.array_equal(both[0], pixels(made(pipe)))
    assert "set_timesteps" not in vars(pipe.scheduler)
