"""Are the names right?

Counts how many of the given labels are right, for both bundled models: `python -m benchmarks.discovery.names`.

Every prompt is audited (20 neurons, to a frequency of 10 %), and the listed neurons are named by CLIP and by two
scripted vision-language models, which answer the question of `raigen annotate`. The *perfect* one reads the world's
judge, so what it gets wrong is the loss of the protocol: ten top images, ten random ones. The *sloppy* one names what
most top images show, does not look at the random ones, and claims 10 of 10 against 0 of 10. Then every label is checked
as in `raigen evaluate` (`raigen.judging.label_check`), on held-out and on 300 fresh images.

A label is right if at least 80 % of the top images show it, at least twice as many as of all audited images. The names
of hits (neurons of a value that at most 10 % of the images show) are also compared with that value.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from PIL import Image

from benchmarks.common.audits import MODELS, Audit, Facts, audit_of
from benchmarks.common.intervals import shown, without_nan
from benchmarks.common.results import RESULTS
from benchmarks.common.world import WORLD
from raigen.config import EvaluateConfig, address_of
from raigen.discovery.embeddings import Embedder
from raigen.judging.annotate import answered, control_samples
from raigen.judging.fresh import first_seed
from raigen.judging.judges import ClipJudge, WorldJudge
from raigen.judging.label_check import check_labels
from raigen.judging.label_scores import material_of, scored_labels
from raigen.judging.protocol import Judge, Verdicts
from raigen.judging.vlm.answers import Reply
from raigen.runs.files import write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.steps import exhausted
from raigen.stats import rate_interval
from raigen.world.attributes import VALUES
from raigen.world.truth import RARE_SEEN_AT_MOST, SHARED_BY_AT_LEAST

N_FRESH = EvaluateConfig.n_fresh_images
INDEX_OF = {value.phrase: index for index, value in enumerate(VALUES)}
LIFT = 2.0  # how many times as often as elsewhere the top images show what a right label says
DRAWS = 4000  # of the bootstrap
DEFAULT_END = 0.03  # the frequency at which a list of 1,000 images ends unless it is told otherwise


@dataclass(frozen=True)
class Options:
    """The benchmark of names."""

    work: Path = Path("bench-work/names")
    """Folder of the audits, MODEL/PROFESSION/run; those that are missing are made."""
    results: Path = RESULTS
    """Where names.json goes."""
    prompts: tuple[str, ...] = field(default=WORLD.prompts)
    """Prompts of the portraits world."""
    models: tuple[str, ...] = MODELS
    """Bundled models."""
    n_images: int = 1000
    """Images per prompt."""
    n_fresh_images: int = 1000
    """Fresh images per prompt; the check sees the first 300."""
    made_only: bool = False
    """Leave out audits that are not there, instead of making them."""


class Name(NamedTuple):
    """A label as it was given and as it stands after its check (`holds` is None if it could not be checked), and
    whether each is right. `hit` is True if the neuron has a rare value, `hit_named` if the kept label is that one."""

    prompt: str
    frequency: float
    first: str | None
    last: str | None
    holds: bool | None
    first_right: bool
    last_right: bool
    hit: bool
    hit_named: bool


def main(options: Options) -> None:
    """Names and checks everything, prints and writes the shares with intervals over prompts."""
    result: dict[str, Any] = {}
    audited: dict[str, list[str]] = {}
    embedder = Embedder("portraits", "cpu")
    for model in options.models:
        sizes = options.n_images, options.n_fresh_images
        found = [audit_of(options.work, model, prompt, *sizes, embedder, options.made_only)
                 for prompt in options.prompts]  # fmt: skip
        cases = [case for case in found if case]
        audited[model] = [case.run.config.capture.prompt for case in cases]
        for arm in ARMS:
            names = [name for case in cases for name in names_of(case, arm, embedder)]
            for group, is_chosen in (("chosen", True), ("reported", False)):
                of_group = [name for name in names if (name.prompt in WORLD.chosen_on) == is_chosen]
                result.setdefault(model, {}).setdefault(arm, {})[group] = measures(of_group)
    write_text(options.results / "names.json", json.dumps(without_nan({"prompts": audited, **result}), indent=1) + "\n")
    for model, by_arm in result.items():
        for arm, by_group in by_arm.items():
            for group, found in by_group.items():
                print(model, arm, group, *(f"{key} {shown(value)}" for key, value in found.items()), sep="\n  ")


class Recalled:
    """The world's judge and CLIP's embedder, from what they said of all images of a case before."""

    name = WorldJudge(WORLD).name

    def __init__(self, case: Audit, embedder: Embedder):
        self._case, self.texts, self.cut_texts = case, embedder.texts, embedder.cut_texts

    def verdicts(self, images: Any, subjects: Sequence[Any], tell: Any = None) -> list[Verdicts]:
        """The verdicts of the world's judge."""
        facts, rows = self._rows(images)
        found = facts.shows[rows]
        return [Verdicts(self.name, found[:, INDEX_OF[s.label]], np.full(len(rows), np.nan)) for s in subjects]

    def images(self, images: Any) -> np.ndarray:
        """The embeddings."""
        facts, rows = self._rows(images)
        return facts.clip[rows]

    def _rows(self, images: Any) -> tuple[Facts, list[int]]:
        is_fresh = images.samples[0].seed >= first_seed(self._case.run.config.capture)
        return self._case.fresh if is_fresh else self._case.audited, [sample.index for sample in images.samples]


