"""Intervals, coverage and sample sizes, against hand-worked values and by exact enumeration."""

from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest, fisher_exact, multinomial

from raigen.errors import RaigenError
from raigen.judging.posterior import Calibration, calibrated_interval, contradiction
from raigen.judging.review import reviewed_rate
from raigen.judging.weighted_rates import chances_of, drawn, weighted_rate
from raigen.stats import (
    above_controls,
    images_needed,
    krippendorff_alpha,
    mean_interval,
    p_below,
    p_rarer,
    paired_difference,
    q_values,
    rarest_rate,
    rate_interval,
    ratio_interval,
)

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@cache
def ends(n: int, confidence: float) -> np.ndarray:
    """The ends [2, outcome] of `rate_interval` for each number of hits."""
    return np.array([rate_interval(hits, n, confidence)[:2] for hits in range(n + 1)]).T


def coverage(rate: float, n: int, confidence: float = 0.95) -> float:
    """The exact probability, over all outcomes of `n` images, that `rate_interval` holds the true `rate`."""
    low, high = ends(n, confidence)
    return float(binom.pmf(np.arange(n + 1), n, rate)[(low <= rate) & (rate <= high)].sum())


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


@given(counts, counts, confidences)
@settings(deadline=None)
def test_the_interval_on_a_ratio_holds_it_and_turns_round_with_it(count, other, confidence):
    low, high, _ = ratio_interval(*count, *other, confidence)
    assert 0 <= low <= high
    if count[0] and other[0]:
        ratio = count[0] / count[1] / (other[0] / other[1])
        assert low <= ratio * (1 + 1e-9) and ratio <= high * (1 + 1e-9)
        turned = ratio_interval(*other, *count, confidence)
        assert (1 / high, 1 / low) == pytest.approx(turned[:2], rel=1e-6)


def test_the_interval_on_a_ratio_of_what_was_never_seen():
    low, high, _ = ratio_interval(8, 10, 0, 300)
    start, end = rate_interval(8, 10).low, rate_interval(0, 300).high
    assert low == pytest.approx((start * (1.6 - start)) ** 0.5 / end) and high == np.inf
    assert ratio_interval(0, 10, 0, 300)[:2] == (0, np.inf)
    assert ratio_interval(0, 10, 30, 300).low == 0 and ratio_interval(0, 10, 30, 300).high < np.inf
    with pytest.raises(RaigenError, match="two rates of 1 image or more; got 10 and 0"):
        ratio_interval(0, 10, 0, 0)


@pytest.mark.parametrize(("rate", "other"), [(0.6, 0.02), (0.9, 0.005), (0.1, 0.1), (0.05, 0.002)])
def test_the_interval_on_a_ratio_covers_it(rate, other):
    """Ten images over 300, by exact enumeration; outcomes of a chance below 1e-6 left out."""
    chances = binom.pmf(np.arange(11), 10, rate)[:, None] * binom.pmf(np.arange(301), 300, other)
    covered = sum(
        chances[hits, others] for hits, others in np.argwhere(chances > 1e-6)
        if ratio_interval(int(hits), 10, int(others), 300).low <= rate / other
        <= ratio_interval(int(hits), 10, int(others), 300).high
    )  # fmt: skip
    assert covered > 0.94


def test_interval_worked_by_hand():
    low, high, method = rate_interval(0, 300)  # 1 - 0.025 ** (1 / 300)
    assert (low, method) == (0, "Clopper-Pearson") and high == pytest.approx(1 - 0.025 ** (1 / 300))
    low, high, method = rate_interval(50, 100)
    assert (low, high) == pytest.approx((0.40383, 0.59617), abs=1e-5) and method == "Wilson"
    assert rate_interval(300, 300).high == 1.0


def test_no_images_tell_nothing():
    assert rate_interval(0, 0) == (0.0, 1.0, "no data")


@pytest.mark.parametrize("n", [100, 300, 1000])
def test_exact_coverage_at_rare_rates(n):
    assert min(coverage(rate, n) for rate in np.arange(0.0005, 0.0501, 0.0005)) >= 0.935


@pytest.mark.parametrize("n", [100, 300])
def test_exact_coverage_at_any_rate(n):
    assert min(coverage(rate, n) for rate in np.arange(0.0, 1.0001, 0.005)) >= 0.927


def test_coverage_of_a_known_case():
    assert coverage(0.01, 300) == pytest.approx(0.989, abs=5e-4)
    assert coverage(0.5, 1, 0.5) == 1  # both outcomes have an interval that holds a half


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


# Judges that err.

CALIBRATION = Calibration(true_yes=45, positives=50, true_no=198, negatives=200)


