"""Differences between models on the same seeds, and what became of an attribute."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from raigen.runs.records import Presence
from raigen.runs.study_records import Change, Compared
from raigen.stats import paired_difference, q_values

FALSE_SHARE = 0.05  # of the differences that are called so, at most this share is expected to be none

Shows = Mapping[tuple[str, str, str], Float[np.ndarray, " image"]]  # by label, prompt, model


def changes_of(
    attributes: Sequence[Compared], shows: Shows, prompts: Sequence[str], models: Sequence[str], confidence: float
) -> list[Change]:
    """How each model differs from the first one, for every attribute and prompt.

    Differences have Newcombe's interval for paired rates and the p of McNemar's exact test (see
    `raigen.effects.paired_difference`), q is Benjamini & Hochberg's over all of them.
    """
    baseline, found = models[0], []
    for attribute in attributes:
        for prompt in prompts:
            before = shows[attribute.label, prompt, baseline]
            for model in models[1:]:
                moved = paired_difference(shows[attribute.label, prompt, model], before, confidence)
                found.append((attribute, Change(attribute.label, prompt, model, baseline, moved, None, "unmeasured")))
    measured = [change.difference.p for _, change in found if change.difference]
    q_of = iter(q_values(measured))
    changes = []
    for attribute, change in found:
        q = next(q_of) if change.difference else None
        listed = [attribute.is_listed(change.prompt, model) for model in (baseline, change.model)]
        changes.append(replace(change, q=q, kind=kind_of(change, q, *listed)))
    return changes


def kind_of(change: Change, q: float | None, in_baseline: bool, in_model: bool) -> str:
    """What became of an attribute:

    one of `raigen.runs.study_records.KINDS`. What is not listed by the baseline and shown less
    often is `new`, whether or not the model lists it: no run is sure to find all."""
    if change.difference is None or q is None:
        return "unmeasured"
    if q > FALSE_SHARE or change.difference.difference == 0:
        return "same"
    if change.difference.difference < 0:
        return "worse" if in_baseline else "new"
    return "fixed" if in_baseline and not in_model else "better"


def verdict_when_asked(unasked: Presence, asked: Presence | None, drawn_rate: float) -> str:
    """Whether a model that does not list an attribute knows it. `shown unasked` when it shows the attribute in more
    than `drawn_rate` of the images anyhow; else by the images of a prompt that asks for it: `only not shown` when
    it then shows in more, `not encoded` when in fewer, `unclear` when the interval holds `drawn_rate`."""
    if unasked.n and unasked.low > drawn_rate:
        return "shown unasked"
    if asked is None or not asked.n or asked.low <= drawn_rate <= asked.high:
        return "unclear"
    return "only not shown" if asked.low > drawn_rate else "not encoded"
