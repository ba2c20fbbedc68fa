"""CLIP as judge: an image shows a label when its similarity lies where the neuron's top images lie."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.discovery.embeddings import Embedder, embedder_of
from raigen.judging.mixture import Mixture, mixture_of
from raigen.judging.protocol import Images, Subject, Subjects, Verdicts, unscored, without_black
from raigen.runs.run import Run
from raigen.runs.steps import Tell

NAME = "CLIP, errors estimated"
LEAST_AUROC = 0.8  # with which a label's direction must tell the top images from the others
MOST_FALSE = 0.2  # of the images that CLIP would say yes to; with more, it says nothing


class Threshold(NamedTuple):
    """Where CLIP's yes begins for a label: along `direction`, an image lies `shift` further than the same image would
    lie in the `mixture`. `why_not` is the reason where CLIP cannot judge the label, else None."""

    direction: Float[np.ndarray, " width"]
    mixture: Mixture
    why_not: str | None = None
    shift: float = 0.0

    def verdicts(self, embeddings: Float[np.ndarray, "image width"]) -> Verdicts:
        """The verdicts on images: yes beyond the threshold of the mixture."""
        if self.why_not is not None:
            return unscored(NAME, len(embeddings), self.why_not)
        similarity = embeddings @ self.direction - self.shift
        shows, probability = similarity > self.mixture.threshold, self.mixture.probability(similarity)
        confidence = np.where(shows, probability, 1 - probability)
        return Verdicts(NAME, shows.astype(float), confidence, errors=self.mixture.errors)


class ClipJudge:
    """CLIP, which estimates its own errors from the audited images.

    An image's similarity to a label is its place along text(prompt, label) - text(prompt). The similarities of the
    audited images are described by a mixture: those that show the label, which lie where the neuron's top images lie,
    and the others (see `raigen.judging.mixture`). A label is unscored without top images, and where too few of the
    images that CLIP would say yes to are likely to show it.
    """

    name = NAME

    def __init__(self, run: Run, device: str | None = None):
        self._run, self._device = run, device
        self._thresholds = dict[Subject, Threshold | str]()

    @cached_property
    def _seen(self) -> tuple[Float[np.ndarray, "image width"], int, dict[str, int]]:
        """The embeddings of the audited images and of their relatives, how many are audited, and the place of each
        file."""
        return self._run.all_embeddings(), len(self._run.embeddings()), self._run.index_of

    @cached_property
    def embedder(self) -> Embedder:
        """The CLIP model of discovery, loaded when it is first needed."""
        return embedder_of(self._run, self._device)

    def verdicts(self, images: Images, subjects: Subjects, tell: Tell | None = None) -> list[Verdicts]:
        """The verdicts of each subject's threshold. There is no progress to tell."""
        found, embeddings = [], self.embedder.images(images)
        for subject in subjects:
            if subject not in self._thresholds:  # a fit takes longer than judging some images
                self._thresholds[subject] = self._threshold(subject)
            known = self._thresholds[subject]
            found.append(unscored(NAME, len(images), known) if isinstance(known, str) else known.verdicts(embeddings))
        return without_black(images, found)

    def _threshold(self, subject: Subject) -> Threshold | str:
        """The threshold of an attribute, or why it has none."""
        if not subject.top_images:
            return "CLIP judges only attributes that have top images"
        prompt, (embeddings, n_audited, index_of) = self._run.config.capture.prompt, self._seen
        if why := too_long(self.embedder, prompt, [subject.label]):
            return why
        direction = direction_of(self.embedder, prompt, subject.label)
        return threshold_of(direction, embeddings, [index_of[file] for file in subject.top_images], n_audited)


def threshold_of(
    direction: Float[np.ndarray, " width"],
    embeddings: Float[np.ndarray, "image width"],
    tops: Sequence[int],
    n_audited: int | None = None,
) -> Threshold:
    """The threshold of a label along its direction. The images at the indices `tops` are known to show the label. Only
    the first `n_audited` images, or all, are a fair sample of their prompt."""
    similarity = embeddings @ direction
    is_top = np.zeros(len(similarity), bool)
    is_top[list(tops)] = True
    is_fair = np.arange(len(similarity)) < (len(similarity) if n_audited is None else n_audited)
    mixture = mixture_of(similarity[is_fair], similarity[is_top])
    auroc = float((similarity[is_top][:, None] > similarity[is_fair & ~is_top]).mean())
    why_not = None
    if auroc < LEAST_AUROC:
        why_not = f"CLIP does not see it: its AUROC for the neuron's top images is {auroc:.2f}"
    elif mixture.false_share > MOST_FALSE:
        why_not = f"CLIP cannot tell it from similar images: about {mixture.false_share:.0%} of its hits would be wrong"
    return Threshold(direction, mixture, why_not)


def direction_of(embedder: Embedder, prompt: str, label: str) -> Float[np.ndarray, " width"]:
    """Which way a label leads from the prompt: text(prompt, label) - text(prompt)."""
    plain, named = embedder.texts([prompt, f"{prompt}, {label}"])
    return named - plain


def too_long(embedder: Embedder, prompt: str, labels: Sequence[str]) -> str | None:
    """Why CLIP cannot judge one of these labels: the prompt leaves too little room for it. None where all fit."""
    if not any(embedder.cut_texts([f"{prompt}, {label}" for label in labels])):
        return None
    return f"the prompt leaves no room for the label in the {embedder.n_tokens} tokens that CLIP reads"
