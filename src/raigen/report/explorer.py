"""What the explorer of the report looks at: all audited images at once, small, with the numbers that order them."""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from raigen.config import visible
from raigen.discovery.codes import clear_from
from raigen.report.neuron_cards import Thumbs
from raigen.report.page import Neurons
from raigen.runs import pixels
from raigen.runs.files import sha256
from raigen.runs.records import RareAttribute
from raigen.runs.run import Run

ATLAS_BUDGET = 3.5e6  # bytes of the atlas in the page
# The first that fits is taken: pixels of the longer side of a cell, and quality (0-100).
CELLS = (Thumbs(64, 75), Thumbs(64, 55), Thumbs(56, 50), Thumbs(48, 45), Thumbs(40, 40), Thumbs(40, 15))
TOPS_BUDGET = 4e5  # bytes of the strongest images of all neurons that are not listed
MOST_TOP, FEWEST_TOP = 12, 3  # of these images, for each neuron
WIDTH = 64  # principal directions of the embeddings that the page keeps
LOOKS_SIDE = 16  # pixels along each side of a view of the images' colors, as in discovery
SPREAD = 0.6  # how far the map is evened out: 0 keeps distances, 1 spreads the images evenly along both axes


class Atlas(NamedTuple):
    """All images, small, in one: `n_columns` in a row, each in a cell of `width` x `height` pixels. `uri` is the data
    URI, and `looks` holds the colors of each image at 16 x 16 pixels."""

    uri: str
    n_columns: int
    width: int
    height: int
    looks: Float[np.ndarray, "image color"]


class Explorer(NamedTuple):
    """The atlas, and the rest as a dict for JSON."""

    atlas: Atlas
    data: dict[str, Any]


def explorer_of(run: Run, attributes: Sequence[RareAttribute], neurons: Neurons) -> Explorer:
    """Everything that the explorer needs: the atlas, a place of every image on the map, the codes of all listed
    neurons, the strongest images of all others, the embeddings in few directions, and the vocabulary in the same ones.

    Raises RaigenError if an image is missing or damaged, or a file of the run does not fit.
    """
    atlas, shown = atlas_of(run), run.is_shown()
    embeddings, codes = run.embeddings(), run.image_codes()
    center = embeddings[shown].mean(axis=0)
    basis = principal(embeddings[shown] - center, WIDTH)
    rows = (embeddings - center) @ basis
    data = {
        "key": sha256("".join(sample.sha256 for sample in run.samples()).encode())[:16],
        "n": len(shown),
        "columns": atlas.n_columns, "width": atlas.width, "height": atlas.height,
        "pixels": max(run.read_image(run.samples()[0]).size) <= pixels.PIXEL_ART,
        "seed": run.config.capture.base_seed,
        "black": np.flatnonzero(~shown).tolist(),
        "places": packed((places(rows, atlas.looks, shown) * 65535).astype("<u2")),
        "hashes": packed(np.frombuffer(bytes.fromhex("".join(s.sha256[:8] for s in run.samples())), np.uint8)),
        "batches": batches_of(run),
        "command": command_of(run),
        "findings": [finding_of(attribute, codes[:, attribute.neuron]) for attribute in attributes],
        "others": others_of(codes, {attribute.neuron for attribute in attributes}, neurons),
        "embedding": {"width": basis.shape[1], "rows": packed(as_bytes(rows))},
        "words": words_of(run, basis),
    }  # fmt: skip
    return Explorer(atlas, data)


def atlas_of(run: Run) -> Atlas:
    """All audited images, in order, at the largest size and quality with which they fit `ATLAS_BUDGET`."""
    samples = run.samples()
    largest = CELLS[0].side
    looks, cells = [], []
    for sample in samples:
        image = run.read_image(sample)
        looks.append(np.asarray(image.resize((LOOKS_SIDE, LOOKS_SIDE)), np.float32).ravel())
        cells.append(pixels.thumbnail(image, largest))
    uri, cell, n_columns = "", cells[0], round(len(cells) ** 0.5)
    for thumbs in CELLS:
        small = [pixels.thumbnail(image, thumbs.side) for image in cells]
        cell = small[0]
        data = pixels.webp(pixels.image_grid(small, n_columns, gap=0), thumbs.quality)
        uri = "data:image/webp;base64," + base64.b64encode(data).decode()
        if len(uri) <= ATLAS_BUDGET:
            break
    return Atlas(uri, n_columns, cell.width, cell.height, np.array(looks))


def principal(centered: Float[np.ndarray, "image width"], count: int) -> Float[np.ndarray, "width direction"]:
    """The first principal directions, up to `count`. The largest component of each is positive, so that they do not
    depend on the machine."""
    _, spread, directions = np.linalg.svd(centered, full_matrices=False)
    directions = directions[: min(count, max(1, int((spread > 1e-6 * max(spread[0], 1e-12)).sum())))]
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)]
    return (directions * np.sign(largest)[:, None]).T


def places(
    rows: Float[np.ndarray, "image direction"],
    looks: Float[np.ndarray, "image color"],
    shown: Bool[np.ndarray, " image"],
) -> Float[np.ndarray, "image 2"]:
    """The place of each image on the map, in [0, 1]: the first two principal directions of what images mean and how
    they look, where both views count the same.

    Distances are evened out (`SPREAD`): between its place by value and its place by rank, so that crowded images move
    apart and odd ones stay at the edge.
    """
    seen = looks - looks[shown].mean(axis=0)
    seen = seen @ principal(seen[shown], WIDTH)
    views = [view / max(np.sqrt((view[shown] ** 2).sum(axis=1).mean()), 1e-12) for view in (rows, seen)]
    both = np.concatenate(views, axis=1)
    flat = both @ np.pad(principal(both[shown], 2), ((0, 0), (0, 1)))[:, :2]
    by_rank = flat.argsort(axis=0).argsort(axis=0) / max(1, len(flat) - 1)
    low, high = flat[shown].min(axis=0), flat[shown].max(axis=0)
    by_value = np.clip((flat - low) / np.where(high > low, high - low, 1.0), 0, 1)
    return SPREAD * by_rank + (1 - SPREAD) * by_value


