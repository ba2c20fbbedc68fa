"""Finishes audits on the captures of a benchmark, and chooses the attributes to amplify."""

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.common.arms import longer
from benchmarks.common.results import RESULTS
from raigen.auditing.audit import run_stage
from raigen.config import STAGES, AuditConfig, CaptureConfig, DiscoverConfig, EvaluateConfig, LookConfig
from raigen.errors import RaigenError
from raigen.runs.files import write_text
from raigen.runs.records import RareAttribute
from raigen.runs.run import Run
from raigen.world.attributes import BY_NAME, PROMPTS, VALUES
from raigen.world.judge import judge
from raigen.world.planted import profession_of
from raigen.world.truth import hit_of, seen_rates

BATCH = 16  # images at once
COLUMN_OF = {value.phrase: index for index, value in enumerate(VALUES)}


@dataclass(frozen=True)
class AuditOptions:
    """Options that all amplification benchmarks share."""

    work: Path = Path("bench-work/amplification")
    """Folder for the audits, the images and the finished cells; what is there is used."""
    source: Path = Path("bench-work")
    """Folder of the discovery benchmark, with its captures; it is only read."""
    results: Path = RESULTS
    """Where the JSON of the benchmark goes."""
    prompts: tuple[str, ...] = field(default=PROMPTS)
    """Prompts of the portraits world."""
    n_attributes: int = 5
    """Attributes per prompt at most."""
    n_images: int = 200
    """Images of each point."""
    n_audited: int = 1000
    """Images of each audit."""
    n_fresh_images: int = 300
    """Fresh images on which each audit measures rates."""


class Aim(NamedTuple):
    """An attribute to amplify. By the judge, a share `top_share` of its top images shows the `label`."""

    attribute: RareAttribute
    named_by: str
    top_share: float


def audited(options: AuditOptions, prompt: str) -> Run:
    """The audit of a prompt in its folder of `work`, finished except for the report. It uses the capture in `source`,
    if there is one.

    Raises RaigenError when the folder holds another audit.
    """
    place, n_images = profession_of(prompt), options.n_audited
    run = borrowed(options.source / place / "g0", options.work / place, n_images)
    own = CaptureConfig(prompt, n_images=n_images, batch_size=BATCH, store=True)
    capture = run.config.capture if "capture" in run.manifest["stages"] else own
    if (capture.prompt, capture.n_images) != (prompt, n_images):
        raise RaigenError(f"{run.dir}: holds {capture.n_images} images of {capture.prompt!r}; expected "
                          f"{n_images} of {prompt!r}. Choose another --work")  # fmt: skip
    config = AuditConfig(
        capture,
        discover=DiscoverConfig(max_frequency=longer(n_images)),
        look=LookConfig(n_look_images=0),  # the methods work on neurons
        evaluate=EvaluateConfig(n_fresh_images=options.n_fresh_images),
    )
    for name in STAGES[: STAGES.index("report")]:
        if name == "evaluate":
            label_hits(run)
        run_stage(run, name, getattr(config, name))
    return run


def borrowed(source: Path, folder: Path, n_images: int) -> Run:
    """The run in `folder`. A new run begins with links to the files of the finished capture in `source`, if there is
    one with as many images. (Runs replace files and never write into them, so the files of `source` do not change.)"""
    run = Run.create(folder)
    if run.manifest["stages"] or not (source / "run.json").is_file():
        return run
    capture = Run(source).manifest["stages"].get("capture")
    if not capture or not capture["finished"] or capture["config"]["n_images"] != n_images:
        return run
    for file in capture["outputs"]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / file).exists():
            os.link(source / file, folder / file)
    write_text(run.manifest_path, json.dumps(run.manifest | {"stages": {"capture": capture}}, indent=1))
    return run


def label_hits(run: Run) -> None:
    """Labels attributes that CLIP could not name with the rare value that the judge sees in 80 % of the top images."""
    samples, prompt = run.samples(), run.config.capture.prompt
    judgment = judge([run.read_image(sample) for sample in samples])
    rates, index_of = seen_rates(judgment), {sample.file: sample.index for sample in samples}
    labeled = []
    for attribute in run.attributes:
        hit = hit_of(judgment, [index_of[file] for file in attribute.top_images], rates)["value"]
        if attribute.label is None and hit is not None:
            phrase = BY_NAME[hit].phrase
            attribute = replace(attribute, label=phrase, suggested_prompt=f"{prompt}, {phrase}", labeled_by="judge")
        labeled.append(attribute)
    run.write_attributes(labeled)


def aims_of(run: Run, most: int) -> list[Aim]:
    """The first attributes to amplify: those named by CLIP, by rank, then those named by the judge, by rank."""
    by_file, aims = {sample.file: sample for sample in run.samples()}, []
    for attribute in run.attributes:
        if attribute.label is None:
            continue
        verdict = judge([run.read_image(by_file[file]) for file in attribute.top_images])
        shows = verdict.shows[verdict.readable, COLUMN_OF[attribute.label]]
        named_by = "judge" if attribute.labeled_by == "judge" else "CLIP"
        aims.append(Aim(attribute, named_by, float(shows.mean()) if len(shows) else 0.0))
    return sorted(aims, key=lambda aim: (aim.named_by == "judge", aim.attribute.rank))[:most]
