"""One list of neurons and families: a rare thing is in it, once; a combination of frequent things is not."""

import numpy as np
import pytest

from raigen.discovery.families import Family, Relative, Views
from raigen.discovery.joint_list import joined, of_family, of_neuron
from raigen.runs.records import RareAttribute

N, N_TOP = 1000, 10
RARE, FREQUENT, OTHER = range(3)  # traits, each with a column of its own in both views


@pytest.fixture(scope="module")
def shown():
    """Which images show which trait: the first in .6 % of images, the others in 7 % each."""
    traits = np.random.default_rng(0).random((N, 3)) < [0.0, 0.07, 0.07]
    traits[:6, RARE] = True
    return traits


@pytest.fixture(scope="module")
def views(shown):
    return Views([rows_of(shown, seed) for seed in (1, 2)], np.ones(N, bool))


def rows_of(traits, seed):
    noise = 0.3 * np.random.default_rng(seed).normal(size=(len(traits), 15))
    return np.concatenate([6 * traits + noise[:, :3], noise[:, 3:]], axis=1)


def relatives(views, traits, seed):
    """Where 24 relatives lie, half of which kept these traits; the others have lost all of them."""
    kept = np.zeros((24, 3), bool)
    kept[::2, traits] = True
    rows = views.place([rows_of(kept, seed + view) for view in (0, 1)])
    return [Relative((7, (0.4, place)), N + place, row) for place, row in enumerate(rows)]


def family(views, image, traits, seed=10):
    found = Family(views, image, seed=image, step=0.4)
    found.add(relatives(views, traits, seed))
    return found


def neuron(number, score, images):
    return RareAttribute(1, number, score, 0.01, 0.5, tuple(f"images/{image:06d}.png" for image in images))


def listed(views, *families, neurons=()):
    return joined([*(of_neuron(one, views, [int(file[7:13]) for file in one.top_images]) for one in neurons),
                   *(of_family(one, views, N_TOP) for one in families)])  # fmt: skip


def test_a_rare_thing_is_listed_and_a_combination_of_frequent_things_is_set_aside(views, shown):
    both = int(np.flatnonzero(shown[:, FREQUENT] & shown[:, OTHER] & ~shown[:, RARE])[0])
    rare, pair = family(views, 0, [RARE]), family(views, both, [FREQUENT, OTHER])
    found = listed(views, pair, rare)
    assert [one.source for one in found.listed] == [rare]
    assert [(one.source, why) for one, why in found.aside] == [(pair, "combination")]
    assert set(found.listed[0].top[found.listed[0].top < N].tolist()) <= set(range(6))  # audited images that show it


def test_of_two_families_of_one_thing_the_better_is_listed(views):
    one, other = family(views, 0, [RARE]), family(views, 1, [RARE], seed=20)
    found = listed(views, one, other)
    assert len(found.listed) == 1 and found.aside == []
    assert {found.listed[0].source, found.families[0]} == {one, other}


def test_a_neuron_keeps_its_place_before_a_family_that_scores_lower_and_gives_it_up_to_a_better_one(views):
    rare = family(views, 0, [RARE])
    images = [*range(6), 0, 1, 2, 3]
    better, worse = neuron(3, 0.99, images), neuron(3, 0.01, images)
    found = listed(views, rare, neurons=[better])
    assert [one.source for one in found.listed] == [better] and found.families == {0: rare}
    found = listed(views, rare, neurons=[worse])
    assert [one.source for one in found.listed] == [rare]
    assert [(one.source, why) for one, why in found.aside] == [(worse, "same")]


def test_a_neuron_of_common_images_is_set_aside(views, shown):
    common = neuron(4, 0.5, np.flatnonzero(~shown.any(axis=1))[:N_TOP].tolist())
    found = listed(views, neurons=[common])
    assert found.listed == [] and [(one.source, why) for one, why in found.aside] == [(common, "weak")]


def test_the_list_is_cut_to_a_number_of_families_and_keeps_every_neuron(views):
    found = listed(views, family(views, 0, [RARE]), neurons=[neuron(3, 0.01, np.arange(20, 30).tolist())])
    assert len(found.shortened(1).listed) == len(found.listed)
    assert [one for one in found.shortened(0).listed if isinstance(one.source, Family)] == []


def test_codes_are_of_the_images_that_show_it(views, shown):
    (rare,) = listed(views, family(views, 0, [RARE])).listed
    assert np.flatnonzero(rare.codes(views.rows)).tolist() == np.flatnonzero(shown[:, RARE]).tolist()
