"""How runs are compared."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from raigen.config.fields import KINDS, address_of, need_judge
from raigen.config.judging import AskConfig


@dataclass(frozen=True)
class CompareConfig(AskConfig):
    """How runs are compared: who judges, on how many images, and which labels are one attribute."""

    judge: str | None = None
    """One judge for all runs: `portraits`, `emblems`, `clip`, a vision-language model,
    `python:PACKAGE.MODULE:FUNCTION` or `file:VERDICTS.csv`. None is the first judge of the runs, which must be the same
    in all of them."""
    n_fresh_images: Annotated[int | None, Ge(2)] = None
    """Fresh images of each run to judge, at least 2; missing ones are made. None is the number that each run was
    evaluated on, which must be the same in all of them."""
    baseline: str | None = None
    """The model that the others are compared with; None is the first."""
    distilled: tuple[str, ...] = ()
    """Models that are distilled from the baseline. Those that take at most half as many steps, or no guidance where the
    baseline takes some, need not be named."""
    attributes: str | None = None
    """A text file with one attribute a line, to be judged along with the discovered ones."""
    closed_set: str | None = None
    """Axes that a person chose, to show what an audit along such axes finds and misses: a TOML or JSON file that gives
    each axis a list of categories, or the wanted share of each category; `portraits` is the set for the bundled
    model."""
    open_set: str | None = None
    """Axes that a language model proposes for each prompt (`openai:MODEL` and so on), used like those of --closed-set;
    or a file of them, or `portraits`."""
    min_similarity: Annotated[float, Interval(ge=-1, le=1)] = 0.8
    """Two labels are merged into one attribute only if the cosine of their text embeddings is at least this, in [-1,
    1]."""
    min_agreement: Annotated[float, Interval(ge=-1, le=1)] = 0.8
    """Two labels are merged into one attribute only if the judge's verdicts on them agree at least this well
    (Krippendorff's alpha, in [-1, 1]). With the judge `clip` none are merged, because its verdicts come from
    the embeddings, too."""
    n_asked_images: Annotated[int, Ge(0)] = 20
    """Images of a prompt that names the attribute, 0 or more. They are made with each model that does not list an
    attribute that another model lists."""
    drawn_rate: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """A model knows an attribute if it shows in more than this share of the images whose prompt names it; in
    (0, 1)."""
    n_strip_images: Annotated[int, Ge(1)] = 8
    """Images of each model, with the same seeds, that the report shows side by side; at least 1."""
    confidence: Annotated[float, Interval(gt=0, lt=1)] = 0.95
    """Confidence level of the intervals, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None:
            need_judge("judge", self.judge)
        if self.open_set is not None and self.open_set.partition(":")[0] in KINDS:
            address_of(self.open_set, "open_set")
