"""Says how far the judges and the method can be trusted: errors, human checks, what is missing, what was tested."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from scipy.stats import beta

from raigen.dossier.evidence import Part
from raigen.judging.review import read_ticks
from raigen.judging.trust import known_error
from raigen.report.page import q_of_rarer, sides_of
from raigen.runs.records import Presence
from raigen.stats import LEVEL

Row = dict[str, Any]


def judges_of_part(part: Part) -> list[Row]:
    """What is known about each judge of a part, the first one first."""
    names = list(dict.fromkeys(p.judge for item in part.items for p in item.presences))
    return [
        {
            "judge": name, "is_first": name == names[0], "known_error": known_error(name),
            "errors": _errors(part, name), "human_checks": _human_checks(part, name) if name == names[0] else None,
        }
        for name in names
    ]  # fmt: skip


def agreement_of(part: Part) -> list[Row]:
    """Krippendorff's alpha between the judges, for each attribute that two or more judged."""
    alphas = [(item.title, item.attribute.judges_alpha) for item in part.items if item.attribute]
    return (
        []
        if part.is_of_study
        else [{"attribute": title, "alpha": alpha} for title, alpha in alphas if alpha is not None]
    )


def unscored_in(part: Part) -> dict[str, int]:
    """How many verdicts are missing, by judge and reason; of a study, by judge."""
    if not part.is_of_study:
        return dict(part.run.facts.evaluate.n_unscored)
    missing = Counter[str]()
    for item in part.items:
        for presence in item.presences:
            missing[presence.judge] += presence.unscored
    return dict(+missing)


def q_of_items(part: Part) -> dict[str, float]:
    """The q of "rare" for each named attribute that was measured, by its key: rarer than the run's `rarer_than`."""
    return q_of_rarer(_measured(part), part.run.config.report.rarer_than, part.confidence)


def tested_in(part: Part) -> Row:
    """How many attributes were tested for being rare, and with what result."""
    limit = part.run.config.report.rarer_than
    return {"rarer_than": limit, "level": LEVEL,
            **sides_of(_measured(part), q_of_items(part), limit, part.confidence)}  # fmt: skip


def _measured(part: Part) -> dict[str, Presence]:
    return {item.key: item.presence for item in part.items if item.is_named and item.presence}


def _errors(part: Part, judge: str) -> list[Row]:
    """Sensitivity and specificity of a judge for each attribute, as far as the evaluation knew them."""
    return [
        {"attribute": label, "sensitivity": _share(true_yes, positives, part.confidence),
         "specificity": _share(true_no, negatives, part.confidence)}
        for label, (true_yes, positives, true_no, negatives)
        in ({} if part.is_of_study else part.run.facts.evaluate.judge_errors.get(judge, {})).items()
    ]  # fmt: skip


def _share(right: float, n: float, confidence: float) -> Row | None:
    """A sensitivity or a specificity, with the middle of its posterior (Jeffreys' prior); None without images."""
    tail = (1 - confidence) / 2
    low, high = (float(beta.ppf(at, right + 0.5, n - right + 0.5)) for at in (tail, 1 - tail))
    return {"rate": right / n, "low": low, "high": high, "n": n} if n else None


def _ticks(part: Part) -> Mapping[int, Mapping[str, bool]]:
    """What a person ticked on the review sheet, by neuron and file; nothing if the rates do not count it."""
    is_checked = not part.is_of_study and any(p.mode == "checked" for item in part.items for p in item.presences)
    return read_ticks(part.run, part.run.review_path) if is_checked else {}


def _human_checks(part: Part, judge: str) -> Row | None:
    """How many images a person looked at, and how often the person and the first judge agreed; None for no images."""
    pairs, ticks = [], _ticks(part)
    for item in part.items:
        seen = ticks.get(item.attribute.neuron, {}) if item.attribute else {}
        said = {sample.file: shows for sample, shows in zip(part.fresh, item.shows.get(judge, ()), strict=False)}
        pairs += [(said[file], shows) for file, shows in seen.items() if said.get(file) is not None]
    if not pairs:
        return None
    yes, no = ([person for judged, person in pairs if judged is side] for side in (True, False))
    return {"n": len(pairs), "n_judged_yes": len(yes), "n_confirmed": sum(yes), "n_judged_no": len(no),
            "n_missed": sum(no)}  # fmt: skip
