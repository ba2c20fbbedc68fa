"""The benchmark's own arithmetic: what counts as a hit, average precision, intervals."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from sklearn.metrics import average_precision_score

from benchmarks.common.arms import as_codes, by_part, clip_clusters, clip_directions, clip_outliers, published, told
from benchmarks.common.cells import Cell, streamed_batches
from benchmarks.common.figures import ablation_figure, recall_figure, suppression_figure
from benchmarks.common.intervals import ANY, COUNT, SHARE, interval_of, shown
from benchmarks.common.measures import BANDS, Listing, Truth, average_precision, matched_precision, measure, verdicts
from benchmarks.common.results import as_csv, differences, summary
from benchmarks.common.world import WORLD
from benchmarks.discovery import ablations, false_alarms, shared_sae
from benchmarks.discovery.hookpoint_search import agreement, truths
from benchmarks.discovery.hookpoint_search import summary as search_summary
from benchmarks.discovery.misses import kinds, rare_pair
from raigen.config import TrainConfig
from raigen.discovery.listing import NeuronList
from raigen.discovery.scores import NeuronScores
from raigen.discovery.search import Reading
from raigen.errors import RaigenError
from raigen.runs.records import HookpointRating
from raigen.world.attributes import VALUE_NAMES

N = 200


def world() -> tuple[Truth, np.ndarray]:
    """200 images; value 0 in all, 1 in half, 2 in 10 (5 %), 3 in 2 (1 %), 4 in 12 (6 %, a control)."""
    shows = np.zeros((N, 5), bool)
    shows[:, 0] = True
    shows[: N // 2, 1] = True
    shows[100:110, 2] = True
    shows[150:152, 3] = True
    shows[160:172, 4] = True
    return Truth(shows, np.array([4])), shows.astype(float)


def test_a_unit_hits_the_rare_value_that_its_top_images_share():
    truth, values = world()
    noise = np.random.default_rng(0).random((N, 5)) * 0.1
    listing = Listing(values + noise, np.array([1.0, 0.5, 0.05, 0.01, 0.06]))
    verdict = verdicts(listing, truth)
    assert verdict.hit.tolist() == [-1, -1, 2, -1, 4]  # 2 of ten top images cannot show that value 3 is meant
    assert verdict.meaning.tolist() == [-1, 1, 2, -1, 4]
    assert verdict.control.tolist() == [-1, -1, -1, -1, 4]
    result = measure(listing, truth)
    assert result["precision@10"] == 2 / 5 and result["recall@20"] == 2 / 3 and result["redundancy"] == 1
    assert result["recall@10 in 2-5 %"] == 1 and result["recall@10 in 0.5-1 %"] == 0
    assert np.isnan(result["recall@10 in 1-2 %"])
    assert result["control hits"] == 1 and result["interpretable"] == 3 / 5
    assert result["presence"] == pytest.approx((0.5 + 0.05 + 0.06) / 3) and result["rate correlation"] == 1
    assert result["listed"] == 5


def test_a_miss_is_told_by_what_its_top_images_share():
    rng = np.random.default_rng(0)
    shows = np.zeros((N, 5), bool)
    shows[:40, 0] = shows[30:70, 1] = True  # each in 20 %, together in 5 %
    shows[100:107, 2] = True  # seen in seven images only
    shows[120:130, 3] = True
    weights = [shows[:, 3], shows[:, 0] & shows[:, 1], shows[:, 2], shows[:, 0] & ~shows[:, 1], np.arange(N) >= 150]
    listing = Listing(np.stack(weights, 1) + 0.1 * rng.random((N, 5)), np.zeros(5))
    found = kinds(listing, Truth(shows, np.zeros(0, int)))
    assert [kind for kind, _ in found] == ["rare value", "rare pair", "nearly", "common value", "nothing"]
    assert found[1][1] == f"{VALUE_NAMES[0]} + {VALUE_NAMES[1]}"
    everywhere = np.ones((N, 5), bool)
    assert rare_pair(everywhere, everywhere[:10]) is None  # shared by the top images, and by all others


def test_a_probe_that_is_told_the_truth_finds_what_the_activations_hold_and_nothing_else():
    truth, values = world()
    rng = np.random.default_rng(0)
    held = np.concatenate([values[:, 2:3], rng.normal(size=(N, 9)) * 0.1], 1).reshape(N, 5, 2).astype(np.float32)
    cell = Cell("a photo of a doctor", 0, np.ones(N, bool), truth.shows, {}, held, truth.controls)
    listing = told(cell, seed=0)
    assert listing.rates.tolist() == [0.06, 0.05, 0.01]
    assert verdicts(listing, truth).hit.tolist() == [-1, 2, -1]


def test_a_stream_holds_what_the_settings_draw_from_every_image_once():
    activations = torch.arange(6 * 4 * 8, dtype=torch.float32).view(6, 4, 8, 1)
    batches = list(streamed_batches(activations, TrainConfig(tokens_per_batch=5), at_once=4))
    assert sorted(torch.cat([batch.tokens for batch in batches]).flatten().tolist()) == list(range(6 * 4 * 8))
    few = list(streamed_batches(activations, TrainConfig(tokens_per_batch=5, steps_per_image=2, tokens_per_step=4)))
    tokens = torch.cat([batch.tokens for batch in few]).flatten().long()
    assert torch.equal(torch.cat([batch.images for batch in few]), tokens // (4 * 8))  # as far as they were drawn from
    assert len(tokens.unique()) == len(tokens) == 6 * 2 * 4


def test_a_list_of_one_value_over_and_over_is_redundant():
    truth, values = world()
    result = measure(Listing(np.repeat(values[:, 2:3], 4, 1), np.full(4, 0.05)), truth)
    assert result["precision@10"] == 1 and result["redundancy"] == 4 and result["recall@20"] == 1 / 3


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_average_precision_is_that_of_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    activations = rng.integers(0, levels + 1, (60, 3)).astype(float)  # with ties
    shows = rng.random((60, 2)) < 0.3
    shows[0] = True
    table = average_precision(activations, shows)
    for unit in range(3):
        for value in range(2):
            expected = average_precision_score(shows[:, value], activations[:, unit])
            assert table[unit, value] == pytest.approx(expected)


def test_each_unit_is_matched_to_one_value_only():
    truth, values = world()
    rare = truth.shows[:, 2:4]
    assert matched_precision(values[:, 2:4], rare) == 1
    assert matched_precision(values[:, 2:3], rare) == 0.5


def test_the_interval_is_students_cut_off_at_the_ends():
    values = np.array([0.5, 0.7, 0.6, 0.9])
    result = interval_of(values, ANY)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (result["mean"], result["low"], result["high"]) == pytest.approx((0.675, low, high))
    assert interval_of(np.array([0.0, 0.0, 9.0]), COUNT)["low"] == 0
    assert np.isnan(interval_of(values[:2], ANY)["low"]) and interval_of(values[:0], ANY)["n"] == 0
    assert np.isnan(interval_of(np.array([0.0, 0.0, 0.0]), SHARE)["low"])  # they do not say how much others would vary


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12))
def test_the_interval_of_a_share_is_a_share_and_holds_the_mean(values):
    result = interval_of(np.array(values), SHARE)
    assert np.isnan(result["low"]) or 0 <= result["low"] <= result["mean"] + 1e-9 <= result["high"] + 2e-9 <= 1 + 3e-9
    assert np.isnan(result["low"]) or np.ptp(values) > 0
    assert np.ptp(values) < 1e-9 or not np.isnan(result["low"])


@pytest.mark.parametrize(("a", "b", "n"), [(8, 2, 4), (8, 2, 10), (1, 4, 6), (0.3, 9.7, 10), (0.4, 0.1, 10)])
def test_the_interval_of_a_share_covers_it(a, b, n):
    rng = np.random.default_rng(0)
    found = [interval_of(rng.beta(a, b, n), SHARE) for _ in range(1500)]
    covered = np.mean([each["low"] <= a / (a + b) <= each["high"] for each in found])
    assert covered > 0.87  # of .95; more than by Student's interval of the mean or a BCa bootstrap


def test_intervals_between_two_ends_do_not_depend_on_where_the_ends_are():
    values = np.array([0.1, 0.6, 0.9, 0.95])
    share, moved = interval_of(values, SHARE), interval_of(2 * values - 1, (-1.0, 1.0))
    assert (moved["low"], moved["high"]) == pytest.approx((2 * share["low"] - 1, 2 * share["high"] - 1))


def test_a_summary_averages_prompts_then_seeds():
    values = {("a", 0): 1.0, ("b", 0): 0.0, ("a", 1): 1.0, ("b", 1): np.nan}
    rows = [{"prompt": p, "generation_seed": s, "sae_seed": 0, "arm": "x, or so", "measure": "m", "value": v}
            for (p, s), v in values.items()]  # fmt: skip
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    result = summary(read, ["a", "b"])["x, or so"]["m"]
    assert result["mean"] == 0.75 and result["n"] == 2
    assert summary(read, ["b"])["x, or so"]["m"]["mean"] == 0


def test_every_arm_finds_a_planted_cluster():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(N, 16)) * 0.1
    embeddings[:, 0] += 1
    embeddings[:12, 1] += 2
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    truth = Truth(np.arange(N)[:, None] < 12, np.array([], int))
    codes = np.abs(rng.normal(size=(N, 30))) * (rng.random((N, 30)) < 0.5)
    codes[:, 7] = np.arange(N) < 12
    for listing in (
        published(codes, embeddings), by_part(codes, embeddings, "frequency", 0),
        by_part(codes, embeddings, "distinctiveness", 0), by_part(codes, embeddings, "random", 0),
        clip_clusters(embeddings, 0, k=8), clip_directions(embeddings), clip_outliers(embeddings),
    ):  # fmt: skip
        assert measure(listing, truth)["recall@50"] == 1
    assert measure(published(codes, embeddings), truth)["precision@10"] > 0


def test_a_search_is_held_against_what_its_neurons_hold():
    truth, values = world()
    truth.shows[152:157, 3] = True  # five images show it: enough to count
    blind = np.random.default_rng(0).random((N, 3))

    def tried(path: str, peaks: np.ndarray) -> HookpointRating:
        n = peaks.shape[1]
        found = NeuronScores(np.full(n, 0.1), np.zeros(n), np.zeros(n), np.eye(n))
        listing = NeuronList(found, np.arange(n), np.zeros((n, 10), int))
        return HookpointRating(path, False, readings=[Reading(peaks, listing, np.zeros(n), 0.0)] * 2)

    seeing = truths(tried("seeing", truth.shows[:, [3, 2, 4]].astype(float)), truth)
    assert seeing["held"] == 1 and seeing["interpretable"] == 2 / 3 and seeing["recall@20"] == 2 / 3
    half = truths(tried("half", np.stack([values[:, 2], values[:, 4]], 1)), truth)["held"]
    assert truths(tried("blind", blind), truth)["held"] < half < 1


def test_the_agreement_of_a_search_with_the_truth():
    rows = [
        {"path": f"{rank}", "rank": rank, "is_default": rank == 2, "score": score, "dead_share": 0.1 * rank,
         "stability": 1.0, "concentration": 0.1 * rank, "n_listed": 10.0,
         **dict.fromkeys(("held", "interpretable", "precision@10", "recall@20"), truth)}
        for rank, score, truth in ((1, 0.9, 0.5), (2, 0.8, 0.6), (3, 0.1, 0.2))
    ]  # fmt: skip
    assert agreement(rows, "rank", "held") == agreement(rows, "dead_share", "held") == pytest.approx(0.5)
    assert agreement(rows, "concentration", "held") == pytest.approx(-0.5)
    assert np.isnan(agreement(rows, "stability", "held"))
    found = search_summary({"one": rows, "other": rows})["held"]
    assert found["mean ranks"]["score + dead_share"]["mean"] == pytest.approx(0.5)
    assert found["spearman"]["rank"]["mean"] == pytest.approx(0.5) and found["spearman"]["rank"]["n"] == 2
    assert [found[f"at the {name}"] for name in ("first of the search", "default", "best")] == [0.5, 0.6, 0.6]
    assert found["at any"] == pytest.approx(1.3 / 3)


def test_figures_are_drawn_also_where_intervals_are_unknown(tmp_path):
    known, unknown = interval_of(np.array([0.5, 0.7, 0.6]), SHARE), interval_of(np.array([0.5]), SHARE)
    bands = {f"recall@20 in {100 * low:g}-{100 * high:g} %": known for low, high in BANDS}
    recall_figure({"one, two": bands, "three": dict.fromkeys(bands, unknown)}, tmp_path / "recall.svg")
    ablation_figure({"k: 2": {"recall@20": known}, "k: 4": {"recall@20": unknown}}, tmp_path / "ablation.svg")
    row = {"planted": 0.02, "rate": 0.01, "guidance_scale": 1.0, "named": 0}
    suppression_figure([row, row | {"guidance_scale": 2.0}, row | {"rate": None}], tmp_path / "suppression.svg")
    texts = [(tmp_path / f"{name}.svg").read_text() for name in ("recall", "ablation", "suppression")]
    assert all(text.startswith("<svg") for text in texts) and "one, two" in texts[0]


def test_every_curve_of_the_ablations_that_changes_training_holds_the_usual_one():
    usual, held = ablations._spelled_out(TrainConfig(), 128), {}
    for point in ablations.points(10):
        same = ablations._spelled_out(replace(TrainConfig(), **point.train), 128) == usual
        held.setdefault(point.curve, []).append(same and not point.streamed)
    assert all(any(same) for same in held.values())
    assert [sum(held[curve]) for curve in ("k", "coarse neurons", "learning rate", "reach")] == [1, 1, 1, 5]


def test_signed_units_become_sparse_codes():
    tokens = np.random.default_rng(0).normal(size=(50, 8, 4))
    codes = as_codes(tokens, k=2)
    assert codes.shape == (50, 8) and (codes >= 0).all()
    assert 0.05 < (codes == 0).mean() < 0.2  # .75 ** 8: no token of an image is among the quarter that is kept


def test_a_number_of_ten_keeps_its_naught():
    assert shown({"mean": 0.8, "low": -0.05, "high": 20.35, "n": 3}) == ".80 [-.05, 20.35]"
    unknown = {"low": float("nan"), "high": float("nan")}
    assert shown({"mean": 10.0, "n": 1} | unknown) == "10.00" and shown({"mean": float("nan"), "n": 0} | unknown) == "-"
    assert shown({"mean": 10.0, "n": 1} | unknown, n=3) == "10.00 (n = 1)"


def test_shared_and_single_are_compared_prompt_by_prompt():
    rows = [{"prompt": p, "arm": a, "measure": "m", "value": v} for p, a, v in (
        ("x", shared_sae.APART, 0.25), ("y", shared_sae.APART, 0.5), ("z", shared_sae.APART, np.nan),
        ("x", "shared", 0.5), ("y", "shared", 0.5), ("z", "shared", 0.5),
    )]  # fmt: skip
    found = differences(rows, shared_sae.APART)
    assert list(found) == ["shared"] and found["shared"]["m"]["mean"] == 0.125 and found["shared"]["m"]["n"] == 2


def test_rates_elsewhere_go_by_the_mark_of_the_own_prompt():
    codes = {"x": np.array([[8.0]] * 10 + [[1.0]] * 10), "y": np.array([[2.0], [1.9]]), "z": np.array([[0.0], [9.0]])}
    here, elsewhere = shared_sae.rates(codes, "x")
    assert (here[0], elsewhere[0]) == (0.5, 0.5)


def test_a_share_of_the_positions_of_every_step_is_drawn():
    activations = torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(8)).view(3, 4, 8, 3).half()
    thinned = shared_sae._thinned(activations, 0.25, seed=0)
    assert thinned.shape == (3, 4, 2, 3)
    assert torch.equal(thinned[..., :2], activations[:, :, :2, :2])  # of each image and step
    places = thinned[..., 2]
    assert (places[..., 0] != places[..., 1]).all() and len(places.flatten(0, 1).unique(dim=0)) > 6


def test_two_sets_of_one_model_hold_no_image_twice_and_a_difference_is_called():
    column = np.arange(600.0)
    seen = {"a": np.repeat(column[:, None], len(WORLD.value_names), 1)}
    shows = false_alarms.split(seen, 300, np.random.default_rng(0))
    name = WORLD.value_names[3]
    assert sorted([*shows[name, "a", "one"], *shows[name, "a", "other"]]) == column.tolist()
    alike = {key: (np.arange(300) % 10 == 0).astype(float) for key in shows}
    assert false_alarms.alarms_of(alike, ("a",)) == 0
    assert false_alarms.alarms_of(alike | {(name, "a", "one"): np.ones(300)}, ("a",)) == 1
    with pytest.raises(RaigenError, match="at most half of the 600 images of 'a'; got 301"):
        false_alarms.split(seen, 301, np.random.default_rng(0))
