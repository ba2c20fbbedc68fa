"""Does the contrast method show more of a neuron's attribute?

`python -m benchmarks.amplification.contrast --help`.

It uses the cells of `benchmarks.discovery`: for each prompt, the listed neurons that are hits, by rank, one per value.
`contrast` (see `raigen.steering.contrast_of`) is tried at several strengths on new seeds, and compared with a random
pattern of the same size at strength 1 and with a prompt that names the value. The baseline rates are the rates in the
images of discovery. The world's judge judges every image. As in `benchmarks.amplification`, the best strength is chosen
on one half of the seeds, among those that keep 95 % readable and 90 % of the right profession, and evaluated on the
other half.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

import raigen
from benchmarks.amplification.goals import READABLE, RIGHT, Seen, at_best, lifts, mean, median, point_of, values
from benchmarks.common.arms import coherent, longer
from benchmarks.common.cells import Cell, capture, cell_of, default_codes
from benchmarks.common.intervals import shown, without_nan
from benchmarks.common.measures import Truth, top_images, verdicts
from benchmarks.common.results import RESULTS
from raigen.amplification.steering import contrast_of, random_like
from raigen.config import TrainConfig
from raigen.diffusion.generation import Settings, defaults, generate_images
from raigen.diffusion.loading import load_pipeline
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.sae.model import MatryoshkaSAE
from raigen.world.attributes import PROMPTS, VALUES
from raigen.world.judge import judge
from raigen.world.models import BUNDLED

SEEDS_FROM = 4_000_000_000  # apart from those of audits, fresh and steered images, the model card and suppression
BATCH = 20


@dataclass(frozen=True)
class Options:
    """The benchmark of contrast."""

    work: Path = Path("bench-work")
    """Folder of the discovery benchmark; finished attributes are kept in its cells."""
    results: Path = RESULTS
    """Where contrast.json goes."""
    prompts: tuple[str, ...] = field(default=PROMPTS)
    """Prompts of the portraits world."""
    n_discovered: int = 1000
    """Images per prompt in the cells of the discovery benchmark."""
    n_attributes: int = 5
    """Attributes per prompt at most."""
    n_images: int = 40
    """Images of each point."""
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Strengths of the contrast."""


class Found(NamedTuple):
    """A value that discovery found: its column, its rate, and the contrast of its first neuron."""

    value: int
    hits: int
    n: int
    pattern: Float[Tensor, "token d_in"]


def main(options: Options) -> None:
    """Measures all attributes of all prompts; prints and writes the results."""
    pipe, rows = load_pipeline(BUNDLED, "auto"), []
    settings = defaults(pipe, BUNDLED)
    for prompt in options.prompts:
        run = capture(options.work, prompt, 0, options.n_discovered)
        cell = cell_of(run, prompt, 0)
        for found in found_in(run, cell, options.n_attributes):
            path = run.dir / "contrast" / f"{VALUES[found.value].name}-{options.n_images}.json".replace(" ", "-")
            if not path.exists():
                write_text(path, json.dumps(measured(pipe, prompt, settings, options, found)))
            rows.append(row_of(json.loads(path.read_text(encoding="utf-8"))))
            print(told(rows[-1]), flush=True)
    result = {"options": {name: value for name, value in asdict(options).items() if name not in ("work", "results")},
              "goals": goals(rows), "attributes": rows}  # fmt: skip
    write_text(options.results / "contrast.json", json.dumps(without_nan(result), indent=1) + "\n")
    for name, held in goals(rows).items():
        print(f"{name}: {shown(held)} of {held['n']} {held['wanted']}")


def found_in(run: Run, cell: Cell, most: int) -> Iterator[Found]:
    """The first values that the list of the default score, up to 5 %, hits, each with its first neuron."""
    codes = default_codes(run, cell)["matryoshka"]
    clip, looks = cell.embeddings["clip"], cell.embeddings["pixels"]
    listing = coherent(codes.peak, clip, looks, max_frequency=longer(len(clip)))
    hit, top = verdicts(listing, Truth(cell.shows, cell.controls)).hit, top_images(listing.activations)
    activations, given = torch.from_numpy(cell.mid).float(), []
    for unit in range(len(hit)):
        if hit[unit] >= 0 and hit[unit] not in given and len(given) < most:
            given.append(hit[unit])
            value, shows = int(hit[unit]), cell.shows[:, hit[unit]]
            yield Found(value, int(shows.sum()), len(shows), contrast_of(activations, top[unit].tolist()))


