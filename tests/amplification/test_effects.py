"""Causal effects, mixtures and diversity, by worked examples and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raigen.amplification.causal import Gains, beaten, scored
from raigen.amplification.measuring import vendi_score
from raigen.amplification.mixture import assign_prompts, mix
from raigen.config import AmplifyConfig
from raigen.errors import RaigenError
from raigen.runs.records import Difference


def test_images_in_groups_are_as_many_as_the_groups():
    groups = np.repeat(np.eye(3, 8), 5, axis=0)
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    assert vendi_score(groups) == pytest.approx(3) == vendi_score(groups @ turned)
    uneven = np.repeat(np.eye(2), [3, 1], axis=0)
    assert vendi_score(uneven) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10_000))
def test_a_mixture_that_can_be_reached_is_found(n_attributes, seed):
    rng = np.random.default_rng(seed)
    rates = rng.random((n_attributes + 1, n_attributes))
    wanted = rng.dirichlet(np.ones(n_attributes + 1))
    found = mix(rates, wanted @ rates)
    assert (found.shares >= 0).all() and found.shares.sum() == pytest.approx(1)
    assert found.shares @ rates == pytest.approx(wanted @ rates, abs=1e-5)


def test_what_no_mixture_reaches_is_missed_by_least():
    found = mix(np.array([[0.02], [0.3]]), np.array([0.9]))
    assert found.shares.tolist() == [0, 1] and found.rates.tolist() == [0.3]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any), st.integers(1, 200))
def test_every_image_is_dealt_a_prompt_by_the_shares(weights, n):
    shares = np.array(weights) / sum(weights)
    counts = np.bincount(assign_prompts(shares, n), minlength=len(shares))
    assert counts.sum() == n and (abs(counts - shares * n) < 1).all()


def test_a_neuron_is_causal_only_if_it_beats_both_controls():
    def by(difference, p):
        return Difference(difference, 100, difference - 0.1, difference + 0.1, p)

    gains = {
        1: Gains(0.6, by(0.5, 1e-6), by(0.5, 1e-6), by(0.4, 1e-5), 1e-5),
        2: Gains(0.6, by(0.5, 1e-6), by(0.5, 1e-6), by(0.02, 0.6), 0.6),
        3: Gains(0.0, by(-0.5, 1e-6), by(-0.5, 1e-6), by(-0.4, 1e-6), 1e-6),
    }
    found = scored(gains, 1.0, n_controls=(19, 5))
    assert (found[1].n_neurons, found[1].n_directions) == (19, 5)
    assert [found[rank].correlates_only for rank in (1, 2, 3)] == [False, True, True]
    assert found[2].p == 0.6 and found[1].q == pytest.approx(1.5e-5)


def test_the_control_that_brings_most_is_the_one_to_beat():
    ours = np.array([1.0, 1, 1, 1, 0, 1, 0, 0])  # the controls were made on the first five seeds
    controls = [np.array([0.0, 0, 0, 0, 0]), np.array([1.0, 1, 0, 0, 0]), np.full(5, np.nan)]
    found = beaten(ours, controls, 0.95)
    assert found and found.over_best.difference == pytest.approx(0.4) and found.over_best.n == 5
    assert 0.05 < found.p < 0.3 and beaten(np.full(8, np.nan), controls, 0.95) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "attribute: expected the rank"),
        ({"attribute": 1, "method": "sing"}, "method: expected one of steer"),
        (
            {"attribute": 1, "method": "prompt", "strength": (1.5,)},
            "expected a number from 0 to 1 for prompt",
        ),
        ({"attribute": 1, "method": "select", "strength": (0.5,)}, "from 1 to inf for select"),
        ({"attribute": 1, "strength": (float("nan"),)}, "strength: expected a finite number"),
        ({"attribute": (1, 2), "method": "mix", "targets": (0.1,)}, "targets: expected a rate in .* each of 2"),
        ({"attribute": 1, "targets": (0.1,)}, "targets: expected none but for mix"),
        ({"attribute": 1, "steps": (3, 1)}, "steps: expected a first and a last"),
        ({"causal": True, "strength": (1.0, 2.0)}, "one strength with causal"),
        ({"causal": True, "method": "prompt"}, "steer or contrast with causal"),
        ({"attribute": 1, "n_images": 1}, "n_images: expected 2 or more"),
    ],
)
def test_bad_configurations_are_told(options, message):
    with pytest.raises(RaigenError, match=message):
        AmplifyConfig(**options)
