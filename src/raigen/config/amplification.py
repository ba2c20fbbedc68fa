"""How attributes are amplified."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from raigen.config.fields import AUTO, detail, need, need_judge
from raigen.config.judging import AskConfig

CONTROLS = {  # of each method that has some: a random direction of the same size, and a random neuron
    "steer": ("random-direction", "random-neuron"), "contrast": ("random-pattern", "random-contrast"),
}  # fmt: skip
CONTROLLED = {control: method for method, controls in CONTROLS.items() for control in controls}
METHODS = ("steer", "set", "contrast", "prompt", "select", "mix", *CONTROLLED)


@dataclass(frozen=True)
class AmplifyConfig(AskConfig):
    """Which attributes are amplified, by which method and strength, and on how many images the effect is measured."""

    attribute: tuple[int, ...] = ()
    """Ranks of listed attributes, from 1. Each is amplified separately; `mix` combines them. With --causal, none means
    all."""
    method: str = "contrast"
    """`contrast`, `steer`, `set`, `prompt`, `select` or `mix`; or a control: `random-direction` or `random-neuron` for
    `steer`, `random-pattern` or `random-contrast` for `contrast`."""
    strength: tuple[float, ...] = ()
    """Strengths, one point of the curve each. The unit for `steer`, `set` and their controls is the neuron's scale; for
    `contrast` and its controls it is the contrast itself. Negative strengths suppress the attribute. Defaults: 0.5, 1,
    2; with --causal 1. For `prompt`: the share of revised prompts, in [0, 1] (default 1). For `select`: images made
    for each one kept, at least 1 (default: 2 / the measured rate, but at most 200)."""
    recipe: str | None = None
    """A recipe file of `raigen studio`: what it turns is measured, in place of `method`. Strengths multiply those of
    the file (default 1). Without ranks, all named attributes that it turns are measured."""
    targets: tuple[float, ...] = ()
    """For `mix`: the wanted rate of each attribute, in [0, 1]."""
    n_images: Annotated[int, Ge(2)] = 200
    """Images for each point, at least 2; all points use the same seeds."""
    also: tuple[int, ...] = ()
    """Other neurons to steer together with the attribute's own, at the same strength in units of their own scales."""
    steps: tuple[int, int] | None = None
    """First and last denoising step to steer, counted from 0; None is all."""
    every_branch: bool = False
    """Steer all branches of classifier-free guidance. Without it, only the prompt's branch is steered."""
    mask: str | None = None
    """A grayscale image of where to steer: fully where it is white, not at all where it is black. None is
    everywhere."""
    causal: bool = False
    """Test which attributes are causal: amplify each one, random neurons and random directions, by `steer` or
    `contrast`, and write the results into attributes.json."""
    n_control_neurons: Annotated[int, Ge(2)] = 19
    """Random neurons that --causal compares with, at least 2; all attributes share their images. A neuron that is like
    random neurons passes in at most one of n_control_neurons + 1 cases."""
    n_control_directions: Annotated[int, Ge(2)] = 10
    """Random directions (or patterns) that --causal compares with, for each attribute; at least 2."""
    n_control_images: Annotated[int, Ge(2)] = 50
    """Images of each random neuron of --causal, on the first seeds; at least 2 and at most n_images. Each random
    direction has half as many."""
    control_seed: Annotated[int, Ge(0)] = 0
    """Seed of the random directions and the random neurons of the controls, 0 or more."""
    judge: tuple[str, ...] = ("auto",)
    """One or more of `portraits`, `emblems`, `clip`, vision-language models (`openai:MODEL` and so on),
    `python:PACKAGE.MODULE:FUNCTION` and `file:VERDICTS.csv`. `auto` is the planted world of a bundled
    model, else `clip`."""
    confidence: Annotated[float, Interval(gt=0, lt=1)] = 0.95
    """Confidence level of the intervals, in (0, 1)."""
    batch_size: Annotated[int | Literal["auto"], Ge(1)] = detail(AUTO)
    """Images generated at once, at least 1; `auto` as in an audit."""
    device: str = detail("auto")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    def __post_init__(self) -> None:
        for name in ("attribute", "strength", "targets", "also", "judge"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, tuple | list) else (value,))
        if isinstance(self.steps, list):
            object.__setattr__(self, "steps", tuple(self.steps))
        super().__post_init__()
        if self.steps is not None:
            need(len(self.steps) == 2 and 0 <= self.steps[0] <= self.steps[1], "steps", self.steps,
                 "a first and a last step, 0 <= first <= last")  # fmt: skip
        need(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        is_said = self.causal or self.recipe is not None or len(self.attribute) >= 1
        need(is_said, "attribute", self.attribute, "the rank of a listed attribute")
        for judge in self.judge:
            need_judge("judge", judge, "auto")
        for name in ("method", "also", "steps", "every_branch", "mask", "causal") if self.recipe is not None else ():
            value = getattr(self, name)
            need(value == getattr(AmplifyConfig, name), name, value, "none beside a recipe, which says how to steer")
        self._check_strengths()

    def _check_strengths(self) -> None:
        low, high = {"prompt": (0.0, 1.0), "select": (1.0, math.inf)}.get(self.method, (-math.inf, math.inf))
        for value in self.strength:
            need(math.isfinite(value) and low <= value <= high, "strength", value,
                 f"a number from {low:g} to {high:g} for {self.method}")  # fmt: skip
        if self.method == "mix":
            need(len(self.targets) == len(self.attribute) and all(0 <= t <= 1 for t in self.targets), "targets",
                 self.targets, f"a rate in [0, 1] for each of {len(self.attribute)} attributes")  # fmt: skip
        else:
            need(not self.targets, "targets", self.targets, "none but for mix")
        need(not self.causal or len(self.strength) <= 1, "strength", self.strength, "one strength with causal")
        need(not self.causal or self.method in CONTROLS, "method", self.method,
             f"{' or '.join(CONTROLS)} with causal")  # fmt: skip


@dataclass(frozen=True)
class StudioConfig(AskConfig):
    """Where the studio runs, and who says what its images show."""

    judge: tuple[str, ...] = ("auto",)
    """Who says whether an image shows an attribute: as for `amplify`. `auto` is the first judge of the evaluation."""
    host: str = "127.0.0.1"
    """The address to listen on. The default lets only this machine in; the studio asks nobody for a password."""
    port: Annotated[int, Interval(ge=0, le=65535)] = 7860
    """The port, 0 to 65535; 0 takes any free one."""
    device: str = detail("auto")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "judge", (self.judge,) if isinstance(self.judge, str) else tuple(self.judge))
        super().__post_init__()
        need(len(self.judge) == 1, "judge", self.judge, "one judge")
        need_judge("judge", self.judge[0], "auto")
        need(bool(self.host), "host", self.host, "an address such as 127.0.0.1")
