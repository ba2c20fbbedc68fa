"""Reads what a run or a study measured, in one form for both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raigen.config import parsed, shaped, text_of
from raigen.errors import RaigenError
from raigen.judging.presence_table import read_given
from raigen.judging.rates import ratio_of
from raigen.runs.records import Difference, Presence, RareAttribute, Ratio, Sample
from raigen.runs.run import Run
from raigen.runs.study import Study

Shows = tuple[bool | None, ...]  # the verdicts on the fresh images, in their order; None is unscored
SIGNS = {"1": True, "0": False, "?": None}  # in verdicts.jsonl of a study
TRUST = ("checked", "calibrated")  # the modes that come before the judge's own, the most trusted first


@dataclass(frozen=True)
class Item:
    """One attribute of a part: its rates in fresh images (`presences`), its rate when the prompt asks for it (`asked`),
    and how many times as often it shows then (`held_back`).

    `key` is unique in its part, and `source` says where the attribute comes from. `shows` has the verdicts by judge.
    `attribute` is the entry of attributes.json if the run lists it. `label` is None if it was not named.
    """

    key: str
    label: str | None
    source: str
    presences: tuple[Presence, ...] = ()
    asked: Presence | None = None
    held_back: Ratio | None = None
    shows: Mapping[str, Shows] = field(default_factory=dict)
    attribute: RareAttribute | None = None

    @property
    def title(self) -> str:
        """What a table says of the attribute."""
        if self.label is None:
            return "no identified attribute"
        return self.label if self.is_named else f"perhaps {self.label}"

    @property
    def is_named(self) -> bool:
        """Whether the attribute has a label that held-out images bear out."""
        return self.label is not None and (self.attribute is None or self.attribute.label_holds is not False)

    @property
    def presence(self) -> Presence | None:
        """The most trusted rate: checked by a person, else calibrated, else the first judge's own. None if no image was
        judged."""
        measured = [presence for presence in self.presences if presence.n]
        corrected = [presence for mode in TRUST for presence in measured if presence.mode == mode]
        return next(iter([*corrected, *measured]), None)


@dataclass(frozen=True)
class Part:
    """What one run, or one run of a study, says: the attributes that were judged in its `fresh` images.

    `confidence` is the level of the intervals. In a study (`is_of_study`), one judge judged all runs. It need not be
    the judge of the run."""

    prompt: str
    model: str
    run: Run
    items: tuple[Item, ...]
    fresh: tuple[Sample, ...]
    confidence: float
    is_of_study: bool = False


@dataclass(frozen=True)
class Moved:
    """How the rate of an attribute in the images of a model differs from the baseline's, on the same seeds, with the q
    over all differences of the study; None if it was not measured."""

    label: str
    prompt: str
    model: str
    difference: Difference | None
    q: float | None


def opened(place: str | Path) -> Run | Study:
    """The run or the study in a folder. Raises RaigenError if there is neither."""
    if Run.is_at(place):
        return Run(place)
    if Study.is_at(place):
        return Study(place)
    raise RaigenError(f"{place}: expected a run folder or a study folder; found no run.json and no study.json in it. "
                      'Make a run with: raigen audit "a photo of a doctor"')  # fmt: skip


def parts_of(place: Run | Study) -> list[Part]:
    """The parts of a run (one) or of a compared study (one for each prompt and model).

    Raises RaigenError, with the command to type, if the run was not evaluated or the study not compared.
    """
    return [_part_of_run(place)] if isinstance(place, Run) else list(_parts_of_study(place))


def moved_of(place: Run | Study) -> list[Moved] | None:
    """The differences from the baseline of a compared study; None for a run."""
    if isinstance(place, Run):
        return None
    changes = place.comparison()["changes"]
    with shaped(place.comparison_path, "what raigen compare writes", f"Make it again with: raigen compare {place.dir}"):
        return [
            Moved(one["label"], one["prompt"], one["model"],
                  Difference(**one["difference"]) if one["difference"] else None, one["q"])
            for one in changes
        ]  # fmt: skip


def _part_of_run(run: Run) -> Part:
    run.require("evaluate")
    fresh = tuple(run.samples(run.fresh_samples_path, "evaluate"))
    shows = _verdicts(run, fresh)
    listed = [
        Item(
            key=a.source.replace(" ", "-"), label=a.label, source=a.source, presences=a.presences, asked=a.suggested,
            held_back=a.ratio, shows=shows.get(a.neuron, {}), attribute=a,
        )
        for a in run.attributes
    ]  # fmt: skip
    given = [
        Item(f"given-{number}", label, "given", rates.presences, shows=shows.get(label, {}))
        for number, (label, rates) in enumerate(read_given(run).items(), 1)
    ]
    capture = run.config.capture
    return Part(capture.prompt, capture.model, run, (*_without_twins(listed), *given), fresh,
                run.config.evaluate.confidence)  # fmt: skip


def _without_twins(items: Sequence[Item]) -> Iterator[Item]:
    """The items, where those of one label with the same rates are one: a family and a neuron may both stand for it."""
    sources: dict[tuple[Any, ...], list[str]] = {}
    for item in items:
        sources.setdefault(_twin_key(item), []).append(item.source)
    for item in items:
        found = sources.pop(_twin_key(item), None)
        if found:
            yield replace(item, source=", ".join(found))


def _twin_key(item: Item) -> tuple[Any, ...]:
    return (item.label, item.presences) if item.label else (item.key,)


def _verdicts(run: Run, fresh: Sequence[Sample]) -> dict[int | str, dict[str, Shows]]:
    """The verdicts by judge, for each listed neuron (by number) and each given attribute (by label)."""
    place_of = {sample.file: place for place, sample in enumerate(fresh)}
    found: dict[int | str, dict[str, list[bool | None]]] = {}
    lines = run.read_lines(run.judgements_path, "evaluate")
    with run.shaped(run.judgements_path, "evaluate"):
        for line in lines:
            key = line["label"] if line["neuron"] is None else line["neuron"]
            of_judge = found.setdefault(key, {}).setdefault(line["judge"], [None] * len(fresh))
            of_judge[place_of[line["file"]]] = line["shows"]
    return {key: {judge: tuple(shown) for judge, shown in judges.items()} for key, judges in found.items()}


def _parts_of_study(study: Study) -> Iterator[Part]:
    entry, runs = study.comparison(), {(e.prompt, e.model): Run(study.dir_of(e)) for e in study.entries}
    with shaped(study.dir, "comparison.json and verdicts.jsonl as raigen compare writes them",
                f"Make them again with: raigen compare {study.dir}"):  # fmt: skip
        lines = [parsed(line, str(study.verdicts_path)) for line in text_of(study.verdicts_path).split("\n") if line]
        said = {(line["label"], line["prompt"], line["model"]): line["shows"] for line in lines}
        for prompt in entry["prompts"]:
            for model in entry["models"]:
                run = runs[prompt, model]
                run.require("evaluate")
                fresh = _fresh_of(run, entry["fresh_seeds_from"], entry["n_fresh_images"])
                items = tuple(_items(entry, run, said))
                yield Part(prompt, model, run, items, fresh, entry["confidence"], is_of_study=True)


def _fresh_of(run: Run, first_seed: int, n: int) -> tuple[Sample, ...]:
    """The fresh images of a run that were compared, in the order of their seeds."""
    lists = [path for path in (run.fresh_samples_path, run.compared_samples_path) if path.is_file()]
    of_seed = {sample.seed: sample for path in lists for sample in run.samples(path, "evaluate")}
    return tuple(of_seed[first_seed + index] for index in range(n))


def _items(entry: Mapping[str, Any], run: Run, said: Mapping[tuple[str, str, str], str]) -> Iterator[Item]:
    """The attributes of a comparison, as the run of one prompt and model shows them."""
    place, listed = (run.config.capture.prompt, run.config.capture.model), {a.neuron: a for a in run.attributes}
    asked = {(one["label"], one["prompt"], one["model"]): one["presence"] for one in entry["lone"]}
    cells = {(cell["label"], cell["prompt"], cell["model"]): cell["presence"] for cell in entry["cells"]}
    for number, compared in enumerate(entry["attributes"], 1):
        label = compared["label"]
        found = [one for one in compared["findings"] if (one["prompt"], one["model"]) == place]
        own = listed.get(found[0]["neuron"]) if found else None
        presence, when_asked = Presence(**cells[label, *place]), asked.get((label, *place))
        suggested = Presence(**when_asked) if when_asked else own.suggested if own else None
        yield Item(
            key=f"attribute-{number}", label=label, source=_source(compared, own), presences=(presence,),
            asked=suggested, held_back=ratio_of(suggested, presence, entry["confidence"]) if suggested else None,
            shows={presence.judge: tuple(map(SIGNS.__getitem__, said[label, *place]))}, attribute=own,
        )  # fmt: skip


def _source(compared: Mapping[str, Any], own: RareAttribute | None) -> str:
    """Where an attribute of a comparison comes from, for one of its runs."""
    if own:
        return own.source
    if compared["findings"]:
        return "listed by another run"
    return "given" if compared["given"] else f"{compared['axes'][0]['approach']} set" if compared["axes"] else "given"
