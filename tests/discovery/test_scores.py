"""Neuron scores and pruning, worked by hand and by property."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from raigen.config import DiscoverConfig
from raigen.discovery.listing import LeftOut, found_again, left_out, sentence
from raigen.discovery.scores import NeuronScores, coherence_scores, minority_scores, prune
from raigen.errors import RaigenError


def example(seed: int, n_images: int, n_neurons: int, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rates = generator.uniform(0, 1, n_neurons)
    codes = (generator.random((n_images, n_neurons)) < rates) * generator.exponential(1, (n_images, n_neurons))
    return codes, generator.normal(size=(n_images, width))


shapes = st.tuples(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 20))


def test_scores_worked_by_hand():
    # Four images: three look along the first axis, one along the second. Lengths of embeddings must not count.
    embeddings = np.array([[1.0, 0], [5, 0], [1, 0], [0, 1]])
    codes = np.array([
        [2.0, 0, 0, 1],
        [1.0, 0, 0, 0],
        [3.0, 1, 0, 0],
        [6.0, 3, 0, 0],
    ])  # fmt: skip
    scores = minority_scores(codes, embeddings)
    assert scores.frequency.tolist() == [1.0, 0.5, 0.0, 0.25]
    assert scores.live.tolist() == [True, True, False, True]
    mean = np.array([3, 1]) / np.sqrt(10)
    centroids = np.array([[6, 6], [1, 3], [np.nan, np.nan], [1, 0]])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    np.testing.assert_allclose(scores.centroids, centroids)
    distinctiveness = 1 - centroids @ mean  # 1 - 4/sqrt(20), 1 - 6/10, nan, 1 - 3/sqrt(10)
    np.testing.assert_allclose(distinctiveness, [0.105573, 0.4, np.nan, 0.051317], atol=1e-6)
    np.testing.assert_allclose(scores.distinctiveness, distinctiveness)
    # min-max over neurons 0, 1, 3: frequency 1, 1/3, 0; distinctiveness (d - .051317) / (.4 - .051317)
    np.testing.assert_allclose(scores.minority_score, [0.0, 2 / 3, np.nan, 0.0], atol=1e-6)


def test_frequency_counts_any_code_above_zero():
    codes = np.array([[1e-300, 1.0], [0.0, 1.0]])
    assert minority_scores(codes, np.eye(2)).frequency.tolist() == [0.5, 1.0]


def test_torch_and_numpy_give_the_same():
    codes, embeddings = example(1, 20, 6)
    ours = minority_scores(torch.from_numpy(codes), torch.from_numpy(embeddings))
    for a, b in zip(ours, minority_scores(codes, embeddings), strict=True):
        np.testing.assert_array_equal(a, b)


@given(shapes)
@settings(deadline=None)
def test_scores_lie_in_their_ranges(shape):
    codes, embeddings = example(*shape)
    assume((codes > 0).any())
    scores = minority_scores(codes, embeddings)
    live = (codes > 0).any(axis=0)
    for values, high in ((scores.frequency, 1), (scores.distinctiveness, 2), (scores.minority_score, 1)):
        assert ((values[live] >= 0) & (values[live] <= high)).all()
    assert np.isnan(scores.minority_score[~live]).all() and (scores.frequency[~live] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(scores.centroids[live], axis=1), 1)


@given(shapes)
@settings(deadline=None)
def test_scores_ignore_units_and_order(shape):
    codes, embeddings = example(*shape)
    assume((codes > 0).any())
    generator = np.random.default_rng(shape[0])
    images, neurons = generator.permutation(len(codes)), generator.permutation(codes.shape[1])
    units, lengths = generator.uniform(0.1, 10, codes.shape[1]), generator.uniform(0.1, 10, (len(codes), 1))
    plain = minority_scores(codes, embeddings)
    moved = minority_scores((codes * units)[images][:, neurons], (embeddings * lengths)[images])
    np.testing.assert_allclose(moved.frequency, plain.frequency[neurons])
    np.testing.assert_allclose(moved.distinctiveness, plain.distinctiveness[neurons], atol=1e-9)


def test_a_part_equal_for_all_neurons_counts_as_nothing():
    same_frequency = minority_scores(np.array([[1.0, 0], [1, 1], [0, 1]]), np.array([[1.0, 0], [1, 0], [0, 1]]))
    assert same_frequency.minority_score.tolist() == [1.0, 0.0]
    one_neuron = minority_scores(np.array([[1.0], [0]]), np.eye(2))
    assert one_neuron.minority_score.tolist() == [0.0]


@pytest.mark.parametrize(
    ("codes", "embeddings", "message"),
    [
        (np.zeros((3, 2)), np.ones((3, 2)), "none of 2 does on any of 3 images"),
        (np.ones((1, 2)), np.ones((1, 2)), "at least 2 images, to compare one with the rest; got 1"),
        (np.ones((3, 2)), np.ones((4, 2)), "codes of 3, embeddings of 4"),
        (np.array([[1.0, 1], [1, np.nan]]), np.ones((2, 2)), r"image codes.*got nan for image 1, \[1\]"),
        (np.array([[1.0, 1], [-1, 1]]), np.ones((2, 2)), "image codes.*got -1.0 for image 1"),
        (
            np.ones((2, 2)),
            np.array([[1, 1], [np.inf, 1]]),
            r"embeddings: expected finite numbers; got inf for image 1",
        ),
        (np.ones((2, 2)), np.array([[1.0, 1], [0, 0]]), r"embedding of an image has length 0 \(row 1\)"),
        (np.ones((2, 2)), np.array([[1.0, 0], [-1, 0]]), "centroid of a neuron"),
    ],
)
def test_scores_refuse_what_they_cannot_compare(codes, embeddings, message):
    with pytest.raises(RaigenError, match=message):
        minority_scores(codes, embeddings)


def scored(values: list[float], angles: list[float]) -> NeuronScores:
    score = np.array(values)
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return NeuronScores(np.where(np.isnan(score), 0.0, 0.5), score, score, centroids)


def test_prune_worked_by_hand():
    # 1 - cos(0.07) = 0.00245 < 0.003 < 1 - cos(0.08) = 0.0032. Neuron 2 falls to 0; 3, near 2 but not near 0, stays,
    # for a dropped neuron drops nothing. Neuron 4 is dead. The median of 0.9 0.8 0.7 0.1 0.1 0.1 is 0.4.
    scores = scored([0.9, 0.1, 0.8, 0.7, np.nan, 0.1, 0.1], [0.0, 2.0, 0.07, 0.14, 0.0, 2.5, 3.0])
    assert prune(scores, distance=0.003, percentile=50.0).tolist() == [0, 3]
    assert prune(scores, distance=0.002, percentile=50.0).tolist() == [0, 2, 3]
    assert prune(scores, distance=0.003, percentile=0.0).tolist() == [0, 3]  # strictly above the lowest
    assert prune(scores, distance=0.003, percentile=75.0).tolist() == [0]  # 0.775 keeps 0 and 2; 2 falls to 0


def test_the_percentile_is_of_live_neurons_and_equals_keep_their_order():
    scores = scored([0.5, np.nan, 0.5, *[0.0] * 8, *[np.nan] * 90], [*np.linspace(0, 3, 101)])
    assert prune(scores, distance=0.0, percentile=75.0).tolist() == [0, 2]


@given(shapes, st.floats(0, 0.5), st.floats(0, 99))
@settings(deadline=None)
def test_prune_keeps_the_best_of_each_kind(shape, distance, percentile):
    codes, embeddings = example(*shape)
    assume((codes > 0).any())
    scores = minority_scores(codes, embeddings)
    live = scores.minority_score[scores.live]
    assume(np.ptp(live) > 0)
    kept = prune(scores, distance, percentile)
    assert len(set(kept.tolist())) == len(kept) and (np.diff(scores.minority_score[kept]) <= 0).all()
    gaps = 1 - scores.centroids @ scores.centroids[kept].T
    assert (gaps[kept][~np.eye(len(kept), dtype=bool)] >= distance - 1e-12).all()
    above = np.flatnonzero(scores.live & (np.nan_to_num(scores.minority_score) > np.percentile(live, percentile)))
    assert set(kept.tolist()) <= set(above.tolist())
    for neuron in set(above.tolist()) - set(kept.tolist()):
        better = scores.minority_score[kept] >= scores.minority_score[neuron]
        assert (gaps[neuron][better] < distance + 1e-12).any()


def test_prune_refuses_scores_that_single_out_nothing():
    with pytest.raises(RaigenError, match="none of 2 does"):
        prune(scored([np.nan, np.nan], [0, 1]))
    with pytest.raises(RaigenError, match=r"all 3 that fire have minority score 0.5"):
        prune(scored([0.5, 0.5, 0.5], [0, 1, 2]))


def square(n: int, apart: int = 4) -> np.ndarray:
    """Images in four equal kinds, at right angles or opposite: of equal length once whitened."""
    return np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]] * (n // apart))


def test_coherence_worked_by_hand():
    codes = np.zeros((32, 4))
    codes[[0, 4, 8], 0] = 5.0  # alike: coherence 1; a quarter of the images is like them
    codes[[0, 1], 1] = 5.0  # opposite: -1, which counts as 0
    codes[[0, 2, 4, 6], 2] = 5.0  # two kinds, a third of the way to each: half of the images has one of them
    scores = coherence_scores(codes[:, [0, 1, 3]], [square(32)], n_top=2)
    np.testing.assert_allclose(scores.distinctiveness, [1, 0, np.nan], atol=1e-12)
    np.testing.assert_allclose(scores.frequency[[0, 2]], [0.25, 0])
    np.testing.assert_allclose(scores.minority_score, [np.log(4) / np.log(32), 0, np.nan], atol=1e-12)
    mixed = coherence_scores(codes[:, [2]], [square(32)], n_top=4)
    # The mean of the other three, (1, 0), (0, 1), (0, 1) / 3 for the first, is at a cosine of 1 / sqrt 5 to each.
    np.testing.assert_allclose(mixed.distinctiveness, [1 / np.sqrt(5)])
    np.testing.assert_allclose(mixed.frequency, [0.5])
    np.testing.assert_allclose(np.linalg.norm(mixed.centroids, axis=1), 1)


def test_the_view_in_which_images_are_most_alike_counts():
    rng = np.random.default_rng(0)
    codes, noise = rng.random((64, 3)), rng.normal(size=(64, 8))
    shown = noise.copy()
    shown[:6, 0], codes[:6, 1] = 12, 2  # one view sees what the first six images share
    blind, seeing, both = (coherence_scores(codes, views, n_top=5) for views in ([noise], [shown], [noise, shown]))
    assert seeing.minority_score[1] > 2 * blind.minority_score[1]
    for name in ("minority_score", "frequency", "distinctiveness"):
        better = np.where(seeing.minority_score > blind.minority_score, getattr(seeing, name), getattr(blind, name))
        np.testing.assert_allclose(getattr(both, name), better)
    halves = np.concatenate([blind.centroids, seeing.centroids], axis=1) / np.sqrt(2)
    np.testing.assert_allclose(both.centroids, halves)


def test_a_mixture_of_frequent_attributes_is_not_rare():
    rng = np.random.default_rng(1)
    shows = rng.random((2000, 3)) < [0.3, 0.3, 0.03]
    embeddings = shows @ rng.normal(size=(3, 24)) * 6 + rng.normal(size=(2000, 24))
    both, rare = shows[:, 0] & shows[:, 1], shows[:, 2]
    codes = np.stack([both, rare], 1) + 0.1 * rng.random((2000, 2))
    frequency = coherence_scores(codes, [embeddings]).frequency
    assert (
        both.mean() == pytest.approx(0.09, abs=0.02) and frequency[0] > 2 * both.mean()
    )  # who has one of the two counts
    assert frequency[1] == pytest.approx(rare.mean(), abs=0.01)


@given(shapes)
@settings(deadline=None)
def test_coherence_lies_in_its_ranges_and_hangs_on_no_other_neuron(shape):
    codes, embeddings = example(*shape)
    assume((codes > 0).any() and len(codes) > 2 and np.linalg.matrix_rank(embeddings - embeddings.mean(0)) > 0)
    scores = coherence_scores(codes, [embeddings], n_top=3)
    live = scores.live
    assert (live == (codes > 0).any(0)).all() and np.isnan(scores.minority_score[~live]).all()
    for values in (scores.frequency, scores.distinctiveness[live], scores.minority_score[live]):
        assert (values >= 0).all() and (values <= 1 + 1e-9).all()
    alone = coherence_scores(codes[:, live][:, :1], [embeddings], n_top=3)
    np.testing.assert_allclose(alone.minority_score[0], scores.minority_score[live][0])


def test_coherence_does_not_depend_on_the_axes_of_the_embedding():
    codes, embeddings = example(4, 30, 5)
    turned = embeddings @ np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    plain, other = (coherence_scores(codes, [e]) for e in (embeddings, turned))
    np.testing.assert_allclose(plain.minority_score, other.minority_score)


def test_views_are_checked():
    codes, embeddings = example(4, 30, 5)
    with pytest.raises(RaigenError, match="expected one embedding per image; got codes of 30, embeddings of 29"):
        coherence_scores(codes, [embeddings, embeddings[:29]])
    embeddings[3, 1] = np.nan
    with pytest.raises(RaigenError, match=r"embeddings: expected finite numbers; got nan for image 3, \[1\]"):
        coherence_scores(codes, [embeddings])


def test_every_neuron_that_fires_is_listed_or_has_a_reason():
    rng = np.random.default_rng(3)
    codes = np.where(rng.random((80, 60)) < 0.2, rng.random((80, 60)), 0)
    codes[:, 7] = 0
    codes[:, 21] = 2 * codes[:, 20]  # the same images, so the same centroid
    scores = minority_scores(codes, rng.normal(size=(80, 5)))
    kept = prune(scores, 0.01, 50.0)
    listed = kept[:6].tolist()
    reasons = left_out(scores, listed, 0.01, 50.0)
    assert set(reasons) | set(listed) == set(np.flatnonzero(scores.live).tolist()) and not set(reasons) & set(listed)
    assert {neuron for neuron, why in reasons.items() if why.reason == "no room"} >= set(kept[6:].tolist())
    assert sentence(LeftOut("no room"), 6, 1.0) == "behind the first 6 in rank"
    cut = np.percentile(scores.minority_score[scores.live], 50.0)
    for neuron, why in reasons.items():
        assert (why.reason == "low") == (scores.minority_score[neuron] <= cut)
        assert (why.reason == "alike") == (why.like is not None)
        if why.like is not None:
            assert why.like in listed and 1 - scores.centroids[why.like] @ scores.centroids[neuron] < 0.01


def test_what_is_not_rare_is_not_listed_and_drops_no_look_alike():
    scores = scored([0.9, 0.5, 0.4, 0.1], [0, 0, 90, 180])._replace(frequency=np.array([0.3, 0.05, 0.06, 0.01]))
    assert prune(scores, 0.1, 0.0).tolist() == [0, 2]
    assert prune(scores, 0.1, 0.0, max_frequency=0.06).tolist() == [1, 2]
    assert prune(scores, 0.1, 0.0, max_frequency=0.001).tolist() == []
    reasons = left_out(scores, [1], 0.1, 0.0, 0.055)
    assert {neuron: sentence(why, 1, 0.055) for neuron, why in reasons.items()} == {
        0: "not rare: frequency above 0.055",
        2: "not rare: frequency above 0.055",
        3: "stands out too little",
    }


def test_a_frequent_neuron_that_is_like_a_listed_one_would_add_nothing_and_says_so():
    scores = scored([0.9, 0.5, 0.4, 0.1], [0, 0, 90, 180])._replace(frequency=np.array([0.01, 0.2, 0.3, 0.01]))
    reasons = left_out(scores, [0], 0.1, 0.0, 0.05)
    texts = [sentence(reasons[neuron], 1, 0.05) for neuron in (1, 2)]
    assert texts == ["like neuron 0", "not rare: frequency above 0.05"]
    assert prune(scores, 0.1, 0.0, max_frequency=0.2).tolist() == [0]
    assert prune(scores, 0.1, 0.0, max_frequency=0.3).tolist() == [0, 2]


def test_another_autoencoder_finds_again_what_stands_out_there():
    mine = scored([0.9, 0.5, 0.4], [0, 90, 180])
    angles = [0.05, 90.0, 180.0, 200.0]
    theirs = scored([0.9, 0.01, 0.8, 0.7], angles)._replace(frequency=np.array([0.01, 0.01, 0.5, 0.01]))
    again = found_again(mine.centroids, theirs, 0.003, 0.0, max_frequency=0.06)
    assert again.tolist() == [True, False, False]  # the second has the lowest score there, the third is not rare there
    assert found_again(mine.centroids, theirs, 0.003, 0.0).tolist() == [True, False, True]
    assert found_again(mine.centroids[:0], theirs).shape == (0,)


def test_the_limit_follows_the_number_of_images():
    assert DiscoverConfig().pruning(1000) == (0.5, 0.0, 0.03)
    assert DiscoverConfig().pruning(100).max_frequency == 0.3
    assert DiscoverConfig().pruning(12).max_frequency == 1
    assert DiscoverConfig(max_frequency=0.01).pruning(100).max_frequency == 0.01
    assert DiscoverConfig("published").pruning(1000) == (0.003, 90.0, 1.0)
