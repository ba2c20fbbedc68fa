"""The records that stages exchange: images, attributes, and their rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from raigen.config.fields import fits
from raigen.config.text_files import in_a_line


def checked(record: Any) -> Any:
    """The record as it is. Raises TypeError where a field has another type than its class says.

    >>> checked(Ratio(1, 0.5, None))
    Ratio(ratio=1, low=0.5, high=None)
    """
    for name, kind in type(record).__annotations__.items():
        if not fits(getattr(record, name), kind):
            raise TypeError(f"{name} is {getattr(record, name)!r:.80}")
    return record


class Sample(NamedTuple):
    """One generated image: line `index` of samples.jsonl; `file` is relative to the run folder.

    `steps` lead from the image of `seed` to this one, if it is a relative: the size and the seed of each (see
    `raigen.diffusion.relatives`).
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nothing here needs
    prompt: str
    seed: int
    file: str
    sha256: str
    steps: tuple[tuple[float, int], ...] = ()

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Sample":
        """The image of one line of a list. Raises TypeError for a line of another shape."""
        steps = tuple(tuple(step) for step in entry.get("steps", ()))
        return checked(cls(**{**entry, "steps": steps}))

    @property
    def lineage(self) -> tuple[Any, ...]:
        """Where the image comes from: its seed, then its steps."""
        return (self.seed, *self.steps)

    def as_json(self) -> dict[str, Any]:
        """The line of a list. Only a relative has steps."""
        return {name: value for name, value in self._asdict().items() if name != "steps" or value}


@dataclass(frozen=True)
class FamilyOf:
    """The family of an odd image: `n` relatives were made of the audited image `parent`, a file, and `n_kept` of them
    kept what is odd about it. `kept` and `lost` are files of some that did and of some that did not, the clearest
    first."""

    parent: str
    n: int
    n_kept: int
    kept: tuple[str, ...]
    lost: tuple[str, ...]

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "FamilyOf":
        """The family of one entry of attributes.json."""
        return checked(cls(**{**entry, "kept": tuple(entry["kept"]), "lost": tuple(entry["lost"])}))


@dataclass(frozen=True)
class Presence:
    """How often fresh images show an attribute: `hits` of `n` judged images, with an interval. `n` does not include the
    `unscored` images.

    `mode` is `raw` for what the judge says. It is `estimated` if the judge itself estimates its errors (CLIP), and the
    rate was corrected for them. It is `calibrated` if the judge's errors, measured on images with known
    answers, were corrected for, and `checked` if a person looked at every yes; then `hits` are the confirmed ones. It
    is `sampled` if the judge saw some of the fresh images only, drawn by their likeness to the attribute; then `rate`
    is weighted, and not `hits` / `n`, and the interval is that of `effective_n` images drawn with equal chances.
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
    effective_n: float | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """Hits and images of equal weight that say as much as these do."""
        if self.effective_n is None:
            return self.hits, self.n
        n = max(1, round(self.effective_n))
        return round(self.rate * n), n

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "Presence":
        """The presence of one row of presence.csv. Rows of early runs have no mode; they are raw."""
        kinds = {"rate": float, "low": float, "high": float, "hits": int, "n": int, "unscored": int}
        values = {name: kind(row[name]) for name, kind in kinds.items()}
        return cls(**values, judge=row["judge"], interval=row["interval"], mode=row.get("mode") or "raw",
                   effective_n=float(row["effective_n"]) if row.get("effective_n") else None)  # fmt: skip


WEAK, COMBINATION, SAME = "weak", "combination", "same"  # why an entry was set aside

RATES = tuple(
    field.name for field in fields(Presence) if field.name != "effective_n"
)  # the columns of a presence in a table


@dataclass(frozen=True)
class Ratio:
    """One rate divided by another, with its interval, all 0 or more. `ratio` is None if the other rate is 0; `high` is
    None if the interval has no upper end."""

    ratio: float | None
    low: float
    high: float | None


@dataclass(frozen=True)
class Difference:
    """One rate minus another on the same `n` seeds, in [-1, 1], with its interval and the p of a paired test."""

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
    """The effect of steering a neuron on its attribute, with controls of the same `strength` on the same seeds.

    `rate` is the presence when steered. The differences are steered minus unsteered (`gain`), minus a random direction
    of the same norm, and minus a random live neuron: of `n_directions` and `n_neurons` those that brought the attribute
    most. `p` is the larger of the two p against the controls, and `q` is its adjustment over all attributes tested
    together. `correlates_only` is True if q > .05 or if one of these two differences is not above 0. `method` is
    `steer` or `contrast`. Early runs have one control of each kind.
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
    n_neurons: int = 1
    n_directions: int = 1

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Causal":
        """The causal score of one entry of attributes.json."""
        paired = {name: checked(Difference(**entry[name])) for name in ("gain", "over_direction", "over_neuron")}
        return checked(cls(**{**entry, **paired}))


