"""Some of the fresh images are judged, drawn by their likeness to the attribute, and the rate is weighted back."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from raigen.config import EvaluateConfig
from raigen.discovery.embeddings import Embedder
from raigen.judging.calibration import calibrated
from raigen.judging.evaluate import plan
from raigen.judging.judges import StoredImages, WorldJudge, judge_of
from raigen.judging.posterior import Calibration
from raigen.judging.rates import ratio_of
from raigen.judging.review import tasks
from raigen.judging.sampling import n_judged, sampled
from raigen.judging.vlm.answers import Answers
from raigen.runs.files import write_tensors
from raigen.runs.records import Presence
from raigen.world.worlds import WORLDS
from tests.judging.test_judges import N_COLORS, N_FRESH, named, run, server, through  # noqa: F401  # fixtures


@pytest.fixture
def seen(run):  # noqa: F811
    """The run with the embeddings of its images."""
    found = Embedder("portraits", "cpu").images(StoredImages(run, run.samples()))
    write_tensors(run.embeddings_path, {"embeddings": torch.from_numpy(found)})
    named(run, "wearing glasses", "holding a cat", None)
    return run


def test_a_server_sees_the_likely_images_and_the_rate_is_weighted_back(seen, server):  # noqa: F811
    n = 10
    config = EvaluateConfig(n_fresh_images=N_FRESH, judge=(server.model,), n_judged=n, n_label_images=0,
                            n_suggested_images=0)  # fmt: skip
    ticks, facts = through(seen, "evaluate", config)
    assert len(server.requests) <= 2 * (n + 1) and ticks[-1].done == ticks[-1].total
    cat = seen.attributes[1].presence
    assert (cat.mode, cat.n, cat.unscored) == ("sampled", n, 0) and "judged 10 of 24" in cat.interval
    lines = [json.loads(line) for line in seen.judgements_path.read_text().splitlines()]
    ours = [line for line in lines if line["label"] == "holding a cat"]
    assert len(ours) == n and all(0 < line["chance"] <= 1 for line in ours)
    weights = np.array([1 / line["chance"] for line in ours])
    shows = np.array([line["shows"] for line in ours], float)
    assert cat.rate == pytest.approx((weights * shows).sum() / weights.sum(), abs=1e-4) and cat.rate != cat.hits / cat.n
    assert facts["n_judged"] == {cat.judge: n}
    assert any("judged 10 of 24 fresh images" in line for line in seen.facts.evaluate.cautions)
    row = next(row for row in csv.DictReader(seen.presence_path.read_text().splitlines()) if row["neuron"] == "14")
    assert Presence.from_row(row).counts == cat.counts
    assert tasks(seen) == []  # the sheet's model needs the scores of all images
    before = len(server.requests)
    through(seen, "evaluate", config)
    assert len(server.requests) == before  # the same images are drawn again


def test_all_images_are_judged_where_that_is_asked_for(seen, server):  # noqa: F811
    config = EvaluateConfig(n_fresh_images=N_FRESH, judge=(server.model,), n_label_images=0)
    through(seen, "evaluate", config)
    assert seen.attributes[1].presence.mode == "raw" and seen.attributes[1].presence.n == N_FRESH
    assert not any("judged" in line for line in seen.facts.evaluate.cautions)


def test_a_plan_counts_what_would_be_asked(seen, server):  # noqa: F811
    few, every = (EvaluateConfig(n_fresh_images=N_FRESH, judge=(server.model,), n_judged=n, n_label_images=0,
                                 n_suggested_images=0) for n in (10, None))  # fmt: skip
    assert (plan(seen, few)[0].questions, plan(seen, every)[0].questions) == (20 + N_COLORS, 2 * N_FRESH + N_COLORS)


def test_only_models_that_are_asked_see_a_draw(seen, server):  # noqa: F811
    config, few, answers = EvaluateConfig(), EvaluateConfig(n_judged=30), Answers(seen.answers_path)
    paid = judge_of(server.model, seen, answers, config)
    assert [n_judged(paid, one, 300) for one in (config, few)] == [300, 30] and n_judged(paid, few, 20) == 20
    world = WorldJudge(WORLDS["portraits"])
    assert n_judged(world, few, 300) == 300 and sampled(world, seen, [], few) is world


def test_corrections_count_the_images_that_a_sampled_rate_is_worth():
    raw = Presence(0.05, 0.02, 0.11, 12, 100, 0, "j", "i", "sampled", effective_n=200.0)
    same = replace(raw, hits=10, n=200, mode="raw", effective_n=None)
    assert raw.counts == (10, 200) == same.counts
    found, wanted = (calibrated(one, Calibration(45, 50, 196, 200), 0.95) for one in (raw, same))
    assert (found.low, found.high, found.rate) == (wanted.low, wanted.high, wanted.rate) and found.effective_n is None
    suggested = replace(same, hits=9, n=10, rate=0.9)
    assert ratio_of(suggested, raw, 0.95).low == ratio_of(suggested, same, 0.95).low
