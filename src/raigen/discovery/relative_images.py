"""Makes the relatives that `look` asks for, keeps them in the run, and sees them as the audited images were seen."""

from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float

from raigen.diffusion.batches import batch_size_of
from raigen.diffusion.generation import Generated, generate
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.recorded import recorded_pipeline, recorded_settings
from raigen.diffusion.relatives import Lineage
from raigen.discovery.discover import second_embedder, views_of
from raigen.discovery.embeddings import Embedder, embedder_of
from raigen.runs.activations import ActivationStore
from raigen.runs.files import shards_in
from raigen.runs.images import whole_relatives, write_image, write_list
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tick, exhausted


class RelativeImages:
    """The relatives of a run's audited images, in the order in which they were first made.

    What an earlier start made is used again. Each batch is written whole: its images, a shard of activations of the
    last step, then the list.
    """

    def __init__(self, run: Run):
        self._run = run
        self._known = {sample.lineage: sample for sample in whole_relatives(run)}
        self.samples: list[Sample] = []
        self.embeddings = np.zeros((0, run.embeddings().shape[1]), np.float32)
        self._looks: list[np.ndarray] = []
        self._activations: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def activations(self) -> Float[np.ndarray, "relative d_in"]:
        """The mean activation of each relative at the last step."""
        return np.concatenate(self._activations)

    @property
    def store(self) -> ActivationStore:
        """The activations of all relatives at the last step."""
        return ActivationStore(self._run.relative_activations_dir)

    @property
    def files(self) -> list[Path]:
        """Every file that holds relatives."""
        run = self._run
        images = [run.dir / sample.file for sample in self.samples]
        return [run.relatives_path, *images, *shards_in(run.relative_activations_dir)]

    @property
    def are_copies(self) -> bool:
        """Whether the first relatives are their parents again, because the pipeline's noise cannot be moved."""
        audited = {sample.seed: sample.sha256 for sample in self._run.samples()}
        first = [sample for sample in self.samples if len(sample.steps) == 1][:8]
        return bool(first) and all(audited[sample.seed] == sample.sha256 for sample in first)

    def place_of(self, n_audited: int) -> dict[Lineage, int]:
        """The places of the relatives behind the audited images, by lineage."""
        return {sample.lineage: n_audited + sample.index for sample in self.samples}

    def views(self, places: Sequence[int]) -> list[Float[np.ndarray, "relative _"]]:
        """What some relatives mean, how they look, and their mean activations; by their places among the relatives."""
        looks, activations = np.concatenate(self._looks), self.activations
        return [self.embeddings[list(places)], looks[list(places)], activations[list(places)]]

    def make(self, lineages: Sequence[Lineage], budget: int) -> Generator[Tick, None, list[int]]:
        """Makes new relatives, or takes those that are there; returns their places. Yields progress towards `budget`
        relatives."""
        first, note = len(self), "images around odd ones"
        for lineage in lineages:
            known = self._known.get(lineage)
            if known is None or known.index != len(self):  # an earlier look went another way; its files give way
                self._known = {}
                break
            self.samples.append(known)
        missing = lineages[len(self) - first :]
        yield Tick(len(self), budget, note)
        for batch, made in self._made(missing):
            self.samples += self._written(batch, made)
            write_list(self._run.relatives_path, dict(enumerate(self.samples)))
            yield Tick(len(self), budget, note)
        self._see(self.samples[first:])
        return list(range(first, len(self)))

    def _made(self, lineages: Sequence[Lineage]) -> Iterator[tuple[Sequence[Lineage], Generated]]:
        """Makes relatives, some at a time."""
        if lineages:  # else the pipeline need not be loaded
            run, pipe, capture = self._run, self._pipe, self._run.config.capture
            settings = recorded_settings(run, pipe, capture)
            point = find_hookpoint(pipe, run.facts.capture.hookpoint)
            sizes = batch_size_of(pipe, settings, capture.batch_size)
            yield from sizes.made(lineages, lambda batch: generate(pipe, capture.prompt, batch, settings, point))

    def _written(self, batch: Sequence[Lineage], made: Generated) -> list[Sample]:
        """Writes a batch, but for the list."""
        run, first, prompt = self._run, len(self), self._run.config.capture.prompt
        assert made.activations is not None and made.grid is not None  # a hookpoint was given
        samples = []
        for place, ((seed, *steps), image) in enumerate(zip(batch, made.images, strict=True), start=first):
            sample = write_image(run, run.relatives_dir, place, prompt, seed, image)
            samples.append(sample._replace(steps=tuple(steps)))
        ActivationStore.write(run.relative_activations_dir, first, made.activations[:, -1:], made.grid,
                              made.step_indices[-1:])  # fmt: skip
        return samples

    def _see(self, samples: Sequence[Sample]) -> None:
        store = self.store
        embeddings, looks = exhausted(views_of(self._run, samples, self._embedder, self.second, "look"), None)
        self.embeddings = np.concatenate([self.embeddings, embeddings])
        self._looks.append(looks)
        tokens = store.images([sample.index for sample in samples], store.step_indices[-1])
        self._activations.append(tokens.mean(dim=1).numpy())

    @cached_property
    def _pipe(self) -> DiffusionPipeline:
        return recorded_pipeline(self._run)

    @cached_property
    def second(self) -> Embedder | None:
        """The model of discovery's second view; None if this is thumbnails."""
        return second_embedder(self._run.config.discover, self._run.config.capture)

    @cached_property
    def _embedder(self) -> Embedder:
        return embedder_of(self._run)
