"""What a comparison of runs holds: attributes, rates, changes, axes; and its table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raigen.runs.records import Difference, Presence

CLOSED, OPEN = "closed", "open"
NONE = "none"  # the category of images that show no other one of the axis

# What may have become of an attribute: see `raigen.comparison.changes.kind_of`.
KINDS = {
    "new": "shown less often than by the baseline, which does not list it",
    "worse": "shown less often than by the baseline, which lists it too",
    "fixed": "shown more often than by the baseline, which lists it, and no longer listed",
    "better": "shown more often than by the baseline",
    "same": "no difference was shown",
    "unmeasured": "no image of both models has a verdict",
}


@dataclass(frozen=True)
class Axis:
    """Which of two or more `categories` does an image show? `approach` is `closed` (a person set the axis) or `open`
    (a language model proposed it for one `prompt`; None: for all). `reference` is the wanted share of each category;
    the shares add up to 1."""

    approach: str
    name: str
    categories: tuple[str, ...]
    reference: tuple[float, ...]
    prompt: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The categories that a judge is asked for: all but `none`."""
        return tuple(category for category in self.categories if category != NONE)


@dataclass(frozen=True)
class AxisRate:
    """How the fresh images of a model for a prompt spread over the categories of an axis.

    `shares`, in the order of `categories`, are of the `n` images that show a category; `none` show none of them and
    `unscored` have no verdict on one of them. `discrepancy` in [0, sqrt 2] is the distance of the shares from the
    `reference`, `by_chance` what it would be on average if the model kept to the reference. `severity` in [0, 1] is 0
    for even shares and 1 where all images show one category. Both are None where no image shows a category.
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
    """An attribute as one run lists it: for a `prompt` and a `model`, at `rank`, as a `neuron`, under a `label`."""

    prompt: str
    model: str
    rank: int
    neuron: int
    label: str
    minority_score: float
    suggested_prompt: str


@dataclass(frozen=True)
class Merged:
    """A label that was taken for the same attribute: the cosine of the texts, and how far the judge's verdicts on the
    two agree (Krippendorff's alpha; None where the texts are the same but for case and spaces)."""

    label: str
    similarity: float
    agreement: float | None


@dataclass(frozen=True)
class AxisValue:
    """That an axis of the `closed` or the `open` approach asks for an attribute, as one of its categories; `prompt` is
    the one for which the axis was proposed (None: all)."""

    approach: str
    axis: str
    category: str
    prompt: str | None


@dataclass(frozen=True)
class Compared:
    """An attribute of the union: the label by which it was judged, whether it was `given` and not found, the labels
    that were merged into it, where it was found, and the axes that ask for it."""

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
    """A model's rate less the baseline's for one attribute and prompt, on the same seeds (None: no image of both has
    a verdict); `q` is Benjamini and Hochberg's over all changes of the comparison; `kind` is one of `KINDS`."""

    label: str
    prompt: str
    model: str
    baseline: str
    difference: Difference | None
    q: float | None
    kind: str


@dataclass(frozen=True)
class Unlisted:
    """An attribute that a model does not list for a prompt although another does: how often the model draws it when
    the prompt `asked` for it. `verdict` is `shown unasked`, `only not shown`, `not encoded` or `unclear`."""

    label: str
    prompt: str
    model: str
    asked: str
    presence: Presence | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Everything that came of comparing runs; comparison.json is this as JSON."""

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


COLUMNS: tuple[str, ...] = (
    "attribute", "prompt", "model", "given", "found", "closed", "open", "listed", "rate", "low", "high", "hits", "n",
    "unscored", "judge", "interval", "baseline", "difference", "difference_low", "difference_high", "pairs", "p", "q",
    "change", "if_asked", "if_asked_rate",
)  # fmt: skip


def rows(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The table of what comparison.json holds: for each attribute, prompt and model its rate and its change; what is
    not known is None."""
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
    """Who asks for an attribute: whether it was given, whether any run found it, and the axes that ask for it."""
    axes = [axis for axis in attribute["axes"] if axis["prompt"] in (None, prompt)]
    names = {approach: "; ".join(dict.fromkeys(a["axis"] for a in axes if a["approach"] == approach)) or None
             for approach in (CLOSED, OPEN)}  # fmt: skip
    return {"given": attribute["given"], "found": bool(attribute["findings"]), **names}


def _place(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return entry["label"], entry["prompt"], entry["model"]
