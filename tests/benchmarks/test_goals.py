"""The benchmark of amplification: what it counts, that its choice is not its measurement, and what it leaves alone."""

import json
import math
import shutil

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.amplification.audits import Aim, borrowed
from benchmarks.amplification.goals import Seen, at_best, goals, lift, row_of, selected
from benchmarks.amplification.methods import Options, asked_of, estimate, kept, mix_of, table
from benchmarks.common.intervals import median_interval
from raigen.errors import RaigenError
from raigen.runs.files import write_text
from raigen.runs.records import Presence, RareAttribute
from raigen.runs.run import Run

N = 40


def seen(share: float, readable: float = 1.0, right: float = 1.0) -> Seen:
    """N images. The first ones show the attribute; others are unreadable, or of another profession."""
    place = np.arange(N)
    return Seen(place < share * N, place < readable * N, place < right * N)


def cell(*points: tuple[float, Seen], **more) -> dict:
    lists = [{"strength": strength, **{n: c.astype(int).tolist() for n, c in zip(Seen._fields, s, strict=True)}}
             for strength, s in points]  # fmt: skip
    base = {name: [0] * N for name in Seen._fields} | {"readable": [1] * N, "right": [1] * N}
    return {"prompt": "a photo of a doctor", "rank": 1, "neuron": 7, "label": "in a field", "named by": "CLIP",
            "top share": 0.9, "fresh": {"hits": 6, "n": 300}, "points": lists, "base": base, **more}  # fmt: skip


def test_only_readable_images_are_counted():
    found = seen(0.5, readable=0.75)
    assert (found.hits, found.n, found.presence) == (20, 30, 2 / 3) and not found.keeps
    hidden = Seen(np.ones(N, bool), np.zeros(N, bool), np.ones(N, bool))
    assert (hidden.hits, hidden.n, hidden.presence) == (0, 0, 0.0)


def test_the_best_strength_keeps_readability_and_profession():
    points = {0.5: seen(0.2), 1.0: seen(0.4), 2.0: seen(0.8, readable=0.5), 3.0: seen(0.9, right=0.5)}
    best, strengths = at_best(seen(0.0), points)
    assert strengths == [1.0, 1.0] and best.presence == pytest.approx(0.4) and best.n == N
    none, strengths = at_best(seen(0.1), {2.0: points[2.0]})
    assert strengths == [0.0, 0.0] and none.presence == pytest.approx(0.1)


def test_chance_alone_gains_nothing_from_the_choice():
    rng, gains = np.random.default_rng(0), []
    good = np.ones(200, bool)
    for _ in range(300):  # ten strengths that all do nothing: the best of them looks better than it is
        points = {float(s): Seen(rng.random(200) < 0.05, good, good) for s in range(1, 11)}
        gains.append(at_best(points[1.0], points)[0].presence)
    assert np.mean(gains) == pytest.approx(0.05, abs=0.003)


def test_a_lift_over_nothing_is_the_least_it_can_be():
    some, none = lift(seen(0.5), (5, 500)), lift(seen(0.5), (0, 500))
    assert some["lift"] == 50 and none["lift"] == 250
    assert some["low"] < 50 < some["high"] and math.isinf(none["high"]) and none["low"] < 250


def test_a_row_holds_what_its_cells_measured():
    row = row_of({
        "identity": {"identical": True}, "steer": cell((0.5, seen(0.2)), (1.0, seen(0.5))),
        "random-direction": cell((1.0, seen(0.025))),
    })  # fmt: skip
    assert row["unsteered"] == 6 / 340 and row["identical at 0"]
    points = row["points"]
    assert points["steer 1"]["lift"]["lift"] == pytest.approx(0.5 * 340 / 6)
    assert points["steer, best"]["strengths"] == [1, 1] and "prompt" not in points
    found = goals([row], [])
    assert found["steer: median lift at the best strength"]["met"] and found["identical at strength 0"]["met"]
    assert found["random direction at 1: median lift"]["met"] and found["prompt: median presence"]["met"] is None
    assert found["steer: readable"]["n"] == 1
    assert "| steer: median lift at the best strength | >= 8 | 28.33 | 1 | yes |" in table([row], [])


def test_frequent_attributes_take_no_part_in_lifts():
    common = row_of({"steer": cell((1.0, seen(1.0)), fresh={"hits": 30, "n": 300})})
    assert goals([common], [])["steer: median lift at the best strength"]["n"] == 0


