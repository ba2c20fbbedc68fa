"""Says which labels name one attribute: their texts are near, and the judge sees them in the same pictures."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Group(NamedTuple):
    """Labels of one attribute, by index: the one that stands for it, and the others with similarity and agreement."""

    head: int
    others: list[tuple[int, float, float | None]]


def merge(
    labels: Sequence[str],
    similarity: Float[np.ndarray, "label label"],
    agreement: Callable[[int, int], float | None],
    min_similarity: float,
    min_agreement: float,
) -> list[Group]:
    """Groups labels, in order: each joins the head that is most like it among those that are similar enough and agree,
    else it becomes a head. `similarity` is that of the texts, `agreement` that of the verdicts on the same pictures
    (None where it is not defined: then they stay apart). Texts that are the same but for case and spaces always join.

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