@given(st.integers(0, 300), st.integers(1, 300))
@settings(deadline=None, max_examples=40)
def test_a_perfect_judge_is_taken_at_its_word(hits, more):
    n = hits + more
    perfect = Calibration(10**7, 10**7, 10**7, 10**7)
    low, high, _ = calibrated_interval(hits, n, perfect)
    expected = beta.ppf([0.025, 0.975], hits + 0.5, n - hits + 0.5)
    assert (low, high) == pytest.approx(expected, abs=0.01 * (expected[1] - expected[0]) + 1e-6)


@given(st.integers(0, 100), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_calibrated_ends_are_rates(hits, yes, misses, no, alarms):
    judge = Calibration(yes, yes + misses, no, no + alarms)
    low, high, _ = calibrated_interval(hits, 100, judge)
    assert 0 <= low <= high <= 1 and high > 0
    assert calibrated_interval(hits, 100, judge) == calibrated_interval(hits, 100, judge)


def test_more_calibration_narrows_the_interval():
    widths = []
    for scale in (1, 4, 16):
        judge = Calibration(*(scale * count for count in CALIBRATION))
        low, high, _ = calibrated_interval(19, 1000, judge)
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


def test_a_judge_that_guesses_tells_nothing():
    low, high, method = calibrated_interval(50, 100, Calibration(0, 0, 0, 0))
    assert low < 0.06 and high > 0.94 and method == "Beta posterior"


@pytest.mark.parametrize(
    ("rate", "n", "sensitivity", "specificity", "positives", "negatives"),
    [(0.01, 1000, 0.9, 0.99, 50, 200), (0.05, 1000, 0.9, 0.98, 100, 300),
     (0.005, 1000, 0.9, 0.99, 100, 1000)],
)  # fmt: skip
def test_coverage_with_an_imperfect_judge(rate, n, sensitivity, specificity, positives, negatives):
    rng, n_audits, cached = np.random.default_rng(1), 250, cache(calibrated_interval)
    calibrated = raw = 0
    for _ in range(n_audits):
        true_yes, true_no = rng.binomial(positives, sensitivity), rng.binomial(negatives, specificity)
        shown = rng.binomial(n, rate)
        hits = rng.binomial(shown, sensitivity) + rng.binomial(n - shown, 1 - specificity)
        judge = Calibration(true_yes, positives, true_no, negatives)
        low, high, _ = cached(hits, n, judge)
        calibrated += low <= rate <= high
        low, high, _ = rate_interval(hits, n)
        raw += low <= rate <= high
    assert calibrated / n_audits >= 0.93 and raw / n_audits < 0.55


@pytest.mark.parametrize(
    ("hits", "n", "judge"),
    [
        (6, 300, Calibration(9, 10, 99, 100)),
        (2, 300, Calibration(45, 50, 196, 200)),
        (60, 100, Calibration(4, 5, 2, 5)),
    ],
)
def test_the_calibrated_interval_is_that_of_the_posterior(hits, n, judge):
    """Against the definition: p, Se and Sp drawn from their priors or posteriors, weighted by the likelihood."""
    rng, draws = np.random.default_rng(0), 500_000
    rate = rng.beta(0.5, 0.5, draws)
    sensitivity = rng.beta(judge.true_yes + 0.5, judge.positives - judge.true_yes + 0.5, draws)
    specificity = rng.beta(judge.true_no + 0.5, judge.negatives - judge.true_no + 0.5, draws)
    weights = binom.pmf(hits, n, rate * sensitivity + (1 - rate) * (1 - specificity))
    order = np.argsort(rate)
    share = weights[order].cumsum() / weights.sum()
    low, high, _ = calibrated_interval(hits, n, judge)
    assert np.interp([low, high], rate[order], share) == pytest.approx([0.025, 0.975], abs=0.003)


def test_look_alike_negatives_still_give_an_interval_and_are_told():
    """200 negatives that are harder than the prompt's images: the judge errs on 3 % of them, and on .1 % of images."""
    rng, n_audits, n, rate = np.random.default_rng(2), 200, 300, 0.01
    held = told = 0
    for _ in range(n_audits):
        judge = Calibration(rng.binomial(50, 0.9), 50, rng.binomial(200, 0.97), 200)
        hits = rng.binomial(n, rate * 0.9 + (1 - rate) * 0.001)
        low, high, _ = calibrated_interval(hits, n, judge)
        assert high > low
        held += low <= rate <= high
        told += contradiction(hits, n, judge) > 0.975
    assert held / n_audits > 0.9 and told / n_audits > 0.2


@given(st.integers(0, 20), st.integers(150, 200))
@settings(deadline=None, max_examples=20)
def test_the_probability_of_a_contradiction_is_that_of_two_draws(hits, true_no):
    rng = np.random.default_rng(0)
    said, alarms = rng.beta(hits + 0.5, 300.5 - hits, 100_000), rng.beta(200.5 - true_no, true_no + 0.5, 100_000)
    found = contradiction(hits, 300, Calibration(45, 50, true_no, 200))
    assert found == pytest.approx((said < alarms).mean(), abs=0.01)


# Judges that disagree.


def test_alpha_of_krippendorffs_own_example():
    """Four observers, twelve units, nominal (Krippendorff 2011, section C): .743."""
    text = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
    ratings = np.array([[np.nan if word == "." else float(word) for word in row.split()] for row in text])
    assert krippendorff_alpha(ratings) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(ratings[::-1, ::-1]) == pytest.approx(krippendorff_alpha(ratings))


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, float("nan")])] * 3), min_size=1, max_size=30))
@settings(deadline=None)
def test_alpha_is_the_ratio_of_disagreements(units):
    ratings = np.array(units).T
    pairs = [[value for value in unit if value == value] for unit in units]
    pairs = [unit for unit in pairs if len(unit) > 1]
    pooled = [value for unit in pairs for value in unit]
    observed = [sum(a != b for i, a in enumerate(u) for j, b in enumerate(u) if i != j) / (len(u) - 1) for u in pairs]
    expected = sum(a != b for a in pooled for b in pooled)
    if not expected:
        assert krippendorff_alpha(ratings) is None
    else:
        alpha = 1 - (len(pooled) - 1) * sum(observed) / expected
        assert krippendorff_alpha(ratings) == pytest.approx(alpha)


