"""Lets a vision-language model judge some of the fresh images, drawn by their likeness to the attribute."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from raigen.config import EvaluateConfig
from raigen.discovery.embeddings import Embedder
from raigen.judging.clip_judge import direction_of, embedder_of, too_long
from raigen.judging.judges import VlmJudge
from raigen.judging.protocol import Images, Judge, StoredImages, Subject, Subjects, Verdicts
from raigen.judging.vlm.ask import Job
from raigen.judging.weighted_rates import chances_of, drawn
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tell


def n_judged(judge: Judge, config: EvaluateConfig, n_fresh: int) -> int:
    """How many of the fresh images a judge sees for each attribute."""
    return min(n_fresh, config.n_judged or n_fresh) if isinstance(judge, VlmJudge) else n_fresh


class Draw:
    """Which fresh images of a run are judged for each label. It is the same each time."""

    def __init__(self, run: Run, fresh: Sequence[Sample], n: int):
        self.fresh, self._run, self._n = list(fresh), run, n
        self._chances = dict[str, Float[np.ndarray, " image"]]()
        self._embedder: Embedder | None = None
        self._embeddings = np.zeros((0, 0))

    def is_of(self, images: Images) -> bool:
        """Whether these are the fresh images."""
        return isinstance(images, StoredImages) and list(images.samples) == self.fresh

    def chances(self, subject: Subject) -> Float[np.ndarray, " image"]:
        """The chance of each fresh image that was drawn for a label, and 0 for the others. A label that two subjects
        share has one draw."""
        if subject.label not in self._chances:
            chances = chances_of(self._share(subject), self._n)
            seed = [self._run.config.capture.base_seed, zlib.crc32(subject.label.encode())]
            self._chances[subject.label] = chances * drawn(chances, np.random.default_rng(seed))
        return self._chances[subject.label]

    def _share(self, subject: Subject) -> Float[np.ndarray, " image"]:
        """What share of the draws each image should get: one over its rank in likeness to the label's text, and to the
        top images, in equal parts. Where there is neither, all are equal."""
        if self._embedder is None:
            self._embedder = embedder_of(self._run)
            self._embeddings = self._embedder.images(StoredImages(self._run, self.fresh, "evaluate"))
        prompt, directions = self._run.config.capture.prompt, []
        if self._embedder.knows_texts and not too_long(self._embedder, prompt, [subject.label]):
            directions.append(direction_of(self._embedder, prompt, subject.label))
        if subject.top_images:
            index_of, known = self._run.index_of, self._run.all_embeddings()
            top = known[[index_of[file] for file in subject.top_images]]
            directions.append(top.mean(axis=0) - known.mean(axis=0))
        if not directions:
            return np.ones(len(self.fresh))
        ranks = (rankdata(-(self._embeddings @ direction)) for direction in directions)
        return np.sum([share / share.sum() for share in (1 / rank for rank in ranks)], axis=0)


class SampledJudge(VlmJudge):
    """A vision-language model that sees the fresh images of a draw only, and all others in full."""

    def __init__(self, judge: VlmJudge, draw: Draw):
        super().__init__(judge.address, judge.answers, judge.config, judge.device)
        self._draw = draw

    def questions(self, images: Images, subjects: Subjects) -> Iterator[Job]:
        """The questions of `VlmJudge`, without those about images that were not drawn."""
        jobs = super().questions(images, subjects)
        if not self._draw.is_of(images):
            return jobs
        chances = {subject.label: self._draw.chances(subject) for subject in subjects}
        return (job for job in jobs if chances[job.tag[1]][job.tag[0]] > 0)

    def n_questions(self, images: Images, subjects: Subjects) -> int:
        """How many `questions` there are."""
        if not self._draw.is_of(images):
            return super().n_questions(images, subjects)
        return sum(int((self._draw.chances(one) > 0).sum()) for one in {one.label: one for one in subjects}.values())

    def verdicts(self, images: Images, subjects: Subjects, tell: Tell | None = None) -> list[Verdicts]:
        """The verdicts on the images that were drawn, with their chances."""
        found = super().verdicts(images, subjects, tell)
        if not self._draw.is_of(images):
            return found
        return [one._replace(chances=self._draw.chances(subject)) for one, subject in zip(found, subjects, strict=True)]


def sampled(judge: Judge, run: Run, fresh: Sequence[Sample], config: EvaluateConfig) -> Judge:
    """The judge as it is, or one that sees a draw of the fresh images."""
    n = n_judged(judge, config, len(fresh))
    if n == len(fresh) or not isinstance(judge, VlmJudge):
        return judge
    return SampledJudge(judge, Draw(run, fresh, n))
