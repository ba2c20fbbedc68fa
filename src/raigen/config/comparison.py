"""How runs are compared."""

from dataclasses import dataclass

from raigen.config.fields import JUDGES, KINDS, address_of, need, need_address
from raigen.config.judging import AskConfig


@dataclass(frozen=True)
class CompareConfig(AskConfig):
    """How runs are compared: who judges, on how many images, and what counts as one attribute."""

    judge: str | None = None
    """`portraits`, `clip` or a vision-language model, one for all runs; None is the first judge of the runs, which must
    then be the same in all."""
    n_fresh_images: int | None = None
    """Fresh images of each run, at least 2; None takes those that were evaluated, which must then be as many in
    all. Those that are missing are made."""
    baseline: str | None = None
    """The model that the others are compared with; None is the first."""
    attributes: str | None = None
    """A text file with one attribute a line, to be judged beside those that were found."""
    closed_set: str | None = None
    """Axes that a person set, to see what such an audit finds and misses: a TOML or JSON file with a list of categories
    for each axis, or of categories with the wanted share of each; `portraits` are those shipped for the bundled
    model."""
    open_set: str | None = None
    """The same with axes that a language model proposes for each prompt (`openai:MODEL` and so on), or a file of them,
    or `portraits`."""
    min_similarity: float = 0.8
    """Two labels are one attribute only if the cosine of their texts is at least this, in [-1, 1]..."""
    min_agreement: float = 0.8
    """... and the judge's verdicts on them agree at least this well (Krippendorff's alpha); in [-1, 1]. Not where CLIP
    judges: it knows no more of the images than the texts say."""
    n_asked_images: int = 20
    """Images of a prompt that asks for the attribute, made where only another model lists it; 0 makes none."""
    drawn_rate: float = 0.2
    """A model knows an attribute if it shows it in more than this share of such images; in (0, 1)."""
    n_strip_images: int = 8
    """Images of each model, with the same seeds, that the report lays side by side; at least 1."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None:
            need_address("judge", self.judge, JUDGES)
        need(
            self.n_fresh_images is None or self.n_fresh_images >= 2, "n_fresh_images", self.n_fresh_images, "2 or more"
        )
        if self.open_set is not None and self.open_set.partition(":")[0] in KINDS:
            address_of(self.open_set, "open_set")
        for name in ("min_similarity", "min_agreement"):
            need(-1 <= getattr(self, name) <= 1, name, getattr(self, name), "a number in [-1, 1]")
        need(self.n_asked_images >= 0, "n_asked_images", self.n_asked_images, "0 or more")
        need(self.n_strip_images >= 1, "n_strip_images", self.n_strip_images, "1 or more")
        for name in ("drawn_rate", "confidence"):
            need(0 < getattr(self, name) < 1, name, getattr(self, name), "a number in (0, 1)")