def test_alpha_of_judges_that_never_disagree_or_always():
    ones = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert krippendorff_alpha(ones) == 1
    assert krippendorff_alpha(np.array([[1.0, 0.0] * 50, [0.0, 1.0] * 50])) == pytest.approx(-0.99)
    assert krippendorff_alpha(np.ones((2, 4))) is None and krippendorff_alpha(np.full((2, 4), np.nan)) is None


# Controls.


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("base", [0.02, 0.2])
def test_one_that_is_like_its_controls_seldom_exceeds_all_of_them(base, spread):
    rng, n_controls, n, passed, n_tests = np.random.default_rng(0), 19, 50, 0, 1500
    logits = np.log(base / (1 - base)) + spread * rng.normal(size=(n_tests, n_controls + 1))
    for hits, *others in rng.binomial(n, 1 / (1 + np.exp(-logits))):
        p = above_controls(int(hits), n, np.array(others), np.full(n_controls, n))
        passed += p <= 0.05 and hits > max(others)
    assert passed / n_tests <= 0.063  # 5 %, and what chance adds to 1,500 tests


def test_one_hit_beside_controls_without_any_proves_nothing():
    none, n = np.zeros(19, int), np.full(19, 50)
    assert above_controls(1, 50, none, n) > 0.2 and above_controls(45, 50, none, n) < 0.001


def test_the_spread_of_controls_counts():
    """Student's prediction interval, worked by hand: logits -2, 0, 2 in many images, and one of 2 sqrt(4/3)."""
    n = 10**9
    hits = (n / (1 + np.exp([2.0, 0.0, -2.0]))).astype(int)
    beyond = int(n / (1 + np.exp(-2 * np.sqrt(4 / 3))))
    assert above_controls(beyond, n, hits, np.full(3, n)) == pytest.approx((1 - 1 / np.sqrt(3)) / 2, abs=1e-4)


# Many rates at once.


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.floats(0.01, 0.5))
@settings(deadline=None)
def test_q_values_are_those_of_benjamini_and_hochberg(hits, rate):
    q = np.array(q_values([p_rarer(count, 50, rate) for count in hits]))
    p = np.array([binomtest(count, 50, rate, "less").pvalue for count in hits])
    order = np.argsort(p)
    by_hand = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    assert q[order] == pytest.approx(np.minimum(by_hand, 1))
    assert (q >= p - 1e-12).all()


