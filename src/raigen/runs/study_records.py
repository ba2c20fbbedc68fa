"""The records of a comparison of runs: attributes, rates, changes, axes; and its table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raigen.runs.records import Difference, Mean, Presence

CLOSED, OPEN = "closed", "open"
NONE = "none"  # the category of images that show no other category of the axis

# The kinds of change, as files hold them: see `raigen.comparison.changes.kind_of`.
KINDS = {
    "lost in distillation": "shown at most a third as often as by the baseline, by a model that is distilled from it",
    "new": "shown less often than by the baseline, which does not list it",
    "worse": "shown less often than by the baseline, which lists it too",
    "fixed": "shown more often than by the baseline, which lists it; this model no longer does",
    "better": "shown more often than by the baseline",
    "same": "no difference was shown",
    "unmeasured": "no seed has a verdict for both models",
}

IN_WORDS = {"new": "newly rare", "worse": "shown less", "fixed": "no longer rare", "better": "shown more"}


def kind_text(kind: str) -> str:
    """What a person reads for a kind of change.

    >>> kind_text("fixed"), kind_text("same")
    ('no longer rare', 'same')
    """
    return IN_WORDS.get(kind, kind)


@dataclass(frozen=True)
class Spread:
    """How much the audited images of a model differ for a prompt, by their embeddings.

    `vendi` is the Vendi score (Friedman and Dieng 2023): how many images, all different, would be as diverse; 1 or
    more. `effective` is the same of order 2, which rare images hardly move. `commonest`, in [0, 1], is the share of
    images that resemble the image that most others resemble: their similarity is in the top tenth of pairs of the
    baseline. Each has an interval.
    """

    prompt: str
    model: str
    vendi: Mean
    effective: Mean
    commonest: Mean


@dataclass(frozen=True)
class Axis:
    """A question with two or more `categories`: which one does an image show? `approach` is `closed` if a person wrote
    the axis, or `open` if a language model proposed it for one `prompt` (None: for all prompts). `reference` is the
    target share of each category; the shares add up to 1."""

    approach: str
    name: str
    categories: tuple[str, ...]
    reference: tuple[float, ...]
    prompt: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The categories that a judge looks for: all but `none`."""
        return tuple(category for category in self.categories if category != NONE)


@dataclass(frozen=True)
class AxisRate:
    """How the fresh images of a model for a prompt are distributed over the categories of an axis.

    `shares`, in the order of `categories`, are shares of the `n` images that show a category. `none` images show no
    category, and `unscored` images lack a verdict on at least one. `discrepancy`, in [0, sqrt 2], is the distance of
    the shares from the `reference`; `by_chance` is its average for a model that meets the reference. `severity`, in
    [0, 1], is 0 for equal shares and 1 if all images show one category. All three are None if no image shows any.
    """

    approach: str
    axis: str
    prompt: str
    model: str
    categories: tuple[str, ...]
    reference: tuple[float, ...]
    shares: tuple[float, ...]
    n: int
    none: int
    unscored: int
    discrepancy: float | None
    by_chance: float | None
    severity: float | None


@dataclass(frozen=True)
class Finding:
    """An attribute as one run lists it: the run's `prompt` and `model`, and the `rank`, `neuron` and `label` there."""

    prompt: str
    model: str
    rank: int
    neuron: int
    label: str
    minority_score: float
    suggested_prompt: str


@dataclass(frozen=True)
class Merged:
    """A label that means the same attribute: the cosine of the two texts, and Krippendorff's alpha of the judge's
    verdicts on them (None if the texts differ only in case and spaces)."""

    label: str
    similarity: float
    agreement: float | None


@dataclass(frozen=True)
class AxisValue:
    """A category of a `closed` or `open` axis that is this attribute. `prompt` is the prompt for which the axis was
    proposed (None: all prompts)."""

    approach: str
    axis: str
    category: str
    prompt: str | None


