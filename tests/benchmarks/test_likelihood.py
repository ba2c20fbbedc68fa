"""The log-likelihood by the probability-flow ODE, on Gaussians, of which the exact flow and density are known."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from benchmarks.amplification.likelihood import angles_of, bits_per_dimension, log_likelihood
from benchmarks.amplification.paper_protocol import deviation_ratio

D = 6


def gaussian(seed: int = 0, rotated: bool = True) -> tuple[MultivariateNormal, torch.Tensor]:
    spread = torch.linspace(0.3, 2.0, D, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    cov = (basis if rotated else torch.eye(D, dtype=torch.float64)) @ torch.diag(spread**2)
    cov = cov @ (basis if rotated else torch.eye(D, dtype=torch.float64)).T
    return MultivariateNormal(torch.zeros(D, dtype=torch.float64), (cov + cov.T) / 2), (cov + cov.T) / 2


def exact(covariance: torch.Tensor):
    """v of the Gaussian: cos(a) E[noise | x] - sin(a) E[x0 | x]."""
    eye = torch.eye(D, dtype=torch.float64)

    def velocity(x: torch.Tensor, angle: float) -> torch.Tensor:
        signal, noise = math.cos(angle), math.sin(angle)
        seen = torch.linalg.inv(signal**2 * covariance + noise**2 * eye)
        return x @ (signal * noise * (eye - covariance) @ seen).T

    return velocity


def test_a_gaussian_has_its_own_density():
    law, covariance = gaussian(rotated=False)  # along its axes signs tell the divergence exactly
    samples = law.sample((5,))
    found = log_likelihood(exact(covariance), samples, np.linspace(0, math.pi / 2, 200).tolist(),
                           torch.Generator().manual_seed(0))  # fmt: skip
    torch.testing.assert_close(found, law.log_prob(samples), atol=2e-3, rtol=0)


def test_the_error_falls_as_the_square_of_the_step():
    law, covariance = gaussian(rotated=False)
    samples, errors = law.sample((5,)), []
    for n in (41, 81):
        found = log_likelihood(exact(covariance), samples, np.linspace(0, math.pi / 2, n).tolist(),
                               torch.Generator().manual_seed(0))  # fmt: skip
        errors.append((found - law.log_prob(samples)).abs().mean())
    assert 3 < errors[0] / errors[1] < 5


def test_the_estimate_is_right_on_average_in_any_basis():
    law, covariance = gaussian()
    sample = law.sample((1,)).expand(400, D)  # the same 400 times, each with signs of its own
    angles = np.linspace(0, math.pi / 2, 120).tolist()
    found = [log_likelihood(exact(covariance), sample, angles, torch.Generator().manual_seed(3), n) for n in (1, 4)]
    for estimates in found:
        error = estimates.std() / math.sqrt(len(estimates))
        assert abs(estimates.mean() - law.log_prob(sample[0])) < 4 * error + 5e-3
    assert 1.5 < found[0].std() / found[1].std() < 2.5


def test_bits_of_a_unit_gaussian_are_its_entropy():
    samples = torch.randn(4000, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = log_likelihood(lambda x, angle: 0 * x, samples, [0.0, 1.0, math.pi / 2], torch.Generator().manual_seed(0))
    assert bits_per_dimension(found, D).mean() == pytest.approx(0.5 * math.log2(2 * math.pi * math.e), abs=0.02)


def test_angles_follow_the_schedule():
    kept = torch.tensor([0.99, 0.75, 0.25, 0.01])
    angles, timestep = angles_of(kept, 4)
    np.testing.assert_allclose(np.cos(angles) ** 2, kept, rtol=1e-5)
    assert timestep(math.pi / 3) == pytest.approx(2) and timestep((angles[0] + angles[1]) / 2) == pytest.approx(0.5)


def test_the_deviation_ratio_is_0_at_half_and_1_at_none_or_all():
    assert [deviation_ratio(rate) for rate in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.0, 1.0]
