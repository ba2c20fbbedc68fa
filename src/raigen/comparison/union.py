"""The union of what runs found and what is given; labels that mean one attribute are merged."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from raigen.comparison.matching import Match
from raigen.comparison.verdicts import Judged, directions, place_of
from raigen.config import CLIP, CompareConfig
from raigen.discovery.embeddings import embedder_of
from raigen.judging.judges import given_labels
from raigen.judging.presence_table import read_given
from raigen.runs.run import Run
from raigen.runs.study_records import Axis, AxisValue, Compared, Finding, Merged
from raigen.stats import krippendorff_alpha


class Group(NamedTuple):
    """Labels of one attribute, by index: its head, and the others with their similarity to it and agreement."""

    head: int
    others: list[tuple[int, float, float | None]]


def findings_of(runs: Sequence[Run]) -> dict[str, list[Finding]]:
    """What the runs list, by label."""
    found: dict[str, list[Finding]] = {}
    for run in runs:
        prompt, model = place_of(run)
        for a in run.attributes:
            if label := a.name:
                asked = a.suggested_prompt or f"{prompt}, {label}"
                finding = Finding(prompt=prompt, model=model, rank=a.rank, neuron=a.neuron, label=label,
                                  minority_score=a.minority_score, suggested_prompt=asked)  # fmt: skip
                found.setdefault(label, []).append(finding)
    return found


def given_of(runs: Sequence[Run], config: CompareConfig) -> list[str]:
    """The attributes given in files: for this comparison, and when the runs were evaluated."""
    found = given_labels(config.attributes) if config.attributes is not None else []
    for run in runs:
        found += read_given(run)
    return list(dict.fromkeys(found))


def merged(
    labels: Sequence[str],
    given: Sequence[str],
    findings: Mapping[str, Sequence[Finding]],
    axes: Sequence[Axis],
    matched: Match,
    judged: Mapping[tuple[str, str], Judged],
    config: CompareConfig,
) -> list[Compared]:
    """The labels as attributes, in order: given ones; found ones by their best score, those without any verdict last;
    labels that only an axis asks for.

    CLIP's verdicts on labels with similar texts agree whatever the images show, because they are made from the texts.
    So where CLIP judges, only equal texts are merged: a row too many does less harm than a finding that is lost.
    """
    best = {label: max((f.minority_score for f in findings.get(label, [])), default=0.0) for label in labels}
    is_blank = {label: all(np.isnan(one.verdicts[label].shows).all() for one in judged.values()) for label in labels}
    found = [label for label in labels if label not in given]
    order = [*given, *sorted(found, key=lambda label: (label not in findings, is_blank[label], -best[label]))]
    run = next(iter(matched.run_of.values()))
    ways = directions(embedder_of(run), matched.prompts[0], order)

    def agreement(first: int, second: int) -> float | None:
        if matched.judge == CLIP:
            return None
        both = ([one.verdicts[order[index]].shows for one in judged.values()] for index in (first, second))
        return krippendorff_alpha(np.stack([np.concatenate(shows) for shows in both]))

    groups = merge(order, ways @ ways.T, agreement, config.min_similarity, config.min_agreement)
    return [_compared(group, order, given, findings, axes) for group in groups]


def _compared(
    group: Group,
    order: Sequence[str],
    given: Sequence[str],
    findings: Mapping[str, Sequence[Finding]],
    axes: Sequence[Axis],
) -> Compared:
    merged = tuple(Merged(order[index], near, agreed) for index, near, agreed in group.others)
    names = [order[group.head], *(other.label for other in merged)]
    found = [finding for name in names for finding in findings.get(name, [])]
    on = [
        AxisValue(axis.approach, axis.name, name, axis.prompt) for axis in axes for name in names if name in axis.labels
    ]
    return Compared(label=names[0], given=names[0] in given, merged=merged, findings=tuple(found), axes=tuple(on))


def merge(
    labels: Sequence[str],
    similarity: Float[np.ndarray, "label label"],
    agreement: Callable[[int, int], float | None],
    min_similarity: float,
    min_agreement: float,
) -> list[Group]:
    """Groups labels, in order: each joins the most similar head that is similar enough and agrees, or becomes a head.

    `similarity` is that of the texts, `agreement` that of the verdicts on the same images; where it is None, the labels
    stay apart. Texts that differ only in case and spaces always join.

    >>> same = merge(["a cat", "A  cat", "a dog"], np.eye(3), lambda one, other: None, 0.8, 0.8)
    >>> [(group.head, [index for index, _, _ in group.others]) for group in same]
    [(0, [1]), (2, [])]
    """
    groups: list[Group] = []
    for index, label in enumerate(labels):
        for group in sorted(groups, key=lambda group: -similarity[group.head, index]):
            near = float(similarity[group.head, index])
            if _plain(labels[group.head]) == _plain(label):
                group.others.append((index, near, None))
                break
            if near < min_similarity:
                continue
            agreed = agreement(group.head, index)
            if agreed is not None and agreed >= min_agreement:
                group.others.append((index, near, agreed))
                break
        else:
            groups.append(Group(index, []))
    return groups


def _plain(label: str) -> str:
    return " ".join(label.casefold().split())
