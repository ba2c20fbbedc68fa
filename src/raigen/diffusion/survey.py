"""Lists the modules of a model that can be hooked, with the cost of each."""

from typing import NamedTuple

from raigen.config import CaptureConfig, HookpointsConfig
from raigen.diffusion.generation import defaults, layouts
from raigen.diffusion.hookpoints import candidates, find_hookpoint
from raigen.diffusion.hooks import TokenLayout
from raigen.diffusion.loading import find_source, license_of, load_pipeline
from raigen.errors import RaigenError
from raigen.runs.records import HookpointCost

PROMPT = "a photo of a person"  # any prompt will do: shapes do not depend on it
BYTES = 2  # per stored number


class Survey(NamedTuple):
    """What a survey of a model found: the class of its pipeline, its commit on the Hub, its license and hookpoints."""

    pipeline: str
    commit: str | None
    license: str | None
    n_steps: int
    height: int
    width: int
    hookpoints: list[HookpointCost]


def list_hookpoints(model: str, config: HookpointsConfig | None = None) -> Survey:
    """Loads `model` and probes its blocks in one denoising step of one image.

    Raises RaigenError when the model cannot be loaded or run.
    """
    config = config or HookpointsConfig()
    pipe = load_pipeline(model, config.device, config)
    chosen = {name: getattr(config, name) for name in ("num_inference_steps", "height", "width")}
    settings = defaults(pipe, model, CaptureConfig(PROMPT, model, **chosen))
    points, default = candidates(pipe), find_hookpoint(pipe)
    source = find_source(model, config)
    costs = [
        _cost(point.path, layout, settings.num_inference_steps, point == default)
        for point, layout in zip(points, layouts(pipe, PROMPT, settings, points), strict=True)
    ]
    return Survey(pipeline=type(pipe).__name__, commit=source.commit, license=license_of(source, config),
                  n_steps=settings.num_inference_steps, height=settings.height, width=settings.width,
                  hookpoints=costs)  # fmt: skip


def _cost(path: str, layout: TokenLayout | RaigenError, n_steps: int, is_default: bool) -> HookpointCost:
    if isinstance(layout, RaigenError):
        return HookpointCost(path, None, 0, 0, is_default)
    rows, columns = layout.grid
    return HookpointCost(path, layout.grid, layout.d_in, n_steps * rows * columns * layout.d_in * BYTES, is_default)