def finding_of(attribute: RareAttribute, codes: Float[np.ndarray, " image"]) -> dict[str, Any]:
    """A listed neuron or family with its codes of all images, in 255 steps up to the largest, and the step from which
    on it fires clearly. A code above 0 stays above 0."""
    peak = float(codes.max(initial=0.0))
    return {
        "neuron": attribute.neuron, "rank": attribute.rank, "title": attribute.title, "peak": peak,
        "clearly": int(in_steps(clear_from(codes[:, None])[0], peak)), "family": attribute.is_family,
        "codes": packed(in_steps(codes, peak)),
    }  # fmt: skip


def others_of(codes: Float[np.ndarray, "image neuron"], listed: set[int], neurons: Neurons) -> dict[str, Any]:
    """The neurons that fire but are not listed, those that are rare and distinct first, each with the number of images
    in which it fires and the strongest of them. How many of these there are, at most 12, depends on the budget."""
    alive = [int(n) for n in np.flatnonzero((codes > 0).any(axis=0)) if n not in listed]
    distinct = dict(zip(neurons.ids.tolist(), neurons.distinctiveness, strict=True))
    frequent = dict(zip(neurons.ids.tolist(), neurons.frequency, strict=True))
    alive.sort(key=lambda n: (n not in distinct, -distinct.get(n, 0) * -np.log(max(frequent.get(n, 1), 1e-9))))
    kind = "<u2" if len(codes) < 65536 else "<u4"
    count = int(np.clip(TOPS_BUDGET // (3 * max(1, len(alive))), FEWEST_TOP, min(MOST_TOP, len(codes))))
    chosen = codes[:, alive]
    top = np.argsort(-chosen, axis=0, kind="stable")[:count].T
    strength = np.take_along_axis(chosen.T, top, axis=1)
    peaks = strength[:, :1]
    return {
        "neurons": packed(np.array(alive, "<u4")),
        "fires": packed((chosen > 0).sum(axis=0).astype("<u4")),
        "count": count, "top": packed(top.astype(kind)), "strength": packed(in_steps(strength, peaks)),
        "peaks": packed(peaks[:, 0].astype("<f4")),
    }  # fmt: skip


def words_of(run: Run, basis: Float[np.ndarray, "width direction"]) -> dict[str, Any] | None:
    """The vocabulary with which CLIP named the neurons, and the direction of each phrase; None if it was not kept, or
    belongs to other embeddings."""
    if not run.words_path.is_file():
        return None
    tensors = run.read_tensors(run.words_path, "annotate")
    with run.shaped(run.words_path, "annotate"):
        phrases = json.loads(tensors["phrases"].numpy().tobytes().decode())
        directions = tensors["directions"].float().numpy()
        if len(directions) != len(phrases) or not all(isinstance(phrase, str) for phrase in phrases):
            raise ValueError("phrases and directions differ in number")
        if directions.shape[1] != len(basis):
            return None
    return {"phrases": phrases, "rows": packed(as_bytes(directions @ basis))}


def command_of(run: Run) -> str:
    """The command that makes an image of the run again, without its seed; empty if a page cannot show the prompt."""
    capture = run.config.capture
    recorded: Mapping[str, Any] = run.model_record.get("settings") or run.facts_of("capture")
    settings = {
        name: recorded.get(name)
        for name in ("num_inference_steps", "guidance_scale", "true_cfg_scale", "negative_prompt", "height", "width")
    }
    settings |= {"revision": run.model_record.get("revision") or capture.revision, "variant": capture.variant}
    settings["dtype"] = run.facts_of("capture").get("dtype", capture.dtype)
    if visible(capture.prompt) != capture.prompt:
        return ""  # what the page would say is another prompt
    parts = ["raigen", "image", capture.prompt, "--model", capture.model]
    for name, value in settings.items():
        parts += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*parts, *(["--tiling"] if capture.tiling else [])])


def batches_of(run: Run) -> list[int]:
    """The index of the first image of each batch that was made; empty if that is not known."""
    return sorted(int(path.stem) for path in run.activations_dir.glob("*.safetensors") if path.stem.isdecimal())


def in_steps(codes: Any, peak: Any) -> UInt8[np.ndarray, "*shape"]:
    """Codes as whole numbers up to 255, the `peak`.

    >>> in_steps(np.array([0.0, 0.001, 1.0, 2.0]), 2.0).tolist()
    [0, 1, 128, 255]
    """
    share = np.asarray(codes, float) / np.where(np.asarray(peak) > 0, peak, 1.0)  # float32 would round some up
    return np.asarray(np.ceil(255 * share).clip(0, 255), np.uint8)


def as_bytes(rows: Float[np.ndarray, "row direction"]) -> Int[np.ndarray, "row direction"]:
    """Rows as numbers from -127 to 127, all with the same scale: angles and their order stay."""
    return np.round(127 * rows / max(float(np.abs(rows).max(initial=0.0)), 1e-12)).astype(np.int8)


def packed(array: np.ndarray) -> dict[str, str]:
    """Numbers for JSON: their type, and the bytes in base64."""
    return {"type": array.dtype.str.lstrip("<|"), "bytes": base64.b64encode(array.tobytes()).decode()}
