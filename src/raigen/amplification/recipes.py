"""Recipes as files: which neurons are turned, how far and where, so that somebody else can measure the same."""

import json
import math
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from raigen.amplification.rendering import Recipe, Renderer
from raigen.amplification.steering import Method
from raigen.config import object_of, shaped
from raigen.errors import RaigenError
from raigen.runs.files import json_text, sha256

FORMAT = 1
KEYS = ("format", "sae", "method", "turned", "steps", "every_branch", "mask")


class Turned(NamedTuple):
    """A neuron (or a listed family) and how far it is turned. `label` is its name, for people who read the file."""

    neuron: int
    strength: float
    label: str | None = None


@dataclass(frozen=True)
class SavedRecipe:
    """What a recipe file holds: everything about steered images but the prompt and the seeds.

    `steps` are the first and the last denoising step to steer, None is all. `mask` is an image file that is white where
    to steer, None is everywhere. `sae` is the SHA-256 of the autoencoder's weights, to which the numbers of the neurons
    belong.
    """

    turned: tuple[Turned, ...]
    method: Method = "contrast"
    steps: tuple[int, int] | None = None
    every_branch: bool = False
    mask: bytes | None = None
    sae: str | None = None

    @classmethod
    def read(cls, path: str | Path) -> "SavedRecipe":
        """The recipe of a file. Raises RaigenError when it is missing or no recipe."""
        found = object_of(Path(path), *KEYS)
        with shaped(str(path), "a recipe that this raigen knows", "Save it again in: raigen studio RUN"):
            return cls.from_json(found)

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "SavedRecipe":
        """The recipe of a JSON object. Raises ValueError, TypeError or KeyError where it is none."""
        turned = tuple(Turned(int(one["neuron"]), float(one["strength"]), one.get("label")) for one in entry["turned"])
        if entry["format"] != FORMAT or entry["method"] not in get_args(Method):
            raise ValueError(f"format {entry['format']}, method {entry['method']}")
        if not turned or not all(math.isfinite(one.strength) for one in turned):
            raise ValueError("no neurons with finite strengths")
        first_last = None if entry["steps"] is None else (int(entry["steps"][0]), int(entry["steps"][1]))
        mask = None if entry["mask"] is None else b64decode(entry["mask"], validate=True)
        method = cast(Method, entry["method"])
        return cls(turned, method, first_last, bool(entry["every_branch"]), mask, entry["sae"])

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "format": FORMAT, "sae": self.sae, "method": self.method, "turned": [one._asdict() for one in self.turned],
            "steps": self.steps, "every_branch": self.every_branch,
            "mask": None if self.mask is None else b64encode(self.mask).decode(),
        }  # fmt: skip

    def text(self) -> str:
        """The file."""
        return json_text(self.as_json(), indent=1) + "\n"

    def made_by(self, renderer: Renderer) -> Recipe:
        """The recipe for the prompt of a run, at the strengths of the file.

        Raises RaigenError when it belongs to another autoencoder, a neuron has no scale, the steps are none of this
        run's, or a family is turned by another method than contrast.
        """
        last, families = renderer.facts.n_steps - 1, renderer.families
        if self.sae not in (None, renderer.weights):
            raise RaigenError("recipe: the numbers of its neurons belong to another autoencoder than that of "
                              f"{renderer.run.dir}. Give the run in which it was saved")  # fmt: skip
        if self.steps and not 0 <= self.steps[0] <= self.steps[1] <= last:
            raise RaigenError(f"steps: expected a first and a last denoising step from 0 to {last}; got {self.steps}")
        neurons = tuple(one.neuron for one in self.turned)
        if self.method != "contrast" and any(neuron in families for neuron in neurons):
            raise RaigenError(f"method: expected contrast, because a family has no neuron; got {self.method}")
        for neuron in neurons:
            if neuron not in families:
                renderer.scale(neuron)  # raises for one without
        scales = () if self.method == "contrast" else tuple(map(renderer.scale, neurons))
        return Recipe(
            renderer.capture.prompt, neurons, tuple(one.strength for one in self.turned), scales, self.method,
            None, self.steps, self.every_branch, None if self.mask is None else renderer.add_mask(self.mask),
        )  # fmt: skip


def folder_name(recipe: Recipe) -> str:
    """The folder below `amplified` for the images of a recipe: that of the curve for a single neuron."""
    return f"{recipe.neurons[0]}-{recipe.method}" if len(recipe.neurons) == 1 else "recipe"


def key_of(recipe: Recipe) -> str:
    """A short name for a recipe, by all that it says."""
    return sha256(json.dumps(recipe.__dict__, sort_keys=True).encode())[:8]
