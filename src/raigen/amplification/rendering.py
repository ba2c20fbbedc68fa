"""Renders the images of a recipe: a prompt, and neurons turned up or down. All recipes share their seeds."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Bool, Float, Int
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from raigen.amplification.steering import Method, random_like, steering, unit_in
from raigen.config import AmplifyConfig, object_of
from raigen.diffusion.batches import batch_size_of
from raigen.diffusion.generation import Generated, Settings, generate
from raigen.diffusion.hookpoints import denoiser_of, find_hookpoint
from raigen.diffusion.hooks import tensors_of
from raigen.diffusion.recorded import recorded_pipeline
from raigen.discovery.codes import N_STRONGEST, image_codes, largest_codes, strongest
from raigen.discovery.relative_images import activations_at
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore
from raigen.runs.device import resolve_device
from raigen.runs.files import sha256, shards_in, write_tensors, write_text
from raigen.runs.images import whole_samples, write_image, write_list
from raigen.runs.records import Sample
from raigen.runs.run import Run
from raigen.runs.steps import Tell, Tick
from raigen.sae.model import MatryoshkaSAE

PATTERNS = "patterns.safetensors"  # of an exported run
SEEDS_FROM = 2_000_000_000  # far from the seeds of audited and of fresh images


class BrokenImageError(RaigenError):
    """Steering was too strong: the model made numbers that are not finite, or black images."""


@dataclass(frozen=True)
class Recipe:
    """How a set of images is made; `strengths` and `scales` follow `neurons` (`contrast` has no scales).

    A recipe without neurons is the prompt alone. `direction_seed` replaces each decoder row, or each vector of a
    pattern, by a random direction of the same norm. `mask` is the SHA-256 of the mask's file.
    """

    prompt: str
    neurons: tuple[int, ...] = ()
    strengths: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    method: Method = "steer"
    direction_seed: int | None = None
    steps: tuple[int, int] | None = None
    every_branch: bool = False
    mask: str | None = None


class Rendered(NamedTuple):
    """Images in the order of the indices, and how many seconds one took; None is not known."""

    samples: list[Sample]
    seconds_per_image: float | None


class Renderer:
    """Renders the images of recipes into the run folder. An image that is there, whole, is not made again.

    The pipeline is loaded when the first image is missing. Raises RaigenError when the capture or the training has not
    finished, or the mask is no image.
    """

    def __init__(self, run: Run, config: AmplifyConfig):
        self.run, self.config = run, config
        self.capture = run.config.capture
        self.facts = run.facts.capture
        run.require("train")
        last = self.facts.n_steps - 1
        if config.steps and config.steps[1] > last:
            raise RaigenError(f"steps: expected denoising steps from 0 to {last}; got {config.steps}")
        self.settings = Settings(**{name: getattr(self.facts, name) for name in Settings._fields})
        self.sae = MatryoshkaSAE.load(run.sae_dir).to(resolve_device(config.device))
        self.weights = sha256((run.sae_dir / "model.safetensors").read_bytes())
        self._masks: dict[str, Tensor] = {}
        self.mask_hash = None if config.mask is None else self.add_mask(config.mask)
        self._contrasts = {} if run.activations_dir.is_dir() else kept_patterns(run)
        self._score = run.config.discover.score
        self.first_seed = SEEDS_FROM + self.capture.base_seed

    @cached_property
    def pipe(self) -> DiffusionPipeline:
        """The audited pipeline."""
        return recorded_pipeline(self.run, device=self.config.device)

    @cached_property
    def mean(self) -> Float[Tensor, "token d_in"]:
        """The mean activations of the audited images at the last step, without black ones, added up by shards."""
        store, shown = ActivationStore(self.run.activations_dir), torch.from_numpy(self._shown)
        sums = [chunk.activations[shown[chunk.first :][: len(chunk.activations)]].sum(0)
                for chunk in store.step(store.step_indices[-1])]  # fmt: skip
        return torch.stack(sums).sum(0) / shown.sum()

    def add_mask(self, file: str | bytes) -> str:
        """Reads an image of where to steer, a file or its path. Returns its hash, by which a recipe names it. Raises
        RaigenError when it is no image."""
        data, gray = read_mask(file)
        key = sha256(data)
        self._masks[key] = gray
        return key

    @cached_property
    def _shown(self) -> Bool[np.ndarray, " image"]:
        return self.run.is_shown()

    @cached_property
    def max_codes(self) -> Float[np.ndarray, "image neuron"]:
        """The largest code of each neuron in each audited image, at the last step; 0 for black images."""
        return largest_codes(self.run)

    def scale(self, neuron: int) -> float:
        """The unit of a neuron's strength; see `steering.unit_of`. Raises RaigenError for a neuron without one."""
        return unit_in(self.max_codes, neuron)

    def pattern(self, neuron: int, direction_seed: int | None = None) -> Float[Tensor, "token d_in"]:
        """The contrast of a neuron's ten strongest images with all audited images, at the last step; of a family's top
        images, which may be relatives.

        This is `steering.contrast_of`, computed without loading all activations. With a seed: random directions of the
        same norms. Raises RaigenError for a neuron that never fires.
        """
        if neuron not in self._contrasts:
            top = self.families.get(neuron) or self._strongest(neuron)
            self._contrasts[neuron] = activations_at(self.run, top).mean(0) - self.mean
        pattern = self._contrasts[neuron]
        return pattern if direction_seed is None else random_like(pattern, direction_seed)

    @cached_property
    def families(self) -> dict[int, list[int]]:
        """The places of the top images of each listed family in `Run.index_of`."""
        families = [attribute for attribute in self.run.attributes if attribute.is_family]
        index_of = self.run.index_of if families else {}
        return {family.neuron: [index_of[file] for file in family.top_images] for family in families}

    def _strongest(self, neuron: int) -> list[int]:
        self.scale(neuron)
        return strongest(np.where(self._shown, self.max_codes[:, neuron], -1), N_STRONGEST).tolist()

    def folder(self, name: str, recipe: Recipe) -> Path:
        """Where the images of a recipe lie: below `name`, in a folder of the recipe's hash."""
        return self.run.recipe_dir(name, sha256(self._described(recipe).encode())[:16])

    def make(self, name: str, recipe: Recipe, indices: Sequence[int], tell: Tell) -> Rendered:
        """The images of the recipe with these indices; those that are missing are rendered in batches.

        `tell` receives progress in images. Raises BrokenImageError when steering breaks the images, and RaigenError as
        `generate` and `steering` do.
        """
        folder = self.folder(name, recipe)
        listed, made_path = folder / "samples.jsonl", folder / "recipe.json"
        samples = whole_samples(self.run, listed, folder, recipe.prompt, self.first_seed)
        codes = None if recipe.neurons else self._kept_codes(folder)
        if codes is not None:
            samples = {index: sample for index, sample in samples.items() if codes.has(index)}
        missing = [index for index in indices if index not in samples]
        seconds, timed = _timing(made_path)
        n_done, started = len(indices) - len(missing), time.perf_counter()
        for batch, generated in self._made(recipe, missing):
            seconds, timed = seconds + time.perf_counter() - started, timed + len(batch)
            for index, image in zip(batch, generated.images, strict=True):
                samples[index] = write_image(self.run, folder, index, recipe.prompt, self.first_seed + index, image)
            if codes is not None:
                codes.put(batch, self._codes_of(generated))
            description = json.loads(self._described(recipe))
            write_text(made_path, json.dumps(description | {"seconds": seconds, "n_timed": timed}, indent=1))
            write_list(listed, samples)
            n_done += len(batch)
            tell(Tick(n_done, len(indices), name))
            started = time.perf_counter()
        return Rendered([samples[index] for index in indices], seconds / timed if timed else None)

    def codes(self, name: str, recipe: Recipe, n: int, neuron: int) -> Float[np.ndarray, " image"]:
        """How strongly a neuron fires in each of the first `n` images of a recipe without neurons, which must be made
        already."""
        rows = self._kept_codes(self.folder(name, recipe)).rows
        return np.array([float(rows[index][neuron]) for index in range(n)], np.float32)

    def _kept_codes(self, folder: Path) -> "_Codes":
        """The codes that discovery's score takes. Each kind has a folder of its own."""
        return _Codes(folder / ("means" if self._score == "published" else "codes"))

    def _made(self, recipe: Recipe, indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Generated]]:
        if indices:  # else the pipeline need not be loaded
            sizes = batch_size_of(self.pipe, self.settings, self.config.batch_size)
            seeds = [self.first_seed + index for index in indices]
            for batch, generated in sizes.made(seeds, lambda batch: self._generated(recipe, batch)):
                yield [seed - self.first_seed for seed in batch], generated

    def _generated(self, recipe: Recipe, seeds: Sequence[int]) -> Generated:
        point = find_hookpoint(self.pipe, self.facts.hookpoint)
        if not recipe.neurons:
            return generate(self.pipe, recipe.prompt, seeds, self.settings, point, [self.facts.n_steps - 1])
        steps = None if recipe.steps is None else range(recipe.steps[0], recipe.steps[1] + 1)
        patterned = recipe.neurons if recipe.method == "contrast" else ()
        turned = steering(
            self.pipe, turned_to(self.sae, recipe), dict(zip(recipe.neurons, recipe.strengths, strict=True)),
            scales=dict(zip(recipe.neurons, recipe.scales, strict=True)) if recipe.scales else {},
            hookpoint=point.path, steps=steps, method=recipe.method, every_branch=recipe.every_branch,
            mask=self._masks[recipe.mask] if recipe.mask else None,
            patterns={neuron: self.pattern(neuron, recipe.direction_seed) for neuron in patterned},
            settings=self.settings, prompt=recipe.prompt,
        )  # fmt: skip
        changes = any(recipe.strengths)
        with turned, finite(denoiser_of(self.pipe, point)) if changes else nullcontext():
            generated = generate(self.pipe, recipe.prompt, seeds, self.settings)
        black = [image.getbbox() is None for image in generated.images]
        checked = self.pipe.components.get("safety_checker") is not None  # it blackens images on purpose
        if changes and (all(black) if checked else any(black)):
            raise BrokenImageError("makes black images")
        return generated

    def _codes_of(self, generated: Generated) -> Float[Tensor, "image neuron"]:
        """One code of each neuron in each image, as discovery's score takes it."""
        assert generated.activations is not None  # a hookpoint was given
        return image_codes(self.sae, generated.activations[:, -1], self._score).cpu()

    def _described(self, recipe: Recipe) -> str:
        """Everything that the images depend on, as JSON: recipe, model, settings and autoencoder."""
        model = {name: getattr(self.facts, name) for name in ("model", "revision", "dtype", "hookpoint")}
        context = model | self.settings._asdict() | {"sae": self.weights, "first_seed": self.first_seed}
        return json.dumps({"recipe": asdict(recipe), "context": context}, sort_keys=True)


