"""What the stages hand to each other: images, attributes, and their rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One generated image: line `index` of samples.jsonl; `file` is relative to the run folder."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nothing here needs
    prompt: str
    seed: int
    file: str
    sha256: str


@dataclass(frozen=True)
class Presence:
    """How often fresh images show an attribute: `hits` of `n` judged, with an interval; `unscored` are not in `n`.

    `mode` is `raw` for what the judge says; `calibrated` where its errors, known from images with known answers, are
    taken out; `checked` where a person looked at every yes: then `hits` are those that were confirmed.
    """

    rate: float
    low: float
    high: float
    hits: int
    n: int
    unscored: int
    judge: str
    interval: str
    mode: str = "raw"

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "Presence":
        """The presence that a row of presence.csv holds. Rows of early runs have no mode: they are raw."""
        kinds = {"rate": float, "low": float, "high": float, "hits": int, "n": int, "unscored": int}
        values = {name: kind(row[name]) for name, kind in kinds.items()}
        return cls(**values, judge=row["judge"], interval=row["interval"], mode=row.get("mode") or "raw")


RATES = tuple(field.name for field in fields(Presence))  # the columns of a presence in a table


@dataclass(frozen=True)
class Ratio:
    """One rate over another, with its interval, all 0 or more. `ratio` is None where the other rate is 0, `high` where
    the interval has no upper end."""

    ratio: float | None
    low: float
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A rate less another on the same `n` seeds, in [-1, 1], with its interval and the p of a paired test."""

    difference: float
    n: int
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Mean:
    """The mean of `n` numbers with its interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Causal:
    """What turning a neuron up did to its attribute, beside two controls of the same `strength` on the same seeds.

    `rate` is the presence when steered, the differences are to it unsteered (`gain`), to a random direction of the same
    norm and to a random live neuron. `p` is the larger of those against the controls, `q` that of all attributes that
    were tested together. `correlates_only` where q > .05 or either of these two differences is not above 0. `method` is
    that of amplifying: `steer` or `contrast`.
    """

    strength: float
    rate: float
    gain: Difference
    over_direction: Difference
    over_neuron: Difference
    p: float
    q: float
    correlates_only: bool
    method: str = "steer"

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Causal":
        """The score that `attributes.json` holds in one entry."""
        paired = {name: Difference(**entry[name]) for name in ("gain", "over_direction", "over_neuron")}
        return cls(**{**entry, **paired})


@dataclass(frozen=True)
class RareAttribute:
    """One listed neuron: its scores, its name if one was found, how often fresh images show it.

    `frequency` in [0, 1], `distinctiveness` in [0, 2], `minority_score` in [0, 1]; `top_images` are paths relative to
    the run folder, strongest first. `label` is None before annotation and when no attribute was identified, and then
    `labeled_by` is None too unless that was the answer. `presence` is by the first judge, `other_presences` by the
    others; `judges_alpha` (Krippendorff) says how far they agree, 1 at best, 0 as by chance. `corrected` holds the rate
    of the first judge without its errors, where these are known: calibrated, checked. `suggested` is the presence in
    images of `suggested_prompt`, by the first judge, and `ratio` that over `presence`: how far the model can go.
    `causal` says whether the neuron brings its attribute, where that was tried. `found_by` is the number of
    autoencoders that have such a neuron, this one included; None where only one was trained.
    """

    rank: int
    neuron: int
    minority_score: float
    frequency: float
    distinctiveness: float
    top_images: tuple[str, ...]
    label: str | None = None
    keywords: tuple[str, ...] = ()
    suggested_prompt: str | None = None
    label_auroc: float | None = None
    labeled_by: str | None = None
    presence: Presence | None = None
    other_presences: tuple[Presence, ...] = ()
    judges_alpha: float | None = None
    corrected: tuple[Presence, ...] = ()
    suggested: Presence | None = None
    ratio: Ratio | None = None
    causal: Causal | None = None
    found_by: int | None = None

    @property
    def presences(self) -> tuple[Presence, ...]:
        """All rates that were measured without naming it: by the first judge, by the others, corrected."""
        return (*([self.presence] if self.presence else []), *self.other_presences, *self.corrected)

    def unnamed(self) -> "RareAttribute":
        """The attribute as discovery left it: without a label, and without all that was measured for the label."""
        return replace(self.unmeasured(), label=None, keywords=(), suggested_prompt=None, label_auroc=None,
                       labeled_by=None, causal=None)  # fmt: skip

    def unmeasured(self) -> "RareAttribute":
        """The attribute without the rates that evaluation measured."""
        return replace(self, presence=None, other_presences=(), judges_alpha=None, corrected=(), suggested=None,
                       ratio=None)  # fmt: skip

    def __repr__(self) -> str:
        name = f"“{self.label}”" if self.label else "no identified attribute"
        shown = ""
        if self.presence and self.presence.n:
            shown = rate_text(self.presence, ", shown by {rate:.1f} % of {n:,} fresh images")
        return f"RareAttribute({self.rank}. neuron {self.neuron}: {name}, score {self.minority_score:.3f}{shown})"

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "RareAttribute":
        """The attribute that `attributes.json` holds as one entry."""
        presence, suggested = entry.get("presence"), entry.get("suggested")
        return cls(**{
            **entry,
            "top_images": tuple(entry["top_images"]),
            "keywords": tuple(entry.get("keywords", ())),
            "presence": Presence(**presence) if presence else None,
            "other_presences": tuple(Presence(**other) for other in entry.get("other_presences", ())),
            "corrected": tuple(Presence(**other) for other in entry.get("corrected", ())),
            "suggested": Presence(**suggested) if suggested else None,
            "ratio": Ratio(**entry["ratio"]) if entry.get("ratio") else None,
            "causal": Causal.from_json(entry["causal"]) if entry.get("causal") else None,
        })  # fmt: skip


def rate_text(presence: Presence | Mapping[str, Any], form: str = "{rate:.1f}% [{low:.1f}%, {high:.1f}%]") -> str:
    """A rate with its interval, in percent. `form` is filled with the fields of the presence.

    >>> found = Presence(0.01, 0.003, 0.029, 3, 300, 0, "judge", "Clopper-Pearson")
    >>> rate_text(found), rate_text(found, "{rate:.1f} % ({hits} of {n:,})")
    ('1.0% [0.3%, 2.9%]', '1.0 % (3 of 300)')
    """
    return _in_percent(presence, ("rate", "low", "high"), form)


def difference_text(
    difference: Difference | Mapping[str, Any], form: str = "{difference:+.1f}% [{low:+.1f}%, {high:+.1f}%]"
) -> str:
    """A difference of two rates with its interval, in percentage points. `form` is filled with its fields.

    >>> difference_text(Difference(0.2, 80, 0.1, 0.3, 0.001))
    '+20.0% [+10.0%, +30.0%]'
    """
    return _in_percent(difference, ("difference", "low", "high"), form)


def _in_percent(entry: Any, shares: Sequence[str], form: str) -> str:
    values = entry if isinstance(entry, Mapping) else vars(entry)
    return form.format(**{**values, **{name: 100 * values[name] for name in shares}})


def rarest(attributes: Sequence[RareAttribute]) -> RareAttribute | None:
    """The named attribute with the lowest measured rate, if any was measured."""
    measured = [a for a in attributes if a.label is not None and a.presence is not None and a.presence.n]
    return min(measured, key=lambda a: a.presence.rate if a.presence else 1.0, default=None)


SUGGESTED = ("suggested_rate", "suggested_low", "suggested_high", "suggested_hits", "suggested_n", "suggested_unscored",
             "ratio", "ratio_low", "ratio_high")  # fmt: skip


def suggested_columns(attribute: RareAttribute) -> list[float | int | None]:
    """Of an attribute the columns `SUGGESTED` of a table; None, an empty cell, for what is not known."""
    names = [name.removeprefix("suggested_") for name in SUGGESTED[:6]]
    rates = [getattr(attribute.suggested, name, None) for name in names]
    return [*rates, *(getattr(attribute.ratio, name, None) for name in ("ratio", "low", "high"))]


class HookpointCost(NamedTuple):
    """What capturing a module would give: tokens of width `d_in` on a `grid` (None: it cannot be captured) and their
    size on disk, over all steps."""

    path: str
    grid: tuple[int, int] | None
    d_in: int
    bytes_per_image: int
    is_default: bool


class HookpointRating(NamedTuple):
    """What two small autoencoders found at a hookpoint, without labels; `reason` says why it could not be tried.

    The numbers are means over both `readings` (`raigen.discovery.search.Reading`). `score`, in [0, 1], is the mean
    minority score of the first ten listed neurons; a missing one counts as 0. `concentration`, in [0, 1], says on how
    few positions their heatmaps lie. `stability`, in [0, 1], is the share of them that the other autoencoder lists,
    too. `dead_share` is the share of all neurons that fire in no image, `n_listed` the number of listed neurons, at
    most ten. `rank` 1 is the best.
    """

    path: str
    is_default: bool
    rank: int | None = None
    score: float = 0.0
    concentration: float = 0.0
    stability: float = 0.0
    dead_share: float = 0.0
    n_listed: float = 0.0
    reason: str | None = None
    readings: Sequence[Any] = ()
