"""Keeps a run with one model: notes which weights and settings made its images, and loads exactly these later."""

from dataclasses import replace

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from raigen.config import CaptureConfig
from raigen.diffusion.generation import Settings, defaults
from raigen.diffusion.loading import load_pipeline, origin_of
from raigen.errors import RaigenError
from raigen.runs.run import Run


def recorded_pipeline(run: Run, config: CaptureConfig | None = None, device: str | None = None) -> DiffusionPipeline:
    """Loads the model of a run at the commit that its first image was made with.

    `config` is that of the capture, and `device` the one of the run, unless given. Raises RaigenError when the weights
    have changed since the first image was made, and as `load_pipeline` does.
    """
    config = config or run.config.capture
    revision = run.model_record.get("revision") or config.revision
    pipe = load_pipeline(config.model, device or config.device, replace(config, revision=revision))
    _check_same(run, config, pipe)
    return pipe


def recorded_settings(run: Run, pipe: DiffusionPipeline, config: CaptureConfig) -> Settings:
    """The settings of the run's first image. Before there is one: the settings of `config`, filled up with the
    model's own defaults."""
    found = run.model_record.get("settings")
    if found is None and run.has_finished("capture") and run.facts.capture.height:  # of an earlier raigen
        found = {name: getattr(run.facts.capture, name) for name in Settings._fields}
    return Settings(**found) if found else defaults(pipe, config.model, config)


def note_model(run: Run, pipe: DiffusionPipeline, config: CaptureConfig) -> Settings:
    """Notes the commit, the weights and the settings with which the first image of a run is made; returns the settings.

    Raises RaigenError when other weights made the images that are there.
    """
    settings = recorded_settings(run, pipe, config)
    if run.model_record.get("weights"):
        _check_same(run, config, pipe)
    else:
        run.note_model(origin_of(pipe)._asdict() | {"settings": settings._asdict()})
    return settings


def _check_same(run: Run, config: CaptureConfig, pipe: DiffusionPipeline) -> None:
    known, found = run.model_record.get("weights"), origin_of(pipe).weights
    if known and found and known != found:
        raise RaigenError(
            f"{config.model}: its weights have changed since the first image of {run.dir} was made, and all images of "
            "a run are of one model. Bring the earlier weights back, or choose another --run-dir"
        )
