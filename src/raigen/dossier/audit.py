"""Writes audit.json and audit.md: what was tested, what was found, how sure that is, and what a person must add."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from raigen.dossier.advice import advice_on, risks_in
from raigen.dossier.check import rows_of
from raigen.dossier.crosswalk import CROSSWALK
from raigen.dossier.decide import Decision
from raigen.dossier.evaluation import model_info, settings_of
from raigen.dossier.evidence import Moved, Part
from raigen.dossier.findings import changes_of_study, findings_of, intersections_of
from raigen.dossier.method import method_of
from raigen.dossier.mitigation import mitigation_of
from raigen.dossier.tolerances import Tolerances
from raigen.dossier.trust import agreement_of, judges_of_part, tested_in, unscored_in
from raigen.report.html import fill
from raigen.runs.files import json_text, write_text

FORMAT = 1  # of audit.json
TODO = "TODO: "  # how a text begins that only a person can write
SIGNERS = ("made the audit", "checked it", "decides about the model")
SECTIONS = {"scope": "Scope", "tolerances": "Tolerances", "residual_risk": "Residual risk", "sign_off": "Sign-off"}
Entry = dict[str, Any]


def write_audit(
    folder: Path, parts: Sequence[Part], moved: Sequence[Moved] | None, tolerances: Tolerances,
    decisions: Sequence[Decision],
) -> list[Path]:  # fmt: skip
    """Writes audit.json and audit.md into the folder. Returns the paths. `decisions` are those on the rules of
    `tolerances`, and `moved` the differences of a study."""
    entry = audit_of(parts, moved, tolerances, decisions)
    paths = [folder / "audit.json", folder / "audit.md"]
    write_text(paths[0], json_text(entry, indent=1) + "\n")
    write_text(paths[1], fill("audit.md.jinja", entry))
    return paths


def audit_of(
    parts: Sequence[Part], moved: Sequence[Moved] | None, tolerances: Tolerances, decisions: Sequence[Decision]
) -> Entry:
    """Everything that the audit says. What only a person can say stands as a text that begins with TODO; `todo` counts
    these, and says where they stand."""
    entry: Entry = {
        "format": FORMAT,
        "raigen": version("raigen"),
        "measured_on": max(part.run.manifest["stages"]["evaluate"]["finished"][:10] for part in parts),
        "scope": _scope(parts, tolerances),
        "models": [_model(part) for part in _one_of_each_model(parts)],
        "method": method_of(parts),
        "tolerances": {
            "set_by": tolerances.set_by or f"{TODO}who set the tolerances",
            "set_on": tolerances.set_on or f"{TODO}when",
            "decisions": rows_of(decisions) or f"{TODO}which rates are tolerated (the rules of a tolerance file)",
        },
        "parts": [_part(part, tolerances) for part in parts],
        "changes": changes_of_study(moved),
        "sign_off": [
            {"role": role, "name": f"{TODO}name", "date": f"{TODO}date", "signature": f"{TODO}signature"}
            for role in SIGNERS
        ],
        "crosswalk": [demand._asdict() for demand in CROSSWALK],
    }
    entry["advice"] = advice_on(entry)
    accepted = f"{TODO}whether the remaining risk is acceptable, for which use, and why"
    entry["residual_risk"] = {"known": risks_in(entry), "accepted": accepted}
    fields = list(_todos(entry))
    sections = Counter(SECTIONS[field.partition(".")[0]] for field in fields)
    return {"todo": {"n": len(fields), "fields": fields, "sections": dict(sections)}, **entry}


def _scope(parts: Sequence[Part], tolerances: Tolerances) -> Entry:
    return {
        "prompts": list(dict.fromkeys(part.prompt for part in parts)),
        "models": list(dict.fromkeys(part.model for part in parts)),
        "n_images": sum(len(part.run.samples()) for part in parts),
        "n_fresh_images": sum(len(part.fresh) for part in parts),
        "organization": tolerances.organization or f"{TODO}who made the audit, and how they are related to the model",
        "purpose": tolerances.purpose or f"{TODO}what the model is to be used for, and whom its images reach",
        "protected": {ground: list(labels) for ground, labels in tolerances.protected.items()}
        or f"{TODO}which attributes touch a protected ground (the table [protected] of a tolerance file)",
    }  # fmt: skip


def _one_of_each_model(parts: Sequence[Part]) -> Iterator[Part]:
    seen = set()
    for part in parts:
        if part.model not in seen:
            seen.add(part.model)
            yield part


def _model(part: Part) -> Entry:
    """Which model it is, exactly, and with which settings it made the images."""
    info, facts = model_info(part.run), part.run.facts.capture
    return {
        "name": part.model, "id": info["name"], "revision": facts.revision, "weights_sha256": facts.weights,
        "license": facts.license, "settings": settings_of(part.run), "hookpoint": facts.hookpoint,
    }  # fmt: skip


def _part(part: Part, tolerances: Tolerances) -> Entry:
    """What was found for one prompt and model, and how sure that is."""
    return {
        "prompt": part.prompt, "model": part.model, "folder": part.run.dir.resolve().name,
        "n_images": len(part.run.samples()), "first_seed": part.run.config.capture.base_seed,
        "n_fresh_images": len(part.fresh), "first_fresh_seed": part.fresh[0].seed if part.fresh else None,
        "confidence": part.confidence,
        "findings": findings_of(part, tolerances),
        "intersections": intersections_of(part, tolerances),
        "tested": tested_in(part),
        "judges": judges_of_part(part),
        "agreement": agreement_of(part),
        "unscored": unscored_in(part),
        "cautions": [] if part.is_of_study else list(part.run.facts.evaluate.cautions),
        "mitigation": mitigation_of(part),
    }  # fmt: skip


def _todos(entry: Any, place: str = "") -> Iterator[str]:
    """Where a text begins with TODO, as a path such as `scope.purpose`."""
    if isinstance(entry, str) and entry.startswith(TODO):
        yield place
    pairs = entry.items() if isinstance(entry, Mapping) else enumerate(entry, 1) if isinstance(entry, list) else ()
    for name, inner in pairs:
        yield from _todos(inner, f"{place}.{name}" if place else str(name))
