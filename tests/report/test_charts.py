"""Images and the geometry of charts, by property and by worked example."""

import io
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from raigen.report import charts
from raigen.runs import pixels

SHARES = st.floats(1e-4, 1.0)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB bytes to OKLab, by the published matrices (the other way round from the room's)."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([(0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
                       (0.0883024619, 0.2817188376, 0.6299787005)])  # fmt: skip
    to_lab = np.array([(0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099),
                       (0.0259040371, 0.7827717662, -0.8086757660)])  # fmt: skip
    return np.cbrt(linear @ to_lms.T) @ to_lab.T


def test_equal_steps_of_the_color_map_look_equal() -> None:
    steps = np.linalg.norm(np.diff(_oklab(pixels.color_map(32)), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.25  # bytes are rounded, and two steps cut a corner of the path


def test_the_color_map_grows_lighter_throughout() -> None:
    assert (np.diff(_oklab(pixels.color_map(64))[:, 0]) > 0).all()


def test_an_overlay_is_clear_where_nothing_fires() -> None:
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 0] = 2.0
    alpha = np.asarray(pixels.heatmap_overlay(heatmap, (32, 32), 2.0))[..., 3]
    assert alpha[:4, :4].min() > 230 and (alpha[12:] == 0).all() and (alpha[:, 12:] == 0).all()


@pytest.mark.parametrize("peak", [0.0, 3.0])
def test_an_overlay_of_nothing_is_clear(peak: float) -> None:
    overlay = pixels.heatmap_overlay(np.zeros((3, 5), np.float32), (50, 30), peak)
    assert overlay.mode == "RGBA" and overlay.size == (50, 30) and overlay.getchannel(3).getextrema() == (0, 0)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_more_activation_is_never_less_visible(first: float, second: float) -> None:
    def alpha(value: float) -> int:
        return np.asarray(pixels.heatmap_overlay(np.full((2, 2), value, np.float32), (4, 4), 1.0))[0, 0, 3]

    low, high = sorted([first, second])
    assert alpha(low) <= alpha(high)


def test_activations_above_the_peak_saturate() -> None:
    heatmap = np.full((2, 2), 9.0, np.float32)
    assert np.asarray(pixels.heatmap_overlay(heatmap, (2, 2), 1.0))[0, 0].tolist() == [*pixels.color_map()[-1], 255]


def test_a_grid_keeps_its_images_in_order() -> None:
    shades = [Image.new("L", (2, 2), shade).convert("RGB") for shade in (10, 20, 30)]
    grid = np.asarray(pixels.image_grid(shades, columns=2, gap=1))[..., 0]
    assert grid.tolist() == [
        [10, 10, 255, 20, 20], [10, 10, 255, 20, 20], [255] * 5, [30, 30, 255, 255, 255], [30, 30, 255, 255, 255],
    ]  # fmt: skip


def test_a_grid_refuses_images_of_several_sizes() -> None:
    with pytest.raises(ValueError, match="expected images of one size; got 2x2, 3x2"):
        pixels.image_grid([Image.new("RGB", (2, 2)), Image.new("RGB", (3, 2))], 2)
    with pytest.raises(ValueError, match="got none"):
        pixels.image_grid([], 2)


@pytest.mark.parametrize(("size", "fits"), [((64, 64), (64, 64)), ((512, 256), (100, 50)), ((10, 4000), (1, 100))])
def test_thumbnails_only_shrink(size: tuple[int, int], fits: tuple[int, int]) -> None:
    assert pixels.thumbnail(Image.new("RGB", size), 100).size == fits


def test_webp_keeps_clear_parts_clear() -> None:
    data = pixels.webp(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))
    assert Image.open(io.BytesIO(data)).convert("RGBA").getchannel(3).getextrema() == (0, 0)


