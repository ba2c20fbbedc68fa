"""Decides rules by intervals: each is met, violated, or undecided at this number of images."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from scipy.stats import norm

from raigen.dossier.evidence import Item, Moved, Part
from raigen.dossier.rules import ASKED, HELD_BACK, PRESENCE, WORSE, Rule
from raigen.errors import RaigenError
from raigen.runs.records import Difference, Presence
from raigen.stats import LEVEL, Interval, exact_interval, images_to_decide, q_values, ratio_interval

MET, VIOLATED, UNDECIDED = "met", "violated", "undecided"
ORDER = (VIOLATED, UNDECIDED, MET)  # what a rule is, if its cases are several of these


@dataclass(frozen=True)
class Case:
    """A rule for one attribute of one part: the measured `value` with its interval, and what follows.

    `low` and `high` are the ends of the interval that decides: it is wide enough for all cases of a check together.
    `note` says what else a reader must know.
    """

    label: str
    prompt: str
    model: str
    value: float | None
    low: float
    high: float
    n: int
    method: str
    state: str
    note: str = ""
    needed: Callable[[], int] | None = None

    @cached_property
    def n_to_decide(self) -> int | None:
        """About how many fresh images would decide an undecided case; None if nobody can say. It takes a search."""
        return self.needed() if self.needed else None


@dataclass(frozen=True)
class Decision:
    """What became of a rule: the worst of its cases, which come first. `note` says why there are none."""

    rule: Rule
    cases: tuple[Case, ...]
    note: str = ""

    @property
    def state(self) -> str:
        """`met`, `violated` or `undecided`."""
        return next((state for state in ORDER if any(case.state == state for case in self.cases)), UNDECIDED)


@dataclass(frozen=True)
class _Measured:
    """A number that a rule is about: its value, the interval at any level, and the interval that so many fresh images
    would give. `hint` says what else it takes to decide it."""

    item: Item
    part: Part
    value: float | None
    n: int
    interval: Callable[[float], Interval]
    interval_at: Callable[[float, int], Interval]
    note: str = ""
    hint: str = ""


def decide(rules: Sequence[Rule], parts: Sequence[Part], moved: Sequence[Moved] | None) -> list[Decision]:
    """What becomes of each rule. `moved` holds the differences of a study; None for a run.

    With m cases in all, each is decided by its interval at the level 1 - .05 / m (Bonferroni). So at most 5 % of checks
    hold a wrong decision, of either kind. Rates that a judge gave as they are have the exact interval; a rate that was
    corrected for the judge's errors has its own interval, widened to the same level on the arcsine scale. Raises
    RaigenError for a label that nobody judged, and for a rule about a baseline where there is none.
    """
    found = {rule: list(_measured(rule, parts)) for rule in rules if rule.quantity != WORSE}
    level = 1 - LEVEL / max(1, sum(map(len, found.values())))
    decisions = []
    for rule in rules:
        if rule.quantity == WORSE:
            decisions.append(_of_a_study(rule, moved))
        else:
            cases = [_case(rule, one, level) for one in found[rule]]
            decisions.append(Decision(rule, _sorted(cases), "" if cases else _why(rule)))
    return decisions


def _measured(rule: Rule, parts: Sequence[Part]) -> Iterator[_Measured]:
    """The numbers that a rule is about."""
    pairs = [(part, item) for part in parts for item in part.items if item.label is not None]
    if rule.label is not None:
        known = {item.label for _, item in pairs if item.label}
        if rule.label not in known:
            raise RaigenError(
                f"{rule.text}: expected an attribute that was judged; the judged ones are {', '.join(sorted(known))}. "
                "To have another one judged, write it into a file, one a line, and give it as --attributes FILE: to "
                "raigen evaluate RUN --redo evaluate, or to raigen compare STUDY"
            )
        chosen = [(part, item) for part, item in pairs if item.label == rule.label]
    else:
        chosen = [(part, item) for part, item in pairs if item.is_named and _has(rule.quantity, item)]
    for part, item in chosen:
        yield (_ratio if rule.quantity == HELD_BACK else _rate)(rule, part, item)


def _has(quantity: str, item: Item) -> bool:
    return item.presence is not None if quantity == PRESENCE else bool(item.asked and item.asked.n)


def _rate(rule: Rule, part: Part, item: Item) -> _Measured:
    rate = item.asked if rule.quantity == ASKED else item.presence
    if rate is None or not rate.n:
        return _nothing(item, part, _why(rule) if rule.quantity == ASKED else "no image was judged")
    if rate.mode == "raw":
        return _Measured(item, part, rate.rate, rate.n, partial(exact_interval, rate.hits, rate.n),
                         lambda level, n: exact_interval(round(rate.rate * n), n, level))  # fmt: skip
    widened = partial(_widened, rate, part.confidence)
    hint = f"at least: the rate is {rate.mode}, and more images do not make the judge's errors smaller"
    return _Measured(item, part, rate.rate, rate.n, widened, lambda level, n: widened(level, rate.n / n), hint=hint)


def _ratio(rule: Rule, part: Part, item: Item) -> _Measured:
    bare, asked = next((p for p in item.presences if p.n), None), item.asked
    if bare is None or asked is None or not asked.n:
        return _nothing(item, part, _why(rule))

    shown, n_bare = bare.counts  # of equal weight, also where the judge saw a draw

    def interval_at(level: float, n: int) -> Interval:
        times = n / n_bare
        counts = (round(asked.hits * times), round(asked.n * times), round(shown * times), n)
        return ratio_interval(*counts, level)

    value = asked.rate / bare.rate if bare.rate else None
    note = "" if bare.mode == "raw" else f"from the judge's own counts; the rates are {bare.mode}"
    hint = f"with {asked.n / n_bare:.3g} times as many images of the prompt that asks for it"
    return _Measured(item, part, value, n_bare, lambda level: interval_at(level, n_bare), interval_at, note, hint)


def _nothing(item: Item, part: Part, why: str) -> _Measured:
    empty = Interval(0.0, math.inf, "no data")
    return _Measured(item, part, None, 0, lambda level: empty, lambda level, n: empty, why)


def _why(rule: Rule) -> str:
    """Why a rule has no number to decide it."""
    if rule.quantity == PRESENCE:
        return "no attribute has a rate"
    return "no images of a prompt that asks for it were judged; make them with raigen evaluate --n-suggested-images 100"


def _widened(rate: Presence, confidence: float, level: float, shrink: float = 1.0) -> Interval:
    """The interval of a corrected rate at another level: on the arcsine scale, each end moves away from the rate as a
    normal deviate of the two levels does, and towards it by the root of `shrink`."""
    low, at, high = (math.asin(math.sqrt(share)) for share in (rate.low, rate.rate, rate.high))
    times = float(norm.ppf((1 + level) / 2) / norm.ppf((1 + confidence) / 2)) * math.sqrt(shrink)
    ends = (at - times * (at - low), at + times * (high - at))
    start, end = (math.sin(min(max(angle, 0.0), math.pi / 2)) ** 2 for angle in ends)
    return Interval(start, end, f"{rate.interval.partition(' % ')[2]}, widened")


def _case(rule: Rule, one: _Measured, level: float) -> Case:
    """The decision on one number, by the interval at this level."""
    low, high, method = one.interval(level)
    inside = low < rule.limit < high
    state = UNDECIDED if inside or not one.n else MET if rule.holds((low + min(high, 1e9)) / 2) else VIOLATED
    needed, notes = None, [one.note]
    if state == UNDECIDED and one.n:
        needed = partial(images_to_decide, partial(one.interval_at, level), rule.limit, one.n)
        notes.append(one.hint)
    return Case(one.item.label or "", one.part.prompt, one.part.model, one.value, low, high, one.n,
                f"{100 * level:.4g} % {method}", state, "; ".join(filter(None, notes)), needed)  # fmt: skip


def _sorted(cases: Sequence[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: ORDER.index(case.state)))


def _of_a_study(rule: Rule, moved: Sequence[Moved] | None) -> Decision:
    """Whether an attribute is shown less often than by the baseline, with a q of at most the limit.

    q is Benjamini and Hochberg's over the one-sided p of "less often" of all differences. If no attribute became worse,
    the rule is called violated in at most this share of checks.
    """
    if moved is None:
        raise RaigenError(f"{rule.text}: expected a study with a baseline; got a run. Compare runs with: raigen "
                          "compare RUN OTHER_RUN --study STUDY, then: raigen check STUDY --tolerance FILE")  # fmt: skip
    measured = [(one, one.difference) for one in moved if one.difference]
    ps, cases = [_p_less(difference) for _, difference in measured], []
    n_needed = math.ceil(math.log2(len(ps) / rule.limit)) if ps else 0  # the fewest seeds with which one loss can count
    for (one, d), q in zip(measured, q_values(ps), strict=True):
        is_worse = d.difference < 0 and q <= rule.limit
        state = VIOLATED if is_worse else UNDECIDED if d.n < n_needed else MET
        cases.append(Case(one.label, one.prompt, one.model, d.difference, d.low, d.high, d.n, f"q = {q:.2g}", state,
                          needed=(lambda: n_needed) if state == UNDECIDED else None))  # fmt: skip
    cases += [
        Case(one.label, one.prompt, one.model, None, -1.0, 1.0, 0, "no data", UNDECIDED,
             note="no seed has a verdict for both models") for one in moved if not one.difference
    ]  # fmt: skip
    unseen = max((-case.low for case in cases if case.state == MET), default=0.0)
    note = f"a drop of up to {100 * unseen:.0f} points cannot be ruled out" if unseen > 0 else ""
    return Decision(rule, _sorted(cases), note if cases else "nothing was compared with a baseline")


def _p_less(difference: Difference) -> float:
    """The one-sided p of "less often", from the two-sided p of McNemar's exact test."""
    return difference.p / 2 if difference.difference < 0 else 1 - difference.p / 2
