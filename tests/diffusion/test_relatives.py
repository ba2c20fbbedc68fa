"""Moved noise keeps its distribution, and no other random numbers change."""

import pytest
import torch

from raigen.diffusion.relatives import MovedNoise


def test_moved_noise_is_standard_normal_and_as_near_as_its_steps_say():
    with MovedNoise([(0, (0.6, 1), (0.8, 2))]) as noise:
        moved = torch.randn(200_000, generator=noise.generators[0])
    parent = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert abs(float(moved.mean())) < 0.01 and abs(float(moved.std()) - 1) < 0.01
    assert float((moved * parent).mean()) == pytest.approx(0.8 * 0.6, abs=0.01)  # sqrt(1 - .36) sqrt(1 - .64)


def test_other_generators_and_other_functions_are_left_alone():
    with MovedNoise([(0, (0.6, 1))]) as noise:
        other = torch.randn(4, generator=torch.Generator().manual_seed(7))
        drawn = torch.rand(4, generator=noise.generators[0])
    assert torch.equal(other, torch.randn(4, generator=torch.Generator().manual_seed(7)))
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(0)))