class RecalledClip(ClipJudge):
    """CLIP as judge, with embeddings from before. No image is read: none of this world is wholly black."""

    def __init__(self, case: Audit, embedder: Embedder):
        super().__init__(case.run)
        self.__dict__["embedder"] = Recalled(case, embedder)

    def verdicts(self, images: Any, subjects: Sequence[Any], tell: Any = None) -> list[Verdicts]:
        """The verdicts of `ClipJudge`."""
        return super().verdicts(Unread(images.samples), subjects, tell)


class Unread(list):
    """Stands for images of these samples: all white."""

    def __init__(self, samples: Sequence[Sample]):
        super().__init__([Image.new("L", (1, 1), 255)] * len(samples))
        self.samples = samples


def by_clip(case: Audit) -> list[RareAttribute]:
    """The names that the audit gave."""
    return case.run.attributes


def by_perfect(case: Audit) -> list[RareAttribute]:
    """The names of a model that sees everything rightly: the value that sets the top images off most from the random
    ones, of those in at least 80 % of the top images."""

    def answer(top: np.ndarray, control: np.ndarray) -> tuple[np.ndarray, int, int]:
        order = np.argsort(-np.where(top >= SHARED_BY_AT_LEAST * 10, top - control, -np.inf), kind="stable")
        order = order[top[order] >= SHARED_BY_AT_LEAST * 10]
        return order, int(top[order[0]]) if len(order) else 0, int(control[order[0]]) if len(order) else 0

    return _by_script(case, answer)


def by_sloppy(case: Audit) -> list[RareAttribute]:
    """The names of a model that sees rightly what most top images show, and looks no further."""
    return _by_script(case, lambda top, control: (np.argsort(-top, kind="stable"), 10, 0))


def _by_script(case: Audit, answer: Callable[..., tuple[np.ndarray, int, int]]) -> list[RareAttribute]:
    run, named = case.run, []
    prompt, seed, samples, index_of = (
        run.config.capture.prompt,
        run.config.capture.base_seed,
        run.samples(),
        run.index_of,
    )
    for attribute in run.attributes:
        control = [sample.index for sample in control_samples(samples, attribute, seed)]
        top = [index_of[file] for file in attribute.top_images]
        order, n_showing, n_control = answer(*(np.nansum(case.audited.shows[rows], 0) for rows in (top, control)))
        phrases = [VALUES[index].phrase for index in order]
        reply = {"evidence": "", "n_showing": n_showing, "n_control": n_control, "suggested_prompt": "",
                 "attribute": phrases[0] if phrases else "", "keywords": phrases[:3]}  # fmt: skip
        reply = Reply(json.dumps(reply), None, "script", 0, 0)
        named.append(answered(attribute, reply, "", address_of("scripted:names"), prompt, len(control)).attribute)
    return named


ARMS: dict[str, tuple[Callable[[Audit], list[RareAttribute]], Callable[[Audit, Embedder], Judge]]] = {
    "CLIP, checked by CLIP": (by_clip, RecalledClip),
    "CLIP, checked by the world's judge": (by_clip, Recalled),
    "perfect model": (by_perfect, Recalled),
    "sloppy model": (by_sloppy, Recalled),
}


