"""Shows the neurons that discovery left out, so that a person can list one by hand."""

from typing import NamedTuple

from raigen.discovery.listing import sentence_of_kind
from raigen.judging.by_hand import scores_of, top_of
from raigen.runs.run import Run

ALL = "all that are not listed"


class Neuron(NamedTuple):
    """A neuron that is not listed: its scores (None if it fires in too few images), and why it is not."""

    number: int
    minority_score: float | None
    frequency: float
    distinctiveness: float | None
    why: str


def unlisted(run: Run, why: str = ALL) -> list[Neuron]:
    """The neurons that are not listed but fire in some image, the highest minority score first; or only those that were
    left out for one of the `reasons`."""
    listed = {attribute.neuron for attribute in run.attributes}
    found = [
        Neuron(number, _number(row["minority_score"]), float(row["frequency"]), _number(row["distinctiveness"]),
               row.get("left_out") or "")
        for number, row in scores_of(run).items() if number not in listed and float(row["frequency"]) > 0
    ]  # fmt: skip
    chosen = [neuron for neuron in found if why in (ALL, sentence_of_kind(neuron.why))]
    return sorted(chosen, key=lambda neuron: -(neuron.minority_score or 0))


def reasons(run: Run) -> list[str]:
    """Why neurons were left out, each reason once, the most frequent first."""
    kinds = [sentence_of_kind(neuron.why) for neuron in unlisted(run)]
    return sorted({*kinds} - {""}, key=lambda kind: (-kinds.count(kind), kind))


def strongest_images(run: Run, neuron: int) -> list[tuple[str, int]]:
    """The files and the seeds of the images in which a neuron is strongest. Raises RaigenError as `top_of` does."""
    samples = run.samples()
    return [(samples[index].file, samples[index].seed) for index in top_of(run, neuron)]


def _number(text: str) -> float | None:
    return float(text) if text else None
