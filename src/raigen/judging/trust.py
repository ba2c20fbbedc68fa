"""Ways to trust a rate: a review by a person, images on which judges disagree, errors of a judge that are known."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raigen.judging.clip_judge import NAME as CLIP_NAME
from raigen.judging.review import Task
from raigen.runs.records import Sample
from raigen.runs.run import Run

N_SHOWN = 12  # images of an attribute on which two judges disagree, at most
# How far a judge's rates were from the truth where that is known, by the judge's name. Each text has its source.
KNOWN_ERRORS = {
    # benchmarks/results/clip_rates.json: "listed, rightly named, others" and "listed, others"
    CLIP_NAME: (
        "On the two bundled models, where the truth is known, CLIP's rates of 0.5 to 5 % were off by 0.29 points on "
        "average where the name was right, neither up nor down. 2 % of them were more than twice the truth, and 93 % "
        "of the intervals held it. Over all names, right or wrong, they were off by 0.93 points, mostly too high, and "
        "10 % were more than twice the truth. CLIP on your images may do better or worse."
    ),
}


class Disagreement(NamedTuple):
    """The `n` fresh images in which judge `yes` sees an attribute and judge `no` does not; the first are `images`."""

    yes: str
    no: str
    n: int
    images: list[Sample]


class Way(NamedTuple):
    """A way to trust the rates of a run more, or less, in plain words."""

    title: str
    text: str


def known_error(judge: str) -> str | None:
    """How far the rates of a judge were from the truth where that is known; None if it was not measured."""
    return KNOWN_ERRORS.get(judge)


def disagreements(run: Run) -> dict[int, list[Disagreement]]:
    """By neuron, the fresh images on which the first two judges disagree: first those in which only the first one sees
    the attribute. Half of `N_SHOWN` are for each side, or more where the other side has fewer."""
    if not run.judgements_path.is_file():
        return {}
    samples, said = {s.file: s for s in run.samples(run.fresh_samples_path)}, dict[int, dict[str, dict[str, bool]]]()
    for line in run.read_lines(run.judgements_path, "evaluate"):
        if line["neuron"] is not None:
            by_judge = said.setdefault(line["neuron"], {}).setdefault(line["judge"], {})
            if line["shows"] is not None:
                by_judge[line["file"]] = line["shows"]
    found = {}
    for neuron, by_judge in said.items():
        if len(by_judge) < 2:
            continue
        (first, ours), (second, theirs) = list(by_judge.items())[:2]
        differ = [file for file in ours if file in theirs and ours[file] != theirs[file]]
        sides = [file for file in differ if ours[file]], [file for file in differ if theirs[file]]
        room = max(N_SHOWN // 2, N_SHOWN - len(sides[1])), max(N_SHOWN // 2, N_SHOWN - len(sides[0]))
        found[neuron] = [
            Disagreement(yes, no, len(side), [samples[file] for file in side[:most]])
            for (yes, no), side, most in zip(((first, second), (second, first)), sides, room, strict=True) if side
        ]  # fmt: skip
    return {neuron: sides for neuron, sides in found.items() if sides}


def ways(run: Run, place: str, to_review: Sequence[Task], differ: Mapping[int, Sequence[Disagreement]]) -> list[Way]:
    """What can be done about the judges of a run; only what applies. `place` names the run folder in commands.
    `to_review` are the `raigen.judging.review.tasks` of the run, and `differ` its `disagreements`."""
    found, open_tasks = [], _unchecked(run, to_review)
    if open_tasks:
        found.append(Way("Look for yourself", _review_text(run, open_tasks, place)))
    if differ:
        (one, *_), *_ = differ.values()
        n = sum(side.n for sides in differ.values() for side in sides)
        found.append(Way("See where the judges disagree", (
            f"{one.yes} and {one.no} disagree in {n:,} verdicts on {_count(len(differ), 'attribute')}. The card of "
            f"each attribute in report.html shows up to {N_SHOWN} of these images, and which judge saw it."
        )))  # fmt: skip
    judges = dict.fromkeys(p.judge for attribute in run.attributes for p in attribute.presences)
    found += [Way(f"Known error of {judge}", error) for judge in judges if (error := known_error(judge)) is not None]
    return found


def width_text(task: Task, confidence: float) -> str:
    """What a review of one attribute will tell, before it is done."""
    width = 100 * task.expected_width(confidence)
    return (
        f"If you see it in half of the images in which the judge sees it, and in no other image, the "
        f"{100 * confidence:g} % interval will be about {width:.1f} points wide."
    )


def _review_text(run: Run, open_tasks: Sequence[Task], place: str) -> str:
    widths = sorted(100 * task.expected_width(run.config.evaluate.confidence) for task in open_tasks)
    wide = f"{widths[0]:.1f}" if len(widths) == 1 else f"{widths[0]:.1f} to {widths[-1]:.1f}"
    images = _count(max(len(task.images) for task in open_tasks), "image")
    return (
        f"review.html, beside the report, shows {images} of each of {_count(len(open_tasks), 'attribute')}. Tick what "
        f"you see, download the result, and bring it back: raigen review {place} review.json. The new intervals "
        f"include the judge's errors. If you confirm half of what the judge saw, and find nothing that it missed, they "
        f"will be about {wide} points wide."
    )


def _unchecked(run: Run, to_review: Sequence[Task]) -> list[Task]:
    is_checked = {a.neuron for a in run.attributes if any(p.mode == "checked" for p in a.corrected)}
    return [task for task in to_review if task.attribute.neuron not in is_checked]


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
