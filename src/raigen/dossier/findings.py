"""Says of each attribute what was found: how often it shows, whether the model can draw it, and with which evidence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from raigen.config import CompareConfig
from raigen.dossier.evidence import Item, Moved, Part
from raigen.dossier.tolerances import Tolerances
from raigen.dossier.trust import q_of_items
from raigen.runs.records import Presence, Sample
from raigen.stats import LEVEL, p_independent, q_values

DRAWN = CompareConfig.drawn_rate  # as in a comparison
FEW = 5  # images in which a pair is expected: with fewer, a combination that is missing proves little
N_SEEDS = 10  # of the evidence for an attribute, at most
Row = dict[str, Any]


def findings_of(part: Part, tolerances: Tolerances) -> list[Row]:
    """A dict for each attribute of a part, in the order of the list."""
    limit = part.run.config.report.rarer_than
    q_of = q_of_items(part)
    return [
        {
            "attribute": item.title,
            "found_by": item.source,
            "is_named": item.is_named,
            "does_it": asdict(item.presence) if item.presence else None,
            "other_rates": [asdict(p) for p in item.presences if p.n and p != item.presence],
            "can_it": asdict(item.asked) if item.asked and item.asked.n else None,
            "is_drawn": _is_drawn(item.asked),
            "held_back": asdict(item.held_back) if item.held_back else None,
            "rarer_than": {"rate": limit, "q": q_of[item.key]} if item.key in q_of else None,
            "protected": tolerances.grounds_of(item.label),
            "covers_more": bool(item.attribute and item.attribute.covers_more),
            "evidence": _evidence(part, item),
        }
        for item in part.items
    ]


def _is_drawn(asked: Presence | None) -> bool | None:
    """Whether the model can draw the attribute: it shows in more than `DRAWN` of the images that ask for it. None if
    that is not known, because the interval holds this share or no image was judged."""
    if asked is None or not asked.n or asked.low <= DRAWN <= asked.high:
        return None
    return asked.low > DRAWN


def _evidence(part: Part, item: Item) -> Row:
    """The seeds with which anyone can make the images of the attribute again."""
    samples, shown = part.run.sample_of, next(iter(item.shows.values()), ())
    top = item.attribute.top_images if item.attribute else ()
    fresh = [sample.seed for sample, shows in zip(part.fresh, shown, strict=False) if shows]
    return {
        "top_images": [_origin(samples[file]) for file in top[:N_SEEDS]],
        "fresh_seeds": fresh[:N_SEEDS], "n_fresh_shown": len(fresh),
    }  # fmt: skip


def _origin(sample: Sample) -> Row:
    """Where an image comes from: its seed, and the steps that lead from there if it is a relative."""
    return {"seed": sample.seed, "steps": [list(step) for step in sample.steps]}


def intersections_of(part: Part, tolerances: Tolerances) -> Row:
    """How often two attributes show in one image, against what their rates would give if they had nothing to do with
    each other.

    If protected grounds were named, a pair touches at least one of them; else all pairs are tested. p is Fisher's exact
    test, two-sided, on the images that the same judge judged for both; q is over all pairs. A pair with an attribute
    that shows in no image cannot be tested.
    """
    pairs = [pair for pair in map(_pair, combinations(_judged(part), 2)) if pair]
    if tolerances.protected:
        pairs = [pair for pair in pairs if any(tolerances.grounds_of(label) for label in pair["attributes"])]
    qs = q_values([pair["p"] for pair in pairs])
    tested = sorted(({**pair, "q": q} for pair, q in zip(pairs, qs, strict=True)), key=lambda pair: pair["p"])
    return {"n_tested": len(tested), "n_telling": sum(pair["expected"] >= FEW for pair in tested), "pairs": tested}


def _judged(part: Part) -> Iterator[Item]:
    """The attributes with verdicts, each label once."""
    seen = set()
    for item in part.items:
        if item.shows and item.is_named and item.label not in seen:
            seen.add(item.label)
            yield item


def _pair(items: tuple[Item, Item]) -> Row | None:
    """The table of two attributes; None if one of them shows in no image, or in all."""
    one, other = items
    judge = next((judge for judge in one.shows if judge in other.shows), None)
    if judge is None:
        return None
    both = [
        (a, b) for a, b in zip(one.shows[judge], other.shows[judge], strict=True) if a is not None and b is not None
    ]
    n, hits = len(both), [sum(a for a, _ in both), sum(b for _, b in both)]
    if not all(0 < count < n for count in hits):
        return None
    together = sum(a and b for a, b in both)
    return {"attributes": [one.label, other.label], "together": together, "n": n, "expected": hits[0] * hits[1] / n,
            "p": p_independent(together, hits[0], hits[1], n)}  # fmt: skip


def changes_of_study(moved: Sequence[Moved] | None) -> Row | None:
    """The differences of a study from its baseline: how many were tested, and those that hold; None for a run."""
    if moved is None:
        return None
    measured = [(one.q, one) for one in moved if one.difference and one.q is not None]
    holding = sorted(((q, one) for q, one in measured if q <= LEVEL), key=lambda pair: pair[0])
    rows: list[Mapping[str, Any]] = [asdict(one) for _, one in holding]
    return {"n_tested": len(measured), "n_unmeasured": len(moved) - len(measured), "level": LEVEL, "holding": rows}
