"""How the neurons of a run are named, and how their rates are measured."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from raigen.config.fields import CLIP, check_ranges, detail, need, need_address, need_judge


@dataclass(frozen=True)
class AskConfig:
    """How vision-language models are asked, in every stage that asks one. None of it changes an answer."""

    concurrency: Annotated[int, Interval(ge=1, le=1000)] = detail(8)
    """Questions sent to a server at once, 1 to 1000."""
    timeout: Annotated[float, Interval(gt=0, le=86400)] = detail(120.0)
    """Seconds to wait for one whole answer, above 0 and up to 86400 (a day)."""
    max_calls: Annotated[int | None, Ge(0)] = detail(None)
    """Most requests to send before the stage stops, including repeated ones; 0 or more, None is no limit. Answers are
    kept: the same command continues with the next questions."""
    max_cost: Annotated[float | None, Gt(0)] = detail(None)
    """Most to spend on answers before the stage stops, above 0; None is no limit. Needs price_in or price_out. Answers
    that are already on their way may exceed it."""
    price_in: Annotated[float, Interval(ge=0, le=1e9)] = detail(0.0)
    """Price of a million tokens that the model reads, 0 to 1e9."""
    price_out: Annotated[float, Interval(ge=0, le=1e9)] = detail(0.0)
    """Price of a million tokens that the model writes, 0 to 1e9."""

    def __post_init__(self) -> None:
        check_ranges(self)
        need(self.max_cost is None or self.price_in + self.price_out > 0, "max_cost", self.max_cost,
              "price_in or price_out beside it")  # fmt: skip


@dataclass(frozen=True)
class AnnotateConfig(AskConfig):
    """How the listed neurons are named."""

    annotator: str = CLIP
    """`clip`, or a vision-language model: `openai:MODEL`, `openai:MODEL@URL`, `transformers:FOLDER_OR_ID`,
    `scripted:FILE`."""
    vocabulary: str = "auto"
    """Phrases that the annotator `clip` chooses from: `auto`, `portraits`, `emblems`, `general`, or a text file with
    one phrase a line. `auto` is the planted world of a bundled model, else `general`."""
    min_auroc: Annotated[float, Interval(ge=0.5, le=1)] = 0.8
    """Least AUROC, in [0.5, 1], with which a phrase must separate the neuron's top images from all others to become its
    name. Only for the annotator `clip`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need_address("annotator", self.annotator, (CLIP,))


@dataclass(frozen=True)
class EvaluateConfig(AskConfig):
    """How many fresh images the rates are measured on, and who judges them."""

    n_fresh_images: Annotated[int, Ge(1)] = 300
    """Fresh images, with seeds of their own, on which rates are measured; at least 1."""
    n_judged: Annotated[int | None, Ge(1)] = None
    """Fresh images that a vision-language model judges for each attribute, at least 1, drawn by their likeness to it;
    the rate is weighted back. None is all of them. For judges that hardly ever see what is not there."""
    n_suggested_images: Annotated[int, Ge(0)] = 10
    """Images of the suggested prompt of each named attribute, 0 or more. They show how often the model draws the
    attribute when the prompt names it."""
    judge: tuple[str, ...] = ("auto",)
    """One or more of `portraits`, `emblems`, `clip`, vision-language models (see annotator),
    `python:PACKAGE.MODULE:FUNCTION` and `file:VERDICTS.csv`. `auto` is the planted world of a bundled model, else
    `clip`. The first one's rate is the presence; the rates of the others are shown beside it."""
    attributes: str | None = None
    """A text file with one attribute per line, to be judged along with the discovered ones."""
    calibration: str | None = None
    """A CSV file of images with known answers: columns `judged` and `true` (yes or no), and `label` and `judge` if
    there are several. Rates corrected for the judge's errors are then shown beside the raw ones. The images must be
    drawn at random from the prompt's own images, not selected: neither look-alikes nor easy cases."""
    n_label_images: int = 20
    """Audited images in which the neuron fires strongly, at least 10, on which each label is scored; 0 gives no scores.
    As many are added in which the neuron hardly fires. The images that the label was made from are excluded."""
    confidence: Annotated[float, Interval(gt=0, lt=1)] = 0.95
    """Confidence level of the intervals, in (0, 1)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "judge", (self.judge,) if isinstance(self.judge, str) else tuple(self.judge))
        super().__post_init__()
        need(self.n_label_images == 0 or self.n_label_images >= 10, "n_label_images", self.n_label_images,
             "10 or more, or 0")  # fmt: skip
        need(len(self.judge) >= 1, "judge", self.judge, "one judge or more")
        for judge in self.judge:
            need_judge("judge", judge, "auto")
