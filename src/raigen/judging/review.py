"""The review by a person: which images are shown, and the checked rates that follow from what was ticked."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from raigen.config import json_of, shaped, text_of
from raigen.errors import RaigenError
from raigen.judging.calibration import checked
from raigen.judging.presence_table import with_checked
from raigen.runs.files import sha256, write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run

FORMAT = 1  # of the file that the browser downloads


class Task(NamedTuple):
    """What a person is asked about one attribute: the images to look at, in an order that reveals nothing.

    `hits` are the files of fresh images that show it according to the judge. `said` is the judge's answer, by file, on
    audited images in which the neuron fires: the ones in which the person sees the attribute tell how often the judge
    misses it.
    """

    attribute: RareAttribute
    images: list[Sample]
    hits: frozenset[str]
    said: Mapping[str, bool]


class Reviewed(NamedTuple):
    """What a person said about one attribute: which images show it, and which do not."""

    neuron: int
    label: str
    sha256: str
    shows: frozenset[str]
    does_not: frozenset[str]


def tasks(run: Run) -> list[Task]:
    """What there is to review: every attribute with at least one hit."""
    if not run.judgements_path.is_file():
        return []
    samples = {s.file: s for path in (run.samples_path, run.fresh_samples_path) for s in run.samples(path)}
    hits, said = _hits(run), _said(run)
    found = []
    for attribute in run.attributes:
        if attribute.presence is None or not attribute.presence.hits:
            continue
        ours, known = hits[attribute.neuron], said.get(attribute.neuron, {})
        files = sorted({*ours, *known}, key=lambda file: samples[file].sha256)  # tells nothing of the judge
        found.append(Task(attribute, [samples[file] for file in files], frozenset(ours), known))
    return found


def review(run: Run, path: Path) -> list[RareAttribute]:
    """Writes the checked rates of a review into attributes.json and presence.csv; returns the checked attributes.

    `path` is the file that the browser downloaded; it is kept as review.json. Raises RaigenError when it cannot be read
    or belongs to another run.
    """
    ticks, confidence = read_ticks(run, path), run.config.evaluate.confidence
    found: dict[int, RareAttribute] = {}
    for task in tasks(run):
        shows = ticks.get(task.attribute.neuron)
        if shows is None or task.attribute.presence is None:
            continue
        judged = [answer for file, answer in task.said.items() if file in shows]
        presence = checked(task.attribute.presence, len(task.hits & shows), sum(judged), len(judged), confidence)
        kept = tuple(other for other in task.attribute.corrected if other.mode != "checked")
        found[task.attribute.neuron] = replace(task.attribute, corrected=(*kept, presence))
    attributes = [found.get(attribute.neuron, attribute) for attribute in run.attributes]
    run.write_attributes(attributes)
    write_text(run.presence_path, with_checked(run.read_text(run.presence_path, "evaluate"), list(found.values())))
    if path.resolve() != run.review_path.resolve():
        write_text(run.review_path, text_of(path))
    return list(found.values())


def read_ticks(run: Run, path: Path) -> dict[int, frozenset[str]]:
    """The files that show an attribute according to the person, by neuron, for each neuron that was reviewed.

    Raises RaigenError when the file was not made by the review sheet of this run.
    """
    asked, ticks = {task.attribute.neuron: task for task in tasks(run)}, {}
    for one in _reviewed(run, path):
        task = asked.get(one.neuron)
        if (
            task is None
            or (task.attribute.label, digest(task)) != (one.label, one.sha256)
            or one.shows | one.does_not != {sample.file for sample in task.images}
            or one.shows & one.does_not
        ):
            raise RaigenError(
                f"{path}: expected ticks of the images of {run.sheet_path}; those of {one.label!r} are of other "
                "images. Open the sheet again and review the images that it shows now"
            )
        ticks[one.neuron] = one.shows
    return ticks


def _reviewed(run: Run, path: Path) -> list[Reviewed]:
    wanted = f"the file that {run.sheet_path.name} downloads"
    if not path.is_file():
        raise RaigenError(f"{path}: expected {wanted}; there is no such file")
    with shaped(path, wanted):
        entry = json_of(path)
        version = entry["format"]
        found = [
            Reviewed(int(one["neuron"]), str(one["label"]), str(one["sha256"]), frozenset(one["shows"]),
                     frozenset(one["does_not"]))
            for one in entry["reviewed"]
        ]  # fmt: skip
    if version != FORMAT:
        raise RaigenError(f"{path}: expected a review of format {FORMAT}; got {version!r}")
    return found


def digest(task: Task) -> str:
    """A hash of the images of a task: it differs when other images have the same names."""
    return sha256("".join(sample.sha256 for sample in task.images).encode())


def _hits(run: Run) -> dict[int, list[str]]:
    """The fresh images that show the attribute according to the first judge, by neuron."""
    first = {attribute.neuron: attribute.presence.judge for attribute in run.attributes if attribute.presence}
    found: dict[int, list[str]] = {neuron: [] for neuron in first}
    lines = run.read_lines(run.judgements_path, "evaluate")
    with run.shaped(run.judgements_path, "evaluate"):
        for line in lines:
            if line["shows"] and line["judge"] == first.get(line["neuron"]):
                found[line["neuron"]].append(line["file"])
    return found


def _said(run: Run) -> dict[int, dict[str, bool]]:
    """The first judge's answers on held-out images in which the neuron fires, by neuron and file."""
    if not run.label_scores_path.is_file():
        return {}
    lines = run.read_lines(run.label_scores_path, "evaluate")
    with run.shaped(run.label_scores_path, "evaluate"):
        return {
            line["neuron"]: {p["file"]: p["shows"] for p in line.get("pictures", ())
                             if p["group"] == "active" and p["shows"] is not None}
            for line in lines
        }  # fmt: skip
