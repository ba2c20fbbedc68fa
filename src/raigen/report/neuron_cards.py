"""The card of a neuron: its images, how strongly it fires, its neighbors, the evidence for its name."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from raigen.config import ReportConfig
from raigen.discovery.scores import minority_scores
from raigen.errors import RaigenError
from raigen.judging.annotate import control_samples
from raigen.judging.trust import Disagreement
from raigen.report import charts
from raigen.runs import pixels
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run

OVERLAY = 64  # pixels of an overlay's longer side: it has no detail, and the browser smooths it
BUDGET = 7.5e6  # bytes of images in the page; with overlays and text the page stays below 10 MB
N_PHRASES = 3  # phrases of CLIP's ranking that are shown as evidence
N_RELATIVES = 5  # of each kind in a card, at most
N_ASIDE = 5  # images of what was set aside
N_KIN_IMAGES = 5  # images of a related neuron, at most
PLACES_OF_THE_FIRST = 2  # the strongest image is also at the top of the page and in the overview


class Thumbs(NamedTuple):
    """How images are put into the page: pixels of the longer side, and quality (0-100)."""

    side: int
    quality: int


# The first that fits is taken. Images are shown at 128 pixels; 192 pixels are sharp on dense screens.
THUMBS = (Thumbs(192, 90), Thumbs(160, 80), Thumbs(128, 75), Thumbs(112, 60), Thumbs(96, 45))


class ShownImage(NamedTuple):
    """An image in the page: its data URI, the data URI of its overlay (or None), and its description. `place` is its
    index among the audited images, None if it is none of them."""

    uri: str
    overlay: str | None
    alt: str
    place: int | None = None


class Neighbor(NamedTuple):
    """A neuron with a close centroid. `rank` is None if it is not listed; `distance` is a cosine distance in [0, 2]."""

    neuron: int
    rank: int | None
    distance: float
    image: ShownImage


class Kin(NamedTuple):
    """A related neuron: a fine one within the neuron of the card, or the coarse one around it. The shares come from
    kin.jsonl; `rank` is None if it is not listed; `images` are its strongest."""

    neuron: int
    rank: int | None
    frequency: float
    within: float
    covers: float
    lift: float
    images: list[ShownImage]


class Codes(NamedTuple):
    """How strongly each neuron of `ids` fires on each image, and the unit centroid of its images."""

    ids: Int[np.ndarray, " neuron"]
    image_codes: Float[np.ndarray, "image neuron"]
    centroids: Float[np.ndarray, "neuron width"]

    def of(self, neuron: int) -> Float[np.ndarray, " image"]:
        """The codes of one neuron on all images."""
        return self.image_codes[:, int(np.flatnonzero(self.ids == neuron)[0])]


def thumbs_for(
    run: Run, attributes: Sequence[RareAttribute], config: ReportConfig, n_more: int = 0, taken: int = 0
) -> Thumbs:
    """The size and quality at which the images of all cards, and `n_more` others, fit beside `taken` bytes."""
    shown = config.n_control_images + config.n_middle_images + config.n_neighbours + PLACES_OF_THE_FIRST
    shown += config.n_children * N_KIN_IMAGES
    n_more += sum(1 + 2 * N_RELATIVES for attribute in attributes if attribute.family)
    n_images = n_more + sum(shown + len(attribute.top_images) for attribute in attributes)
    return fitting(run, run.samples(), n_images, BUDGET - taken)


def cards(
    run: Run, attributes: Sequence[RareAttribute], codes: Codes, config: ReportConfig, thumbs: Thumbs
) -> Iterator[dict[str, Any]]:
    """The card of each attribute, in order. `codes` holds every scored neuron.

    Raises RaigenError if heatmaps or images do not fit the attributes.
    """
    samples = run.samples()
    heatmaps, evidence, scores = _heatmaps(run, attributes), _evidence(run), _scores(run)
    kin, by_file = _kin(run), run.sample_of
    n_coarse = run.facts.train.group_sizes[0] if kin is not None else 0
    rank_of, base_seed = {attribute.neuron: attribute.rank for attribute in attributes}, run.config.capture.base_seed
    for attribute, maps in zip(attributes, heatmaps, strict=True):
        top = _top(run, attribute, by_file)
        control = control_samples(samples, attribute, base_seed, config.n_control_images)
        peak, strength = float(maps[: len(top)].max(initial=0.0)), codes.of(attribute.neuron)
        audited = [sample.index for sample in top if not sample.steps]
        middle = middle_of(strength, audited, config.n_middle_images)
        lines = kin.get(attribute.neuron, []) if kin is not None else []
        yield {
            "attribute": attribute,
            "peak": peak,
            "top": [image_of(run, s, "strongest image,", thumbs, m, peak)
                    for s, m in zip(top, maps[: len(top)], strict=True)],
            "middle": [image_of(run, samples[index], "moderate image,", thumbs) for index in middle],
            "control": [image_of(run, sample, "random image,", thumbs) for sample in control],
            "is_pixel_art": max(run.read_image(top[0]).size) <= pixels.PIXEL_ART if top else False,
            "histogram": charts.histogram(strength[strength > 0]),
            "n_fires": int((strength > 0).sum()),
            "neighbors": [
                Neighbor(neuron, rank_of.get(neuron), distance, _strongest(run, samples, codes, neuron, thumbs))
                for neuron, distance in nearest(codes, attribute.neuron, config.n_neighbours)
            ],
            "kin": kin_of(run, lines[: config.n_children], rank_of, by_file, thumbs),
            "n_kin": None if kin is None or attribute.is_family else len(lines),
            "family": _relatives(run, attribute, by_file, thumbs),
            "is_fine": kin is not None and attribute.neuron >= n_coarse and not attribute.is_family,
            "evidence": evidence.get(attribute.neuron),
            "score": scores.get(attribute.neuron),
        }  # fmt: skip


def kin_of(
    run: Run,
    lines: Sequence[Mapping[str, Any]],
    rank_of: Mapping[int, int],
    by_file: Mapping[str, Sample],
    thumbs: Thumbs,
) -> list[Kin]:
    """The related neurons of a listed one, from its lines of kin.jsonl."""
    found = []
    for line in lines:
        other = line["parent"] if line["neuron"] == line["child"] else line["child"]
        shown = [by_file[file] for file in line["top_images"][:N_KIN_IMAGES]]
        images = [image_of(run, sample, f"strongest image of related neuron {other},", thumbs) for sample in shown]
        shares = {name: line[name] for name in ("frequency", "within", "covers", "lift")}
        found.append(Kin(other, rank_of.get(other), images=images, **shares))
    return found


def _relatives(
    run: Run, attribute: RareAttribute, by_file: Mapping[str, Sample], thumbs: Thumbs
) -> dict[str, list[ShownImage]]:
    """The odd image of the attribute's family, and some relatives that kept and that lost what is odd about it; empty
    without a family."""
    family = attribute.family
    if family is None:
        return {}
    parts = {"parent": [family.parent], "kept": family.kept[:N_RELATIVES], "lost": family.lost[:N_RELATIVES]}
    return {name: [image_of(run, by_file[file], "relative of", thumbs) for file in files]
            for name, files in parts.items()}  # fmt: skip


def set_aside(run: Run, thumbs: Thumbs) -> list[dict[str, Any]]:
    """What the look set aside: why, the neuron or family, and the images in which it is strongest."""
    by_file, found = run.sample_of, []
    for one in run.set_aside:
        top = [by_file[file] for file in one.top_images[:N_ASIDE]]
        found.append({
            "why": one.why_aside, "source": one.source,
            "images": [image_of(run, sample, f"{one.source},", thumbs) for sample in top],
            "is_pixel_art": max(run.read_image(top[0]).size) <= pixels.PIXEL_ART,
        })  # fmt: skip
    return found


def disputed(run: Run, sides: Sequence[Disagreement], thumbs: Thumbs) -> list[dict[str, Any]]:
    """The images on which two judges disagree, for each side that they take."""
    return [
        {"yes": side.yes, "no": side.no, "n": side.n,
         "images": [image_of(run, sample, "disputed image,", thumbs, stage="evaluate") for sample in side.images]}
        for side in sides
    ]  # fmt: skip


def read_codes(run: Run, ids: Int[np.ndarray, " neuron"]) -> Codes:
    """The codes and centroids of the neurons `ids`. Raises RaigenError if the files lack them."""
    image_codes = run.image_codes()
    embeddings = run.embeddings()
    if len(ids) and image_codes.shape[1] <= ids.max():
        raise RaigenError(
            f"{run.codes_path}: expected codes of the {ids.max() + 1} neurons of {run.neurons_path.name}; got "
            f"{image_codes.shape[1]}. Make both again with: raigen discover {run.dir} --redo discover"
        )
    chosen = image_codes[:, ids]
    centroids = minority_scores(chosen, embeddings).centroids if len(ids) else np.zeros((0, embeddings.shape[1]))
    return Codes(ids, chosen, centroids)


def middle_of(codes: Float[np.ndarray, " image"], top: Sequence[int], count: int) -> list[int]:
    """Up to `count` images from the middle half of those in which the neuron fires, evenly spaced, strongest first.

    The `top` images are left out. If the middle images do not show the attribute, its name fits the top images only.

    >>> middle_of(np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]), top=[0], count=3)
    [3, 5, 6]
    """
    order = [int(index) for index in np.argsort(-codes, kind="stable") if codes[index] > 0 and index not in top]
    half = order[len(order) // 4 : len(order) - len(order) // 4]
    places = np.linspace(0, len(half) - 1, min(count, len(half))).round().astype(int)
    return [half[place] for place in places]


def nearest(codes: Codes, neuron: int, count: int) -> list[tuple[int, float]]:
    """The `count` neurons with the centroids closest to that of `neuron`, each with its cosine distance. There are none
    near a family that shows in no audited image."""
    own = int(np.flatnonzero(codes.ids == neuron)[0])
    gaps = (1 - codes.centroids @ codes.centroids[own]).clip(0, 2)
    order = [index for index in np.argsort(gaps, kind="stable") if index != own and not np.isnan(gaps[index])]
    return [(int(codes.ids[index]), float(gaps[index])) for index in order[:count]]


def fitting(run: Run, samples: Sequence[Sample], n_images: int, budget: float = BUDGET) -> Thumbs:
    """The finest of `THUMBS` with which `n_images` like `samples` fit `budget` bytes, estimated from about twelve of
    them."""
    some = [run.read_image(sample) for sample in samples[:: max(1, len(samples) // 12)]]
    for thumbs in THUMBS:
        size = sum(len(data_uri(image, thumbs)) for image in some) / len(some)
        if size * n_images <= budget:
            return thumbs
    return THUMBS[-1]


def data_uri(image: Image.Image, thumbs: Thumbs) -> str:
    """A thumbnail of the image, as the data URI of an `img`."""
    data = pixels.webp(pixels.thumbnail(image, thumbs.side), thumbs.quality)
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def image_of(
    run: Run, sample: Sample, what: str, thumbs: Thumbs, heatmap: np.ndarray | None = None, peak: float = 0.0,
    stage: str = "capture",
) -> ShownImage:  # fmt: skip
    """An image of `stage` for the page. A heatmap becomes its overlay, with colors that end at `peak`.

    Raises RaigenError if its file is missing or damaged.
    """
    image = run.read_image(sample, stage)
    overlay = None
    if heatmap is not None:
        size = pixels.thumbnail(Image.new("L", image.size), OVERLAY).size
        overlay = data_uri(pixels.heatmap_overlay(heatmap, size, peak), THUMBS[0])
    place = sample.index if stage == "capture" and not sample.steps else None
    return ShownImage(data_uri(image, thumbs), overlay, f"{what} seed {sample.seed}", place)


def _strongest(run: Run, samples: Sequence[Sample], codes: Codes, neuron: int, thumbs: Thumbs) -> ShownImage:
    sample = samples[int(codes.of(neuron).argmax())]
    return image_of(run, sample, f"strongest image of neuron {neuron},", thumbs)


def _top(run: Run, attribute: RareAttribute, by_file: Mapping[str, Sample]) -> list[Sample]:
    unknown = [file for file in attribute.top_images if file not in by_file]
    if unknown:
        raise RaigenError(
            f"{run.attributes_path}: expected images listed in {run.samples_path.name}; found {unknown[0]!r}. "
            f"Make it again with: raigen discover {run.dir} --redo discover"
        )
    return [by_file[file] for file in attribute.top_images]


def _heatmaps(run: Run, attributes: Sequence[RareAttribute]) -> Float[np.ndarray, "neuron image row column"]:
    heatmaps = run.heatmaps()
    deepest = max((len(attribute.top_images) for attribute in attributes), default=0)
    if len(heatmaps) != len(attributes) or (len(attributes) and heatmaps.shape[1] < deepest):
        raise RaigenError(
            f"{run.heatmaps_path}: expected heatmaps of {len(attributes)} neurons x {deepest} images; "
            f"got {heatmaps.shape}. Make them again with: raigen discover {run.dir} --redo discover"
        )
    return heatmaps


def _evidence(run: Run) -> Mapping[int, dict[str, Any]]:
    """The evidence for each neuron's name: the answer of a model, or the phrases that CLIP ranked first."""
    if not run.annotations_path.is_file():
        return {}
    found: dict[int, dict[str, Any]] = {}
    lines = run.read_lines(run.annotations_path, "annotate")
    with run.shaped(run.annotations_path, "annotate"):
        for line in lines:
            entry = {"text": line.get("evidence"), "why_not": line.get("why_not"), "counts": None, "phrases": []}
            if "phrases" in line:
                entry["phrases"] = list(zip(line["phrases"], line["auroc"], strict=True))[:N_PHRASES]
            if "n_showing" in line:
                entry["counts"] = {name: line[name] for name in ("n_showing", "n_top", "n_control", "n_random")}
            found[line["neuron"]] = entry
    return found


def _kin(run: Run) -> Mapping[int, list[dict[str, Any]]] | None:
    """The lines of kin.jsonl for each listed neuron; None if discovery wrote no such file."""
    if not run.kin_path.is_file():
        return None
    found: dict[int, list[dict[str, Any]]] = {}
    lines = run.read_lines(run.kin_path, "discover")
    with run.shaped(run.kin_path, "discover"):
        for line in lines:
            found.setdefault(line["neuron"], []).append(line)
    return found


def _scores(run: Run) -> Mapping[int, dict[str, Any]]:
    """The line of label_scores.jsonl for each neuron; empty before evaluation."""
    if not run.label_scores_path.is_file():
        return {}
    lines = run.read_lines(run.label_scores_path, "evaluate")
    with run.shaped(run.label_scores_path, "evaluate"):
        return {line["neuron"]: line for line in lines}
