"""The planted world: images show what their records say, as often as the table says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raigen.world.attributes import BY_NAME, CHOICES, FIELDS, PLAIN, PROFESSIONS, PROMPTS, VALUES, Attributes
from raigen.world.captions import caption
from raigen.world.draw import draw
from raigen.world.judge import HEADS, read
from raigen.world.planted import (
    control_values,
    plan_of,
    profession_of,
    rare_values,
    rates,
    sample_attributes,
    sample_balanced,
    visible,
)
from raigen.world.truth import hit_of, seen_rates, truth_of

seeds = st.integers(0, 2**32 - 1)


def test_the_world_has_what_it_promises():
    assert len(PROMPTS) == 10
    assert "a photo of an attendant" in PROMPTS and "a photo of a CEO" in PROMPTS
    assert len(VALUES) >= 22
    assert len({value.group for value in VALUES}) == 8
    assert len([value for value in VALUES if value.field == "skin"]) == 5


@pytest.mark.parametrize("prompt", PROMPTS)
def test_each_prompt_plants_rare_common_and_absent_values(prompt):
    plan = plan_of(profession_of(prompt))
    rare = rare_values(prompt)
    assert 10 <= len(rare) <= 14
    assert {plan.shares[name] for name in rare} <= {0.005, 0.01, 0.02, 0.05}
    assert {plan.shares[name] for name in rare} >= {0.005, 0.01, 0.02, 0.05} - (
        {0.005} if "attendant" in prompt else set()
    )
    assert control_values(prompt)
    for field in FIELDS:
        total = sum(plan.shares.get(name, 0) for name in CHOICES[field])
        always = field not in PLAIN or field in ("hair", "hair_color")
        assert total == pytest.approx(1) if always else total <= 1
    assert len(plan.correlations) == 2
    for correlation in plan.correlations:
        assert correlation.rare in rare
        assert plan.shares[correlation.given] >= 0.2
        assert correlation.times * plan.shares[correlation.given] <= 1
        assert FIELDS.index(BY_NAME[correlation.given].field) < FIELDS.index(BY_NAME[correlation.rare].field)


@pytest.mark.parametrize("prompt", [PROMPTS[0], PROMPTS[7]])
def test_samples_follow_the_planted_rates(prompt):
    n, rng = 6000, np.random.default_rng(1)
    records = [sample_attributes(prompt, rng) for _ in range(n)]
    for name, rate in rates(prompt).items():
        seen = sum(getattr(record, BY_NAME[name].field) == name for record in records) / n
        assert seen == pytest.approx(rate, abs=4.5 * np.sqrt(rate * (1 - rate) / n) + 1e-12), name
    rare, given = plan_of(profession_of(prompt)).correlations[0][:2]
    shows = np.array([[name in record.shown() for name in (rare, given)] for record in records])
    assert shows[shows[:, 1], 0].mean() > shows[~shows[:, 1], 0].mean()


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_a_record_never_claims_what_cannot_be_seen(seed):
    a = sample_balanced(np.random.default_rng(seed))
    assert visible(a) == a
    if a.headwear != PLAIN["headwear"]:
        assert a.hair == PLAIN["hair"]
    if a.mask != PLAIN["mask"]:
        assert a.beard == PLAIN["beard"]
    if a.held != PLAIN["held"]:
        assert a.gesture != "arms crossed"


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_a_drawing_is_made_by_its_seed(seed):
    a = sample_balanced(np.random.default_rng(seed))
    one, two = (draw(a, np.random.default_rng(seed)) for _ in range(2))
    assert one.size == (64, 64) and one.mode == "RGB"
    assert np.array_equal(np.asarray(one), np.asarray(two))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.name)
def test_each_value_changes_the_image(value):
    plain = Attributes("manager", skin="tan skin", hair_color="brown hair", place="office")
    if getattr(plain, value.field) == value.name:
        plain = Attributes("manager", skin="dark skin", hair_color="blonde hair", hair="long hair", place="snow")
    shown = visible(Attributes(**{**{f: getattr(plain, f) for f in ("profession", *FIELDS)}, value.field: value.name}))
    difference = np.abs(_pixels(plain) - _pixels(shown)).max(-1)
    assert (difference > 24).mean() > 0.004  # at least some sixteen pixels


def test_black_and_white_has_no_color_and_professions_differ():
    gray = _pixels(Attributes("farmer", style="black and white", place="field"))
    assert np.ptp(gray, axis=-1).max() == 0
    images = [_pixels(Attributes(profession)) for profession in PROFESSIONS]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert (np.abs(one - other).max(-1) > 40).mean() > 0.05


def _pixels(attributes: Attributes) -> np.ndarray:
    return np.asarray(draw(attributes, np.random.default_rng(5))).astype(int)


@given(seeds)
@settings(max_examples=80, deadline=None)
def test_captions_name_only_what_is_shown(seed):
    rng = np.random.default_rng(seed)
    a = sample_balanced(rng)
    first, *named = caption(a, rng).split(", ")
    assert profession_of(first) == a.profession
    assert len(named) <= 3
    assert set(named) <= {BY_NAME[name].phrase for name in a.shown()}
    wanted = a.shown()[seed % len(a.shown())]
    *_, last = [caption(a, rng, bare=0.0, naming=wanted) for _ in range(3)]
    assert last.split(", ").count(BY_NAME[wanted].phrase) == 1


def test_half_of_the_captions_are_bare():
    rng = np.random.default_rng(0)
    a = Attributes("nurse")
    bare = sum("," not in caption(a, rng) for _ in range(2000)) / 2000
    assert bare == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rates("a photo of a dragon"), "the portraits world has the prompts 'a photo of a doctor'"),
        (lambda: Attributes("dragon"), "profession is one of doctor, nurse"),
        (lambda: Attributes("doctor", held="sword"), "held is one of flower, cat, book, balloon, empty hands"),
    ],
)
def test_what_the_world_does_not_know(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def made_up_judgment(shows: dict[str, list[bool]], readable: list[bool]):
    """A judgment built through the judge's own reading of logits."""
    import torch

    n = len(readable)
    logits = {name: torch.zeros(n, size) for name, size in HEADS.items()}
    for field in FIELDS:
        logits[field][:, -1] = 1.0  # the plain choice, or the last value
    for name, column in shows.items():
        field = BY_NAME[name].field
        logits[field][torch.tensor(column), CHOICES[field].index(name)] = 5.0
    logits["readable"] = torch.tensor([3.0 if ok else -3.0 for ok in readable])
    return read(logits)


