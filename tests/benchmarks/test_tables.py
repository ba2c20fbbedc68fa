"""What the tables compare, on rows made by hand."""

import numpy as np
import pytest

from benchmarks.amplification.goals import distinct
from benchmarks.common.cells import controls
from benchmarks.common.results import HELD_OUT, differences, table
from benchmarks.common.world import WORLD
from benchmarks.discovery import suppression
from benchmarks.tables import OURS, by_choice, first_ten, of_curve


def row(prompt: str, arm: str, measure: str, value: float, seed: str = "0") -> dict:
    return {"prompt": prompt, "generation_seed": seed, "sae_seed": "0", "arm": arm, "measure": measure,
            "value": str(value)}  # fmt: skip


def test_lists_are_compared_prompt_by_prompt_at_the_same_length():
    rows = []
    for prompt, ours, theirs in (("a", 0.5, 0.3), ("b", 0.7, 0.4), ("c", 0.6, 0.1)):
        for arm in ("published", "published, ten images", "plain BatchTopK", "ICA of looks", "random order",
                    "told the truth"):  # fmt: skip
            rows += [row(prompt, arm, "precision@10", theirs), row(prompt, arm, "recall@10", 0.2)]
        rows += [row(prompt, OURS, "precision@10", ours), row(prompt, OURS, "recall@10", 0.2)]
        rows += [row(prompt, "coherent", "precision@10", 1.0)]  # a shorter list, which does not count here
    lines = first_ten(rows).splitlines()
    assert (
        lines[0] == "| first ten of the list | truly rare | found | truly rare, less raigen's | found, less raigen's |"
    )
    assert lines[2].startswith("| **raigen**, the list not ended | .60 [") and lines[2].endswith("| .20 | - | - |")
    gap = differences(rows, OURS)["published"]["precision@10"]
    assert gap["mean"] == pytest.approx(np.mean([-0.2, -0.3, -0.5]))
    assert lines[3].split(" | ")[3] == f"-.33 [{gap['low']:.2f}, .05]".replace("-0.", "-.")


def test_what_was_chosen_on_stands_apart():
    rows = [
        row(prompt, "coherent", measure, 0.9 if prompt in WORLD.chosen_on else 0.5 if seed == "0" else 0.1, seed)
        for prompt in WORLD.prompts for seed in "012"
        for measure in ("precision@10", "recall@20 in 1-2 %", "recall@20 in 2-5 %", "listed")
    ]  # fmt: skip
    lines = by_choice(rows).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == [".90", ".90", ".50", ".10"]
    assert len(WORLD.chosen_on) + len(HELD_OUT) == len(WORLD.prompts)


def test_a_difference_pairs_the_means_of_the_seeds():
    rows = [row("a", "x", "m", 1, "0"), row("a", "x", "m", 3, "1"), row("a", "base", "m", 1), row("b", "x", "m", 5),
            row("b", "base", "m", "nan"), row("c", "x", "m", 4), row("c", "base", "m", 1)]  # fmt: skip
    found = differences(rows, "base")
    assert list(found) == ["x"] and found["x"]["m"]["mean"] == 2 and found["x"]["m"]["n"] == 2  # b has no base


def test_a_table_says_where_fewer_prompts_count():
    known = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 10}
    found = table({"x": {"precision@10": known, "redundancy": known | {"n": 4}}}, ("precision@10", "redundancy"))
    assert found.splitlines()[0] == "| arm | precision@10 | hits per value |"
    assert found.splitlines()[2] == "| x | .50 [.25, .75] | .50 [.25, .75] (n = 4) |"


def test_a_curve_is_found_by_its_name():
    rows = [row("a", "views: clip", "m", 1), row("a", "k: 8", "m", 2)]
    assert [found["arm"] for found in of_curve(rows, "views")] == ["clip"]


def test_two_neurons_of_one_name_are_one_attribute():
    rows = [{"prompt": p, "label": label, "rank": rank} for p, label, rank in
            (("a", "x", 1), ("a", "x", 2), ("b", "x", 1), ("a", "y", 3))]  # fmt: skip
    assert [found["rank"] for found in distinct(rows)] == [1, 1, 3]


def test_seen_over_planted_has_an_interval_over_prompts():
    rows = [{"prompt": p, "hits": hits, "planted": 0.1, "readable": 100} for p, hits in
            (("a", 5), ("a", 5), ("b", 20), ("b", 10), ("c", 10), ("c", 10))]  # fmt: skip
    found = suppression.ratio(rows)
    assert found["mean"] == pytest.approx(1) and found["n"] == 3 and found["low"] == 0 and found["high"] > 2
    level = [each | {"hits": 7} for each in rows]
    assert suppression.ratio(level)["mean"] == pytest.approx(0.7)


class Coins:
    """Another world: two values, one of them never planted."""

    prompts = ("a coin",)
    value_names = ("heads", "tails", "edge")

    def control_values(self, prompt):
        return ("edge",)


def test_another_world_says_what_is_never_planted():
    assert controls("a coin", Coins()).tolist() == [2]
    assert {WORLD.value_names[column] for column in controls(WORLD.prompts[0])} == set(
        WORLD.control_values(WORLD.prompts[0])
    )