def test_selection_costs_what_it_made_for_each_that_shows_it():
    point = {"n_made": 50 * N, "strength": 50.0}
    made = cell((50.0, seen(0.5)), pool_hits=25, fresh={"hits": 12, "n": 300})
    made["points"][0] |= point
    found = selected(made, (6, 300))
    assert found["cost"] == 100 and found["predicted"] == 50 and found["made / predicted"] == 2
    assert found["found"] == 20 / 25 and not found["capped"]  # 12 in 300: 25 for each that shows it, twice as many
    made["fresh"]["hits"] = 6
    assert selected(made, (6, 300))["capped"]


def test_the_interval_of_a_median_covers_it():
    rng = np.random.default_rng(1)
    for n in (6, 15, 50):
        held = [(found := median_interval(rng.exponential(size=n)))["low"] <= math.log(2) <= found["high"]
                for _ in range(2000)]  # fmt: skip
        below = int(binom.ppf(0.025, n, 0.5))
        assert np.mean(held) == pytest.approx(1 - 2 * binom.cdf(below - 1, n, 0.5), abs=0.015) and np.mean(held) > 0.94
    assert math.isnan(median_interval(np.arange(5.0))["low"]) and median_interval(np.arange(0.0))["n"] == 0


def test_a_finished_cell_is_not_made_again_unless_it_was_asked_for_otherwise(tmp_path):
    path, calls = tmp_path / "run" / "cells" / "7-steer.json", []

    def make():
        calls.append(1)
        return {"points": len(calls)}

    for asked, expected in (({"n": (1, 2)}, 1), ({"n": (1, 2)}, 1), ({"n": (1, 3)}, 2)):
        assert kept(path, asked, make)["points"] == expected


def test_what_each_method_is_asked_for():
    rate = Presence(0.02, 0.01, 0.03, 6, 300, 0, "j", "i")
    aim = Aim(RareAttribute(3, 7, 0.5, 0.02, 0.5, (), "in a field", presence=rate), "CLIP", 1.0)
    options = Options(n_images=100, n_selected=10, most_per_selected=120, strengths=(1.0, 3.0))
    asked = {method: asked_of(options, aim, method) for method in ("identity", "steer", "set", "select")}
    assert [a["strength"] for a in asked.values()] == [(0.0,), (1.0, 3.0), (1.0,), (100.0,)]
    assert [a["n_images"] for a in asked.values()] == [16, 100, 100, 10] and asked["identity"]["method"] == "steer"
    assert asked_of(Options(most_per_selected=30), aim, "select")["strength"] == (30.0,)
    with pytest.raises(RaigenError, match="methods: expected some of identity"):
        Options(methods=("steering",))
    assert "10 prompts" in estimate(Options()) and "1 prompts" in estimate(Options(prompts=("a photo of a doctor",)))


def test_targets_out_of_reach_are_told_and_give_no_mixture(tmp_path, monkeypatch, capsys):
    def refuse(run, **asked):
        raise RaigenError("targets: no mixture of these prompts gives (0.9, 0.9)")

    monkeypatch.setattr("raigen.amplify", refuse)
    pair = [Aim(RareAttribute(rank, rank, 0.5, 0.02, 0.5, (), "in a field"), "CLIP", 1.0) for rank in (1, 2)]
    assert mix_of(Options(), Run.create(tmp_path / "run"), pair) is None
    assert "no mixture" in capsys.readouterr().out


def test_a_borrowed_capture_is_shared_and_stays_as_it_was(tmp_path):
    lender = Run.create(tmp_path / "lender")
    lender.images_dir.mkdir()
    files = {"samples.jsonl": "{}\n", "images/000000.png": "an image"}
    for name, text in files.items():
        (lender.dir / name).write_text(text)
    record = {"config": {"prompt": "p", "n_images": 50, "store": True}, "finished": "now", "facts": {},
              "outputs": {name: len(text) for name, text in files.items()}}  # fmt: skip
    write_text(lender.manifest_path, json.dumps({"format": 1, "stages": {"capture": record, "train": {}}}))
    before = lender.manifest_path.read_text()
    run = borrowed(lender.dir, tmp_path / "own", 50)
    assert run.config.capture.n_images == 50 and "train" not in run.manifest["stages"]
    assert run.is_done("capture", run.config.capture)
    write_text(run.images_dir / "000000.png", "another")
    run.forget("capture")
    assert {name: (lender.dir / name).read_text() for name in files} == files
    assert lender.manifest_path.read_text() == before
    shutil.rmtree(run.dir)
    assert not borrowed(lender.dir, tmp_path / "own", 60).manifest["stages"]  # of another size
    assert not borrowed(tmp_path / "nowhere", tmp_path / "else", 50).manifest["stages"]
