"""Labels are scored on images that did not make them, on both sides; measures need no label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from raigen.judging.detection import auroc_interval, detection, held_out
from raigen.judging.interpretability import clarity, polysemanticity, redundancy


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_held_out_images_are_on_their_side_and_unused(seed):
    rng = np.random.default_rng(seed)
    codes = np.where(rng.random(120) < 0.3, rng.random(120), 0)
    embeddings, top = unit(rng.normal(size=(120, 5))), np.zeros(120, bool)
    top[np.argsort(-codes)[:10]] = True
    active, hard, random = held_out(codes, embeddings, top, 12, seed)
    strongest = np.sort(codes)[-10:].mean()
    assert (codes[active] >= strongest / 2).all() and (codes[np.concatenate([hard, random])] < strongest / 4).all()
    assert len(active) == len(set(active)) == min(12, (codes >= strongest / 2).sum() - 10)
    assert len(set(hard) | set(random)) == len(hard) + len(random) == len(active)
    assert not top[np.concatenate([active, hard, random])].any()
    centroid = codes @ embeddings
    rest = np.flatnonzero((codes < strongest / 4) & ~np.isin(np.arange(120), hard))
    assert (embeddings[hard] @ centroid).min() >= (embeddings[rest] @ centroid).max() - 1e-12
    assert codes[active[0]] == np.sort(codes)[-11] and (np.diff(codes[active]) <= 0).all()


@given(st.lists(st.integers(0, 10), min_size=1, max_size=20), st.lists(st.integers(0, 10), min_size=1, max_size=20))
def test_the_score_is_that_of_scikit_learn(active, silent):
    found = detection(np.array(active) / 10, np.array(silent) / 10)
    truth, score = np.repeat([1, 0], [len(active), len(silent)]), np.array(active + silent) / 10
    assert found is not None
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, score > 0.5))
    assert found.auroc == pytest.approx(roc_auc_score(truth, score))
    pairs = ((found.auroc, found.auroc_interval), (found.balanced_accuracy, found.accuracy_interval))
    for value, (low, high, _) in pairs:
        assert 0 <= low <= value + 1e-9 and value - 1e-9 <= high <= 1


def test_unscored_images_count_on_no_side():
    nothing = np.array([np.nan, np.nan])
    assert detection(nothing, np.array([0.1])) is None and detection(np.array([0.1]), nothing) is None
    found = detection(np.array([0.9, np.nan]), np.array([0.2, np.nan, 0.7]))
    assert (found.hits, found.n_active, found.false_hits, found.n_silent) == (1, 1, 1, 2)


@pytest.mark.parametrize(("n", "gap"), [(10, 1.5), (20, 1.5), (20, 0.0)])
def test_the_auroc_interval_covers(n, gap):
    """Of two normal scores `gap` apart the true area is Phi(gap / sqrt 2)."""
    from scipy.stats import norm

    rng, true = np.random.default_rng(0), norm.cdf(gap / 2**0.5)
    held = 0
    for _ in range(400):
        one, other = rng.normal(gap, 1, n), rng.normal(0, 1, n)
        area = (one[:, None] > other).mean()
        low, high, _ = auroc_interval(float(area), n, n)
        held += low <= true <= high
    assert held / 400 >= 0.93


def test_the_auroc_interval_has_no_width_zero_at_the_ends():
    assert auroc_interval(1.0, 20, 20)[0] == pytest.approx(1 - auroc_interval(0.0, 20, 20)[1], abs=1e-6)
    assert 0.8 < auroc_interval(1.0, 20, 20)[0] < 0.95


@given(st.integers(2, 12), st.integers(0, 1000))
def test_clarity_is_the_mean_over_all_pairs(n, seed):
    rows = unit(np.random.default_rng(seed).normal(size=(n, 4)))
    pairs = (rows @ rows.T)[~np.eye(n, dtype=bool)]
    assert clarity(rows) == pytest.approx(pairs.mean(), abs=1e-9)
    assert -1 / (n - 1) - 1e-9 <= clarity(rows) <= 1 + 1e-9


def test_redundancy_finds_the_twin():
    rows = unit(np.random.default_rng(0).normal(size=(6, 8)))
    rows[4] = rows[1]
    assert redundancy(rows, 1) == pytest.approx(1) and redundancy(rows, 0) < 0.9


def test_two_meanings_are_told_from_one_and_an_odd_image_is_none():
    rng = np.random.default_rng(0)
    one, two = np.eye(6)[0], np.eye(6)[1]
    alike = unit(one + 0.05 * rng.normal(size=(10, 6)))
    mixed = np.concatenate([alike[:5], unit(two + 0.05 * rng.normal(size=(5, 6)))])
    odd = np.concatenate([alike[:9], two[None]])
    assert polysemanticity(alike) < 0.05 and 0.9 < polysemanticity(mixed) < 1.1
    assert polysemanticity(odd) < 0.15
