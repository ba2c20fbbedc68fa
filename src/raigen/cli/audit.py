"""The commands that begin with a prompt or a model: audit, plan, hookpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, UseAppendAction

from raigen.auditing.audit import default_run_dir, walk
from raigen.auditing.shared_sae import check_shareable
from raigen.auditing.sweep import default_study_dir, sweep
from raigen.cli.flags import NAMES_ITS_DEFAULT, Command, flags
from raigen.cli.progress import progress_bars, study_progress_bars
from raigen.cli.tables import few_images, print_hookpoints, print_plan, print_result, print_search, print_study
from raigen.cli.terminal import say, say_json, warn
from raigen.config import (
    STAGES,
    AnnotateConfig,
    AskConfig,
    AuditConfig,
    CaptureConfig,
    DiscoverConfig,
    EvaluateConfig,
    LookConfig,
    ReportConfig,
    SearchConfig,
    TrainConfig,
)
from raigen.config.audit import StageName
from raigen.config.fields import need
from raigen.config.presets import PresetName, by_stage
from raigen.config.prompts import prompts_of
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.runs.steps import exhausted
from raigen.runs.study import Study

HOW_TO_ASK = tuple(each.name for each in fields(AskConfig))


@dataclass(frozen=True, kw_only=True)
class AllStages(Command):
    """Takes the flags of all stages."""

    preset: PresetName | None = None
    """Start from published settings, model and all; other flags still count."""
    capture: Annotated[CaptureConfig, flags(CaptureConfig, "prompt")]
    train: Annotated[TrainConfig, flags(TrainConfig)]
    discover: Annotated[DiscoverConfig, flags(DiscoverConfig)]
    look: Annotated[LookConfig, flags(LookConfig)]
    annotate: Annotated[AnnotateConfig, flags(AnnotateConfig)]
    evaluate: Annotated[EvaluateConfig, flags(EvaluateConfig, *HOW_TO_ASK)]
    report: Annotated[ReportConfig, flags(ReportConfig)]

    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        return by_stage(self.preset) if self.preset else {}

    def config(self, prompt: str, model: str) -> AuditConfig:
        """The configuration of one run. Raises RaigenError for a bad value."""
        options: dict[str, Any] = {}
        for stage in reversed(STAGES):  # annotate after evaluate: its flags say how both ask models
            options |= vars(getattr(self, stage))
        return AuditConfig.of(**options | {"prompt": prompt, "model": model})


@dataclass(frozen=True, kw_only=True)
class Audit(AllStages):
    """Audits a prompt, or many prompts with many models. The same command again resumes where it stopped."""

    prompt: Annotated[Positional[tuple[str, ...]], NAMES_ITS_DEFAULT] = ()
    """The prompt to audit, not empty. Several make a study."""
    model: Annotated[UseAppendAction[tuple[str, ...]], NAMES_ITS_DEFAULT] = ()
    """`portraits`, `portraits-transformer` or `emblems` (bundled), or a folder or Hub id of a diffusers pipeline.
    Several, one flag each, make a study. (default: portraits)"""
    prompts: str | None = None
    """More prompts: `professions`, `scenes`, or a text file with one prompt a line. They make a study."""
    study: Annotated[Path | None, NAMES_ITS_DEFAULT] = None
    """The folder of the study: a run for every prompt and model. (default: studies/PROMPTS)"""
    workers: int = 1
    """Runs of a study to work on at once, each in its own process."""
    ray: str | None = None
    """Spread the runs of a study over the Ray cluster at this address, such as `auto` or HOST:6379."""
    shared_sae: bool = False
    """Train one autoencoder per model on the images of all prompts, instead of one per prompt."""
    run_dir: Annotated[Path | None, NAMES_ITS_DEFAULT] = None
    """The run folder. (default: runs/PROMPT)"""
    redo: StageName | None = None
    """Do this stage again, and all that follow it."""
    capture: Annotated[CaptureConfig, flags(CaptureConfig, "prompt", "model")]

    def execute(self) -> None:
        prompts = list(dict.fromkeys((*self.prompt, *(prompts_of(self.prompts) if self.prompts is not None else ()))))
        if not prompts:
            raise RaigenError('prompt: expected a text, such as: raigen audit "a photo of a doctor"; or --prompts')
        # With a preset the flags are read twice, so each --model occurs twice; the default is the preset's model.
        models = list(dict.fromkeys(self.model or (self.capture.model,)))
        # The whole configuration is checked before a folder is made.
        configs = [self.config(prompt, model) for prompt in prompts for model in models]
        need(self.workers >= 1, "workers", self.workers, "1 or more")
        need(self.ray != "", "ray", self.ray, "the address of a Ray cluster, such as auto; or leave it out")
        if len(configs) > 1 or self.prompts or self.study or self.shared_sae:
            self._sweep(configs[0], prompts, models)
            return
        run = Run.create(self.run_dir or default_run_dir(prompts[0]))
        if not run.has_finished("capture"):
            _warn(configs[0])
        with progress_bars() as show:
            for step in walk(run, configs[0], self.redo):
                show(step)
        print_result(run)

    def _sweep(self, config: AuditConfig, prompts: Sequence[str], models: Sequence[str]) -> None:
        if self.run_dir is not None:
            raise RaigenError("run_dir: each run of a study has its own folder; name the study's with --study DIR")
        if self.shared_sae:
            check_shareable(prompts, config)  # before a folder is made
        _warn(config)
        study = Study.create(self.study or default_study_dir(prompts, self.prompts))
        with study_progress_bars() as show:
            for step in sweep(study, config, prompts, models, self.redo, self.workers, self.ray, self.shared_sae):
                show(step)
        print_study(study)


def _warn(config: AuditConfig) -> None:
    if warning := few_images(config):
        warn(warning)


@dataclass(frozen=True, kw_only=True)
class Plan(AllStages):
    """Estimates from a few images what an audit takes and the rarest rate that it can show; writes nothing."""

    prompt: Positional[str]
    """The prompt to audit, not empty."""
    run_dir: Annotated[Path | None, NAMES_ITS_DEFAULT] = None
    """The run folder that the audit will have: is there room on its disk? (default: runs/PROMPT)"""
    json: bool = False
    """Print a JSON object in place of the table."""

    def execute(self) -> None:
        config = self.config(self.prompt, self.capture.model)
        from raigen.auditing.plan import estimate

        plan = estimate(config, self.run_dir)
        if self.json:
            say_json(plan)
        else:
            print_plan(plan, config)


@dataclass(frozen=True, kw_only=True)
class Hookpoints(Command):
    """Lists the layers of a model that can be captured, or ranks them by what is found there."""

    model: Positional[str]
    """`portraits`, `portraits-transformer` or `emblems` (bundled), or a folder or Hub id of a diffusers pipeline."""
    search: bool = False
    """Generate images, train two small autoencoders on each layer, and rank the layers by what these find."""
    json: bool = False
    """Print a JSON object in place of the table."""
    hookpoints: Annotated[SearchConfig, flags(SearchConfig)]

    def execute(self) -> None:
        config = SearchConfig(**vars(self.hookpoints))
        if self.search:
            from raigen.discovery.search import search

            with progress_bars() as show:
                ratings = exhausted(search(self.model, config), show)
            if self.json:  # without the readings, which are large
                say_json({"prompt": config.prompt, "n_images": config.n_images,
                          "hookpoints": [rating._replace(readings=()) for rating in ratings]})  # fmt: skip
            else:
                print_search(ratings, self.model, config)
            return
        from raigen.diffusion.survey import list_hookpoints

        survey = list_hookpoints(self.model, config)
        if self.json:
            say_json(survey)
            return
        source = f"{survey.commit or 'a folder'}, {survey.license or 'no license named'}"
        say(f"{survey.pipeline}, {source}; {survey.n_steps} steps, {survey.height} x {survey.width} pixels")
        print_hookpoints(survey.hookpoints, n_images=CaptureConfig.n_images)
