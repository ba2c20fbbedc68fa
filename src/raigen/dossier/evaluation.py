"""Writes evaluation.json, the rates of a model in the form of Every Eval Ever (schema 0.3.0)."""

import re
import time
from calendar import timegm
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from raigen.config import OPENAI_URL, address_of
from raigen.config.fields import KINDS
from raigen.dossier.evidence import Item, Part
from raigen.dossier.tolerances import Tolerances
from raigen.judging.vlm.questions import presence_question
from raigen.runs.files import json_text, sha256, write_text
from raigen.runs.records import Presence
from raigen.runs.run import Run
from raigen.runs.study import free_name, slug
from raigen.world.models import FOLDERS

SCHEMA = "0.3.0"
COLLECTION = "raigen"
Entry = dict[str, Any]


class Log(NamedTuple):
    """What is written about one model: the evaluation, and a line for each verdict. `folder` is where the datastore of
    Every Eval Ever keeps both, below the dossier, and `uuid` their name there."""

    evaluation: Entry
    lines: list[str]
    folder: str
    uuid: str


def write_evaluations(parts: Sequence[Part], folder: Path, tolerances: Tolerances) -> list[Path]:
    """Writes an evaluation for each model, with its verdicts: `data/...` as the datastore wants them, and a copy in the
    dossier itself (evaluation.json; evaluation-MODEL.json if there are several models). Returns the paths."""
    paths: list[Path] = []
    names: list[str] = []
    models = list(dict.fromkeys(part.model for part in parts))
    for model in models:
        log = log_of([part for part in parts if part.model == model], tolerances)
        text = json_text(log.evaluation, indent=1) + "\n"
        names.append(free_name(slug(Path(model).name), names))
        name = f"evaluation-{names[-1]}.json" if len(models) > 1 else "evaluation.json"
        paths += [folder / name, folder / log.folder / f"{log.uuid}.json"]
        write_text(paths[-2], text)
        write_text(paths[-1], text)
        if log.lines:
            paths.append(folder / log.folder / f"{log.uuid}_samples.jsonl")
            write_text(paths[-1], "".join(log.lines))
    return paths


def log_of(parts: Sequence[Part], tolerances: Tolerances) -> Log:
    """The evaluation of one model, from its parts. The same parts give the same log, to the last byte. `tolerances` say
    who made the audit."""
    model, results = model_info(parts[0].run), [result for part in parts for result in _results(part)]
    at = max(_finished(part.run) for part in parts)
    evaluation: Entry = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{COLLECTION}/{model['id']}/{at}",
        "evaluation_timestamp": at,
        "retrieved_timestamp": at,
        "source_metadata": {
            "source_name": "raigen", "source_type": "evaluation_run",
            "source_organization_name": tolerances.organization or "TODO: the organization that made the audit",
            "evaluator_relationship": tolerances.relationship or "other",
        },
        "eval_library": {"name": "raigen", "version": version("raigen")},
        "model_info": model,
        "evaluation_results": results,
    }  # fmt: skip
    lines = [line for part in parts for line in _lines(part, evaluation)]
    digest = sha256((json_text(evaluation) + "".join(lines)).encode())
    uuid = str(UUID(digest[:32], version=4))
    folder = "/".join(("data", COLLECTION, *model["id"].split("/")))
    if lines:
        n_unscored = sum(shown is None for *_, shown in _verdicts(parts))
        evaluation["detailed_evaluation_results"] = {
            "format": "jsonl", "file_path": f"{folder}/{uuid}_samples.jsonl", "hash_algorithm": "sha256",
            "checksum": sha256("".join(lines).encode()), "total_rows": len(lines),
            "additional_details": {"unscored": f"{n_unscored} images without a verdict have no line"},
        }  # fmt: skip
    return Log(evaluation, lines, folder, uuid)


def model_info(run: Run) -> Entry:
    """The model of a run: its id, its revision and the hash of its weights. A folder of the user's has the id
    `local/NAME`, and a bundled model `raigen/NAME`."""
    facts, model, machine = run.facts.capture, run.config.capture.model, run.manifest.get("machine", {})
    on_hub, bundled = facts.revision is not None, model in FOLDERS
    name = model if on_hub else f"{'raigen' if bundled else 'local'}/{_portable(Path(model).name)}"
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights" if on_hub or bundled else "unknown",
        "revision": facts.revision, "weights_sha256": facts.weights, "license": facts.license,
    }  # fmt: skip
    return {
        "name": f"{name}@{facts.revision}" if facts.revision else name,
        "id": name,
        "developer": name.partition("/")[0],
        "inference_engine": {"name": "diffusers", "version": machine.get("diffusers", "unknown")},
        "additional_details": _texts(details),
    }  # fmt: skip


def _portable(name: str) -> str:
    """A file name that all systems take.

    >>> _portable("my model: new.")
    'my-model-new'
    """
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "model"


def _finished(run: Run) -> str:
    """When the rates of a run were measured, as Unix time."""
    return str(timegm(time.strptime(run.manifest["stages"]["evaluate"]["finished"], "%Y-%m-%dT%H:%M:%SZ")))


