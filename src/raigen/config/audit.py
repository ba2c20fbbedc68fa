"""A whole audit: the configurations of all stages."""

from dataclasses import dataclass, fields
from typing import Any

from raigen.config.diffusion import CaptureConfig
from raigen.config.discovery import DiscoverConfig
from raigen.config.fields import need
from raigen.config.judging import AnnotateConfig, EvaluateConfig
from raigen.config.sae import TrainConfig
from raigen.errors import RaigenError


@dataclass(frozen=True)
class ReportConfig:
    """What the report shows."""

    n_control_images: int = 10
    """Random images of the same prompt beside each neuron's top images, at least 1."""
    n_middle_images: int = 5
    """Images from the middle of those in which the neuron fires, 0 or more."""
    n_neighbours: int = 3
    """Neurons with the most similar images that are shown beside each, 0 or more."""
    n_children: int = 3
    """Fine neurons within each coarse one that are shown, those that cover most of it, 0 or more."""
    rarer_than: float = 0.05
    """The rate that attributes are tested to be rarer than, in (0, 1)."""

    def __post_init__(self) -> None:
        need(self.n_control_images >= 1, "n_control_images", self.n_control_images, "1 or more")
        need(self.n_middle_images >= 0, "n_middle_images", self.n_middle_images, "0 or more")
        need(self.n_neighbours >= 0, "n_neighbours", self.n_neighbours, "0 or more")
        need(self.n_children >= 0, "n_children", self.n_children, "0 or more")
        need(0 < self.rarer_than < 1, "rarer_than", self.rarer_than, "a rate in (0, 1)")


@dataclass(frozen=True)
class AuditConfig:
    """One whole audit: a configuration for each stage, in the order in which they run."""

    capture: CaptureConfig
    train: TrainConfig = TrainConfig()
    discover: DiscoverConfig = DiscoverConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()

    @classmethod
    def of(cls, prompt: str, **options: Any) -> "AuditConfig":
        """Puts each option into the stages that have a field of its name (two stages share only those of AskConfig).

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
    "annotate": AnnotateConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
}
STAGES: tuple[str, ...] = tuple(STAGE_CONFIGS)
