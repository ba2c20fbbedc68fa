"""Effects on the same seeds, mixtures, and likeness, by worked examples and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from raigen.amplification.causal import Gains, scored
from raigen.amplification.measuring import vendi_score
from raigen.amplification.mixture import assign_prompts, mix
from raigen.config import AmplifyConfig
from raigen.errors import RaigenError
from raigen.runs.records import Difference
from raigen.stats import mean_interval, paired_difference, q_values


def pairs(both, gained, lost, neither):
    after = np.repeat([1.0, 1, 0, 0], [both, gained, lost, neither])
    return after, np.repeat([1.0, 0, 1, 0], [both, gained, lost, neither])


def test_the_paired_difference_of_a_worked_example():
    found = paired_difference(*pairs(20, 12, 2, 16))
    assert (found.difference, found.n) == (0.2, 50)
    assert found.p == pytest.approx(2 * binom.cdf(2, 14, 0.5))
    assert (found.low, found.high) == (pytest.approx(0.0562, abs=1e-4), pytest.approx(0.3292, abs=1e-4))
    other_way = paired_difference(*pairs(20, 12, 2, 16)[::-1])
    assert (other_way.low, other_way.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_unscored_pairs_do_not_count():
    after, before = pairs(3, 2, 1, 4)
    more = paired_difference(np.append(after, [np.nan, 1]), np.append(before, [1, np.nan]))
    assert more == paired_difference(after, before)
    assert paired_difference(np.array([np.nan]), np.array([1.0])) is None


@pytest.mark.parametrize("truth", [(0.1, 0.1, 0.1), (0.02, 0.3, 0.02), (0.5, 0.2, 0.05), (0.01, 0.05, 0.01)])
def test_the_interval_covers_the_difference(truth):
    n, covered = 14, 0.0
    outcome = multinomial(n, [*truth, 1 - sum(truth)])
    for both in range(n + 1):
        for gained in range(n + 1 - both):
            for lost in range(n + 1 - both - gained):
                counts = (both, gained, lost, n - both - gained - lost)
                weight = outcome.pmf(counts)
                if weight > 1e-4:
                    found = paired_difference(*pairs(*counts))
                    covered += weight * (found.low <= truth[1] - truth[2] <= found.high)
    assert covered > 0.93


def test_the_mean_has_students_interval():
    found = mean_interval(np.array([1.0, 2, 3, 4]))
    assert found.mean == 2.5 and found.high - 2.5 == pytest.approx(3.18245 * 1.29099 / 2, abs=1e-4)
    with pytest.raises(RaigenError, match="expected at least 2"):
        mean_interval(np.ones(1))


def test_q_of_nothing_is_nothing():
    assert q_values([]) == [] and q_values([0.02, 0.03]) == [0.03, 0.03]


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
        1: Gains(0.6, by(0.5, 1e-6), by(0.5, 1e-6), by(0.4, 1e-5)),
        2: Gains(0.6, by(0.5, 1e-6), by(0.5, 1e-6), by(0.02, 0.6)),
        3: Gains(0.0, by(-0.5, 1e-6), by(-0.5, 1e-6), by(-0.4, 1e-6)),
    }
    found = scored(gains, 1.0)
    assert [found[rank].correlates_only for rank in (1, 2, 3)] == [False, True, True]
    assert found[2].p == 0.6 and found[1].q == pytest.approx(1.5e-5)


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
        ({"attribute": 1, "strength": (float("nan"),)}, "strength: expected a number"),
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
