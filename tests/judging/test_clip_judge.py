"""CLIP's rule: a mixture of those that show the label and the others, its own errors, and when it says nothing."""

import numpy as np
import pytest

from raigen.judging.clip_judge import LEAST_AUROC, threshold_of
from raigen.judging.mixture import mixture_of
from raigen.judging.rates import presence_of

N, N_TOP = 2000, 10


def drawn(seed: int, rate: float, far: float, likeness: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of images, and which of them show the label: they lie `far` standard deviations off. A share
    `likeness` of the others look a little like it."""
    rng = np.random.default_rng(seed)
    shows = rng.random(N) < rate
    shows[:N_TOP] = True
    alike = rng.random(N) < likeness
    at = np.where(shows, far + 0.4 * rng.normal(size=N), np.where(alike, 2.0, 0) + rng.normal(size=N) * 0.8)
    return at, shows


def on_a_line(similarity: np.ndarray) -> np.ndarray:
    return similarity[:, None]


@pytest.mark.parametrize("rate", [0.005, 0.02, 0.05])
def test_the_images_beyond_the_threshold_are_as_many_as_show_it(rate: float) -> None:
    ratios, halves = [], []
    for seed in range(8):
        similarity, shows = drawn(seed, rate, 5.0)
        mixture = mixture_of(similarity, similarity[:N_TOP])
        ratios.append((similarity > mixture.threshold).sum() / shows.sum())
        top, rest = similarity[:N_TOP].mean(), similarity[N_TOP:].mean()
        halves.append((similarity > (top + rest) / 2).sum() / shows.sum())
        assert mixture.rate == pytest.approx(shows.mean(), rel=0.35) and mixture.false_share < 0.2
    assert np.mean(ratios) == pytest.approx(1, abs=0.12)
    assert np.mean(halves) > 1.25 or rate == 0.05  # what halving the way would say


def test_the_interval_holds_the_true_rate_and_the_judges_own_errors() -> None:
    covered, wider = 0, 0
    for seed in range(30):
        similarity, _ = drawn(seed, 0.02, 5.0)
        fresh, shows = drawn(1000 + seed, 0.02, 5.0)
        threshold = threshold_of(np.ones(1), on_a_line(similarity), range(N_TOP))
        found = presence_of(threshold.verdicts(on_a_line(fresh[N_TOP:])), 0.95)
        raw = presence_of(threshold.verdicts(on_a_line(fresh[N_TOP:]))._replace(errors=None), 0.95)
        assert (found.mode, raw.mode) == ("estimated", "raw") and (found.hits, found.n) == (raw.hits, raw.n)
        assert found.low <= found.rate <= found.high and found.interval == "95 % estimated, Beta posterior"
        covered += found.low <= shows[N_TOP:].mean() <= found.high
        wider += found.high - found.low > raw.high - raw.low
    assert covered >= 27 and wider == 30


def test_a_label_that_clip_does_not_see_is_unscored() -> None:
    similarity, _ = drawn(0, 0.02, 0.0)
    threshold = threshold_of(np.ones(1), on_a_line(similarity), range(N_TOP))
    assert threshold.why_not is not None and threshold.why_not.startswith("CLIP does not see it: its AUROC")
    verdicts = threshold.verdicts(on_a_line(similarity[:3]))
    assert np.isnan(verdicts.shows).all() and verdicts.errors is None
    assert set(verdicts.why.values()) == {threshold.why_not}


def test_a_label_whose_images_lie_among_many_others_is_unscored() -> None:
    """The top images are well above the average (AUROC), and yet most images as similar do not show the label."""
    similarity, _ = drawn(0, 0.01, 2.0)
    above = (similarity[:N_TOP, None] > similarity[N_TOP:]).mean()
    threshold = threshold_of(np.ones(1), on_a_line(similarity), range(N_TOP))
    assert above > LEAST_AUROC and threshold.why_not is not None
    assert threshold.why_not.startswith("CLIP cannot tell it from similar images")


def test_more_similar_is_never_less_probable_and_the_verdict_follows_the_place() -> None:
    similarity, _ = drawn(3, 0.02, 5.0)
    threshold = threshold_of(np.ones(1), on_a_line(similarity), range(N_TOP))
    at = np.linspace(-3, 9, 200)
    probability = threshold.mixture.probability(at)
    assert (np.diff(probability) > -1e-6).all() and probability[0] < 1e-3 and probability[-1] > 0.99
    moved = threshold._replace(shift=1.0)
    assert np.array_equal(moved.verdicts(on_a_line(at + 1)).shows, threshold.verdicts(on_a_line(at)).shows)
