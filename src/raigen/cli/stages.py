"""The commands that run one stage: capture, train, discover, annotate, evaluate, report."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from raigen.auditing.audit import default_run_dir, run_stage
from raigen.cli.flags import NAMES_ITS_DEFAULT, Command, flags
from raigen.cli.progress import progress_bars
from raigen.cli.tables import print_cautions, print_result, print_trust
from raigen.cli.terminal import say
from raigen.config import (
    STAGE_CONFIGS,
    AnnotateConfig,
    CaptureConfig,
    DiscoverConfig,
    EvaluateConfig,
    LookConfig,
    ReportConfig,
    TrainConfig,
)
from raigen.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Capture(Command):
    """Generates images and keeps the activations of one layer of the denoiser."""

    prompt: Positional[str]
    """The prompt to audit; or a run folder, to resume its capture."""
    run_dir: Annotated[Path | None, NAMES_ITS_DEFAULT] = None
    """The run folder. (default: runs/PROMPT)"""
    redo: Literal["capture"] | None = None
    """Do this stage again, and drop the results of all later ones."""
    capture: Annotated[CaptureConfig, flags(CaptureConfig, "prompt")]

    @property
    def folder(self) -> Path:
        """The given folder; or the prompt, if that is one; or the default folder of the prompt."""
        return self.run_dir or (Path(self.prompt) if Run.is_at(self.prompt) else default_run_dir(self.prompt))

    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        return _recorded(Run(self.folder), "capture") if Run.is_at(self.folder) else {}

    def execute(self) -> None:
        values = dict(vars(self.capture))
        if self.run_dir is not None or not Run.is_at(self.prompt):  # else the recorded prompt
            values["prompt"] = self.prompt
        config = CaptureConfig(**values)  # checked before a folder is made
        _run_stage(Run.create(self.folder), "capture", config, self.redo)


@dataclass(frozen=True, kw_only=True)
class StageCommand(Command):
    """Runs a later stage. The command and the field that holds the configuration have the stage's name."""

    run: Positional[Path]
    """The run folder. Flags that are left out keep their recorded values."""
    redo: str | None = None
    """Do this stage again, and drop the results of all later ones."""

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return type(self).__name__.lower()

    @property
    def config(self) -> Any:
        """The configuration of the stage. Raises RaigenError for a bad value."""
        return STAGE_CONFIGS[self.stage](**vars(getattr(self, self.stage)))

    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        return _recorded(Run(self.run), self.stage)

    def execute(self) -> None:
        _run_stage(Run(self.run), self.stage, self.config, self.redo)


@dataclass(frozen=True, kw_only=True)
class AskingStage(StageCommand):
    """Runs a stage that may ask vision-language models."""

    dry_run: bool = False
    """Only print what asking the models would take: calls, tokens, cost."""

    def execute(self) -> None:
        if not self.dry_run:
            super().execute()
            return
        plans = import_module(f"raigen.judging.{self.stage}").plan(Run(self.run), self.config)
        say("\n".join(map(str, plans)) or f"{self.stage}: no vision-language model is asked")


@dataclass(frozen=True, kw_only=True)
class Train(StageCommand):
    """Trains the sparse autoencoder on the captured activations."""

    redo: Literal["train"] | None = None
    train: Annotated[TrainConfig, flags(TrainConfig)]


@dataclass(frozen=True, kw_only=True)
class Discover(StageCommand):
    """Scores the neurons and lists the rare ones."""

    redo: Literal["discover"] | None = None
    discover: Annotated[DiscoverConfig, flags(DiscoverConfig)]


@dataclass(frozen=True, kw_only=True)
class Look(StageCommand):
    """Looks around odd images for attributes that too few images show."""

    redo: Literal["look"] | None = None
    look: Annotated[LookConfig, flags(LookConfig)]


@dataclass(frozen=True, kw_only=True)
class Annotate(AskingStage):
    """Names the listed neurons."""

    redo: Literal["annotate"] | None = None
    annotate: Annotated[AnnotateConfig, flags(AnnotateConfig)]


@dataclass(frozen=True, kw_only=True)
class Evaluate(AskingStage):
    """Measures on fresh images how often each named attribute shows."""

    redo: Literal["evaluate"] | None = None
    evaluate: Annotated[EvaluateConfig, flags(EvaluateConfig)]

    def execute(self) -> None:
        super().execute()
        if not self.dry_run:
            print_cautions(Run(self.run))
            print_trust(Run(self.run))


@dataclass(frozen=True, kw_only=True)
class Report(StageCommand):
    """Writes the report, one HTML file."""

    redo: Literal["report"] | None = None
    report: Annotated[ReportConfig, flags(ReportConfig)]

    def execute(self) -> None:
        super().execute()
        print_result(Run(self.run))


def _recorded(run: Run, stage: str) -> dict[str, Mapping[str, Any]]:
    """The values with which the stage last ran here."""
    known = {**run.manifest["stages"], **run.manifest.get("dropped", {})}
    return {stage: vars(run.config_of(stage))} if stage in known else {}


def _run_stage(run: Run, stage: str, config: Any, redo: str | None) -> None:
    with progress_bars() as show:
        run_stage(run, stage, config, redo=redo is not None, on_tick=show)
