"""Intervals, coverage and sample sizes, against hand-worked values and by exact enumeration."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from raigen.errors import RaigenError
from raigen.stats import coverage, images_needed, rarest_rate, rate_interval

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@given(counts, confidences)
@settings(deadline=None)
def test_interval_is_the_textbook_one_of_its_name(count, confidence):
    hits, n = count
    low, high, method = rate_interval(hits, n, confidence)
    assert method == ("Clopper-Pearson" if min(hits, n - hits) < 10 else "Wilson")
    name = {"Clopper-Pearson": "exact", "Wilson": "wilson"}[method]
    reference = binomtest(hits, n).proportion_ci(confidence, method=name)
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-9)


@given(counts, confidences)
@settings(deadline=None)
def test_interval_holds_the_observed_rate_and_is_symmetric(count, confidence):
    hits, n = count
    low, high, _ = rate_interval(hits, n, confidence)
    assert 0 <= low <= hits / n + 1e-12 and hits / n - 1e-12 <= high <= 1
    mirrored = rate_interval(n - hits, n, confidence)
    assert (1 - high, 1 - low) == pytest.approx(mirrored[:2], abs=1e-12)


@pytest.mark.parametrize("n", [15, 100, 400])
def test_more_hits_never_lower_an_end(n):
    ends = np.array([rate_interval(hits, n)[:2] for hits in range(n + 1)])
    assert (np.diff(ends, axis=0) >= 0).all()


def test_interval_worked_by_hand():
    low, high, method = rate_interval(0, 300)  # 1 - 0.025 ** (1 / 300)
    assert (low, method) == (0, "Clopper-Pearson") and high == pytest.approx(1 - 0.025 ** (1 / 300))
    low, high, method = rate_interval(50, 100)
    assert (low, high) == pytest.approx((0.40383, 0.59617), abs=1e-5) and method == "Wilson"
    assert rate_interval(300, 300).high == 1.0


def test_no_pictures_tell_nothing():
    assert rate_interval(0, 0) == (0.0, 1.0, "no data")


@pytest.mark.parametrize("n", [100, 300, 1000])
def test_exact_coverage_at_rare_rates(n):
    assert min(coverage(rate, n) for rate in np.arange(0.0005, 0.0501, 0.0005)) >= 0.935


@pytest.mark.parametrize("n", [100, 300])
def test_exact_coverage_at_any_rate(n):
    assert min(coverage(rate, n) for rate in np.arange(0.0, 1.0001, 0.005)) >= 0.927


@given(st.floats(1e-9, 1), st.integers(1, 40), confidences)
@settings(deadline=None, max_examples=20)
def test_coverage_is_the_sum_over_outcomes(rate, n, confidence):
    total = 0.0
    for hits in range(n + 1):
        low, high, _ = rate_interval(hits, n, confidence)
        total += float(binom.pmf(hits, n, rate)) * (low <= rate <= high)
    assert coverage(rate, n, confidence) == pytest.approx(total)


def test_images_needed_known_values():
    assert images_needed(0.01) == 299  # 0.99 ** 299 < 0.05 < 0.99 ** 298
    assert images_needed(0.01, examples=10) == 1568
    assert images_needed(0.005) == 598
    assert images_needed(1.0, examples=7) == 7


@given(st.floats(1e-4, 1), st.integers(1, 30), confidences)
@settings(deadline=None)
def test_images_needed_is_the_smallest_that_suffices(rate, examples, confidence):
    n = images_needed(rate, examples, confidence)
    assert binom.sf(examples - 1, n, rate) >= confidence
    assert n == examples or binom.sf(examples - 1, n - 1, rate) < confidence


@given(st.integers(1, 5000), st.integers(1, 30), confidences)
@settings(deadline=None)
def test_rarest_rate_is_shown_often_enough_and_no_more(n, examples, confidence):
    assume(n >= examples)
    rate = rarest_rate(n, examples, confidence)
    assert 0 < rate < 1
    assert binom.sf(examples - 1, n, rate) == pytest.approx(confidence, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rate_interval(4, 3), r"hits: expected 0 <= hits <= n = 3; got 4"),
        (lambda: rate_interval(-1, 3), "got -1"),
        (lambda: rate_interval(1, 3, 1.0), "confidence: expected a number in"),
        (lambda: coverage(1.5, 3), "rate: expected"),
        (lambda: coverage(0.5, 0), "n: expected 1 or more; got 0"),
        (lambda: images_needed(0.0), "rate: expected"),
        (lambda: images_needed(0.1, 0), "examples: expected 1 or more"),
        (lambda: rarest_rate(9, 10), "n_images: expected at least examples = 10; got 9"),
    ],
)
def test_errors_say_what_came(call, message):
    with pytest.raises(RaigenError, match=message):
        call()
