"""Audits of bundled models through naming, with what the world's judge and CLIP say about every image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL.Image import Image

from raigen.auditing.audit import capture_and_train, steps
from raigen.config import AuditConfig
from raigen.diffusion.generation import defaults, generate_images
from raigen.discovery.embeddings import Embedder
from raigen.judging.fresh import first_seed, loader
from raigen.runs.run import Run
from raigen.world.judge import judge
from raigen.world.truth import RARE_SEEN_AT_MOST

MODELS = ("portraits", "portraits-transformer")


class Facts(NamedTuple):
    """What the world's judge sees in each image, 0 or 1, NaN for one that it cannot read; and the CLIP embeddings."""

    shows: Float[np.ndarray, "image value"]
    clip: Float[np.ndarray, "image width"]


class Audit(NamedTuple):
    """A run through naming (20 neurons, to a frequency of 10 %), with the facts of its audited and fresh images."""

    run: Run
    audited: Facts
    fresh: Facts


def audit_of(
    work: Path, model: str, prompt: str, n_images: int, n_fresh: int, embedder: Embedder, made_only: bool = False
) -> Audit | None:
    """The audit of a prompt in `work`/MODEL/PROFESSION. A missing one is made; with `made_only` it is None."""
    folder = work / model / prompt.split()[-1]
    facts = folder / "data.npz"
    if not facts.is_file():
        if made_only:
            return None
        run = Run.create(folder / "run")
        config = AuditConfig.of(prompt, model=model, n_images=n_images, device="cpu", n_attributes=20,
                                max_frequency=RARE_SEEN_AT_MOST)  # fmt: skip
        with run.locked():
            if not run.is_done("capture", config.capture):
                list(capture_and_train([run], [config]))
            for stage in ("discover", "annotate"):
                list(steps(run, stage, getattr(config, stage)))
        audited = _read([run.read_image(sample) for sample in run.samples()], embedder, "a_")
        np.savez(facts, allow_pickle=False, **audited, **_read(list(_fresh_images(run, n_fresh)), embedder, "f_"))
    with np.load(facts) as data:
        both = [Facts(np.where(data[f"{side}_readable"][:, None], data[f"{side}_shows"], np.nan), data[f"{side}_clip"])
                for side in "af"]  # fmt: skip
    return Audit(Run(folder / "run"), *both)


def _read(images: Sequence[Image], embedder: Embedder, side: str) -> dict[str, np.ndarray]:
    found = judge(images)
    return {f"{side}readable": found.readable, f"{side}shows": found.shows, f"{side}clip": embedder.images(images)}


def _fresh_images(run: Run, n: int) -> Iterator[Image]:
    capture, pipe = run.config.capture, loader(run)()
    seeds = [first_seed(capture) + index for index in range(n)]
    for images in generate_images(pipe, capture.prompt, seeds, defaults(pipe, capture.model, capture), 16):
        yield from images
