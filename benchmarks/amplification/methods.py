"""Does amplification reach its goals on `portraits`? `python -m benchmarks.amplification --help`.

For each prompt, an audit is finished in its own folder, on the images and activations of the discovery benchmark (by
hard links; nothing is written there; missing images are generated). Up to five attributes are then amplified with every
method of `raigen.amplify`, and the world's judge judges every image.

*Which attributes.* The listed attributes that CLIP named, by rank. Where these are fewer than five, also listed
attributes without a name that are truly rare: the label is then the value that the judge sees in 80 % of the top images
(`named by`: judge). Wrong names by CLIP are not corrected, because a user would rely on them. `top share` is the share
of top images that show the named value; the goals are also computed for attributes with .8 or more.

*What is counted.* The unsteered rate is the rate in the fresh images of `evaluate` and in the unsteered baseline
together. Where no unsteered image shows the attribute, one is counted, so that the lift is a lower bound. The best
strength is chosen on one half of the seeds and evaluated on the other. `select` keeps few images, because it generates
2 / rate images for each; where its limit is below that number, it does not count for its goals. `mix` mixes the first
two attributes with different names.

A cell is one prompt, attribute and method. Finished cells are kept; an interrupted cell generates no image twice.
"""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import raigen
from benchmarks.amplification.audits import BATCH, COLUMN_OF, Aim, AuditOptions, aims_of, audited
from benchmarks.amplification.goals import CURVES, distinct, goals, mixed, row_of
from benchmarks.common.intervals import shown, without_nan
from raigen.amplification.dose_response import MOST_PER_KEPT, PER_WANTED
from raigen.errors import RaigenError
from raigen.runs.files import write_text
from raigen.runs.records import RareAttribute
from raigen.runs.run import Run
from raigen.world.attributes import PROFESSIONS
from raigen.world.judge import judge
from raigen.world.planted import profession_of
from raigen.world.truth import SHARED_BY_AT_LEAST

METHODS = ("identity", "prompt", "contrast", "random-pattern", "random-contrast", "steer", "set", "random-direction",
           "random-neuron", "select")  # fmt: skip
TRAINING_SECONDS = 0.4  # of one core, per audited image


