"""Says what an audit could have found: how likely its images show a thing of some rate, and its list has it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from scipy.stats import binom

from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.stats import rate_interval

RATES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
MEASURED_WITH = 1000  # audited images, and half as many relatives
SEEN = (0, 1, 3, 8, 20, 50)  # ends of five bands: one image shows a value, 2 or 3, 4 to 8, 9 to 20, or 21 to 50
MOST_TOLD = 0.99  # of a chance
OTHER_NUMBERS = 0.2  # another number of images may differ from MEASURED_WITH by this share


class Chance(NamedTuple):
    """A chance in [0, 1] with a 95 % interval."""

    chance: float
    low: float
    high: float


# By band, the share of values that the list has: means and intervals over the ten prompts of both planted worlds on
# which nothing was chosen (`python -m benchmarks.discovery.reach`).
WATCHED = (
    Chance(0.0, 0.0, 0.21),
    Chance(0.0, 0.0, 0.19),
    Chance(0.04, 0.01, 0.12),
    Chance(0.33, 0.22, 0.47),
    Chance(0.19, 0.08, 0.4),
)
LOOKED = (
    Chance(0.24, 0.11, 0.44),
    Chance(0.34, 0.17, 0.55),
    Chance(0.55, 0.42, 0.67),
    Chance(0.39, 0.25, 0.55),
    Chance(0.24, 0.1, 0.45),
)


class Reach(NamedTuple):
    """What becomes of a thing that the model shows at some `rate`, in (0, 1).

    `shown` is the chance that at least one image of the audit shows it, and `ten` the chance that ten do. `found` is
    the chance that the list has it. It was measured on the planted worlds with about 1,000 audited images; it is None
    for other numbers of images.
    """

    rate: float
    shown: float
    ten: float
    found: Chance | None

    @property
    def text(self) -> str:
        """The chances in words.

        >>> Reach(0.005, 0.893, 0.03, Chance(0.385, 0.275, 0.497)).text
        'an image shows it with a chance of 89%, the list has it with 38% [28%, 50%] (measured on the planted worlds)'
        """
        chance = f"{self.shown:.0%}" if self.shown < MOST_TOLD else f"more than {MOST_TOLD:.0%}"
        shown = f"an image shows it with a chance of {chance}"
        if self.found is None:
            return f"{shown}; the chance that the list has it was measured with {MEASURED_WITH:,} images only"
        chance, low, high = self.found
        return f"{shown}, the list has it with {chance:.0%} [{low:.0%}, {high:.0%}] (measured on the planted worlds)"


def reach_of(n_images: int, has_looked: bool, rates: Sequence[float] = RATES) -> list[Reach]:
    """What an audit of `n_images` could have found at each of the `rates`, with or without a look around odd images.

    The chance to be found is the measured share of values that k images show, weighted by the chance that k images show
    a thing of this rate, over all k. Raises RaigenError for fewer than 1 image.

    >>> [(line.rate, round(line.shown, 2)) for line in reach_of(1000, True, (0.001, 0.005))]
    [(0.001, 0.63), (0.005, 0.99)]
    """
    if n_images < 1:
        raise RaigenError(f"n_images: expected 1 or more; got {n_images}")
    is_measured = abs(n_images / MEASURED_WITH - 1) <= OTHER_NUMBERS
    table = LOOKED if has_looked else WATCHED
    return [
        Reach(rate, float(binom.sf(0, n_images, rate)), float(binom.sf(9, n_images, rate)),
              _found(n_images, rate, table) if is_measured else None)
        for rate in rates
    ]  # fmt: skip


def _found(n_images: int, rate: float, table: Sequence[Chance]) -> Chance:
    """The chance to be found, over the bands of images that show it."""
    shares = [
        float(binom.cdf(most, n_images, rate) - binom.cdf(least, n_images, rate)) for least, most in pairwise(SEEN)
    ]
    chances = zip(shares, table, strict=True)
    found = [(share * one.chance, share * one.low, share * one.high) for share, one in chances]
    return Chance(*map(sum, zip(*found, strict=True)))


class Unseen(NamedTuple):
    """How many listed families only one of the `n` audited images shows, and the share of further images that show
    something which no audited image shows, with its interval: after Good and Turing, `once` divided by `n`."""

    once: int
    n: int
    share: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The estimate in words.

        >>> Unseen(3, 1000, 0.003, 0.001, 0.0088).text[:62]
        '3 of the listed families show in one of 1,000 audited images. '
        """
        return (f"{self.once} of the listed families show in one of {self.n:,} audited images. So an estimated "
                f"{self.share:.1%} [{self.low:.1%}, {self.high:.1%}] of further images show something odd that no "
                "audited image shows")  # fmt: skip


def unseen_of(run: Run) -> Unseen | None:
    """How much the audit has not seen, by the families of its list; None if it did not look around odd images. It is
    rough: what the look missed does not count, and families that repeat each other count twice. Raises RaigenError when
    files are missing."""
    if not run.has_looked:
        return None
    n = int(run.is_shown().sum())
    counts = (run.family_codes()[: len(run.samples())] > 0).sum(axis=0)
    once = int((counts <= 1).sum())  # its own odd image always shows it
    found = rate_interval(once, n)
    return Unseen(once, n, once / n, found.low, found.high)