def _results(part: Part) -> Iterator[Entry]:
    """The rates of a part: by every judge, corrected, and when the prompt asks for the attribute."""
    for item in part.items:
        for presence in item.presences:
            if presence.n:
                yield _result(part, item, presence, "presence")
        if item.asked and item.asked.n:
            yield _result(part, item, item.asked, "presence-when-asked")


def _result(part: Part, item: Item, rate: Presence, metric: str) -> Entry:
    """One rate, with its interval."""
    is_asked = metric != "presence"
    prompt = item.attribute.suggested_prompt if is_asked and item.attribute else part.prompt
    about = "images of a prompt that asks for the attribute" if is_asked else "fresh images of the prompt"
    return {
        "evaluation_result_id": _result_id(part, item, rate.judge, rate.mode, metric),
        "evaluation_name": item.title,
        "source_data": {
            "dataset_name": f"images generated for “{prompt or part.prompt}”", "source_type": "other",
            "additional_details": _texts({"first_seed": part.fresh[0].seed if part.fresh else None}),
        },
        "metric_config": {
            "evaluation_description": f"The share of {about} that show “{item.label}”, according to the judge.",
            "metric_id": f"raigen.{metric}", "metric_name": metric.replace("-", " "), "metric_kind": "proportion",
            "metric_unit": "proportion", "lower_is_better": False, "score_type": "continuous",
            "min_score": 0.0, "max_score": 1.0,
            "additional_details": {
                "judge": rate.judge, "mode": rate.mode, "source": item.source,
                "lower_is_better": "the schema wants an answer; neither more nor less is better in itself",
            },
            **_llm_scoring(part.run, item, rate.judge),
        },
        "score_details": {
            "score": rate.rate,
            "details": _texts({"hits": rate.hits, "n": rate.n, "unscored": rate.unscored}),
            "uncertainty": {
                "confidence_interval": {"lower": rate.low, "upper": rate.high, "confidence_level": part.confidence,
                                        "method": rate.interval},
                "num_samples": rate.n,
            },
        },
        "generation_config": {
            "generation_args": {"prompt_template": prompt or part.prompt},
            "additional_details": _texts(settings_of(part.run)),
        },
    }  # fmt: skip


def settings_of(run: Run) -> Entry:
    """The settings with which the images of a run were generated; None is not taken by the pipeline."""
    facts, names = run.facts.capture, ("pipeline", "scheduler", "num_inference_steps", "guidance_scale", "height",
                                       "width", "negative_prompt", "true_cfg_scale", "dtype", "device",
                                       "safety_checker")  # fmt: skip
    return {name: getattr(facts, name) for name in names}


def _llm_scoring(run: Run, item: Item, judge: str) -> Entry:
    """Which vision-language model judged, and what it was asked; nothing for other judges."""
    texts = [text for text in run.config.evaluate.judge if text.partition(":")[0] in KINDS]
    address = next((address for address in map(address_of, texts) if address.name == judge), None)
    if address is None:
        return {}
    where = "externally_managed" if address.endpoint == OPENAI_URL else "self_deployed"
    details = {"deployment_type": where, "model_availability": "unknown"}
    model = {"name": address.model, "id": address.model, "additional_details": details}
    return {
        "llm_scoring": {"judges": [{"model_info": model}], "input_prompt": presence_question(item.label or "").text}
    }


def _result_id(part: Part, item: Item, judge: str, mode: str, metric: str = "presence") -> str:
    return "/".join((part.run.dir.resolve().name, item.key, metric, judge, mode))


def _verdicts(parts: Iterable[Part]) -> Iterator[tuple[Part, Item, str, int, bool | None]]:
    """Every verdict: its part, attribute and judge, the place of the image, and what the judge said."""
    for part in parts:
        for item in part.items:
            for judge, shown in item.shows.items():
                yield from ((part, item, judge, place, one) for place, one in enumerate(shown))


def _lines(part: Part, evaluation: Mapping[str, Any]) -> Iterator[str]:
    """A line for each verdict. What has none has no line: the schema knows no missing score."""
    mode_of = {(item.key, p.judge): p.mode for item in part.items for p in reversed(item.presences)}
    for _, item, judge, place, shown in _verdicts([part]):
        if shown is None:
            continue
        sample = part.fresh[place]
        said = "shows it" if shown else "does not show it"
        yield json_text({
            "schema_version": SCHEMA, "evaluation_id": evaluation["evaluation_id"],
            "model_id": evaluation["model_info"]["id"], "evaluation_name": item.title,
            "evaluation_result_id": _result_id(part, item, judge, mode_of.get((item.key, judge), "raw")),
            "sample_id": f"{part.run.dir.resolve().name}/{sample.file}",
            "sample_hash": sha256((part.prompt + (item.label or "")).encode(errors="surrogatepass")),
            "interaction_type": "single_turn",
            "input": {"raw": part.prompt, "reference": [item.label or ""]},
            "output": {"raw": [sample.file]},
            "answer_attribution": [{"turn_idx": 0, "source": "output.raw", "extracted_value": said,
                                    "extraction_method": judge, "is_terminal": True}],
            "evaluation": {"score": float(shown), "is_correct": shown},
            "metadata": {"seed": str(sample.seed), "image_sha256": sample.sha256, "judge": judge},
        }) + "\n"  # fmt: skip


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The values as texts, as the schema wants them, without those that are None."""
    return {name: str(value) for name, value in values.items() if value is not None}
