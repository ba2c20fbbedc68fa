"""How the neurons of a run are named, and how their rates are measured."""

from dataclasses import dataclass

from raigen.config.fields import CLIP, JUDGES, detail, need, need_address


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

    annotator: str = CLIP
    """`clip`, or a vision-language model: `openai:MODEL`, `openai:MODEL@URL`, `transformers:FOLDER_OR_ID`,
    `scripted:FILE`."""
    vocabulary: str = "auto"
    """For clip: `auto`, `portraits`, `general`, or a text file with one phrase a line."""
    min_auroc: float = 0.8
    """For clip: a phrase names a neuron when it tells its top images from random ones at least this well; in
    [0.5, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need_address("annotator", self.annotator, (CLIP,))
        need(0.5 <= self.min_auroc <= 1, "min_auroc", self.min_auroc, "a number in [0.5, 1]")


@dataclass(frozen=True)
class EvaluateConfig(AskConfig):
    """On which fresh images the rates are measured, and who judges them."""

    n_fresh_images: int = 300
    """Images with seeds of their own, at least 1."""
    n_suggested_images: int = 10
    """Images of the suggested prompt of each named attribute, which say how far the model can go; 0 makes none."""
    judge: tuple[str, ...] = ("auto",)
    """One or more: `portraits`, `clip`, vision-language models as for annotator; `auto` is `portraits` for the bundled
    model, else `clip`. The rate is that of the first, the others stand beside it."""
    attributes: str | None = None
    """A text file with one attribute a line, to be judged beside the discovered ones."""
    calibration: str | None = None
    """A CSV file of images with known answers: columns `judged` and `true` (yes or no), and where it matters `label`
    and `judge`. Rates without the judge's errors then stand beside the raw ones."""
    n_label_images: int = 20
    """Audited images on which each label is scored, of those in which its neuron fires and as many of the others; at
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
            need_address("judge", judge, ("auto", *JUDGES))
        need(0 < self.confidence < 1, "confidence", self.confidence, "a number in (0, 1)")