def test_the_truth_by_hand():
    # 40 images: 0-3 with a cat (10 %), the first of them unreadable; glasses in half of them
    cat = [index < 4 for index in range(40)]
    glasses = [index % 2 == 0 for index in range(40)]
    judgment = made_up_judgment({"cat": cat, "glasses": glasses}, [index != 0 for index in range(40)])
    rates_seen = seen_rates(judgment)
    assert rates_seen["cat"] == pytest.approx(3 / 39, abs=1e-5)
    assert hit_of(judgment, [0, 1, 2, 3], rates_seen) == {
        "value": "cat",
        "share": 1.0,
        "rate": rates_seen["cat"],
        "hit": True,
    }
    assert hit_of(judgment, [0, 2, 4, 6], rates_seen)["hit"] is False  # only glasses are shared, and they are common
    truth = truth_of(judgment, [[1, 2, 3], [4, 6, 8]], [17, 4], PROMPTS[0], len(judgment.shows))
    assert truth["n_hits"] == 1 and truth["n_unreadable"] == 1
    assert [entry["neuron"] for entry in truth["attributes"]] == [17, 4]
    band = {entry["band"]: entry for entry in truth["recall"]}["0.5 %"]
    assert (band["planted"], band["found"], band["missed"]) == (2, 1, ["pink hair"])  # both at 0.5 %


def test_an_unreadable_image_shows_nothing():
    judgment = made_up_judgment({"cat": [True, True]}, [True, False])
    column = [value.name for value in VALUES].index("cat")
    assert judgment.shows[:, column].tolist() == [True, False]
    assert judgment.readable.tolist() == [True, False]