def test_few_of_what_is_called_different_is_not():
    rng = np.random.default_rng(0)
    n_same, n_other, wrong, found = 90, 10, 0.0, 0
    for _ in range(8):
        rates = np.r_[np.full(n_same, 0.05), np.full(n_other, 0.2)]
        a, b = rng.binomial(300, 0.05, 100), rng.binomial(300, rates)
        p_values = [fisher_exact([[x, 300 - x], [y, 300 - y]]).pvalue for x, y in zip(a, b, strict=True)]
        called = np.array(q_values(p_values)) <= 0.1
        wrong += called[:n_same].sum() / max(called.sum(), 1)
        found += called[n_same:].sum()
    assert wrong / 8 <= 0.1 and found > 0.9 * 8 * n_other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rate_interval(4, 3), r"hits: expected 0 <= hits <= n = 3; got 4"),
        (lambda: rate_interval(-1, 3), "got -1"),
        (lambda: rate_interval(1, 3, 1.0), "confidence: expected a number in"),
        (lambda: images_needed(0.0), "rate: expected"),
        (lambda: images_needed(0.1, 0), "examples: expected 1 or more"),
        (lambda: rarest_rate(9, 10), "n_images: expected at least examples = 10; got 9"),
        (lambda: calibrated_interval(4, 3, CALIBRATION), "hits: expected 0 <= hits <= 3; got 4"),
        (lambda: calibrated_interval(1, 3, Calibration(3, 2, 0, 0)), "true_yes: expected 0 <= true_yes <= 2; got 3"),
        (lambda: reviewed_rate(np.zeros(0), np.zeros(0)), "scores: expected 1 or more; got 0"),
        (lambda: reviewed_rate(np.zeros(1), np.zeros(1), 1.0), "confidence: expected"),
        (lambda: contradiction(1, 3, Calibration(0, 0, 3, 2)), "true_no: expected 0 <= true_no <= 2; got 3"),
        (lambda: above_controls(1, 3, np.array([1]), np.array([3])), "controls: expected at least 2, .*; got 1"),
        (lambda: p_rarer(1, 3, 1.0), "rate: expected"),
        (lambda: p_rarer(4, 3, 0.1), "hits: expected"),
    ],
)
def test_errors_say_what_came(call, message):
    with pytest.raises(RaigenError, match=message):
        call()


# Images of the same seeds.


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


@given(hits=st.integers(10, 60), rate=st.floats(0.01, 0.3))
def test_p_from_an_interval_is_near_the_binomial_one(hits: int, rate: float) -> None:
    """Between 1 % and 99 %, where it decides."""
    low, high, _ = rate_interval(hits, 400)
    exact = p_rarer(hits, 400, rate)
    if 0.01 < exact < 0.99:
        assert p_below(low, high, rate) == pytest.approx(exact, abs=0.05)


def test_an_interval_that_is_none_has_no_p() -> None:
    with pytest.raises(RaigenError, match=r"interval: expected 0 <= low < high <= 1; got \[0.2, 0.1\]"):
        p_below(0.2, 0.1, 0.05)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60), st.integers(1, 60))
def test_the_chances_of_a_draw_add_up_to_what_is_drawn(shares, n):
    share = np.array([*shares, 1.0])
    if n > len(share):
        with pytest.raises(RaigenError, match="n: expected 1 to"):
            chances_of(share, n)
        return
    chances = chances_of(share, n)
    assert chances.sum() == pytest.approx(n) and (chances > 0).all() and (chances <= 1 + 1e-9).all()
    order = np.argsort(share)
    assert (np.diff(chances[order]) >= -1e-9).all()
    assert abs(drawn(chances, np.random.default_rng(0)).sum() - n) <= 1


def test_each_image_is_drawn_with_its_chance():
    chances, rng = chances_of(1 / np.arange(1, 41.0), 10), np.random.default_rng(0)
    shares = np.mean([drawn(chances, rng) for _ in range(4000)], axis=0)
    assert shares == pytest.approx(chances, abs=0.03)


@pytest.mark.parametrize(("shift", "rate"), [(4, 0.005), (4, 0.02), (2, 0.02), (0, 0.05)])
def test_a_weighted_rate_is_unbiased_and_its_interval_holds_it(shift, rate):
    rng, found, held = np.random.default_rng(3), [], 0
    for _ in range(300):
        shows = rng.random(1000) < rate
        rank = 1 + np.argsort(np.argsort(-(rng.normal(size=1000) + shift * shows)))
        chances = chances_of(1 / rank, 100)
        seen = drawn(chances, rng)
        one = weighted_rate(shows[seen].astype(float), chances[seen], 1000)
        found.append(one.rate)
        held += one.low <= rate <= one.high
        assert one.low <= one.rate <= one.high and one.effective_n <= 1000
    assert np.mean(found) == pytest.approx(rate, abs=4 * np.std(found) / np.sqrt(300))
    assert held / 300 >= 0.92


def test_a_weighted_rate_at_the_ends():
    none, every = weighted_rate(np.zeros(20), np.full(20, 0.1), 200), weighted_rate(np.ones(20), np.full(20, 0.1), 200)
    plain = rate_interval(0, 20)
    assert (none.rate, none.low, none.high) == (0.0, 0.0, pytest.approx(plain.high)) and none.effective_n == 20
    assert (every.rate, every.high) == (1.0, 1.0) and every.low == pytest.approx(1 - plain.high)
    assert weighted_rate(np.zeros(0), np.zeros(0), 10)[1:3] == (0.0, 1.0)