@dataclass(frozen=True)
class Options(AuditOptions):
    """The benchmark of amplification."""

    strengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Strengths of `steer` and `contrast`; `set` and the controls are tried at 1."""
    methods: tuple[str, ...] = METHODS
    """Methods to try; `identity` is strength 0; `steer` and `contrast` are tried at all `strengths`."""
    mix: bool = True
    """Whether to mix two attributes of each prompt."""
    targets: tuple[float, float] = (0.1, 0.2)
    """Target rates of the two attributes."""
    n_selected: int = 10
    """Images that `select` keeps."""
    most_per_selected: int = MOST_PER_KEPT
    """Images that `select` generates at most for each image that it keeps."""
    seconds_per_image: float = 0.15
    """Seconds per image on one core, for the estimate that is printed first."""
    workers: int = 1
    """Processes, each with its share of the cores and one prompt at a time."""

    def __post_init__(self) -> None:
        unknown = set(self.methods) - set(METHODS)
        if unknown:
            raise RaigenError(f"methods: expected some of {', '.join(METHODS)}; got {', '.join(sorted(unknown))}")


def main(options: Options) -> None:
    """Prints an estimate, fills the cells prompt by prompt, and writes the results after each prompt."""
    print(estimate(options), flush=True)
    threads, rows, mixtures = max(1, (os.cpu_count() or 1) // options.workers), [], []
    with ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        for found in pool.map(partial(cells_of, options), options.prompts):
            rows += [row_of(cells) for cells in found["attributes"] if any("base" in cell for cell in cells.values())]
            mixtures += [part for cell in found["mixtures"] for part in mixed(cell)]
            write_results(options, rows, mixtures)
    print(table(rows, mixtures))


def estimate(options: Options) -> str:
    """The time of a whole run, without the cells that are finished."""
    points = {method: len(options.strengths) if method in CURVES else 1 for method in METHODS}
    points["identity"] = points["select"] = 0  # of a few images, and of the images that all attributes share
    per_attribute = options.n_images * sum(points[method] for method in options.methods)
    pool = options.n_selected * min(100, options.most_per_selected) if "select" in options.methods else 0
    shared = options.n_fresh_images + 100 + options.n_images + pool + (2 * options.n_images if options.mix else 0)
    images = options.n_attributes * per_attribute + shared
    minutes = (images * options.seconds_per_image + options.n_audited * TRAINING_SECONDS) / 60
    return (f"{len(options.prompts)} prompts, each some {images:,} images and a training: about {minutes:.0f} "
            f"minutes of a core each, {minutes * len(options.prompts) / 60:.1f} hours in all, less what is "
            "finished")  # fmt: skip


def cells_of(options: Options, prompt: str) -> dict[str, list]:
    """All cells of a prompt: one for each attribute and method, and the mixture if there is one."""
    run = audited(options, prompt)
    aims = aims_of(run, options.n_attributes)
    print(f"{prompt}: {', '.join(f'{aim.attribute.label} ({aim.named_by})' for aim in aims) or 'nothing named'}",
          flush=True)  # fmt: skip
    found = []
    for aim in aims:
        by_method = {method: cell_of(options, run, aim, method) for method in METHODS if method in options.methods}
        found.append({method: cell for method, cell in by_method.items() if cell is not None})
    pair = [aims[0], *(aim for aim in aims if aim.attribute.label != aims[0].attribute.label)][:2] if aims else []
    mixtures = [mix_of(options, run, pair)] if options.mix and len(pair) == 2 else []
    return {"attributes": found, "mixtures": [cell for cell in mixtures if cell is not None]}


def cell_of(options: Options, run: Run, aim: Aim, method: str) -> dict[str, Any] | None:
    """The cell of one attribute and method, from its file if it was finished with the same options. None where the rate
    is 0, which does not tell how many images `select` needs."""
    rate = aim.attribute.presence
    if method == "select" and (rate is None or not rate.hits):
        return None
    asked = asked_of(options, aim, method)
    path = run.dir / "cells" / f"{aim.attribute.neuron}-{method}.json"
    return kept(path, asked | {"label": aim.attribute.label}, lambda: measured(run, aim, method, asked))


def asked_of(options: Options, aim: Aim, method: str) -> dict[str, Any]:
    """The options of `raigen.amplify` for a cell."""
    n_images, strength, real = options.n_images, (1.0,), method
    if method == "identity":
        # As many as the first batch of unsteered images: only batches of equal size give the same bits.
        n_images, strength, real = min(BATCH, options.n_images), (0.0,), "steer"
    elif method in CURVES:
        strength = options.strengths
    elif method == "select":
        assert aim.attribute.presence is not None  # `cell_of` asked
        per_kept = math.ceil(PER_WANTED / aim.attribute.presence.rate)
        n_images, strength = options.n_selected, (float(min(per_kept, options.most_per_selected)),)
    return {"attribute": aim.attribute.rank, "method": real, "strength": strength, "n_images": n_images,
            "batch_size": BATCH}  # fmt: skip


def kept(path: Path, asked: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of a cell's file, if its options are the same; else the result of `make`, which is written there."""
    asked = json.loads(json.dumps(asked))
    if path.is_file():
        cell = json.loads(path.read_text(encoding="utf-8"))
        if cell["asked"] == asked:
            return cell
    started = time.monotonic()
    cell = {"asked": asked, **make()}
    write_text(path, json.dumps(cell))
    print(f"  {path.parent.parent.name} {path.stem}: {time.monotonic() - started:.0f} s", flush=True)
    return cell


