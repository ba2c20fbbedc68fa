"""Rates come from what was scored; what was not is counted apart."""

import json

import numpy as np
from PIL import Image

from raigen.judging.evaluate import judgments
from raigen.judging.judges import Subject, Verdicts, without_black
from raigen.judging.presence_table import table
from raigen.judging.rates import presence_of
from raigen.runs.records import RareAttribute, Sample
from raigen.stats import rate_interval


def test_unscored_images_are_not_in_the_denominator():
    shows = np.array([1.0, 0, 0, np.nan, 0, 0, 0, 0, np.nan, 0])
    presence = presence_of(Verdicts("a judge", shows, np.ones(10)), 0.95)
    assert (presence.hits, presence.n, presence.unscored) == (1, 8, 2)
    interval = rate_interval(1, 8)
    assert (presence.rate, presence.low, presence.high) == (1 / 8, interval.low, interval.high)
    assert presence.judge == "a judge" and presence.interval == f"95 % {interval.method}"


def test_with_nothing_scored_the_interval_is_everything():
    presence = presence_of(Verdicts("a judge", np.full(3, np.nan), np.zeros(3)), 0.95)
    assert (presence.n, presence.unscored, presence.low, presence.high) == (0, 3, 0, 1)


def test_the_files_say_what_was_judged():
    verdicts = Verdicts("a judge", np.array([1.0, np.nan]), np.array([0.9, 0.1]))
    samples = [Sample(i, "p", 50 + i, f"fresh/{i:06d}.png", "0" * 64) for i in range(2)]
    named = RareAttribute(1, 7, 0.5, 0.02, 0.1, (), "holding a cat", presence=presence_of(verdicts, 0.95))
    unnamed = RareAttribute(2, 8, 0.4, 0.02, 0.1, ())
    found = {Subject("holding a cat", 7): [verdicts]}
    lines = [json.loads(line) for line in judgments(samples, found).splitlines()]
    assert [(line["seed"], line["shows"], line["confidence"]) for line in lines] == [(50, True, 0.9), (51, None, 0.1)]
    rows = table([named, unnamed]).splitlines()
    assert rows[0].startswith("rank,neuron,label,rate,low,high,hits,n,unscored") and len(rows) == 2
    assert rows[1].startswith("1,7,holding a cat,1.0,")


def test_black_images_are_unscored():
    gray, black = Image.new("RGB", (8, 8), (90, 90, 90)), Image.new("RGB", (8, 8))
    (verdicts,) = without_black([gray, black, gray], [Verdicts("a judge", np.array([1.0, 0, 0]), np.ones(3))])
    presence = presence_of(verdicts, 0.95)
    assert verdicts.why == {1: "the image is black"}
    assert (presence.hits, presence.n, presence.unscored) == (1, 2, 1)
