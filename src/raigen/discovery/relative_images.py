"""Makes the relatives that `look` asks for, keeps them in the run, and sees them as the audited images were seen."""

from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from raigen.diffusion.batches import batch_size_of
from raigen.diffusion.generation import Generated, generate
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.recorded import recorded_pipeline, recorded_settings
from raigen.diffusion.relatives import Lineage
from raigen.discovery.discover import View, second_view, views_of
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
        self._run, self.n_audited = run, len(run.samples())
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
    def files(self) -> list[Path]:
        """Every file that holds relatives."""
        run = self._run
        images = [run.dir / sample.file for sample in self.samples]
        return [run.relatives_path, *images, *shards_in(run.relative_activations_dir)]

    @cached_property
    def are_copies(self) -> bool:
        """Whether the first relatives are their parents again, because the pipeline's noise cannot be moved. Ask after
        the first generation."""
        audited = {sample.seed: sample.sha256 for sample in self._run.samples()}
        first = [sample for sample in self.samples if len(sample.steps) == 1][:8]
        return bool(first) and all(audited[sample.seed] == sample.sha256 for sample in first)

    def views(self, first: int = 0) -> list[Float[np.ndarray, "relative _"]]:
        """What the relatives from `first` on mean, how they look, and their mean activations."""
        return [view[first:] for view in (self.embeddings, np.concatenate(self._looks), self.activations)]

    def make(self, lineages: Sequence[Lineage], budget: int) -> Generator[Tick, None, int]:
        """Makes new relatives, or takes those that are there; returns how many there were before. Yields progress
        towards `budget` relatives."""
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
        return first

    def _made(self, lineages: Sequence[Lineage]) -> Iterator[tuple[Sequence[Lineage], Generated]]:
        """Makes relatives, some at a time."""
        if lineages:  # else the pipeline need not be loaded
            run, pipe, capture = self._run, self._pipe, self._run.config.capture
            settings = recorded_settings(run, pipe, capture).with_guidance(capture.discovery_guidance)
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
        store = ActivationStore(self._run.relative_activations_dir)
        embeddings, looks = exhausted(views_of(self._run, samples, (self._embedder.images, self.second), "look"), None)
        self.embeddings = np.concatenate([self.embeddings, embeddings])
        self._looks.append(looks)
        tokens = store.images([sample.index for sample in samples], store.step_indices[-1])
        self._activations.append(tokens.mean(dim=1).numpy())

    @cached_property
    def _pipe(self) -> DiffusionPipeline:
        return recorded_pipeline(self._run)

    @cached_property
    def second(self) -> View:
        """What sees images in discovery's second view."""
        return second_view(self._run.config.discover, self._run.config.capture)

    @cached_property
    def _embedder(self) -> Embedder:
        return embedder_of(self._run)


def activations_at(run: Run, places: Sequence[int]) -> Float[Tensor, "place token d_in"]:
    """The activations of images at the last step, in the order of their places in `Run.index_of`."""
    store = ActivationStore(run.activations_dir)
    step, n = store.step_indices[-1], store.n_images
    found = torch.empty(len(places), store.n_tokens, store.d_in)
    is_relative = torch.tensor([place >= n for place in places])
    found[~is_relative] = store.images([place for place in places if place < n], step)
    if is_relative.any():
        relatives = ActivationStore(run.relative_activations_dir)
        found[is_relative] = relatives.images([place - n for place in places if place >= n], step)
    return found
