"""Takes over an autoencoder that is there, in place of training one."""

import json
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from raigen.config import object_of, shaped
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore
from raigen.runs.files import sha256, write_text
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.sae.hub import fetched
from raigen.sae.model import MatryoshkaSAE
from raigen.sae.seeds import CLOSING_TOKENS, inference_quality
from raigen.sae.stream import ImageStream

TRAINING = "training.json"


@dataclass(frozen=True)
class SAEOrigin:
    """Where an autoencoder comes from: the image model with its commit and the hash of its weights, the hookpoint, and
    the images on which it was trained, `n_images` for each prompt.

    `fvu` is the unexplained share of the variance of the tokens that are scored: those of the last denoising step.
    `license` is that of the image model.
    """

    model: str
    revision: str | None
    weights: str | None
    license: str | None
    hookpoint: str
    prompts: tuple[str, ...]
    n_images: int
    fvu: float
    l0: float
    dead_share: float
    raigen: str

    def write(self, dir: Path) -> Path:
        """Writes training.json; returns its path."""
        write_text(dir / TRAINING, json.dumps(asdict(self), indent=1))
        return dir / TRAINING

    @classmethod
    def read(cls, dir: Path) -> "SAEOrigin":
        """What `write` wrote. Raises RaigenError where it is missing or has another shape."""
        path, remedy = dir / TRAINING, "Write the folder with: raigen share RUN --to FOLDER"
        if not path.is_file():
            raise RaigenError(f"{dir}: expected {TRAINING}, which says at which hookpoint of which image model the "
                              f"autoencoder was trained; found none. {remedy}")  # fmt: skip
        known = object_of(path)
        with shaped(path, "what raigen share writes", remedy):
            found = {f.name: known[f.name] for f in fields(cls)}
            return cls(**found | {"prompts": tuple(found["prompts"]), "fvu": float(found["fvu"])})


class SharedAutoencoder(NamedTuple):
    """An autoencoder with its origin, from the folder `dir`; `name` is how the user called it."""

    name: str
    dir: Path
    sae: MatryoshkaSAE
    origin: SAEOrigin

    def check(
        self,
        model: str | None = None,
        weights: str | None = None,
        hookpoint: str | None = None,
        d_in: int | None = None,
    ) -> None:
        """Raises RaigenError where the image model, the hookpoint or the width of its tokens differ from those on which
        it was trained; None is not known yet. A model with the same weights is the same under another name."""
        origin, width = self.origin, self.sae.config.d_in
        known = (weights, origin.weights) if weights and origin.weights else (model or origin.model, origin.model)
        if known[0] != known[1]:
            raise RaigenError(f"sae: {self.name} was trained on images of {origin.model}{_at(origin.revision)}; the "
                              f"weights of {model} differ. Choose another autoencoder, or leave out --sae to train "
                              "one")  # fmt: skip
        if hookpoint not in (None, origin.hookpoint):
            raise RaigenError(f"sae: {self.name} was trained at the hookpoint {origin.hookpoint}; this run captures "
                              f"{hookpoint}. Give --hookpoint {origin.hookpoint} and another --run-dir")  # fmt: skip
        if d_in not in (None, width):
            raise RaigenError(f"sae: {self.name} takes tokens of width {width}; those of this run have {d_in}. Leave "
                              "out --sae to train one")  # fmt: skip


def open_shared(source: str, revision: str | None = None, offline: bool = False) -> SharedAutoencoder:
    """An autoencoder that `raigen share` wrote, in a folder or on the Hub. Raises RaigenError where it is missing,
    broken or without its origin."""
    dir = fetched(source, revision, offline)
    return SharedAutoencoder(source, dir, MatryoshkaSAE.from_pretrained(dir), SAEOrigin.read(dir))


def adopt(
    run: Run, source: str, revision: str | None = None, stream: ImageStream | None = None
) -> Generator[Tick, None, Outcome]:
    """The stage `train` without a training: writes the autoencoder of `source` into the run, and measures it there.

    With a `stream`, its images are generated first. Model and width are checked before most of them. Raises RaigenError
    as `SharedAutoencoder.check` and `open_shared` do.
    """
    found, capture = open_shared(source, revision, run.config.capture.offline), run.config.capture
    hookpoint = run.facts.capture.hookpoint if run.has_finished("capture") else capture.hookpoint
    width: int | None = None
    for part in stream.generate((0,)) if stream else ():
        if width is None:  # until the first images are there
            width = None if part.activations is None else part.activations.shape[-1]
            found.check(capture.model, _weights(run), hookpoint, width)
        yield part.tick
    store, started = ActivationStore(run.activations_dir), time.monotonic()
    found.check(capture.model, _weights(run), hookpoint, store.d_in)
    outputs = [*found.sae.save(run.sae_dir), found.origin.write(run.sae_dir)]
    facts = {
        **{name: value for name, value in asdict(found.sae.config).items() if not name.startswith("aux")},
        "group_sizes": list(found.sae.config.group_sizes),
        "n_dead": round(found.origin.dead_share * found.sae.config.d_sae),
        "dead_share": found.origin.dead_share,
        "adopted": sha256((run.sae_dir / "model.safetensors").read_bytes()),
        "fvu_own": found.origin.fvu,
        **quality_on(store, found.sae),
        "training_seconds": round(time.monotonic() - started, 2),
    }
    return Outcome(outputs, facts)


def quality_on(store: ActivationStore, sae: MatryoshkaSAE) -> Mapping[str, Any]:
    """`inference_quality` on random tokens of the last stored step, which is the one that is scored."""
    generator = torch.Generator().manual_seed(0)
    share = min(1.0, CLOSING_TOKENS / (store.n_images * store.n_tokens))
    chunks = [_some(chunk.activations, share, generator) for chunk in store.step(store.step_indices[-1])]
    return inference_quality(sae, torch.cat(chunks))


def _weights(run: Run) -> str | None:
    """The hash of the weights of the image model, from the moment it is loaded."""
    return run.manifest["stages"].get("capture", {}).get("model", {}).get("weights")


def _some(activations: Float[Tensor, "image token d_in"], share: float, generator: torch.Generator) -> Tensor:
    tokens = activations.flatten(0, 1)
    return tokens[torch.randperm(len(tokens), generator=generator)[: max(1, round(share * len(tokens)))]]


def _at(revision: str | None) -> str:
    return f" at {revision}" if revision else ""