def test_the_scatter_places_a_worked_example() -> None:
    frequency, far = np.array([1.0, 0.01, 0.1]), np.array([0.0, 0.4, 0.2])
    chart = charts.scatter(frequency, far, np.array([False, True, True]))
    left, right = chart.pins
    assert left.top == 0 and right.top == 50 and 0 < left.left < right.left < 100
    assert chart.dots == ("M977 1000h.1", "", "", "")
    assert [mark.text for mark in chart.x_marks] == ["1 %", "3 %", "10 %", "30 %", "100 %"]
    assert chart.x_marks[0].at == left.left and chart.x_marks[2].at == right.left
    assert [(mark.at, mark.text) for mark in chart.y_marks] == [(0, "0"), (25, "0.1"), (50, "0.2"), (75, "0.3"),
                                                                (100, "0.4")]  # fmt: skip


@given(st.lists(st.tuples(SHARES, st.floats(0, 2), st.booleans()), max_size=20))
@example([(1.0, 5e-324, False)])
def test_the_scatter_holds_every_neuron(neurons: list[tuple[float, float, bool]]) -> None:
    frequency, far, listed = (np.array([n[i] for n in neurons], dtype) for i, dtype in enumerate((float, float, bool)))
    chart = charts.scatter(frequency, far, listed)
    assert "".join(chart.dots).count("M") == (~listed).sum() and len(chart.pins) == listed.sum()
    assert all(0 <= pin.left <= 100 and -0.01 <= pin.top <= 100 for pin in chart.pins)
    assert all(0 <= pin.true_left <= 100 and -0.01 <= pin.true_top <= 100 for pin in chart.pins)
    assert all(0 <= mark.at <= 100 for mark in chart.x_marks)


@given(st.lists(st.tuples(st.floats(20, 80), st.floats(20, 80)), max_size=20), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_numbers_stand_apart_and_lone_ones_stay(places: list[tuple[float, float]], n_alike: int) -> None:
    at = np.array([place for place in places for _ in range(n_alike)][:20], float).reshape(-1, 2)
    moved = charts.spread(at)
    gaps = (moved[:, None] - moved) / charts.APART
    far = np.hypot(gaps[..., 0], gaps[..., 1]) + 2 * np.eye(len(at))
    assert far.min(initial=2.0) > 0.8 and moved.min(initial=0.0) >= 0 and moved.max(initial=0.0) <= 100
    before = (at[:, None] - at) / charts.APART
    alone = (np.hypot(before[..., 0], before[..., 1]) + 9 * np.eye(len(at)) > 6).all(axis=1)
    assert (moved[alone] == at[alone]).all() and (charts.spread(at) == moved).all()


def test_what_was_moved_knows_its_true_place() -> None:
    frequency, far = np.array([0.5, 0.01, 0.01, 0.1]), np.array([0.4, 0.2, 0.2, 0.2])
    first, second, lone = charts.scatter(frequency, far, np.array([False, True, True, True])).pins
    assert (first.true_left, first.true_top) == (second.true_left, second.true_top) != (first.left, first.top)
    assert first.is_aside and second.is_aside and not lone.is_aside and lone.left == lone.true_left
    for pin in (first, second):  # its number hides the place no more
        away = ((pin.left - pin.true_left) / charts.APART[0], (pin.top - pin.true_top) / charts.APART[1])
        assert math.hypot(*away) > 0.65


@pytest.mark.parametrize("wrong", [0.0, 1.5])
def test_the_scatter_refuses_what_is_no_frequency(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"expected frequencies in \(0, 1\]"):
        charts.scatter(np.array([0.5, wrong]), np.zeros(2), np.zeros(2, bool))


@given(st.lists(st.floats(0, 1), max_size=10))
def test_a_rate_axis_holds_all_rates(rates: list[float]) -> None:
    axis = charts.rate_axis(rates)
    assert 0 < axis.end <= 1 and 2 <= len(axis.marks) <= 7
    assert all(rate <= axis.end * (1 + 1e-6) and 0 <= axis.at(rate) <= 100 for rate in rates)
    assert all(
        math.isclose(float(mark.text[:-2]), mark.at * axis.end, abs_tol=1e-2, rel_tol=1e-3) for mark in axis.marks
    )
