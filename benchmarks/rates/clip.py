"""How far are CLIP's rates from the truth? On both bundled models: `python -m benchmarks.rates.clip`.

Every prompt is audited (20 neurons, to a frequency of 10 %), and the world's judge says what each image shows. CLIP
then judges 1,000 fresh images, as in `raigen evaluate`, in two ways. *Listed*: the listed neurons, with the names that
CLIP gave them and their own top images. *Known*: every value that .5 to 5 % of the images show, with ten random images
that show it in place of top images, three times. The older rule, halfway between the top images and the others, stands
beside it.

The constants of `raigen.judging.mixture` and `raigen.judging.clip_judge` were chosen on doctor and nurse, of the
four prompts on which choices are made. The numbers count for the others.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks.common.audits import MODELS, Audit, audit_of
from benchmarks.common.intervals import ANY, COUNT, SHARE, interval_of, median_interval, shown, without_nan
from benchmarks.common.results import RESULTS
from benchmarks.common.world import WORLD
from raigen.discovery.embeddings import Embedder
from raigen.judging.clip_judge import NAME, direction_of, threshold_of
from raigen.judging.rates import presence_of
from raigen.runs.files import write_text
from raigen.runs.records import Presence
from raigen.world.attributes import VALUES
from raigen.world.truth import SHARED_BY_AT_LEAST

LEAST, MOST = 0.005, 0.05  # of the true rates that count
N_KNOWN, N_DRAWS = 10, 3
INDEX_OF = {value.phrase: index for index, value in enumerate(VALUES)}


@dataclass(frozen=True)
class Options:
    """The benchmark of CLIP's rates."""

    work: Path = Path("bench-work/names")
    """Folder of the audits, MODEL/PROFESSION/run, which the benchmark of names uses, too; missing ones are made."""
    results: Path = RESULTS
    """Where clip_rates.json goes."""
    prompts: tuple[str, ...] = field(default=WORLD.prompts)
    """Prompts of the portraits world."""
    models: tuple[str, ...] = field(default=MODELS)
    """Bundled models."""
    n_images: int = 1000
    """Audited images per prompt."""
    n_fresh_images: int = 1000
    """Fresh images that CLIP judges."""
    made_only: bool = False
    """Leave out audits that are not there, instead of making them."""


class Case(NamedTuple):
    """What CLIP says about one label of one prompt, and the truth: in the judged images, and in all images. `top_share`
    is the share of the top images that show the label."""

    way: str
    prompt: str
    model: str
    label: str
    said: Presence
    halfway: float
    true_here: float
    true_rate: float
    top_share: float


def main(options: Options) -> None:
    """Judges everything, prints and writes the errors with intervals over prompts and models."""
    embedder, cases = Embedder("portraits", "cpu"), list[Case]()
    for model in options.models:
        for prompt in options.prompts:
            audit = audit_of(options.work, model, prompt, options.n_images, options.n_fresh_images, embedder,
                             options.made_only)  # fmt: skip
            if audit is not None:
                cases += cases_of(audit, options.n_fresh_images, embedder)
    groups = {
        f"{way}, {group}": [case for case in cases if case.way == way and (case.prompt in WORLD.chosen_on) == is_chosen]
        for way in ("listed", "known") for group, is_chosen in (("chosen", True), ("others", False))
    }  # fmt: skip
    groups["listed, rightly named, others"] = [
        case for case in groups["listed, others"] if case.top_share >= SHARED_BY_AT_LEAST
    ]
    result = {name: measures(group) for name, group in groups.items()}
    rows = [case._asdict() | {"said": vars(case.said)} for case in cases]
    write_text(options.results / "clip_rates.json", json.dumps(without_nan({"judge": NAME, "means": result}) | {
        "cases": rows}, indent=1) + "\n")  # fmt: skip
    for name, found in result.items():
        print(name, *(f"{key} {shown(value)}" for key, value in found.items()), sep="\n  ")