class _Codes:
    """The codes of a recipe's images; on disk, one file for each batch."""

    def __init__(self, dir: Path):
        self.dir, self.rows = dir, dict[int, Tensor]()
        for path in shards_in(dir):
            with suppress(SafetensorError):  # of a broken one: its images are made again
                self._add(**load_file(path))

    def has(self, index: int) -> bool:
        return index in self.rows

    def put(self, indices: Sequence[int], codes: Float[Tensor, "image neuron"]) -> None:
        batch = {"indices": torch.tensor(indices), "codes": codes}
        write_tensors(self.dir / f"{indices[0]:06d}.safetensors", batch)
        self._add(**batch)

    def _add(self, indices: Int[Tensor, " image"], codes: Float[Tensor, "image neuron"]) -> None:
        self.rows |= dict(zip(indices.tolist(), codes, strict=True))


def turned_to(sae: MatryoshkaSAE, recipe: Recipe) -> MatryoshkaSAE:
    """The autoencoder whose decoder rows the recipe adds: `sae`, or a copy with random rows of the same norms."""
    if recipe.direction_seed is None or recipe.method == "contrast":
        return sae
    changed, neurons = deepcopy(sae), list(recipe.neurons)
    with torch.no_grad():
        changed.W_dec[neurons] = random_like(sae.W_dec[neurons].detach().cpu(), recipe.direction_seed)
    return changed


