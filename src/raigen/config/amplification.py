"""How attributes are brought out."""

import math
from dataclasses import dataclass

from raigen.config.fields import JUDGES, detail, need, need_address
from raigen.config.judging import AskConfig

CONTROLS = {  # of the methods that can be tested: a random direction of its size, then a random neuron
    "steer": ("random-direction", "random-neuron"), "contrast": ("random-pattern", "random-contrast"),
}  # fmt: skip
CONTROLLED = {control: method for method, controls in CONTROLS.items() for control in controls}
METHODS = ("steer", "set", "contrast", "prompt", "select", "mix", *CONTROLLED)


@dataclass(frozen=True)
class AmplifyConfig(AskConfig):
    """Which attributes are brought out, how, how far, and on how many images that is measured."""

    attribute: tuple[int, ...] = ()
    """Ranks of listed attributes, from 1, each amplified by itself (`mix`: all at once). With --causal, none is all."""
    method: str = "contrast"
    """`contrast`, `steer`, `set`, `prompt`, `select` or `mix`; or a control: `random-direction` or `random-neuron` of
    `steer`, `random-pattern` or `random-contrast` of `contrast`."""
    strength: tuple[float, ...] = ()
    """How far, one point of the curve each. For `steer`, `set` and their controls: in units of the neuron's scale; for
    `contrast` and its controls: of the difference itself; below 0 turns it down (left out: 0.5, 1, 2; with --causal 1).
    For `prompt`: the share of revised prompts, in [0, 1] (left out: 1). For `select`: images made for each that is
    kept, at least 1 (left out: 2 / the measured rate, at most 200)."""
    targets: tuple[float, ...] = ()
    """For `mix`: the wanted rate of each attribute, in [0, 1]."""
    n_images: int = 200
    """Images of each point, at least 2; all points have the same seeds."""
    also: tuple[int, ...] = ()
    """Further neurons, turned together with the attribute's own by the same strength, in units of their own scales."""
    steps: tuple[int, int] | None = None
    """First and last denoising step that are touched, counted from 0; None is all."""
    every_branch: bool = False
    """Touches what guidance leads away from, too, and not only what is told the prompt."""
    mask: str | None = None
    """A gray image that says where: white is fully, black is not at all; None is everywhere."""
    causal: bool = False
    """Turns every attribute and two controls up, by `steer` or `contrast`, and writes into attributes.json which of
    them are causal."""
    control_seed: int = 0
    """Draws the random direction and the random neuron, 0 or more."""
    judge: tuple[str, ...] = ("auto",)
    """As for evaluate."""
    confidence: float = 0.95
    """Of the intervals, in (0, 1)."""
    batch_size: int = detail(16)
    """Images generated at once, at least 1."""
    device: str = detail("auto")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("attribute", "strength", "targets", "also", "judge"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, tuple | list) else (value,))
        if self.steps is not None:
            object.__setattr__(self, "steps", tuple(self.steps))
            need(len(self.steps) == 2 and 0 <= self.steps[0] <= self.steps[1], "steps", self.steps,
                  "a first and a last step, 0 <= first <= last")  # fmt: skip
        need(self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}")
        need(self.causal or len(self.attribute) >= 1, "attribute", self.attribute, "the rank of a listed attribute")
        need(self.n_images >= 2, "n_images", self.n_images, "2 or more")
        need(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        need(self.control_seed >= 0, "control_seed", self.control_seed, "0 or more")
        need(0 < self.confidence < 1, "confidence", self.confidence, "a number in (0, 1)")
        for judge in self.judge:
            need_address("judge", judge, ("auto", *JUDGES))
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
