"""A whole audit: the configurations of all stages."""

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Interval

from raigen.config.diffusion import CaptureConfig
from raigen.config.discovery import DiscoverConfig, LookConfig
from raigen.config.fields import check_ranges
from raigen.config.judging import AnnotateConfig, EvaluateConfig
from raigen.config.sae import TrainConfig
from raigen.errors import RaigenError

StageName = Literal[
    "capture", "train", "discover", "look", "annotate", "evaluate", "report"
]  # in the order in which they run


@dataclass(frozen=True)
class ReportConfig:
    """What the report shows."""

    n_control_images: Annotated[int, Ge(1)] = 10
    """Random images of the same prompt to show beside each neuron's top images, at least 1."""
    n_middle_images: Annotated[int, Ge(0)] = 5
    """Images of medium activation to show for each neuron, 0 or more."""
    n_neighbours: Annotated[int, Ge(0)] = 3
    """Neurons with the most similar images to show beside each neuron, 0 or more."""
    n_children: Annotated[int, Ge(0)] = 3
    """Fine neurons to show within each coarse one, 0 or more: those that cover most of it."""
    n_review_images: Annotated[int, Ge(0)] = 20
    """Fresh images of each attribute that review.html shows to a person, who checks the judge; 0 or more. More of them
    give a narrower interval."""
    rarer_than: Annotated[float, Interval(gt=0, lt=1)] = 0.05
    """Each attribute is tested for a rate below this one, in (0, 1)."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class AuditConfig:
    """One whole audit: a configuration for each stage, in the order in which the stages run."""

    capture: CaptureConfig
    train: TrainConfig = TrainConfig()
    discover: DiscoverConfig = DiscoverConfig()
    look: LookConfig = LookConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()

    @classmethod
    def of(cls, prompt: str, **options: Any) -> "AuditConfig":
        """Gives each option to the stages that have a field of that name (only AskConfig's fields are in two stages).

        >>> AuditConfig.of("a photo of a doctor", n_images=300, k=4).train.k
        4
        """
        stages, used = {}, set()
        for stage in fields(cls):
            names = {f.name for f in fields(STAGE_CONFIGS[stage.name])}
            chosen = {name: value for name, value in options.items() if name in names}
            used |= chosen.keys()
            if stage.name == "capture":
                chosen["prompt"] = prompt
            stages[stage.name] = STAGE_CONFIGS[stage.name](**chosen)
        unknown = [name for name in options if name not in used]
        if unknown:
            known = sorted({f.name for config in STAGE_CONFIGS.values() for f in fields(config)} - {"prompt"})
            raise RaigenError(f"unknown option {unknown[0]!r}; the options are {', '.join(known)}")
        return cls(**stages)


STAGE_CONFIGS: dict[str, type] = {
    "capture": CaptureConfig,
    "train": TrainConfig,
    "discover": DiscoverConfig,
    "look": LookConfig,
    "annotate": AnnotateConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
}
STAGES: tuple[StageName, ...] = get_args(StageName)
