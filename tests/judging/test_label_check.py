"""A name that other images do not bear out is no name; the annotator's next phrase may take its place."""

import json
from dataclasses import replace

import numpy as np
import pytest

from raigen.config import EvaluateConfig
from raigen.judging.annotate import as_annotated
from raigen.judging.label_check import check_labels
from raigen.judging.label_scores import material_of, scored_labels
from raigen.judging.protocol import Verdicts
from raigen.judging.rates import covers_more, presence_of
from raigen.runs.files import write_text
from raigen.runs.records import Sample, label_columns, rarest
from raigen.runs.steps import exhausted
from tests.support.run_folder import make_run

FRESH = [Sample(i, "a photo of a doctor", 10**9 + i, f"fresh/{i:06d}.png", "") for i in range(100)]


class TableJudge:
    """Says yes to as many active and as many fresh images of a label as a table has it; None is no answer."""

    name = "table"

    def __init__(self, table):
        self.table, self.asked = table, []

    def verdicts(self, images, subjects, tell=None):
        is_fresh, found = images.samples[0].seed >= 10**9, []
        self.asked += [(subject.label, "fresh" if is_fresh else "active") for subject in subjects]
        for subject in subjects:
            count, shows = self.table[subject.label][is_fresh], np.full(len(images), np.nan)
            if count is not None:
                shows = (np.arange(len(images)) < count).astype(float)
            found.append(Verdicts(self.name, shows, shows))
        return found


@pytest.fixture
def run(tmp_path):
    """A run of which the annotator gave every neuron the phrases a, b and c, in this order."""
    run = make_run(tmp_path / "run", until="discover")
    named = [replace(a, label="a", keywords=("a", "b", "c"), labeled_by="CLIP", suggested_prompt="p, a",
                     label_auroc=0.9) for a in run.attributes]  # fmt: skip
    lines = [{"neuron": a.neuron, "label": "a", "phrases": ["a", "b", "c"], "auroc": [0.9, 0.85, 0.8]} for a in named]
    write_text(run.annotations_path, "".join(json.dumps(line) + "\n" for line in lines))
    run.write_attributes(named)
    return run


def checked(run, table, **options):
    judge, config = TableJudge(table), EvaluateConfig(**options)
    scored = scored_labels(run, as_annotated(run), material_of(run), config)
    return exhausted(check_labels(run, judge, scored, FRESH, config.confidence), lambda _: None), judge


def test_a_label_that_shows_more_often_where_its_neuron_fires_holds(run):
    found, judge = checked(run, {"a": (5, 10)})
    assert {(a.label, a.label_holds, a.former_label) for a in found.attributes} == {("a", True, None)}
    (tried,) = found.tries[run.attributes[0].neuron]
    assert (tried.hits, tried.n, tried.fresh_hits, tried.fresh_n, tried.confidence) == (5, 6, 10, 100, 0.95)
    assert tried.low > 1 and {label for label, _ in judge.asked} == {"a"}
    assert {subject.label: verdicts.shows.sum() for subject, verdicts in found.fresh.items()} == {"a": 10}


def test_the_first_further_phrase_that_holds_becomes_the_label(run):
    found, judge = checked(run, {"a": (1, 10), "b": (0, 10), "c": (6, 10)})
    prompt = run.config.capture.prompt
    for attribute in found.attributes:
        assert (attribute.label, attribute.label_holds, attribute.former_label) == ("c", True, "a")
        assert attribute.suggested_prompt == f"{prompt}, c" and attribute.label_auroc == 0.8
    tries = found.tries[run.attributes[0].neuron]
    assert [one.label for one in tries] == ["a", "b", "c"]
    assert [one.confidence for one in tries] == pytest.approx([0.95, 0.975, 0.975])  # two further tries share the error
    assert ("b", "fresh") not in judge.asked and tries[1].fresh_n == 0  # no active image shows it: no need to look


def test_a_further_phrase_needs_more_evidence_than_the_first(run):
    once = checked(run, {"a": (3, 11), "b": (0, 0), "c": (0, 0)})[0]
    again = checked(run, {"a": (0, 11), "b": (3, 11), "c": (0, 0)})[0]
    assert {a.label_holds for a in once.attributes} == {True}
    assert {(a.label, a.label_holds) for a in again.attributes} == {("a", False)}


def test_where_no_phrase_holds_the_first_stays_and_is_no_name(run):
    found, _ = checked(run, {"a": (1, 20), "b": (1, 20), "c": (6, 100)})
    for a in found.attributes:
        assert (a.label, a.label_holds, a.name, a.perhaps, a.title) == ("a", False, None, "a", "perhaps a")
        assert "“perhaps a”" in repr(a) and label_columns(a) == {
            "label": None, "perhaps": "a", "covers_more": None, "named_by": None, "judged_as": None}  # fmt: skip
    presence = presence_of(Verdicts("j", np.zeros(9), np.zeros(9)), 0.95)
    assert rarest([replace(a, presence=presence) for a in found.attributes]) is None


@pytest.mark.parametrize("options", [{}, {"n_label_images": 0}])
def test_a_label_that_cannot_be_checked_stays_as_it_is(run, options):
    found, judge = checked(run, {"a": (None if not options else 0, 5)}, **options)
    assert {(a.label, a.label_holds, a.name) for a in found.attributes} == {("a", None, "a")}
    assert not any(found.tries.values()) and {label for label, _ in judge.asked} == {"a"}


def test_a_phrase_that_the_judge_does_not_know_is_passed_over(run):
    found, _ = checked(run, {"a": (0, 10), "b": (None, None), "c": (6, 10)})
    assert {(a.label, a.label_holds) for a in found.attributes} == {("c", True)}


def test_a_second_evaluation_starts_from_the_labels_of_the_annotator(run):
    found, _ = checked(run, {"a": (0, 10), "b": (6, 10)})
    run.write_attributes(found.attributes)
    assert {a.label for a in run.attributes} == {"b"}
    for a in as_annotated(run):
        assert (a.label, a.label_holds, a.former_label, a.label_auroc) == ("a", None, None, 0.9)
        assert a.suggested_prompt == f"{run.config.capture.prompt}, a"
    again, _ = checked(run, {"a": (6, 10)})
    assert {(a.label, a.label_holds, a.former_label) for a in again.attributes} == {("a", True, None)}


def test_a_name_far_more_frequent_than_its_neuron_covers_more():
    def judged(hits, n):
        return presence_of(Verdicts("j", (np.arange(n) < hits).astype(float), np.ones(n)), 0.95)

    assert covers_more(judged(48, 300), 0.025, 0.3, 1000, 0.95)  # 16 % against 2.5 %
    assert covers_more(judged(20, 300), 0.025, 0.3, 1000, 0.95) is False  # 2.7 times as often, but not surely twice
    assert covers_more(judged(20, 300), 0.06, 0.025, 1000, 0.95)  # more often than the neuron fires
    assert covers_more(judged(9, 300), 0.06, 0.025, 1000, 0.95) is False  # but not surely
    assert covers_more(presence_of(Verdicts("j", np.full(3, np.nan), np.ones(3)), 0.95), 0.1, 0.1, 99, 0.95) is None
