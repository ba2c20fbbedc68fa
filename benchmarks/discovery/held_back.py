"""Does discovery find more with looser guidance? `python -m benchmarks.discovery.held_back`.

The user's guidance is 2, which hides rare values on the bundled models. Each prompt is audited twice, with as many
images and relatives: *tight* discovers at guidance 2, too, and *loose* at guidance 1 (`--discovery-guidance 1`). The
rates of all values are those of further images at both guidances, read by the judge of the world. A value counts as
found if an entry of the list stands for it: 8 of its 10 top images show it, and it is rare among the audited images.
Bands are rates at guidance 2.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.common.intervals import COUNT, SHARE, interval_of, shown, without_nan
from benchmarks.common.results import RESULTS
from raigen.auditing.audit import capture_and_train, steps
from raigen.config import PORTRAITS, AuditConfig
from raigen.diffusion.recorded import recorded_pipeline
from raigen.judging.fresh import ImageList, fresh_images
from raigen.judging.protocol import StoredImages
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.runs.steps import exhausted
from raigen.world.truth import hit_of, seen_rates
from raigen.world.worlds import WORLDS

ARMS = {"tight": None, "loose": 1.0}
TIGHT = 2.0
BANDS = {"not seen": (-1.0, 0.0), "up to .8 %": (0.0, 0.008), ".8-2 %": (0.008, 0.02), "2-5 %": (0.02, 0.05)}


@dataclass(frozen=True)
class Options:
    """The benchmark of looser guidance for discovery."""

    work: Path = Path("bench-work/held-back")
    """Folder of the runs, WORLD/PROMPT/ARM; those that are missing are made."""
    results: Path = RESULTS
    """Where held_back.json goes."""
    world: str = PORTRAITS
    """The planted world: `portraits` or `emblems`."""
    prompts: tuple[str, ...] = ()
    """Prompts of the world; none means those on which nothing was chosen."""
    n_images: int = 1000
    """Audited images of each arm, and further images of each guidance."""


def main(options: Options) -> None:
    """Runs what is missing, prints and writes the measures of both arms."""
    world = WORLDS[options.world]
    rows = []
    for prompt in options.prompts or tuple(p for p in world.prompts if p not in world.chosen_on):
        folder = options.work / options.world / prompt.replace(" ", "-")
        runs = {arm: _audited(options, prompt, folder / arm, scale) for arm, scale in ARMS.items()}
        rates = {str(scale): _rates(options, runs["loose"], scale) for scale in (TIGHT, 1.0)}
        for arm, run in runs.items():
            values = _values(options, run)
            rows.append({"prompt": prompt, "arm": arm, "values": values, "rates": rates})
            print(f"{arm}, {prompt}: {sum(v is not None for v in values)} of {len(values)} truly rare; "
                  f"{', '.join(sorted({v for v in values if v}))}", flush=True)  # fmt: skip
    summary = {arm: measures([row for row in rows if row["arm"] == arm]) for arm in ARMS}
    found = without_nan({"world": options.world, "n_images": options.n_images, "summary": summary, "lists": rows})
    write_text(options.results / "held_back.json", json.dumps(found, indent=1) + "\n")
    for arm, measured in summary.items():
        print(arm, *(f"{name} {shown(value)}" for name, value in measured.items()), sep="\n  ")


def _audited(options: Options, prompt: str, folder: Path, scale: float | None) -> Run:
    config = AuditConfig.of(prompt, model=options.world, n_images=options.n_images, device="cpu", guidance_scale=TIGHT,
                            discovery_guidance=scale)  # fmt: skip
    run = Run.create(folder)
    with run.locked():
        if not run.is_done("capture", config.capture):
            list(capture_and_train([run], [config]))
        for stage in ("discover", "look"):
            list(steps(run, stage, getattr(config, stage)))
    return run


def _rates(options: Options, run: Run, scale: float) -> dict[str, float]:
    """The rates of all values in further images of some guidance."""
    stored = ImageList(run.asked_dir(f"rates-{scale:g}") / "samples.jsonl", run.asked_dir(f"rates-{scale:g}"))
    samples = exhausted(
        fresh_images(run, options.n_images, stored, lambda: recorded_pipeline(run), guidance=scale), None
    )
    world = WORLDS[options.world]
    return seen_rates(world.judge(StoredImages(run, samples)), world)  # pyright: ignore[reportArgumentType]


def _values(options: Options, run: Run) -> list[str | None]:
    """The rare value that each entry of the list stands for."""
    world, index_of = WORLDS[options.world], run.index_of
    judged: Any = world.judge(StoredImages(run, run.all_samples()))  # pyright: ignore[reportArgumentType]
    audited = type(judged)(*(part[: options.n_images] for part in judged))
    rates = seen_rates(audited, world)
    return [hit_of(judged, [index_of[file] for file in one.top_images], rates)["value"] for one in run.attributes]


def measures(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over prompts, with intervals over prompts."""
    found: dict[str, list[float]] = {"listed": [float(len(row["values"])) for row in rows]}
    found["truly rare"] = [float(np.mean([v is not None for v in row["values"]])) for row in rows if row["values"]]
    for band, (least, most) in BANDS.items():
        for row in rows:
            loose = row["rates"]["1.0"]  # what the model does not show at either guidance cannot be found
            values = [
                v for v, rate in row["rates"][str(TIGHT)].items() if least < rate <= most and 0 < loose[v] <= 0.05
            ]
            if values:
                found.setdefault(f"found, {band}", []).append(float(np.mean([v in row["values"] for v in values])))
    return {name: interval_of(np.array(values), COUNT if name == "listed" else SHARE) for name, values in found.items()}


if __name__ == "__main__":
    main(tyro.cli(Options))