@dataclass(frozen=True)
class RareAttribute:
    """One listed neuron: its scores, its name if one was found, how often fresh images show it.

    `frequency` is in [0, 1], `distinctiveness` in [0, 2], `minority_score` in [0, 1]. `top_images` are paths in the run
    folder, strongest first. `label` is None before annotation and if no attribute was identified; `labeled_by`
    is then None too, unless an annotator gave that answer. `presence` comes from the first judge, `other_presences`
    from the others; `judges_alpha` is Krippendorff's alpha between them (1 is agreement, 0 is chance). `corrected` has
    the calibrated and the checked rate of the first judge, if they are known. `label_holds` says whether held-out
    images bear the label out (see `raigen.judging.label_check`), None if that is not known; `former_label` is the
    annotator's label if evaluation took another one instead. `covers_more` says whether the label shows in clearly more
    images than the neuron stands for (see `raigen.judging.rates`). `suggested` is the presence in images of
    `suggested_prompt`, by the first judge, and `ratio` is `suggested` divided by `presence`. `causal` is the result of
    steering, if it was tried. `found_by` is the number of autoencoders that have this neuron, with this one; None if
    only one was trained. `family` has the relatives of an odd image that shows the attribute. If `is_family`, the
    attribute was found by looking at this family. `neuron` is then its number; the numbers of families follow those of
    the neurons. If `by_hand`, a person listed the neuron and named it; `labeled_by` is this person. `given_name` is a
    better name that a person gave, and `named_by` is the person (see `raigen.judging.notes`); what was measured still
    is of `label`, until the next evaluation. `why_aside` says why the entry was set aside: its top images stand out too
    little (`weak`), many images show a part of it (`combination`), or a better entry shows the same (`same`). It is
    None for what is listed. `loose` is the presence with the guidance of discovery, if that is another one, and
    `held_back` is `loose` divided by `presence`: above 1, the guidance of the run hides the attribute.
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
    label_holds: bool | None = None
    former_label: str | None = None
    covers_more: bool | None = None
    family: FamilyOf | None = None
    is_family: bool = False
    by_hand: bool = False
    why_aside: str | None = None
    loose: Presence | None = None
    held_back: Ratio | None = None
    given_name: str | None = None
    named_by: str | None = None

    @property
    def name(self) -> str | None:
        """The name that a person gave; or else the label, unless held-out images do not bear it out."""
        return self.given_name or (None if self.label_holds is False else self.label)

    @property
    def perhaps(self) -> str | None:
        """A label that held-out images do not bear out, where no person gave a name."""
        return self.label if self.label_holds is False and not self.given_name else None

    @property
    def judged_as(self) -> str | None:
        """The label that was measured, where a person gave another name."""
        return self.label if self.given_name and self.given_name != self.label else None

    @property
    def title(self) -> str:
        """What a table says of the attribute: its name, or what it perhaps is."""
        return self.name or (f"perhaps {self.perhaps}" if self.perhaps else "no identified attribute")

    @property
    def source(self) -> str:
        """What found the attribute: a neuron, or the family of an image."""
        return f"family {self.neuron}" if self.is_family else f"neuron {self.neuron}"

    @property
    def presences(self) -> tuple[Presence, ...]:
        """All rates in fresh images: by the first judge, by the others, corrected."""
        return (*([self.presence] if self.presence else []), *self.other_presences, *self.corrected)

    def unnamed(self) -> "RareAttribute":
        """The attribute as discovery left it: without a label, and without all that was measured for the label."""
        return replace(self.unmeasured(), label=None, keywords=(), suggested_prompt=None, label_auroc=None,
                       labeled_by=None, causal=None, former_label=None)  # fmt: skip

    def unmeasured(self) -> "RareAttribute":
        """The attribute without the rates that evaluation measured, and without its verdict on the label."""
        return replace(self, presence=None, other_presences=(), judges_alpha=None, corrected=(), suggested=None,
                       ratio=None, label_holds=None, covers_more=None, loose=None, held_back=None)  # fmt: skip

    def __repr__(self) -> str:
        name = f"“{self.title}”" if self.label or self.given_name else self.title
        shown = ""
        if self.presence and self.presence.n:
            shown = rate_text(self.presence, ", shown by {rate:.1f} % of {n:,} fresh images")
        scored = f"{in_a_line(name)}, score {self.minority_score:.3f}"
        return f"RareAttribute({self.rank}. {self.source}: {scored}{shown})"

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "RareAttribute":
        """The attribute of one entry of attributes.json."""
        presence, suggested = entry.get("presence"), entry.get("suggested")
        return checked(cls(**{
            **entry,
            "top_images": tuple(entry["top_images"]),
            "keywords": tuple(entry.get("keywords", ())),
            "presence": checked(Presence(**presence)) if presence else None,
            "other_presences": tuple(checked(Presence(**other)) for other in entry.get("other_presences", ())),
            "corrected": tuple(checked(Presence(**other)) for other in entry.get("corrected", ())),
            "suggested": checked(Presence(**suggested)) if suggested else None,
            "loose": checked(Presence(**entry["loose"])) if entry.get("loose") else None,
            "held_back": checked(Ratio(**entry["held_back"])) if entry.get("held_back") else None,
            "ratio": checked(Ratio(**entry["ratio"])) if entry.get("ratio") else None,
            "causal": Causal.from_json(entry["causal"]) if entry.get("causal") else None,
            "family": FamilyOf.from_json(entry["family"]) if entry.get("family") else None,
        }))  # fmt: skip


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
    measured = [a for a in attributes if a.name is not None and a.presence is not None and a.presence.n]
    return min(measured, key=lambda a: a.presence.rate if a.presence else 1.0, default=None)


SUGGESTED = ("suggested_rate", "suggested_low", "suggested_high", "suggested_hits", "suggested_n", "suggested_unscored",
             "ratio", "ratio_low", "ratio_high")  # fmt: skip


def suggested_columns(attribute: RareAttribute) -> list[float | int | None]:
    """The values of an attribute in the columns `SUGGESTED`; None, an empty cell, if not measured."""
    names = [name.removeprefix("suggested_") for name in SUGGESTED[:6]]
    rates = [getattr(attribute.suggested, name, None) for name in names]
    return [*rates, *(getattr(attribute.ratio, name, None) for name in ("ratio", "low", "high"))]


HELD_BACK = ("loose_rate", "loose_low", "loose_high", "loose_hits", "loose_n", "loose_unscored",
             "held_back", "held_back_low", "held_back_high")  # fmt: skip


def held_back_columns(attribute: RareAttribute) -> dict[str, float | int | None]:
    """The values of an attribute in the columns `HELD_BACK`; None, an empty cell, if not measured."""
    rates = [getattr(attribute.loose, name.removeprefix("loose_"), None) for name in HELD_BACK[:6]]
    ratios = [getattr(attribute.held_back, name, None) for name in ("ratio", "low", "high")]
    return dict(zip(HELD_BACK, (*rates, *ratios), strict=True))


ON_LABEL = ("perhaps", "covers_more", "named_by", "judged_as")  # beside the column `label`


def label_columns(attribute: RareAttribute) -> dict[str, Any]:
    """The values of an attribute in the columns `label` and `ON_LABEL`. A label that held-out images do not bear out
    stands in `perhaps`, and `label` is empty. Where a person gave the name in `label`, the rates are of `judged_as`."""
    covers_more = None if attribute.covers_more is None else int(attribute.covers_more)
    return {"label": attribute.name, "perhaps": attribute.perhaps, "covers_more": covers_more,
            "named_by": attribute.named_by, "judged_as": attribute.judged_as}  # fmt: skip


class HookpointCost(NamedTuple):
    """What capturing a module would give: tokens of width `d_in` on a `grid` (None if it cannot be captured), and their
    size on disk over all steps."""

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
