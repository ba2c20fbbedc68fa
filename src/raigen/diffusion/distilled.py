"""Recognizes models that were distilled to make images in few steps, and knows the settings that they take."""

import re
from pathlib import Path
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from raigen.diffusion.loading import arguments_of

NAMES = re.compile(r"(?<!de)(?<!de[-_])turbo|lightning|lcm|schnell|hyper(?![-_. ]?(real|net))", re.IGNORECASE)
STEPS_IN_NAME = re.compile(r"(\d{1,2})[-_ ]?steps?", re.IGNORECASE)
SCHEDULERS = ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler")
MOST_STEPS = 10  # a distilled model takes
STEPS = 4  # as the cards of most of them say
STEPS_OF = {"ZImagePipeline": 8}  # the others, by the class of their pipeline


def sign_of_distilled(pipe: DiffusionPipeline, model: str) -> str | None:
    """What shows that a model is distilled: the name of its folder or repository, its scheduler, or that its timesteps
    end at pure noise. None if nothing does.

    Models of zero terminal signal begin at pure noise, too; they rescale their betas, and are not distilled for that.
    """
    scheduler: Any = pipe.components.get("scheduler")
    config = getattr(scheduler, "config", {})
    if NAMES.search(Path(model).name):
        return "name"
    if type(scheduler).__name__ in SCHEDULERS:
        return "scheduler"
    if config.get("timestep_spacing") == "trailing" and not config.get("rescale_betas_zero_snr"):
        return "timestep spacing"
    return None


def distilled_settings(pipe: DiffusionPipeline, model: str) -> dict[str, float]:
    """The settings of a distilled model that the pipeline's call has other defaults for: few steps (as many as its name
    says), and no guidance by a second branch. Empty for any other model, and for a pipeline that is made for few
    steps."""
    accepted = arguments_of(type(pipe))
    names = ("num_inference_steps", "guidance_scale", "true_cfg_scale")
    own = {name: getattr(accepted.get(name), "default", None) for name in names}
    if (own["num_inference_steps"] or 0) <= MOST_STEPS or sign_of_distilled(pipe, model) is None:
        return {}
    named = STEPS_IN_NAME.search(Path(model).name)
    found: dict[str, float] = {
        "num_inference_steps": int(named[1]) if named else STEPS_OF.get(type(pipe).__name__, STEPS)
    }
    if (own["true_cfg_scale"] or 0) > 1:
        found["true_cfg_scale"] = 1.0
    if own["guidance_scale"] is not None and not _reads_guidance(pipe):
        found["guidance_scale"] = 0.0
    return found


def _reads_guidance(pipe: DiffusionPipeline) -> bool:
    """Whether the denoiser gets the guidance scale as a number, in place of a second branch."""
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    configs = [getattr(part, "config", None) for part in parts]
    return any(getattr(c, "guidance_embeds", False) or getattr(c, "time_cond_proj_dim", None) for c in configs)
