"""Puts neurons and families into one list: what stands apart from the audited images, best first, and nothing twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from raigen.discovery.families import Family, Views, are_alike
from raigen.discovery.scores import SetScore, score_of_set
from raigen.runs.records import COMBINATION, SAME, WEAK, RareAttribute

APART = 4.0  # standard deviations of the audited images: the weakest top image lies that far out
HALFWAY = (0.2, 0.5)  # of the mean of the top images: an audited image between these shows a part of it
MOST_HALFWAY = 0.01  # of the audited images may be halfway to a family; to a combination of frequent things, more are
SHOWN_FROM = 0.4  # of the mean of the top images: an audited image with more of the oddity than this shows it


@dataclass(frozen=True)
class Candidate:
    """A neuron or a family that may be listed.

    `direction` is where its images lie in the views, and `top` are its top images, as places in `Run.index_of`. Along
    the direction, the top images lie `strength` far out on average. The weakest of them lies `apart` standard
    deviations of the audited images out, and the share `halfway` of the audited images lies between.
    """

    source: Family | RareAttribute
    direction: Float[np.ndarray, " direction"]
    top: Int[np.ndarray, " top"]
    strength: float
    apart: float
    halfway: float
    score: SetScore

    @property
    def why_aside(self) -> str | None:
        """Why it does not belong in the list; None if it does. What a neuron shows is not asked for parts, because the
        images halfway to it do not tell right neurons from wrong ones."""
        if self.apart < APART:
            return WEAK
        is_family = isinstance(self.source, Family)
        return COMBINATION if is_family and self.halfway > MOST_HALFWAY else None

    def is_like(self, other: "Candidate") -> bool:
        """Whether both show the same."""
        return are_alike(self.direction, other.direction)

    def codes(self, rows: Float[np.ndarray, "image direction"]) -> Float[np.ndarray, " image"]:
        """How much images have of what it shows: 0 for those that do not show it."""
        return np.clip(rows @ self.direction / self.strength - SHOWN_FROM, 0, None)


@dataclass(frozen=True)
class JointList:
    """What is `listed`, best first, and what was set `aside`, with the reason. `families` holds, by place in `listed`,
    the best other family that shows the same."""

    listed: list[Candidate]
    aside: list[tuple[Candidate, str]]
    families: dict[int, Family]

    def shortened(self, n_families: int) -> "JointList":
        """The list with its first `n_families` families only."""
        of_family = [place for place, one in enumerate(self.listed) if isinstance(one.source, Family)]
        left_out = {*of_family[n_families:]}
        kept = [place for place in range(len(self.listed)) if place not in left_out]
        families = {new: self.families[place] for new, place in enumerate(kept) if place in self.families}
        return JointList([self.listed[place] for place in kept], self.aside, families)


def of_family(family: Family, views: Views, n_top: int) -> Candidate:
    """A family with its top images, which may be audited ones, too."""
    along = views.along(family.direction)
    places = np.concatenate([np.arange(len(along)), family.places[1:]])
    rows = np.concatenate([views.rows, family.rows[1:]])
    strength = np.concatenate([along, family.rows[1:] @ family.direction])
    top = np.argsort(-strength, kind="stable")[:n_top]
    shown = views.rows[views.shown]
    scored = views.parts[:2]  # the views in which neurons are scored
    score = score_of_set([shown[:, part] for part in scored], [rows[top][:, part] for part in scored])
    return _candidate(family, family.direction, places[top], strength[top], views, score)


def of_neuron(neuron: RareAttribute, views: Views, top: Sequence[int]) -> Candidate:
    """A neuron with its top images."""
    direction = views.direction(views.rows[top].mean(axis=0))
    score = SetScore(neuron.minority_score, neuron.frequency, neuron.distinctiveness)
    return _candidate(neuron, direction, np.array(top), views.rows[top] @ direction, views, score)


def _candidate(
    source: Family | RareAttribute,
    direction: Float[np.ndarray, " direction"],
    top: Int[np.ndarray, " top"],
    strengths: Float[np.ndarray, " top"],
    views: Views,
    score: SetScore,
) -> Candidate:
    along, strength = views.along(direction)[views.shown], float(strengths.mean())
    low, high = HALFWAY
    halfway = float(((along > low * strength) & (along < high * strength)).mean())
    return Candidate(source, direction, top, strength, float(strengths.min() / along.std()), halfway, score)


def joined(candidates: Sequence[Candidate]) -> JointList:
    """The list of what stands apart, best first. Of two candidates that show the same, the better one is listed.

    No neuron is lost: what is not listed is set aside. A family is set aside if it looks like a combination of things,
    and nothing better shows the same.
    """
    listed: list[Candidate] = []
    aside: list[tuple[Candidate, str]] = []
    families: dict[int, Family] = {}
    combinations: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: -one.score.minority_score):
        same = next((place for place, other in enumerate(listed) if one.is_like(other)), None)
        why = one.why_aside or (None if same is None else SAME)
        if why is None:
            listed.append(one)
        elif isinstance(one.source, RareAttribute):
            aside.append((one, why))
        elif why == COMBINATION:
            combinations.append(one)
        elif why == SAME and same is not None:
            families.setdefault(same, one.source)
    for place, one in enumerate(combinations):
        if not any(one.is_like(other) for other in (*listed, *combinations[:place])):
            aside.append((one, COMBINATION))
    return JointList(listed, aside, families)
