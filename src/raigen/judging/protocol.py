"""What every judge is given and what it gives: images, subjects, verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from raigen.judging.posterior import Calibration
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tell


class Subject(NamedTuple):
    """An attribute to look for: its label, and for a listed neuron its number and its top images."""

    label: str
    neuron: int | None = None
    top_images: tuple[str, ...] = ()

    @classmethod
    def of(cls, attribute: RareAttribute) -> "Subject":
        """What to look for when a listed attribute is judged."""
        return cls(attribute.label or "", attribute.neuron, attribute.top_images)


class Verdicts(NamedTuple):
    """What a judge says about each image: 1 it shows the attribute, 0 it does not, NaN unscored.

    `confidence` in [0, 1] is the probability of the verdict, NaN where the judge gives none. `why` holds the reason for
    each unscored image, by index. `errors` is what the judge knows of its own errors, None where it knows nothing.
    `chances` is given where the judge saw some of the images only: the chance in (0, 1] with which each of these was
    drawn, and 0 for those that were not.
    """

    judge: str
    shows: Float[np.ndarray, " image"]
    confidence: Float[np.ndarray, " image"]
    why: Mapping[int, str] | None = None
    errors: Calibration | None = None
    chances: Float[np.ndarray, " image"] | None = None


class StoredImages(Sequence[Image]):
    """Images of a run. Each is read from its file when it is needed, so that thousands do not fill the memory.

    `stage` is the one that made them: it is named when a file is missing.
    """

    def __init__(self, run: Run, samples: Sequence[Sample], stage: str = "capture"):
        self.samples, self._run, self._stage = samples, run, stage

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:  # an image, and a list of them for a slice
        if isinstance(index, slice):
            return [self._run.read_image(sample, self._stage) for sample in self.samples[index]]
        return self._run.read_image(self.samples[index], self._stage)


Images = Sequence[Image]
Subjects = Sequence[Subject]


class Look(NamedTuple):
    """Images, and the attributes that a judge looks for in each of them."""

    images: Images
    subjects: Subjects


@runtime_checkable
class Judge(Protocol):
    """Says which images show an attribute. To add a judge, write such a class, and name it in `judge_of` and in
    `raigen.config.fields.JUDGES`."""

    name: str
    """What its rates are signed with."""

    def verdicts(self, images: Images, subjects: Subjects, tell: Tell | None = None) -> list[Verdicts]:
        """The verdicts on the images, one entry per subject. Wholly black images are unscored: see `without_black`."""
        ...


def without_black(images: Images, verdicts: Sequence[Verdicts]) -> list[Verdicts]:
    """The verdicts with wholly black images unscored: a safety checker blacked them out, so they show nothing."""
    is_black = np.array([image.getbbox() is None for image in images], bool)
    reasons = dict.fromkeys(np.flatnonzero(is_black).tolist(), "the image is black")
    return [
        verdict._replace(shows=np.where(is_black, np.nan, verdict.shows), why={**(verdict.why or {}), **reasons})
        for verdict in verdicts
    ]


def unscored(judge: str, n_images: int, reason: str) -> Verdicts:
    """Verdicts of a judge that can say nothing, with the reason."""
    nothing = np.full(n_images, np.nan)
    return Verdicts(judge, nothing, nothing, dict.fromkeys(range(n_images), reason))
