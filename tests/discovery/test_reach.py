"""The chance to be found: by the stored lists, and by how many images can be expected to show a thing."""

from itertools import pairwise

import pytest
from scipy.stats import binom

from benchmarks.discovery.reach import measured
from raigen.discovery.reach import LOOKED, RATES, SEEN, WATCHED, reach_of
from raigen.errors import RaigenError


def test_the_measured_chances_are_those_of_the_stored_lists():
    assert (measured("watched"), measured("looked")) == (WATCHED, LOOKED)


def test_the_chance_to_be_found_is_that_of_the_number_of_images_that_show_a_thing():
    (line,) = reach_of(1000, has_looked=True, rates=[0.004])
    shares = [binom.pmf(range(least + 1, most + 1), 1000, 0.004).sum() for least, most in pairwise(SEEN)]
    for end in ("chance", "low", "high"):
        expected = sum(share * getattr(one, end) for share, one in zip(shares, LOOKED, strict=True))
        assert getattr(line.found, end) == pytest.approx(expected)
    assert line.shown == pytest.approx(1 - 0.996**1000)


def test_what_is_hardly_ever_shown_is_found_only_by_looking():
    with_look, without = (reach_of(1000, has_looked)[3].found for has_looked in (True, False))
    assert with_look.low > without.high  # .5 %


def test_for_other_numbers_of_images_no_chance_to_be_found_is_told():
    assert all(line.found is None for line in reach_of(300, True)) and len(reach_of(300, True)) == len(RATES)
    assert all(line.found is not None for line in reach_of(1100, True))
    with pytest.raises(RaigenError, match="expected 1 or more"):
        reach_of(0, True)
