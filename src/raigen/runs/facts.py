"""What the finished stages of a run noted, as attributes. `run.json` holds the same as JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

MOST_TIMES_WORSE = 1.5  # an autoencoder may fit other images than its own this much worse without a word


@dataclass(frozen=True)
class CaptureFacts:
    """Which model made the images, exactly, and by what means; None is not known, or not taken by the pipeline.

    `grid` holds rows and columns of the hookpoint's positions, `d_in` is the width of a token, `n_steps` counts the
    denoising steps. `weights` is a hash of the model's weights. The last `unread_tokens` of the prompt were cut off by
    every text encoder. `black_images` are the indices of wholly black images, which later stages leave out.
    """

    model: str = ""
    revision: str | None = None
    weights: str | None = None
    unread_tokens: int = 0
    license: str | None = field(default=None, metadata={"key": "licence"})
    pipeline: str = ""
    scheduler: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    offload: str = "none"
    safety_checker: bool = False
    num_inference_steps: int = 0
    guidance_scale: float | None = None
    height: int = 0
    width: int = 0
    negative_prompt: str | None = None
    true_cfg_scale: float | None = None
    hookpoint: str = ""
    grid: tuple[int, ...] = ()
    d_in: int = 0
    n_steps: int = 0
    seconds_per_image: float | None = None
    black_images: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainFacts:
    """The shape of the autoencoder and its quality: `fvu` (lower is better), `l0` (mean active neurons per token) and
    `dead_share` in [0, 1]. `shared_by` names the prompts that share it, where there are several.

    Of an autoencoder that was not trained here, `adopted` is the hash of its weights, `fvu` is measured on the images
    of this run, and `fvu_own` on those on which it was trained."""

    d_in: int = 0
    d_sae: int = 0
    group_sizes: tuple[int, ...] = ()
    k: int = 0
    steps: int = 0
    tokens: int = 0
    n_seeds: int = 1
    n_dead: int = 0
    dead_share: float = 0.0
    fvu: float = 0.0
    fvu_per_prefix: tuple[float, ...] = ()
    l0: float = 0.0
    training_seconds: float = 0.0
    shared_by: tuple[str, ...] = ()
    adopted: str | None = None
    fvu_own: float | None = None

    @property
    def caution(self) -> str | None:
        """What a reader must know of an autoencoder that fits these images badly."""
        if self.fvu_own is None or self.fvu <= MOST_TIMES_WORSE * self.fvu_own:
            return None
        return (f"the autoencoder leaves {self.fvu:.0%} of the variance of these images unexplained, and "
                f"{self.fvu_own:.0%} of those on which it was trained: expect fewer findings, or train one (leave out "
                "--sae)")  # fmt: skip


@dataclass(frozen=True)
class DiscoverFacts:
    """Which embedder and which second view were used, at which denoising step codes were taken, and how many neurons
    there are: in all, that fire at all, that were scored, that are listed. `n_black` images were left out."""

    embedder: str = ""
    second_view: str = "looks"
    scoring_step: int = 0
    n_neurons: int = 0
    n_live: int = 0
    n_scored: int = 0
    n_listed: int = 0
    n_black: int = 0


@dataclass(frozen=True)
class LookFacts:
    """How many odd images were looked around, how many relatives of them were made, how many families have an oddity in
    common, how many of these are listed, and how many entries were set aside. `why_not` says why there was no look."""

    n_odd: int = 0
    n_relatives: int = 0
    n_families: int = 0
    n_listed: int = 0
    n_aside: int = 0
    why_not: str | None = None


@dataclass(frozen=True)
class AnnotateFacts:
    """Who named the neurons, how many got a name, how many got no answer, and what asking took."""

    labeled_by: str = ""
    n_named: int = 0
    n_unanswered: int = 0
    answers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluateFacts:
    """Who judged how many fresh images, from which seed on, and how many verdicts are missing, by reason.

    `sources` holds the hash of each file that a judge of the user's comes from. `unjudged` says for each file of
    verdicts how many are there, and how many were looked for.
    `judge_errors` holds what is known of each judge's errors, by judge and label: the four numbers of a
    `raigen.judging.posterior.Calibration`. `calibration_cautions` says of which labels the calibration contradicts the
    judge, or lacks images. The model does not read the ends of `cut_prompts`, so there are no images of these suggested
    prompts. `n_judged` says how many of the fresh images each judge saw for each attribute.
    """

    judge: str = ""
    n_fresh_images: int = 0
    fresh_seeds_from: int = 0
    n_given_attributes: int = 0
    n_unscored: Mapping[str, int] = field(default_factory=dict)
    calibration_cautions: tuple[str, ...] = ()
    cut_prompts: tuple[str, ...] = ()
    answers: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    unjudged: Mapping[str, Sequence[int]] = field(default_factory=dict)
    n_judged: Mapping[str, int] = field(default_factory=dict)
    judge_errors: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader of the rates must know."""
        cut = [f"the image model does not read the end of “{prompt}”, so it was not asked for this" for prompt in
               self.cut_prompts]  # fmt: skip
        drawn = [f"{judge} judged {n:,} of {self.n_fresh_images:,} fresh images for each attribute, drawn by their "
                 "likeness to it; its rates are weighted back" for judge, n in self.n_judged.items()
                 if n < self.n_fresh_images]  # fmt: skip
        return (*self.calibration_cautions, *cut, *drawn)


@dataclass(frozen=True)
class ReportFacts:
    """The size of report.html in bytes."""

    bytes: int = 0


class Facts:
    """The facts of every stage of a run. A stage that has not finished raises RaigenError, with what to run."""

    capture: CaptureFacts
    train: TrainFacts
    discover: DiscoverFacts
    look: LookFacts
    annotate: AnnotateFacts
    evaluate: EvaluateFacts
    report: ReportFacts

    def __init__(self, facts_of: Callable[[str], Mapping[str, Any]]):
        self._facts_of = facts_of

    def __getattr__(self, stage: str) -> Any:
        """Reads the entry of a stage in run.json. A fact that older code did not note keeps its default; a fact that
        only newer code knows is passed over."""
        kind = Facts.__annotations__.get(stage)
        if kind is None:
            raise AttributeError(f"{stage!r} is no stage; the stages are {', '.join(Facts.__annotations__)}")
        entry = self._facts_of(stage)
        keys = {f.name: f.metadata.get("key", f.name) for f in fields(kind)}
        found = {name: entry[key] for name, key in keys.items() if key in entry}
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})