def names_of(case: Audit, arm: str, embedder: Embedder) -> list[Name]:
    """Every listed neuron of an audit with its name before and after the check."""
    (namer, make_judge), run, config = ARMS[arm], case.run, EvaluateConfig()
    before, capture, index_of = namer(case), run.config.capture, run.index_of
    fresh = [
        Sample(i, capture.prompt, first_seed(capture) + i, "", "") for i in range(min(N_FRESH, len(case.fresh.shows)))
    ]
    scored = scored_labels(run, before, material_of(run), config)
    checking = check_labels(run, make_judge(case, embedder), scored, fresh, config.confidence)
    after = exhausted(checking, lambda _: None).attributes
    rates, found = np.nanmean(case.audited.shows, 0), []
    for first, last in zip(before, after, strict=True):
        shares = np.nanmean(case.audited.shows[[index_of[file] for file in first.top_images]], 0)
        right = (shares >= SHARED_BY_AT_LEAST) & (shares >= LIFT * rates)
        lift = np.where((shares >= SHARED_BY_AT_LEAST) & (rates <= RARE_SEEN_AT_MOST), shares / rates.clip(1e-9), 0)
        rare = VALUES[int(lift.argmax())].phrase if lift.any() else None
        found.append(Name(
            capture.prompt, first.frequency, first.label, last.label, last.label_holds,
            bool(first.label and right[INDEX_OF[first.label]]), bool(last.label and right[INDEX_OF[last.label]]),
            rare is not None, rare is not None and last.name == rare,
        ))  # fmt: skip
    return found


def measures(names: Sequence[Name]) -> dict[str, dict[str, float]]:
    """Shares of labels and neurons, pooled over prompts, with intervals over prompts."""
    given = [name for name in names if name.first]
    kept = [name for name in given if name.holds is not False]
    checked = [name for name in given if name.holds is not None]
    changed = [name for name in given if name.first != name.last]
    return {
        "neurons with a label": share(names, lambda name: name.first is not None),
        "labels that are right": share(given, lambda name: name.first_right),
        "names that are right after the check": share(kept, lambda name: name.last_right),
        "neurons with a name after the check": share(names, lambda name: bool(name.first) and name.holds is not False),
        "right labels that hold": share([n for n in checked if n.first_right], lambda n: n.first == n.last and n.holds),
        "wrong labels that hold": share([n for n in checked if not n.first_right],
                                        lambda n: n.first == n.last and n.holds),
        "replaced labels": share(given, lambda name: name.first != name.last),
        "replacements that are right": share(changed, lambda name: name.last_right),
        "labels that are right, frequency up to 3 %": share([n for n in given if n.frequency <= DEFAULT_END],
                                                            lambda name: name.first_right),
        "names that are right after the check, frequency up to 3 %": share(
            [n for n in kept if n.frequency <= DEFAULT_END], lambda name: name.last_right),
        "hits with the name of their value": share([n for n in names if n.hit], lambda name: name.hit_named),
    }  # fmt: skip


def share(names: Sequence[Name], holds: Callable[[Name], Any]) -> dict[str, float]:
    """The share of names that `holds` is true of, pooled, with a 95 % interval in [0, 1]; `n` names.

    The interval is a bootstrap over prompts, widened to `rate_interval` of the pooled counts where that is wider: a
    bootstrap of nothing but right names would have no width.

    >>> some = [Name(str(i % 3), 0.01, "a", "a", None, i % 3 > 0, True, False, False) for i in range(6)]
    >>> {key: round(value, 2) for key, value in share(some, lambda name: name.first_right).items()}
    {'mean': 0.67, 'low': 0.0, 'high': 1.0, 'n': 6}
    """
    if not names:
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    hits = np.array([bool(holds(name)) for name in names])
    groups = [hits[[name.prompt == prompt for name in names]] for prompt in sorted({name.prompt for name in names})]
    counts = np.array([[group.sum(), len(group)] for group in groups])
    drawn = counts[np.random.default_rng(0).integers(len(counts), size=(DRAWS, len(counts)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    pooled = rate_interval(int(hits.sum()), len(hits))
    return {"mean": float(hits.mean()), "low": min(float(low), pooled.low), "high": max(float(high), pooled.high),
            "n": len(hits)}  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options))
