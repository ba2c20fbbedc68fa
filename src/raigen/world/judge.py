"""The judge of the planted world: recognizes every attribute of a portrait."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from raigen.errors import RaigenError
from raigen.world.attributes import CHOICES, FIELDS, PROFESSIONS, VALUES, Value
from raigen.world.pen import SIZE

BATCH = 128  # images
HEADS: dict[str, int] = {"profession": len(PROFESSIONS)} | {field: len(CHOICES[field]) for field in FIELDS}


class Judgment(NamedTuple):
    """The judge's answers on some images. The columns of `shows` and `confidence` follow `attributes.VALUES`.

    `shows` is False everywhere for an image that is not `readable`: count it as unscored, never as "no".
    `confidence` in [0, 1] is the probability of the verdict (shown or not); `profession` indexes `PROFESSIONS`.
    """

    shows: Bool[np.ndarray, "image value"]
    confidence: Float[np.ndarray, "image value"]
    profession: Int[np.ndarray, " image"]
    readable: Bool[np.ndarray, " image"]


class JudgeNet(nn.Module):
    """A strided convolutional network with one head per attribute field and one for readability."""

    def __init__(self) -> None:
        super().__init__()

        def block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1)
            return nn.Sequential(convolution, nn.GroupNorm(8, channels_out), nn.SiLU())

        self.body = nn.Sequential(
            block(3, 32, 2), block(32, 64, 2), block(64, 64, 1), block(64, 128, 2), block(128, 128, 1),
            block(128, 128, 2), nn.Flatten(), nn.Linear(128 * 16, 256), nn.SiLU(), nn.Dropout(0.1),
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(256, size) for name, size in HEADS.items()})
        self.readable = nn.Linear(256, 1)

    def forward(self, pixels: Float[Tensor, "image 3 64 64"]) -> dict[str, Tensor]:
        """Logits of each head [image, choice], and of `readable` [image], for pixels in [-1, 1]."""
        features = self.body(pixels)
        return {name: head(features) for name, head in self.heads.items()} | {
            "readable": self.readable(features).squeeze(-1)
        }


@cache
def _bundled() -> JudgeNet:
    path = files("raigen.world").joinpath("bundle", "judge.safetensors")
    if not path.is_file():
        raise RaigenError("the judge of the portraits world is missing; train it with: python -m raigen.world.train")
    net = JudgeNet()
    net.load_state_dict({name: tensor.float() for name, tensor in load_file(str(path)).items()})
    return net.eval()


def as_pixels(images: Sequence[Image.Image]) -> Float[Tensor, "image 3 64 64"]:
    """Converts images of any size to the judge's input: 64x64, RGB, in [-1, 1]."""
    arrays: list[NDArray[np.uint8]] = []
    for image in images:
        small = image.convert("RGB")
        if small.size != (SIZE, SIZE):
            small = small.resize((SIZE, SIZE), Image.Resampling.BOX)
        arrays.append(np.asarray(small))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def judge(images: Sequence[Image.Image]) -> Judgment:
    """Recognizes all attributes of images of the portraits world.

    Raises RaigenError when there is no image, or when the bundled weights are missing.
    """
    if not images:
        raise RaigenError("judge: expected at least one image; got none")
    net = _bundled()
    with torch.inference_mode():
        batches = [net(as_pixels(images[start : start + BATCH])) for start in range(0, len(images), BATCH)]
    logits = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    return read(logits)


def read(
    logits: dict[str, Tensor], values: Sequence[Value] = VALUES, choices: Mapping[str, Sequence[str]] = CHOICES
) -> Judgment:
    """Turns logits, of each field in `choices`, of the profession and of readability, into verdicts: the likeliest
    choice of each field."""
    readable = (logits["readable"] > 0).numpy()
    shows = np.zeros((len(readable), len(values)), bool)
    confidence = np.zeros((len(readable), len(values)), np.float32)
    for field in choices:
        probabilities = logits[field].softmax(-1).numpy()
        chosen = probabilities.argmax(-1)
        for index, value in enumerate(values):
            if value.field == field:
                choice = choices[field].index(value.name)
                shows[:, index] = (chosen == choice) & readable
                p = probabilities[:, choice]
                confidence[:, index] = np.where(chosen == choice, p, 1 - p)
    return Judgment(shows, confidence, logits["profession"].argmax(-1).numpy(), readable)
