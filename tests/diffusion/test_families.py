"""Every family of pipelines is captured alike: the prompt's branch, the image's tokens, each at its place."""

import inspect

import numpy as np
import pytest
import torch

from raigen.amplification.steering import steering
from raigen.config import SAEConfig
from raigen.diffusion.generation import Settings, generate, layout_of
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.hooks import noisy_input_of, with_noisy_input
from raigen.errors import RaigenError
from raigen.sae.model import MatryoshkaSAE
from tests.support.families import FAMILIES, PERTURBED

PROMPT = "a photo of a doctor"
SEEDS = [3, 5]
# Kandinsky's combined pipeline hands an old argument on to its own parts.
pytestmark = pytest.mark.filterwarnings("ignore:.callback_steps. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def made():
    """The pipeline of a family, made once."""
    pipes = {}

    def make(name):
        if name not in pipes:
            pipes.clear()
            pipe = FAMILIES[name].make()
            pipe.set_progress_bar_config(disable=True)
            rough(pipe)
            pipes[name] = pipe
        return pipes[name]

    return make


def rough(pipe):
    """Random weights where a fresh model has zeros, which would switch its text or its blocks off."""
    generator = torch.Generator().manual_seed(1)
    denoiser = pipe.components.get("unet") or pipe.components["transformer"]
    denoiser.eval()
    for parameter in denoiser.parameters():
        if not parameter.any():
            parameter.data.normal_(0, 0.1, generator=generator)


def settings_of(size, options):
    return Settings(
        2, options.get("guidance_scale", 4.0), *size, options.get("negative_prompt"), options.get("true_cfg_scale")
    )


def heard(pipe, module, settings):
    """What a plain hook hears of the module in a plain call of the pipeline."""
    outputs = []
    handle = module.register_forward_hook(lambda module, args, output: outputs.append(output))
    options = {name: value for name, value in settings._asdict().items() if value is not None}
    for name in ("use_resolution_binning", "clean_caption"):
        if name in inspect.signature(type(pipe).__call__).parameters:
            options[name] = False
    generator = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    images = pipe(PROMPT, num_images_per_prompt=len(SEEDS), generator=generator, **options).images
    handle.remove()
    return outputs, images


def expected_tokens(family, outputs, is_guided, n_tokens):
    """By hand: the prompt's rows of the prompt's calls, and of their tokens those of the image."""
    call, half = family.conditional
    states = [output if family.output is None else output[family.output] for output in outputs]
    if is_guided and half is None:
        states = states[call::2]
    if is_guided and half is not None:
        n = len(SEEDS)
        states = [state[half * n : (half + 1) * n] for state in states]
    tokens = [state.flatten(2).transpose(1, 2) if state.dim() == 4 else state for state in states]
    return torch.stack([token[:, -n_tokens:] if family.is_text_first else token[:, :n_tokens] for token in tokens], 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_captured_is_what_a_plain_hook_hears_of_the_prompt_with_guidance(made, name):
    pipe, family = made(name), FAMILIES[name]
    settings = settings_of(family.wide, family.guided)
    hookpoint = find_hookpoint(pipe, family.hookpoint)
    generated = generate(pipe, PROMPT, SEEDS, settings, hookpoint)
    height, width = family.wide
    assert generated.grid == (height // family.token, width // family.token)
    outputs, images = heard(pipe, hookpoint.module, settings)
    is_guided = name not in ("flux-schnell", "flux-single")
    expected = expected_tokens(family, outputs, is_guided, generated.grid[0] * generated.grid[1])
    assert generated.step_indices == (0, 1)
    torch.testing.assert_close(generated.activations, expected, rtol=0, atol=0)
    assert all(np.array_equal(image, other) for image, other in zip(generated.images, images, strict=True))
    if is_guided:  # the other branch does differ, or this test says nothing
        call, half = family.conditional
        swapped = family._replace(conditional=(call, 1 - half) if half is not None else (1 - call, None))
        other = expected_tokens(swapped, outputs, True, expected.shape[2])
        assert not torch.equal(other, expected)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "flux-true-cfg"])
def test_without_guidance_every_row_is_kept(made, name):
    pipe, family = made(name), FAMILIES[name]
    settings = settings_of(family.square, family.free)
    hookpoint = find_hookpoint(pipe, family.hookpoint)
    generated = generate(pipe, PROMPT, SEEDS, settings, hookpoint)
    outputs, _ = heard(pipe, hookpoint.module, settings)
    expected = expected_tokens(family, outputs, False, generated.grid[0] * generated.grid[1])
    torch.testing.assert_close(generated.activations, expected, rtol=0, atol=0)
    assert generated.grid[0] == generated.grid[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_seed_makes_the_same_image_in_every_batch(made, name):
    pipe, family = made(name), FAMILIES[name]
    settings = settings_of(family.square, family.guided)
    together = generate(pipe, PROMPT, SEEDS, settings).images
    alone = [generate(pipe, PROMPT, [seed], settings).images[0] for seed in SEEDS]
    pixels, others = (np.stack([np.asarray(image) for image in images]).astype(int) for images in (together, alone))
    assert abs(pixels - others).max() <= 1 and (pixels != others).mean() < 1e-3
    assert (pixels[0] != pixels[1]).mean() > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_painted_square_is_found_at_its_place(made, name):
    """Noise is changed under one square of pixels; the tokens that answer most are those of the square."""
    pipe, family = made(name), FAMILIES[name]
    settings = settings_of(family.wide, family.guided)
    hookpoint = find_hookpoint(pipe, family.hookpoint)
    plain = generate(pipe, PROMPT, [3], settings, hookpoint, [0])
    rows, columns = plain.grid
    row, column = rows // 4, columns - columns // 4 - 2  # of the square's first token; two tokens a side

    def paint(denoiser, args, kwargs):
        sample = noisy_input_of(denoiser, args, kwargs)
        painted = [noise.clone() for noise in sample]
        for noise in painted:
            if noise.dim() > 2:
                side = noise.shape[-2] // rows
                noise[..., row * side : (row + 2) * side, column * side : (column + 2) * side] += 3.0
            else:
                noise.unflatten(0, plain.grid)[row : row + 2, column : column + 2] += 3.0
        return with_noisy_input(denoiser, args, kwargs, painted if isinstance(sample, list) else torch.stack(painted))

    denoiser = pipe.components.get("unet") or pipe.components["transformer"]
    handle = denoiser.register_forward_pre_hook(paint, with_kwargs=True)
    painted = generate(pipe, PROMPT, [3], settings, hookpoint, [0])
    handle.remove()
    apart = (painted.activations - plain.activations)[0, 0].norm(dim=-1) / plain.activations[0, 0].norm(dim=-1)
    strongest = {divmod(int(place), columns) for place in apart.topk(4).indices}
    reach = range(-family.spread, 2 + family.spread)
    assert strongest <= {(row + down, column + right) for down in reach for right in reach}


def test_guidance_that_does_not_answer_to_the_prompt_is_refused(made):
    """Branches that differ while none hears the prompt: which one would it be?"""
    pipe, family = made("kandinsky"), FAMILIES["kandinsky"]
    pipe.prior_prior.clip_std.data.fill_(0)
    with pytest.raises(RaigenError, match="which branch of guidance saw the prompt cannot be told"):
        generate(pipe, "a red ball", SEEDS, settings_of(family.square, {}), find_hookpoint(pipe))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_relative_is_near_its_parent_and_the_same_in_every_batch(made, name):
    pipe, family = made(name), FAMILIES[name]
    settings = settings_of(family.square, family.guided)
    lineages = [(3,), (3, (0.1, 4)), (3, (0.95, 4))]
    together = generate(pipe, PROMPT, lineages, settings).images
    alone = [generate(pipe, PROMPT, [seed], settings).images[0] for seed in (3, lineages[1])]
    parent, near, far, same_parent, same = (np.asarray(image).astype(int) for image in (*together, *alone))
    assert abs(parent - same_parent).max() <= 1 and abs(near - same).max() <= 1
    assert 0 < abs(parent - near).mean() < abs(parent - far).mean()


@pytest.mark.parametrize("name", PERTURBED)
def test_of_perturbed_attention_the_branch_with_whole_attention_is_captured_and_steered(name):
    """Three branches: without the prompt, with it, and with it but with attention that is switched off."""
    make, (path, *_) = PERTURBED[name]
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    rough(pipe)
    settings, n = settings_of(FAMILIES[name].square, {}), len(SEEDS)
    point = find_hookpoint(pipe, path)
    found = generate(pipe, PROMPT, SEEDS, settings, point)
    outputs, _ = heard(pipe, point.module, settings)
    states = [output if isinstance(output, torch.Tensor) else output[-1] for output in outputs]
    assert [len(state) for state in states] == [3 * n] * 2
    tokens = [state.flatten(2).transpose(1, 2) if state.dim() == 4 else state for state in states]
    expected = torch.stack(tokens, 1)[:, :, -found.activations.shape[2] :]
    torch.testing.assert_close(found.activations, expected[n : 2 * n], rtol=0, atol=0)
    assert all((expected[n : 2 * n] - other).abs().max() > 1e-4 for other in (expected[:n], expected[2 * n :]))

    sae = MatryoshkaSAE(SAEConfig(found.activations.shape[-1], 8, (8,), 2))
    with torch.no_grad():
        sae.W_dec.fill_(1.0)
    with steering(pipe, sae, {3: 1.0}, hookpoint=path, settings=settings, prompt=PROMPT):
        outputs, _ = heard(pipe, point.module, settings)  # after the steering's own hook
    steered = outputs[0] if isinstance(outputs[0], torch.Tensor) else outputs[0][-1]
    moved = (steered - states[0]).flatten(1).abs().amax(1) > 0.5
    assert moved.tolist() == [False] * n + [True] * n + [False] * n


def test_perturbed_attention_is_told_from_the_prompt_s_own_branch():
    """In this net the branch without attention answers more to another prompt than the prompt's own."""
    make, points = PERTURBED["sd"]
    pipe, generator = make(), torch.Generator().manual_seed(4)
    pipe.set_progress_bar_config(disable=True)
    for parameter in pipe.unet.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 1.5 / parameter[0].numel() ** 0.5, generator=generator)
    for guidance, expected in ((4.0, (1, 3)), (1.0, (0, 2))):
        layout = layout_of(pipe, PROMPT, Settings(2, guidance, 16, 16), find_hookpoint(pipe, points[0]))
        assert (layout.branch, layout.n_branches) == expected


def test_perturbed_attention_without_effect_is_refused():
    pipe = PERTURBED["sd"][0]()
    pipe.set_progress_bar_config(disable=True)
    for name, parameter in pipe.unet.named_parameters():
        if "mid_block.attentions" in name and "to_out" in name:
            parameter.data.zero_()
    with pytest.raises(RaigenError, match=r"cannot be told, because of perturbed-attention guidance"):
        layout_of(pipe, PROMPT, Settings(2, 4.0, 16, 16), find_hookpoint(pipe))