def cases_of(audit: Audit, n_fresh: int, embedder: Embedder) -> Iterator[Case]:
    """What CLIP says about the labels of an audit."""
    capture, clip = audit.run.config.capture, audit.audited.clip
    true_rates = np.nanmean(np.concatenate([audit.audited.shows, audit.fresh.shows]), axis=0)
    for way, index, tops in chain(_listed(audit), _known(audit, true_rates)):
        label = VALUES[index].phrase
        direction = direction_of(embedder, capture.prompt, label)
        is_read = ~np.isnan(audit.fresh.shows[:n_fresh, index])
        fresh = audit.fresh.clip[:n_fresh][is_read]
        similarity, is_top = clip @ direction, np.isin(np.arange(len(clip)), tops)
        middle = (similarity[is_top].mean() + similarity[~is_top].mean()) / 2
        yield Case(
            way, capture.prompt, capture.model, label,
            said=presence_of(threshold_of(direction, clip, tops).verdicts(fresh), 0.95),
            halfway=float((fresh @ direction > middle).mean()),
            true_here=float(audit.fresh.shows[:n_fresh, index][is_read].mean()), true_rate=float(true_rates[index]),
            top_share=float(np.nanmean(audit.audited.shows[tops, index])),
        )  # fmt: skip


def _listed(audit: Audit) -> Iterator[tuple[str, int, list[int]]]:
    """The value and the top images of each listed neuron with a name."""
    index_of = audit.run.index_of
    for attribute in audit.run.attributes:
        if attribute.label is not None:
            yield "listed", INDEX_OF[attribute.label], [index_of[file] for file in attribute.top_images]


def _known(audit: Audit, true_rates: np.ndarray) -> Iterator[tuple[str, int, list[int]]]:
    """Each value of a rate that counts, with random images that show it."""
    rng = np.random.default_rng(0)
    for index in np.flatnonzero((true_rates >= LEAST) & (true_rates <= MOST)).tolist():
        shown_in = np.flatnonzero(audit.audited.shows[:, index] == 1)
        for _ in range(N_DRAWS if len(shown_in) >= N_KNOWN else 0):
            yield "known", index, rng.choice(shown_in, N_KNOWN, replace=False).tolist()


def measures(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Means over prompts and models of what the cases of a true rate that counts show. Errors are in points, on the
    same images; a rate is twice or half of the true rate of all images, which the interval should hold, too."""
    rare = [case for case in cases if LEAST <= case.true_rate <= MOST]
    scored = [case for case in rare if case.said.n]

    def mean(of: Callable[[Case], float], among: Sequence[Case], within: tuple[float, float]) -> dict[str, float]:
        by_audit: dict[tuple[str, str], list[float]] = {}
        for case in among:
            by_audit.setdefault((case.prompt, case.model), []).append(of(case))
        return interval_of(np.array([np.mean(values) for values in by_audit.values()]), within) | {"cases": len(among)}

    return {
        "scored": mean(lambda case: case.said.n > 0, rare, SHARE),
        "absolute error": mean(lambda case: 100 * abs(case.said.rate - case.true_here), scored, COUNT),
        "median absolute error": median_interval(
            np.array([100 * abs(case.said.rate - case.true_here) for case in scored])),
        "error": mean(lambda case: 100 * (case.said.rate - case.true_here), scored, ANY),
        "more than twice": mean(lambda case: case.said.rate > 2 * case.true_rate, scored, SHARE),
        "less than half": mean(lambda case: case.said.rate < case.true_rate / 2, scored, SHARE),
        "interval holds the true rate": mean(lambda case: case.said.low <= case.true_rate <= case.said.high, scored,
                                             SHARE),
        "width": mean(lambda case: 100 * (case.said.high - case.said.low), scored, COUNT),
        "halfway: absolute error": mean(lambda case: 100 * abs(case.halfway - case.true_here), scored, COUNT),
        "halfway: more than twice": mean(lambda case: case.halfway > 2 * case.true_rate, scored, SHARE),
        "halfway, with those unscored now: absolute error": mean(
            lambda case: 100 * abs(case.halfway - case.true_here), rare, COUNT),
    }  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
