"""How names and rates come about, of one run or of several."""

from dataclasses import dataclass

from raigen.address import KINDS, address_of
from raigen.config.checks import detail, need, need_address


@dataclass(frozen=True)
class AskConfig:
    """How vision-language models are asked, by the stages that ask any. None of it changes an answer."""

    concurrency: int = detail(8)
    """Questions under way at once to a server, at least 1."""
    timeout: float = detail(120.0)
    """Seconds to wait for one answer, above 0."""
    max_calls: int | None = detail(None)
    """Questions to ask at most in one start of a stage, 0 or more. Answers are kept: the same command goes on."""
    max_cost: float | None = detail(None)
    """What the answers of one start of a stage may cost, above 0; those under way may exceed it. Needs the prices."""
    price_in: float = detail(0.0)
    """Price of a million tokens that the model reads, 0 or more."""
    price_out: float = detail(0.0)
    """Price of a million tokens that the model writes, 0 or more."""

    def __post_init__(self) -> None:
        need(self.concurrency >= 1, "concurrency", self.concurrency, "1 or more")
        need(self.timeout > 0, "timeout", self.timeout, "seconds above 0")
        need(self.max_calls is None or self.max_calls >= 0, "max_calls", self.max_calls, "0 or more")
        need(self.max_cost is None or self.max_cost > 0, "max_cost", self.max_cost, "a sum above 0")
        need(self.price_in >= 0, "price_in", self.price_in, "0 or more")
        need(self.price_out >= 0, "price_out", self.price_out, "0 or more")
        need(self.max_cost is None or self.price_in + self.price_out > 0, "max_cost", self.max_cost,
              "price_in or price_out beside it")  # fmt: skip


@dataclass(frozen=True)
class AnnotateConfig(AskConfig):
    """How the listed neurons are named."""

    annotator: str = "clip"
    """`clip`, or a vision-language model: `openai:MODEL`, `openai:MODEL@URL`, `transformers:FOLDER_OR_ID`,
    `scripted:FILE`."""
    vocabulary: str = "auto"
    """For clip: `auto`, `portraits`, `general`, or a text file with one phrase a line."""
    min_auroc: float = 0.8
    """For clip: a phrase names a neuron when it tells its top pictures from random ones at least this well; in
    [0.5, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need_address("annotator", self.annotator, ("clip",))
        need(0.5 <= self.min_auroc <= 1, "min_auroc", self.min_auroc, "a number in [0.5, 1]")


@dataclass(frozen=True)
class EvaluateConfig(AskConfig):
    """On which fresh pictures the rates are measured, and who judges them."""

    n_fresh_images: int = 300
    """Pictures with seeds of their own, at least 1."""
    n_suggested_images: int = 10
    """Pictures of the suggested prompt of each named attribute, which say how far the model can go; 0 makes none."""
    judge: tuple[str, ...] = ("auto",)
    """One or more: `portraits`, `clip`, vision-language models as for annotator; `auto` is `portraits` for the bundled
    model, else `clip`. The rate is that of the first, the others stand beside it."""
    attributes: str | None = None
    """A text file with one attribute a line, to be judged beside the discovered ones."""
    calibration: str | None = None
    """A CSV file of pictures with known answers: columns `judged` and `true` (yes or no), and where it matters `label`
    and `judge`. Rates without the judge's errors then stand beside the raw ones."""
    n_label_images: int = 20
    """Audited pictures on which each label is scored, of those in which its neuron fires and as many of the others; at
    least 10, or 0 to score none. Those from which the label was made are not among them."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "judge", (self.judge,) if isinstance(self.judge, str) else tuple(self.judge))
        need(self.n_fresh_images >= 1, "n_fresh_images", self.n_fresh_images, "1 or more")
        need(self.n_suggested_images >= 0, "n_suggested_images", self.n_suggested_images, "0 or more")
        need(
            self.n_label_images == 0 or self.n_label_images >= 10,
            "n_label_images",
            self.n_label_images,
            "10 or more, or 0",
        )
        need(len(self.judge) >= 1, "judge", self.judge, "one judge or more")
        for judge in self.judge:
            need_address("judge", judge, ("auto", "portraits", "clip"))
        need(0 < self.confidence < 1, "confidence", self.confidence, "a number in (0, 1)")


@dataclass(frozen=True)
class CompareConfig(AskConfig):
    """How runs are compared: who judges, on how many pictures, and what counts as one attribute."""

    judge: str | None = None
    """`portraits`, `clip` or a vision-language model, one for all runs; None is the first judge of the runs, which must
    then be the same in all."""
    n_fresh_images: int | None = None
    """Fresh pictures of each run, at least 2; None takes those that were evaluated, which must then be as many in
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
    judges: it knows no more of the pictures than the texts say."""
    n_asked_images: int = 20
    """Pictures of a prompt that asks for the attribute, made where only another model lists it; 0 makes none."""
    drawn_rate: float = 0.2
    """A model knows an attribute if it shows it in more than this share of such pictures; in (0, 1)."""
    n_strip_images: int = 8
    """Pictures of each model, with the same seeds, that the report lays side by side; at least 1."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None:
            need_address("judge", self.judge, ("portraits", "clip"))
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
