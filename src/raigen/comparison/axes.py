"""Axes that a person or a language model sets, as in other audits, and how unevenly a model spreads over them."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from raigen.config import KINDS, PORTRAITS, CompareConfig, address_of, in_a_line, parsed, text_of
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import Answers
from raigen.judging.vlm.ask import Job, ask_all
from raigen.judging.vlm.questions import axes_question, read_proposal
from raigen.runs.files import csv_text
from raigen.runs.steps import Tell, Tick
from raigen.runs.study_records import CLOSED, NONE, OPEN, Axis, AxisRate

COLUMNS = ("approach", "axis", "prompt", "model", "category", "share", "reference", "n", "none", "unscored",
           "discrepancy", "by_chance", "severity")  # fmt: skip


def axis_of(approach: str, name: str, given: Any, prompt: str | None = None) -> Axis:
    """An axis from a list of categories, whose reference is uniform, or from a mapping of categories to wanted shares.

    Raises RaigenError unless there are two or more categories, each once, and the shares add up to 1.

    >>> axis_of("closed", "skin", ["dark skin", "light skin"]).reference
    (0.5, 0.5)
    """
    listed = list(given) if isinstance(given, list | dict) else []
    names = [in_a_line(n) for n in listed if isinstance(n, str)]
    if not in_a_line(name):
        raise RaigenError(f"{approach}_set: expected a name for the axis of {given!r}; got {name!r}")
    if len(names) < max(2, len(listed)) or not all(names) or len(set(names)) < len(names):
        raise RaigenError(f"{approach}_set: expected two or more categories for {name!r}, each once; got {given!r}")
    shares = list(given.values()) if isinstance(given, dict) else [1 / len(names)] * len(names)
    is_right = all(type(s) in (int, float) and 0 <= s <= 2 for s in shares)  # whole numbers may be endless
    if not is_right or not math.isclose(sum(shares), 1, abs_tol=1e-3):
        raise RaigenError(f"{approach}_set: expected the shares of {name!r} to add up to 1; got {given!r}")
    return Axis(approach, in_a_line(name), tuple(names), tuple(share / sum(shares) for share in shares), prompt)


def read_axes(source: str, approach: str) -> list[Axis]:
    """The axes of a TOML or JSON file, each as `name = categories` (see `axis_of`); `portraits` names the axes that are
    shipped for the bundled model.

    Raises RaigenError when there is no such file, or it holds something else.
    """
    shipped = Path(str(files("raigen.world"))) / f"{approach}_set.toml"
    path = shipped if source == PORTRAITS else Path(source)
    if not path.is_file():
        raise RaigenError(f"{approach}_set: expected {PORTRAITS} or a file of axes (TOML or JSON); there is no file "
                          f"{source!r}")  # fmt: skip
    text = text_of(path)
    try:
        table = tomllib.loads(text) if path.suffix == ".toml" else parsed(text, str(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RaigenError(f"{approach}_set: {path} cannot be read: {error}") from error
    if not isinstance(table, dict) or not table:
        raise RaigenError(f'{approach}_set: expected axes such as "skin tone" = ["dark skin", "light skin"] in {path}')
    return [axis_of(approach, name, given) for name, given in table.items()]


def axis_rate(axis: Axis, prompt: str, model: str, shows: Mapping[str, Float[np.ndarray, " image"]]) -> AxisRate:
    """How images spread over an axis, from the verdicts on its labels (1, 0, NaN unscored).

    An image that shows m categories counts 1/m for each; this gives the shares p. The discrepancy is |p - q|, their
    Euclidean distance from the reference q. It is the fairness discrepancy of Choi et al. (Fair Generative Modeling via
    Weak Supervision, ICML 2020), with verdicts in place of class probabilities. In n images of a model whose true
    shares are q, its mean square is (1 - |q|^2) / n; `by_chance` is the root of that. The severity is
    1 + sum(p log p) / log K over K categories (D'Inca et al., OpenBias, CVPR 2024).
    """
    verdicts = np.stack([shows[label] for label in axis.labels])
    is_scored = ~np.isnan(verdicts).any(axis=0)
    shown = verdicts[:, is_scored]
    count = shown.sum(axis=0)
    n_none = int((count == 0).sum())
    weights = dict(zip(axis.labels, (shown / np.maximum(count, 1)).sum(axis=1), strict=True)) | {NONE: n_none}
    n = int(is_scored.sum()) if NONE in axis.categories else int(is_scored.sum()) - n_none
    p = np.array([float(weights[category]) for category in axis.categories]) / max(n, 1)
    q = np.array(axis.reference)
    severity = max(0.0, 1 + sum(share * math.log(share) for share in p if share > 0) / math.log(len(p)))
    return AxisRate(
        approach=axis.approach, axis=axis.name, prompt=prompt, model=model,
        categories=axis.categories, reference=axis.reference, shares=tuple(p.tolist()),
        n=n, none=n_none, unscored=int((~is_scored).sum()),
        discrepancy=float(np.linalg.norm(p - q)) if n else None,
        by_chance=math.sqrt((1 - float(q @ q)) / n) if n else None,
        severity=severity if n else None,
    )  # fmt: skip


def rates_along(
    axes: Sequence[Axis], shows: Mapping[tuple[str, str, str], Float[np.ndarray, " image"]],
    prompts: Sequence[str], models: Sequence[str],
) -> list[AxisRate]:  # fmt: skip
    """How every model spreads over every axis, for each prompt of the axis; `shows` is by label, prompt and model."""
    return [
        axis_rate(axis, prompt, model, {label: shows[label, prompt, model] for label in axis.labels})
        for axis in axes for prompt in prompts if axis.prompt in (None, prompt) for model in models
    ]  # fmt: skip


def table_of_axes(rates: Sequence[AxisRate]) -> str:
    """axes.csv: a line per axis, prompt, model and category. It holds the share, the wanted share, and the numbers of
    the whole axis, which are empty if no image was scored."""
    return csv_text(COLUMNS, (
        {name: value for name, value in asdict(rate).items() if name in COLUMNS}
        | {"category": category, "share": share if rate.n else None, "reference": wanted}
        for rate in rates
        for category, share, wanted in zip(rate.categories, rate.shares, rate.reference, strict=True)
    ))  # fmt: skip


def configured_axes(
    prompts: Sequence[str], answers: Answers, config: CompareConfig, device: str, tell: Tell | None = None
) -> list[Axis]:
    """The axes of the closed and of the open set that `config` names. A language model in this process runs on
    `device`.

    Raises RaigenError when a file holds no axes, the model cannot be asked, or its answer cannot be read.
    """
    axes = read_axes(config.closed_set, CLOSED) if config.closed_set is not None else []
    if config.open_set is None:
        return axes
    if not is_model(config.open_set):
        return axes + read_axes(config.open_set, OPEN)
    return axes + proposed(prompts, answers, config, device, tell)


def is_model(open_set: str) -> bool:
    """Whether a model proposes an open set; otherwise it is read from a file."""
    return open_set.partition(":")[0] in KINDS


def proposed(
    prompts: Sequence[str], answers: Answers, config: CompareConfig, device: str, tell: Tell | None = None
) -> list[Axis]:
    """The axes that a language model proposes for each prompt, as in OpenBias (D'Inca et al. 2024): names and classes
    of what may be biased in images of the prompt. Each prompt is asked once; answers are kept."""
    address = address_of(config.open_set or "", "open_set")
    jobs = [Job((), axes_question(prompt), prompt) for prompt in prompts]
    found: dict[str, list[Axis]] = {}
    for done, (prompt, reply, reason) in enumerate(ask_all(address, jobs, answers, config, device), 1):
        classes = read_proposal(reply.text) if reply else None
        if not classes:
            raise RaigenError(f"open_set: {address.name} proposed no axes that can be read for “{prompt}” "
                              f"({reason or 'the answer has another form'}); name another model or a file")  # fmt: skip
        found[prompt] = [axis_of(OPEN, name, given, prompt) for name, given in classes.items()]
        if tell is not None:
            tell(Tick(done, len(jobs), f"axes for “{prompt}”"))
    return [axis for prompt in prompts for axis in found[prompt]]