def measured(
    pipe: DiffusionPipeline, prompt: str, settings: Settings, options: Options, found: Found
) -> dict[str, Any]:
    """The judge's verdicts on each image of every point."""
    pattern, drawn = found.pattern, random_like(found.pattern, found.value)

    def look(text: str, added: Tensor, strength: float) -> dict[str, list[int]]:
        return kept(pushed(pipe, text, settings, options.n_images, found.value, added, strength))

    return {
        "prompt": prompt, "value": VALUES[found.value].name, "hits": found.hits, "n": found.n,
        "base": look(prompt, pattern, 0.0),
        "contrast": {f"{strength:g}": look(prompt, pattern, strength) for strength in options.strengths},
        "random pattern": look(prompt, drawn, 1.0),
        "prompt that names it": look(f"{prompt}, {VALUES[found.value].phrase}", pattern, 0.0),
    }  # fmt: skip


def pushed(
    pipe: DiffusionPipeline, prompt: str, settings: Settings, n: int, value: int, added: Tensor, strength: float
) -> Seen:
    """The judge's verdicts on images to which a pattern was added."""
    sae = MatryoshkaSAE(TrainConfig().sae_config(added.shape[1]))  # its weights are not used
    with raigen.steering(pipe, sae, {0: strength}, method="contrast", patterns={0: added}, settings=settings,
                         prompt=prompt):  # fmt: skip
        batches = generate_images(pipe, prompt, range(SEEDS_FROM, SEEDS_FROM + n), settings, BATCH)
        verdict = judge([image for batch in batches for image in batch])
    bare = PROMPTS.index(prompt.split(",")[0])
    return Seen(verdict.shows[:, value], verdict.readable, verdict.profession == bare)


def kept(seen: Seen) -> dict[str, list[int]]:
    """The verdicts as lists of 0 and 1, as `Seen.of` reads them."""
    return {name: column.astype(int).tolist() for name, column in seen._asdict().items()}


def row_of(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The points of an attribute, with the lift over the rate at which it was seen."""
    unsteered, base = (cell["hits"], cell["n"]), Seen.of(cell["base"])
    curve = {float(strength): Seen.of(point) for strength, point in cell["contrast"].items()}
    best, strengths = at_best(base, curve)
    points = {f"contrast {strength:g}": point_of(point, unsteered) for strength, point in curve.items()}
    points |= {name: point_of(Seen.of(cell[name]), unsteered) for name in ("random pattern", "prompt that names it")}
    points["best"] = point_of(best, unsteered) | {"strengths": strengths}
    return {"prompt": cell["prompt"], "value": cell["value"], "unsteered": cell["hits"] / cell["n"], "points": points}


def goals(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The goals of `benchmarks.amplification.goals`, over attributes in at most 5 % of images."""
    rare = [row for row in rows if row["unsteered"] <= 0.05]
    return {
        "contrast: median lift at the best strength": median(lifts(rare, "best"), ">= 8", lambda m: m >= 8),
        "contrast: median presence there": median(values(rare, "best", "presence"), "", None),
        "contrast: readable": mean(rare, "best", "readable", ">= .95", lambda m: m >= READABLE),
        "contrast: right profession": mean(rare, "best", "right profession", ">= .90", lambda m: m >= RIGHT),
        "random pattern at 1: median lift": median(lifts(rare, "random pattern"), "<= 1.5", lambda m: m <= 1.5),
        "prompt: median presence": median(values(rare, "prompt that names it", "presence"), ">= .60",
                                          lambda m: m >= 0.6),
    }  # fmt: skip


def told(row: Mapping[str, Any]) -> str:
    """One attribute in a line."""
    points = ", ".join(f"{name} {point['presence']:.2f}" for name, point in row["points"].items())
    return f"{row['prompt']}, {row['value']}: unsteered {row['unsteered']:.3f}, {points}"


if __name__ == "__main__":
    main(tyro.cli(Options))
