"""Lists a neuron that a person chose, under the name that the person gave it."""

import numpy as np
import torch

from raigen.config import in_a_line
from raigen.discovery.codes import heatmaps, strongest
from raigen.discovery.listing import neuron_rows
from raigen.errors import RaigenError
from raigen.runs.activations import ActivationStore
from raigen.runs.device import resolve_device
from raigen.runs.files import write_tensors
from raigen.runs.records import RareAttribute
from raigen.runs.run import Run
from raigen.sae.model import MatryoshkaSAE

A_PERSON = "a person"
SCORES = ("minority_score", "frequency", "distinctiveness")
LONGEST = 100  # characters of a name


def list_by_hand(run: Run, neuron: int, label: str, by: str = "") -> RareAttribute:
    """Adds a neuron that discovery left out to the end of the list. `label` is its name and `by` who gave it.

    The evaluation is outdated then: the next one checks the name and measures its rate as it does for the others. A
    name by hand stays when the neurons are named anew; a new list of neurons begins without it. Writes attributes.json
    and by_hand.safetensors (where the neuron fires in its top images). Raises RaigenError before `annotate` has
    finished, when the neuron is listed already or fires in no image, and when the name is empty or longer than 100
    characters.
    """
    run.require("annotate")
    label, by, listed = in_a_line(label).strip(), in_a_line(by).strip() or A_PERSON, run.attributes
    if not 0 < len(label) <= LONGEST:
        raise RaigenError(f"name: expected a name of 1 to {LONGEST} characters for the neuron; got {len(label)}")
    known = {attribute.neuron: attribute for attribute in listed}
    if neuron in known:
        raise RaigenError(f"neuron: {neuron} is listed already, at rank {known[neuron].rank}: {known[neuron].title}")
    rows, top = scores_of(run), top_of(run, neuron)
    samples = run.samples()
    score, frequency, distinctiveness = (float(rows[neuron][name] or 0) for name in SCORES)
    added = RareAttribute(
        max((attribute.rank for attribute in listed), default=0) + 1, neuron, score, frequency, distinctiveness,
        top_images=tuple(samples[index].file for index in top), label=label, labeled_by=by, by_hand=True,
        suggested_prompt=f"{run.config.capture.prompt}, {label}",
    )  # fmt: skip
    kept = {str(one.neuron): torch.from_numpy(run.read_array(run.by_hand_path, str(one.neuron)))
            for one in listed if one.by_hand}  # fmt: skip
    write_tensors(run.by_hand_path, kept | {str(neuron): _heatmaps(run, neuron, top)})
    run.write_attributes([*listed, added])
    for stage in ("evaluate", "report"):
        run.outdate(stage)
    return added


def top_of(run: Run, neuron: int, count: int | None = None) -> list[int]:
    """The audited images in which a neuron is strongest, without black ones: as many as discovery shows, or `count`.

    Raises RaigenError for a neuron that discovery did not score, and for one that fires in no image.
    """
    n_neurons = run.facts.discover.n_neurons
    if not 0 <= neuron < n_neurons:
        raise RaigenError(f"neuron: expected a number from 0 to {n_neurons - 1}; got {neuron}")
    codes = np.where(run.is_shown(), run.image_codes()[:, neuron], -1)
    if codes.max() <= 0:
        raise RaigenError(f"neuron: {neuron} fires in none of the audited images; take another")
    return strongest(codes, min(count or run.config.discover.n_top_images, len(codes))).tolist()


def scores_of(run: Run) -> dict[int, dict[str, str]]:
    """The rows of neurons.csv, by neuron."""
    rows = neuron_rows(run)
    with run.shaped(run.neurons_path, "discover"):
        return {int(row["neuron"]): row for row in rows}


def _heatmaps(run: Run, neuron: int, top: list[int]) -> torch.Tensor:
    """Where the neuron fires in these images, [image, row, column]."""
    store = ActivationStore(run.activations_dir)
    sae = MatryoshkaSAE.load(run.sae_dir).to(resolve_device(run.config.capture.device))
    return heatmaps(sae, store.images(top, store.step_indices[-1]), neuron).unflatten(-1, store.grid)
