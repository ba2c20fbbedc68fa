"""Tokens scaled step by step, and an autoencoder of them turned into one of raw tokens."""

import pytest
import torch

from raigen.config import SAEConfig
from raigen.errors import RaigenError
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.scaling import InputScaling


@pytest.fixture
def activations():
    """[image, step, token, width]: each step with a mean and a scale of its own."""
    drawn = torch.randn(20, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    return drawn * torch.tensor([0.5, 1.0, 7.0])[:, None, None] + torch.tensor([3.0, -1.0, 20.0])[:, None, None]


def test_every_step_has_mean_0_and_variance_1(activations):
    scaled = InputScaling.of(activations).scaled(activations)
    assert scaled.mean((0, 2)).abs().max() < 1e-5
    assert scaled.square().mean((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert InputScaling.of(activations.half()).scaled(activations.half()).dtype == torch.float16


@pytest.mark.parametrize("step", [0, 2, -1])
def test_folded_it_gives_the_same_codes_and_reconstructions_of_raw_tokens(activations, step):
    scaling = InputScaling.of(activations)
    sae, raw = MatryoshkaSAE(SAEConfig(8, 32, (8, 24), 3)), activations[:, step].flatten(0, 1)
    tokens = scaling.scaled(activations)[:, step].flatten(0, 1)
    sae.initialize(tokens, torch.Generator().manual_seed(1))
    with torch.no_grad():
        sae.b_enc.normal_(generator=torch.Generator().manual_seed(2)).mul_(0.1)
    sae.calibrate(tokens)
    codes = sae.encode(tokens)
    expected = sae.decode(codes) * scaling.scale[step] + scaling.mean[step]
    scaling.fold(sae, step)
    assert torch.allclose(sae.encode(raw), codes * scaling.scale[step], rtol=1e-4, atol=1e-4)
    assert torch.equal(sae.encode(raw) > 0, codes > 0) and (codes > 0).sum() == 3 * len(tokens)
    assert torch.allclose(sae.decode(sae.encode(raw)), expected, rtol=1e-4, atol=1e-4)


def test_a_step_of_equal_tokens_is_named(activations):
    activations[:, 1] = 4
    with pytest.raises(RaigenError, match="all tokens of stored step 1 "):
        InputScaling.of(activations)
