"""The geometry of charts: the positions of marks, dots and bars."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

DOT_BOX = 1000  # the square in which the path of the scatter's dots is drawn
LAYERS = 4  # paths over which the dots of the scatter are spread
# The smallest distance of two numbers in the scatter, in percent of its width and height: about their own size on a
# narrow screen (300 x 320 pixels).
APART = (5.5, 6.5)
CLEAR = 0.7  # of that distance: the smallest between a number and a true place that another number left
ASIDE = 0.2  # of that distance: a number that was moved further gets a line to its true place
ROUNDS = 200  # steps in which numbers are moved apart, at most
GOLDEN_ANGLE = math.pi * (3 - 5**0.5)  # its multiples give directions that are all different
HALF_DECADES = (1, 3)  # the marks of a logarithmic axis: 1 %, 3 %, 10 %, 30 % ...


class Mark(NamedTuple):
    """A mark on an axis: its position (percent of the axis, from its start) and its text."""

    at: float
    text: str


class Pin(NamedTuple):
    """One listed neuron: the position of its number and its true place, in percent of the chart from its left and top.
    The two differ if the number would hide another."""

    left: float
    top: float
    true_left: float
    true_top: float

    @property
    def is_aside(self) -> bool:
        """Whether the number was moved so far that its true place must be shown."""
        return math.hypot((self.left - self.true_left) / APART[0], (self.top - self.true_top) / APART[1]) > ASIDE


class Scatter(NamedTuple):
    """Frequency (logarithmic, rare at the left) against distinctiveness (linear from 0, far at the top).

    `dots` are SVG paths in a square of `DOT_BOX`, with a zero-length stroke for each neuron that is not listed. There
    are several, because dots that overlap in one path look no darker. `pins` are the listed neurons, in their order.
    """

    dots: tuple[str, ...]
    pins: tuple[Pin, ...]
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]


class Histogram(NamedTuple):
    """Bars over a linear axis from 0, as an SVG path in a square of `DOT_BOX`; `fullest` is the highest count."""

    bars: str
    marks: tuple[Mark, ...]
    fullest: int


class RateAxis(NamedTuple):
    """A linear axis from 0 to `end` (a share), with marks in percent."""

    end: float
    marks: tuple[Mark, ...]

    def at(self, rate: float) -> float:
        """The position of `rate` on the axis, in percent of its length.

        >>> rate_axis([0.07]).at(0.05)
        62.5
        """
        return round(100 * min(rate / self.end, 1.0), 3)


def scatter(
    frequency: Float[np.ndarray, " neuron"],
    distinctiveness: Float[np.ndarray, " neuron"],
    listed: Bool[np.ndarray, " neuron"],
) -> Scatter:
    """Places neurons with a frequency above 0 in a chart; the listed ones become pins.

    Raises ValueError if a frequency is not in (0, 1].
    """
    if frequency.size and not (frequency.min() > 0 and frequency.max() <= 1):
        raise ValueError(f"expected frequencies in (0, 1]; got {frequency.min():g} to {frequency.max():g}")
    low = math.log10(frequency.min() if frequency.size else 0.01) - 0.15  # room for half a pin
    top, y_marks = linear_axis(float(distinctiveness.max(initial=0.0)) or 1.0)
    left = 100 * (np.log10(np.maximum(frequency, 1e-12)) - low) / (0.05 - low)  # ends a little after 100 %
    down = 100 * (1 - distinctiveness / top)
    scale = DOT_BOX / 100
    dots = [f"M{x * scale:.0f} {y * scale:.0f}h.1" for x, y in zip(left[~listed], down[~listed], strict=True)]
    true = np.stack([left[listed], down[listed]], axis=1)
    places = np.concatenate([spread(true), true], axis=1).round(2).tolist()
    values = [digit * 10.0**power for power in range(math.floor(low), 1) for digit in HALF_DECADES]
    x_marks = tuple(
        Mark(round(100 * (math.log10(v) - low) / (0.05 - low), 2), f"{v * 100:g} %")
        for v in values
        if low < math.log10(v) <= 1e-9
    )
    layers, pins = tuple("".join(dots[layer::LAYERS]) for layer in range(LAYERS)), tuple(Pin(*at) for at in places)
    return Scatter(layers, pins, x_marks, tuple(Mark(100 * at / top, f"{at:g}") for at in y_marks))


def spread(places: Float[np.ndarray, "pin 2"]) -> Float[np.ndarray, "pin 2"]:
    """Moves pins apart until no two are closer than `APART` and none hides a true place that another one left, or until
    `ROUNDS` are over. Places are percent from the left and top of the chart, and no pin leaves it. A pin without close
    neighbors stays. The same places always give the same result.

    >>> spread(np.array([[50.0, 50.0], [50.0, 50.0], [90.0, 10.0]])).round(1).tolist()
    [[53.8, 49.6], [46.9, 52.7], [90.0, 10.0]]
    """
    turns, box, true = GOLDEN_ANGLE * np.arange(len(places)), 100 / np.array(APART), places / APART
    # Pins at the same place have no direction in which to part, so each leans a hair toward a direction of its own.
    hair, at = 1e-9 * np.stack([np.cos(turns), np.sin(turns)], axis=1), true
    is_near = np.hypot(*np.moveaxis(true[:, None] - true, 2, 0)) < 1
    left = true[is_near.sum(axis=1) > 1]  # each is near itself
    for _ in range(ROUNDS):
        at = at + hair
        steps = np.concatenate([_steps(at, at, 1.0) / 2, _steps(at, left, CLEAR)], axis=1)
        far = np.hypot(steps[..., 0], steps[..., 1])
        if far.max(initial=0.0) < 0.02:
            break
        at = np.clip(at + steps.sum(axis=1) / np.maximum((far > 0).sum(axis=1, keepdims=True), 1), 0, box)
    moved = at * APART
    return np.where(np.abs(moved - places) < 0.01, places, moved)


def _steps(
    at: Float[np.ndarray, "pin 2"], others: Float[np.ndarray, "other 2"], least: float
) -> Float[np.ndarray, "pin other 2"]:
    """The step that would bring each pin `least` away from each of the others; 0 if it is far enough."""
    gaps = at[:, None] - others
    far = np.maximum(np.hypot(gaps[..., 0], gaps[..., 1]), 1e-12)
    return (np.maximum(least - far, 0) / far)[..., None] * gaps


def histogram(values: Float[np.ndarray, " value"], n_bins: int = 20) -> Histogram:
    """How many of the `values` (above 0) fall into each of `n_bins` equal parts of an axis that holds them all.

    >>> histogram(np.array([0.1, 0.1, 0.9]), n_bins=2).bars
    'M0 1000v-1000h500v1000zM500 1000v-500h500v500z'
    """
    end, values_marked = linear_axis(float(values.max(initial=0.0)) or 1.0)
    counts = np.histogram(values, n_bins, (0, end))[0]
    fullest, width = int(counts.max(initial=0)), DOT_BOX / n_bins
    bars = "".join(
        f"M{index * width:g} {DOT_BOX}v-{(high := count / fullest * DOT_BOX):.4g}h{width:g}v{high:.4g}z"
        for index, count in enumerate(counts)
        if count
    )
    return Histogram(bars, tuple(Mark(round(100 * at / end, 3), f"{at:g}") for at in values_marked), fullest)


def rate_axis(rates: Sequence[float]) -> RateAxis:
    """An axis from 0 that ends at or just above the largest of `rates` (shares), with marks in percent.

    >>> rate_axis([0.004, 0.07]).end
    0.08
    """
    end, values = linear_axis(100 * max(rates, default=0.0) or 100.0, n_steps=4)  # more would touch in a narrow column
    end = min(end, 100.0)
    return RateAxis(end / 100, tuple(Mark(round(100 * v / end, 3), f"{v:g} %") for v in values if v <= end))


def linear_axis(greatest: float, n_steps: int = 5) -> tuple[float, list[float]]:
    """The round end of an axis that holds 0 to `greatest`, and round values on it, at most `n_steps` above 0."""
    greatest = max(greatest, 1e-300)  # a fifth of the smallest floats would be 0
    raw = greatest / n_steps
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * (1 - 1e-9))
    count = math.ceil(greatest / step - 1e-9)
    return count * step, [float(f"{n * step:.6g}") for n in range(count + 1)]