@dataclass(frozen=True)
class Compared:
    """One of the compared attributes: the label by which it was judged, whether it was `given`, the labels that
    were merged into it, the runs that found it, and the axes that contain it."""

    label: str
    given: bool
    merged: tuple[Merged, ...]
    findings: tuple[Finding, ...]
    axes: tuple[AxisValue, ...] = ()

    def is_listed(self, prompt: str, model: str) -> bool:
        """Whether the run of this prompt and model lists it."""
        return any((finding.prompt, finding.model) == (prompt, model) for finding in self.findings)


@dataclass(frozen=True)
class Cell:
    """How often one model shows an attribute for one prompt."""

    label: str
    prompt: str
    model: str
    is_listed: bool
    presence: Presence


@dataclass(frozen=True)
class Change:
    """A model's rate minus the baseline's for one attribute and prompt, on the same seeds. `difference` is None if no
    seed has a verdict for both. `q` is Benjamini and Hochberg's over all changes of the comparison; `kind` is one of
    `KINDS`."""

    label: str
    prompt: str
    model: str
    baseline: str
    difference: Difference | None
    q: float | None
    kind: str


@dataclass(frozen=True)
class Unlisted:
    """An attribute that a model does not list for a prompt although another model does, with its presence in images of
    the prompt that requests it, `asked`. `verdict` is `shown unasked`, `only not shown`, `not encoded` or `unclear`."""

    label: str
    prompt: str
    model: str
    asked: str
    presence: Presence | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The result of comparing runs; comparison.json is this as JSON."""

    judge: str
    confidence: float
    baseline: str
    prompts: tuple[str, ...]
    models: tuple[str, ...]
    n_images: int
    n_fresh_images: int
    fresh_seeds_from: int
    drawn_rate: float
    attributes: tuple[Compared, ...]
    cells: tuple[Cell, ...]
    changes: tuple[Change, ...]
    lone: tuple[Unlisted, ...]
    axes: tuple[AxisRate, ...] = ()
    spreads: tuple[Spread, ...] = ()


COLUMNS: tuple[str, ...] = (
    "attribute", "prompt", "model", "given", "found", "closed", "open", "listed", "rate", "low", "high", "hits", "n",
    "unscored", "judge", "interval", "baseline", "difference", "difference_low", "difference_high", "pairs", "p", "q",
    "change", "if_asked", "if_asked_rate",
)  # fmt: skip


def rows(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of comparison.csv from the content of comparison.json: the rate and the change of each attribute, prompt
    and model. What is not known is None."""
    attribute_of = {attribute["label"]: attribute for attribute in entry["attributes"]}
    changes = {_place(change): change for change in entry["changes"]}
    lone = {_place(asked): asked for asked in entry["lone"]}
    for cell in entry["cells"]:
        rate, change, asked = cell["presence"], changes.get(_place(cell), {}), lone.get(_place(cell), {})
        moved = change.get("difference") or {}
        yield {
            "attribute": cell["label"], "prompt": cell["prompt"], "model": cell["model"],
            **_sources(attribute_of[cell["label"]], cell["prompt"]),
            "listed": cell["is_listed"], "rate": rate["rate"] if rate["n"] else None,
            **{name: rate[name] for name in ("low", "high", "hits", "n", "unscored", "judge", "interval")},
            "baseline": change.get("baseline"), "difference": moved.get("difference"),
            "difference_low": moved.get("low"), "difference_high": moved.get("high"), "pairs": moved.get("n"),
            "p": moved.get("p"), "q": change.get("q"), "change": change.get("kind"), "if_asked": asked.get("verdict"),
            "if_asked_rate": (asked.get("presence") or {}).get("rate"),
        }  # fmt: skip


def _sources(attribute: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """Where an attribute comes from: whether it was given, whether a run found it, and the axes that contain it."""
    axes = [axis for axis in attribute["axes"] if axis["prompt"] in (None, prompt)]
    names = {approach: "; ".join(dict.fromkeys(a["axis"] for a in axes if a["approach"] == approach)) or None
             for approach in (CLOSED, OPEN)}  # fmt: skip
    return {"given": attribute["given"], "found": bool(attribute["findings"]), **names}


def _place(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return entry["label"], entry["prompt"], entry["model"]
