"""Writes the autoencoder of a run as a folder that others can use."""

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from raigen.config import in_a_line, rows_of
from raigen.errors import RaigenError
from raigen.report.html import fill
from raigen.runs.activations import ActivationStore
from raigen.runs.files import is_clutter, write_bytes, write_text
from raigen.runs.pixels import image_grid, thumbnail, webp
from raigen.runs.run import Run
from raigen.sae.adopt import SAEOrigin, quality_on
from raigen.sae.model import MatryoshkaSAE

N_NEURONS, N_TOP = 40, 8  # neurons that the card shows, and images of each
THUMBNAIL = 128  # pixels of the longer side


def share(run: Run, to: Path) -> list[Path]:
    """Writes config.json, model.safetensors, training.json, a card (README.md) and the top images of forty neurons into
    the new folder `to`; returns their paths. `raigen audit --sae` and `MatryoshkaSAE.from_pretrained` read it.

    The neurons are the listed ones, then those with the largest minority scores. Raises RaigenError before `discover`
    has run, for an autoencoder that was not trained in this run, and for a folder with other files.
    """
    run.require("train", "discover")
    facts, capture = run.facts.train, run.facts.capture
    if facts.adopted is not None:
        raise RaigenError(f"{run.dir}: expected an autoencoder that was trained here; this one comes from "
                          f"{run.config.train.sae}. Share that")  # fmt: skip
    ours = ("config.json", "model.safetensors", "training.json", "README.md", "images")
    if to.is_dir() and any(path.name not in ours and not is_clutter(path) for path in to.iterdir()):
        raise RaigenError(
            f"{to}: expected a new folder, or one of raigen share; it holds other files. Choose another --to"
        )
    sae = MatryoshkaSAE.load(run.sae_dir)
    origin = SAEOrigin(
        model=capture.model,
        revision=capture.revision,
        weights=capture.weights,
        license=capture.license,
        hookpoint=capture.hookpoint,
        prompts=facts.shared_by or (run.config.capture.prompt,),
        n_images=run.config.capture.n_images,
        fvu=quality_on(ActivationStore(run.activations_dir), sae)["fvu"],
        l0=facts.l0,
        dead_share=facts.dead_share,
        raigen=version("raigen"),
    )
    neurons, card = list(_neurons(run, to)), to / "README.md"
    metadata = ModelCardData(
        license=origin.license, library_name="raigen", base_model=origin.model if origin.revision else None,
        tags=["raigen", "sparse-autoencoder", "text-to-image", "interpretability"],
    )  # fmt: skip
    command = shlex.join(["raigen", "audit", origin.prompts[0], "--model", origin.model, "--sae"])
    page = {
        "metadata": metadata.to_yaml(),
        "command": in_a_line(command).replace("`", "'"),
        "origin": origin,
        "config": sae.config,
        "facts": facts,
        "neurons": neurons,
    }
    write_text(card, fill("autoencoder-card.md.jinja", page, n_steps=capture.n_steps, settings=capture))
    return [*sae.save(to), origin.write(to), card, *(to / neuron["file"] for neuron in neurons)]


def _neurons(run: Run, to: Path) -> Iterator[dict[str, Any]]:
    """Writes the top images of each neuron that the card shows, and yields what the card says of it."""
    listed = {one.neuron: one.title for one in run.attributes if not one.is_family}
    rows = [row for _, row in rows_of(run.neurons_path, ("neuron", "frequency", "minority_score"))]
    with run.shaped(run.neurons_path, "discover"):
        known = {int(row["neuron"]): row for row in rows if row["minority_score"]}
        best = sorted(known, key=lambda neuron: -float(known[neuron]["minority_score"]))
        codes, samples = run.image_codes(), run.samples()
        for neuron in list(dict.fromkeys([*listed, *best]))[:N_NEURONS]:
            order = (-codes[:, neuron]).argsort(kind="stable")[:N_TOP]
            top = [samples[index] for index in order if codes[index, neuron] > 0]
            file = f"images/neuron-{neuron}.webp"
            if top:
                thumbs = [thumbnail(run.read_image(sample), THUMBNAIL) for sample in top]
                write_bytes(to / file, webp(image_grid(thumbs, N_TOP)))
                yield {"neuron": neuron, "title": listed.get(neuron), "file": file,
                       "frequency": float(known[neuron]["frequency"]),
                       "seeds": [sample.seed for sample in top]}  # fmt: skip