def measured(run: Run, aim: Aim, method: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The content of a cell: the judge's verdicts on its images and their unsteered baseline, and the cost."""
    attribute, presence = aim.attribute, aim.attribute.presence
    assert presence is not None  # of a finished audit, by the world's judge
    (entry,) = raigen.amplify(run, **asked)
    cell = {
        "prompt": run.config.capture.prompt, "rank": attribute.rank, "neuron": attribute.neuron,
        "label": attribute.label, "named by": aim.named_by, "top share": aim.top_share,
        "fresh": {"hits": presence.hits, "n": presence.n},
    }  # fmt: skip
    if method == "identity":
        others = [raigen.amplify(run, **dict(asked, method=name))[0] for name in ("set", "contrast")]
        base = bytes_of(run, entry["base"])
        same = [bytes_of(run, point) == base for found in (entry, *others) for point in found["points"]]
        return cell | {"identical": all(same), "n": asked["n_images"]}
    points = [point for point in entry["points"] if point["strength"] in asked["strength"]]
    cell["points"] = [
        {name: point[name] for name in ("strength", "n_made", "fidelity", "seconds_per_image")}
        | looked(run, attribute, point["files"])
        for point in points
    ]
    for point, mine in zip(points, cell["points"], strict=True):
        assert sum(mine["shows"]) == point["presence"]["hits"]  # the library counts the same images
    if method == "select":
        return cell | {"pool_hits": pool_hits(run, attribute, entry["base"]["files"][0], points[0]["n_made"])}
    return cell | {"base": looked(run, attribute, entry["base"]["files"])}


def looked(run: Run, attribute: RareAttribute, files: Sequence[str]) -> dict[str, list[int]]:
    """The judge's verdicts on each image: shows the attribute, is readable, shows the right profession."""
    verdict = judge([image(run.dir / file) for file in files])
    right = verdict.profession == PROFESSIONS.index(profession_of(run.config.capture.prompt))
    shows = verdict.shows[:, COLUMN_OF[attribute.label or ""]]
    return {"shows": listed(shows), "readable": listed(verdict.readable), "right": listed(right)}


def pool_hits(run: Run, attribute: RareAttribute, first: str, n: int) -> int:
    """How many of the first `n` unsteered images show the attribute; `first` is the file of one of them."""
    lines = run.read_lines((run.dir / first).parent / "samples.jsonl", "amplify")[:n]
    return sum(looked(run, attribute, [line["file"] for line in lines])["shows"])


def image(path: Path) -> Image.Image:
    """The image in a file, in RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def bytes_of(run: Run, point: dict[str, Any]) -> list[bytes]:
    """The files of a point."""
    return [(run.dir / file).read_bytes() for file in point["files"]]


def listed(flags: np.ndarray) -> list[int]:
    """Converts flags to 0 and 1."""
    return flags.astype(int).tolist()


def mix_of(options: Options, run: Run, pair: Sequence[Aim]) -> dict[str, Any] | None:
    """The mixture of two attributes; prints a line and returns None where no mixture reaches the targets."""
    asked = {"attribute": [aim.attribute.rank for aim in pair], "method": "mix", "targets": options.targets,
             "n_images": options.n_images, "batch_size": BATCH}  # fmt: skip
    path = run.dir / "cells" / f"mix-{pair[0].attribute.neuron}-{pair[1].attribute.neuron}.json"

    def make() -> dict[str, Any]:
        (entry,) = raigen.amplify(run, **asked)
        return {"prompt": run.config.capture.prompt, "attributes": entry["attributes"]}

    try:
        return kept(path, asked | {"labels": [aim.attribute.label for aim in pair]}, make)
    except RaigenError as error:
        print(f"  {run.dir.name} mix: {error}", flush=True)
        return None


def write_results(options: Options, rows: list[dict], mixtures: list[dict]) -> None:
    """Writes amplification.json: the goals, the goals over correctly named attributes, every attribute, every
    mixture."""
    once = distinct(rows)
    right = [row for row in once if row["top share"] >= SHARED_BY_AT_LEAST]
    asked = {name: value for name, value in asdict(options).items() if name not in ("work", "source", "results")}
    found = {
        "options": asked,
        "goals": goals(once, mixtures), "goals, top images show the name": goals(right, mixtures),
        "attributes": rows, "mixtures": mixtures,
    }  # fmt: skip
    write_text(options.results / "amplification.json", json.dumps(without_nan(found), indent=1) + "\n")


def table(rows: list[dict], mixtures: list[dict]) -> str:
    """The goals, then the attributes and the mixtures, as Markdown tables."""
    lines = ["", "| goal | wanted | found | n | met |", "|---|---|---|---|---|"]
    for name, held in goals(distinct(rows), mixtures).items():
        met = {True: "yes", False: "no", None: ""}[held["met"]]
        lines.append(f"| {name} | {held['wanted']} | {shown(held)} | {held['n']} | {met} |")
    columns = ("prompt", "contrast, best", "random-pattern", "random-contrast", "steer, best", "set",
               "random-direction", "random-neuron", "select")  # fmt: skip
    heads = ("prompt", "attribute", "fresh", "unsteered", *columns)
    lines += ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        found = [row["points"].get(name) for name in columns]
        points = [f"{point['presence']:.2f} ({point['lift']['lift']:.1f}x)" if point else "" for point in found]
        lines.append(" | ".join([f"| {row['prompt']}", row["label"], f"{row['fresh']:.3f}", f"{row['unsteered']:.3f}",
                                 *points]) + " |")  # fmt: skip
    lines += [f"{part['prompt']}, {part['label']}: target {part['target']:g}, came {part['presence']:.3f} "
              f"[{part['low']:.3f}, {part['high']:.3f}]" for part in mixtures]  # fmt: skip
    return "\n".join(lines)
