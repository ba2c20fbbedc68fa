"""Formats numbers for people: rates, differences, ratios, durations."""

from raigen.runs.records import Presence, Ratio

DASH = "\N{EN DASH}"  # from ... to
MINUS = "\N{MINUS SIGN}"
METHOD_NAMES = {  # of amplification, in the order in which they are shown
    "contrast": "contrast",
    "steer": "steering",
    "set": "setting the code",
    "recipe": "recipe",
    "prompt": "suggested prompt",
    "select": "selection",
    "random-direction": "random direction",
    "random-neuron": "random neuron",
    "random-pattern": "random pattern",
    "random-contrast": "contrast of a random neuron",
}


def percent(share: float) -> str:
    r"""A share in [0, 1] in percent, with two or three significant digits, kept on one line.

    >>> [percent(share) for share in (0.0004, 0.0067, 0.124, 0.9967, 0, 1)]
    ['0.04\xa0%', '0.7\xa0%', '12\xa0%', '99.7\xa0%', '0\xa0%', '100\xa0%']
    """
    return f"{_digits(share)}\xa0%"


def percent_range(low: float, high: float) -> str:
    r"""Two shares in [0, 1] as the ends of an interval, in percent.

    >>> percent_range(0.0008, 0.0239)
    '0.08–2.4\xa0%'
    """
    return f"{_digits(low)}{DASH}{_digits(high)}\xa0%"


def interval(presence: Presence) -> str:
    r"""The interval of a rate, in percent.

    >>> interval(Presence(2 / 300, 0.0008, 0.0239, 2, 300, 0, "clip", "clopper-pearson"))
    '0.08–2.4\xa0%'
    """
    return percent_range(presence.low, presence.high)


def duration(seconds: float) -> str:
    """Seconds in the units of a clock.

    >>> duration(7.31), duration(119.6), duration(426), duration(9000)
    ('7.3 s', '2 min 0 s', '7 min 6 s', '2 h 30 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def strength_text(method: str, strength: float) -> str:
    r"""A strength in the unit of its method.

    >>> strength_text("steer", 0.5), strength_text("prompt", 0.5), strength_text("select", 40)
    ('0.5', '50\xa0%', '1 of 40')
    """
    if method == "prompt":
        return percent(strength)
    return f"1 of {strength:g}" if method == "select" else f"{strength:g}".replace("-", MINUS)


def points(difference: float) -> str:
    r"""A difference of two shares in percentage points, with its sign.

    >>> points(0.415), points(-0.004), points(0)
    ('+42', '−0.4', '0')
    """
    sign = "+" if difference > 0 else MINUS if difference < 0 else ""
    return f"{sign}{_digits(abs(difference))}"


def q_text(q: float) -> str:
    """A q-value with its sign of comparison; below 0.0001 only that is said.

    >>> q_text(0.0123), q_text(1e-15)
    ('= 0.012', '< 0.0001')
    """
    return "< 0.0001" if q < 1e-4 else f"= {q:.2g}"


def times(ratio: float) -> str:
    """A ratio with one or two significant digits below 100, else as a whole number.

    >>> times(0.0), times(7.21), times(33.3), times(1234.5)
    ('0', '7.2', '33', '1,234')
    """
    return f"{ratio:.1f}" if 0 < ratio < 9.95 else f"{ratio:,.0f}"


def ratio_text(found: Ratio) -> str:
    """How many times as often something shows as elsewhere, with the interval. What was never seen elsewhere has only a
    smallest ratio (`ratio` is None).

    >>> ratio_text(Ratio(33.3, 7.21, 141.0)), ratio_text(Ratio(None, 12.3, None)), ratio_text(Ratio(None, 0.0, None))
    ('33 times as often (7.2–141)', 'at least 12 times as often', 'seen in neither')
    """
    if found.ratio is None:
        return f"at least {times(found.low)} times as often" if found.low > 0 else "seen in neither"
    high = "?" if found.high is None else times(found.high)
    return f"{times(found.ratio)} times as often ({times(found.low)}{DASH}{high})"


def _digits(share: float) -> str:
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f}"
    if value < 0.1:
        return f"{value:.1g}"
    return f"{value:.0f}" if 10 <= value <= 90 else f"{value:.1f}"
