"""Differences between models on the same seeds, and what they say about an attribute."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from raigen.runs.records import Presence
from raigen.runs.study_records import Change, Compared
from raigen.stats import LEVEL, paired_difference, q_values

LOST = "lost in distillation"
A_THIRD = 3  # a distilled model has lost what it shows at least this many times less often

Shows = Mapping[tuple[str, str, str], Float[np.ndarray, " image"]]  # by label, prompt, model


def changes_of(
    attributes: Sequence[Compared],
    shows: Shows,
    prompts: Sequence[str],
    models: Sequence[str],
    confidence: float,
    distilled: Collection[str] = (),
) -> list[Change]:
    """How each model differs from the first one, for every attribute and prompt.

    A difference has Newcombe's interval for paired rates and the p of McNemar's exact test (see
    `raigen.stats.paired_difference`); q is Benjamini & Hochberg's over all differences. `distilled` names the models
    that are distilled from the first one.
    """
    baseline, found = models[0], []
    for attribute in attributes:
        for prompt in prompts:
            before = shows[attribute.label, prompt, baseline]
            for model in models[1:]:
                moved = paired_difference(shows[attribute.label, prompt, model], before, confidence)
                change = Change(label=attribute.label, prompt=prompt, model=model, baseline=baseline,
                                difference=moved, q=None, kind="unmeasured")  # fmt: skip
                found.append((attribute, change))
    measured = [change.difference.p for _, change in found if change.difference]
    q_of = iter(q_values(measured))
    changes = []
    for attribute, change in found:
        q = next(q_of) if change.difference else None
        listed = [attribute.is_listed(change.prompt, model) for model in (baseline, change.model)]
        kind = kind_of(change, q, *listed)
        if kind in ("new", "worse") and change.model in distilled and _is_lost(change, shows):
            kind = LOST
        changes.append(replace(change, q=q, kind=kind))
    return changes


def _is_lost(change: Change, shows: Shows) -> bool:
    """Whether the model shows an attribute at most a third as often as the baseline, on the seeds of both."""
    after, before = (shows[change.label, change.prompt, model] for model in (change.model, change.baseline))
    scored = ~(np.isnan(after) | np.isnan(before))
    return bool(A_THIRD * after[scored].sum() <= before[scored].sum())


def kind_of(change: Change, q: float | None, in_baseline: bool, in_model: bool) -> str:
    """What became of an attribute: one of `raigen.runs.study_records.KINDS`.

    An attribute that the baseline does not list and the model shows less often is `new`, whether or not the model lists
    it: no run is sure to find everything.
    """
    if change.difference is None or q is None:
        return "unmeasured"
    if q > LEVEL or change.difference.difference == 0:
        return "same"
    if change.difference.difference < 0:
        return "worse" if in_baseline else "new"
    return "fixed" if in_baseline and not in_model else "better"


def verdict_when_asked(unasked: Presence, asked: Presence | None, drawn_rate: float) -> str:
    """Whether a model that does not list an attribute knows it.

    `shown unasked`: it shows the attribute in more than `drawn_rate` of its fresh images. Otherwise images of a prompt
    that names the attribute decide: `only not shown` when more than `drawn_rate` of them show it, `not encoded` when
    fewer do, `unclear` when the interval contains `drawn_rate`.
    """
    if unasked.n and unasked.low > drawn_rate:
        return "shown unasked"
    if asked is None or not asked.n or asked.low <= drawn_rate <= asked.high:
        return "unclear"
    return "only not shown" if asked.low > drawn_rate else "not encoded"