def kept_patterns(run: Run) -> dict[int, Tensor]:
    """The patterns of an exported run by neuron, which take the place of its activations; none elsewhere."""
    path = run.studio_dir / PATTERNS
    return {int(neuron): found for neuron, found in run.read_tensors(path, "capture").items()} if path.is_file() else {}


@contextmanager
def finite(denoiser: nn.Module) -> Iterator[None]:
    """Raises BrokenImageError at the first step whose output holds a number that is not finite."""

    def check(module: nn.Module, args: tuple, output: Any) -> None:
        first = output[0] if not isinstance(output, Tensor) and len(output) else output
        if not all(bool(part.isfinite().all()) for part in tensors_of(first)):
            raise BrokenImageError("makes numbers that are not finite")

    handle = denoiser.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def with_strength(recipe: Recipe, strength: float) -> Recipe:
    """The recipe with this strength for all its neurons; strengths that it has already are multiplied by it."""
    return replace(recipe, strengths=tuple(strength * own for own in recipe.strengths or (1.0,) * len(recipe.neurons)))


def _timing(path: Path) -> tuple[float, int]:
    if not path.is_file():
        return 0.0, 0
    noted = object_of(path, "seconds", "n_timed")
    return noted["seconds"], noted["n_timed"]


def read_mask(file: str | bytes) -> tuple[bytes, Float[Tensor, "row column"]]:
    """An image of where to steer, from its path or its bytes: the bytes, and its brightness in [0, 1]. Raises
    RaigenError when it is no image, or too large."""
    name = file if isinstance(file, str) else "the one of the recipe"
    try:
        data = Path(file).read_bytes() if isinstance(file, str) else file
        with Image.open(BytesIO(data)) as image:
            return data, torch.from_numpy(np.asarray(image.convert("L"), np.float32) / 255)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RaigenError(f"mask: expected an image; {name} cannot be read ({error})") from error
