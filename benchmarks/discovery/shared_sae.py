"""Compares one autoencoder for all prompts with one per prompt. `python -m benchmarks.discovery.shared_sae --help`.

It uses the images of `benchmarks.discovery`, generation seed 0, and has its own folder for codes and times. Every list
is scored on the images of its own prompt, whichever autoencoder it comes from.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from torch import Tensor

from benchmarks.common.arms import MIN_IMAGES, N_LISTED, eligible, longer
from benchmarks.common.cells import Cell, activations_of, capture, cell_of, encode, trained
from benchmarks.common.intervals import Summary, without_nan
from benchmarks.common.measures import Listing, Truth, measure
from benchmarks.common.results import RESULTS, as_csv, differences, summary, table
from benchmarks.common.world import WORLD
from raigen.config import DiscoverConfig, TrainConfig
from raigen.discovery.codes import clear_from, reaches
from raigen.discovery.scores import coherence_scores, prune
from raigen.runs.files import write_text
from raigen.runs.run import Run
from raigen.sae.stream import scale_dead_thresholds

SHOWN = ("precision@10", "recall@20", "recall@20 in 0.5-1 %", "recall@20 in 1-2 %", "recall@20 in 2-5 %", "redundancy",
         "listed", "matched AP")  # fmt: skip
APART = "one per prompt"


@dataclass(frozen=True)
class Options:
    """The comparison of shared and single autoencoders."""

    work: Path = Path("bench-work")
    """Folder of the discovery benchmark; missing images are generated there."""
    own: Path = Path("bench-work/shared-sae")
    """Folder for the codes and times of this benchmark; what is there is used."""
    results: Path = RESULTS
    """Where the tables go."""
    name: str = "shared_sae"
    """Name of the files in `results`."""
    prompts: tuple[str, ...] = field(default=WORLD.prompts)
    """Prompts of the world; two or more."""
    n_images: int = 1000
    """Images per prompt."""
    timed: int = 3
    """For at least this many prompts, an autoencoder per prompt is trained here, to measure its cost; the other prompts
    use the codes of the discovery benchmark, if they are there."""
    larger: int = 4
    """How many times as many neurons the larger shared dictionary has as an autoencoder of one prompt, above 1."""
    forms: tuple[str, ...] = ()
    """The forms to measure; empty for all."""


class Form(NamedTuple):
    """A way to train one autoencoder for all prompts."""

    name: str
    config: TrainConfig
    share: float = 1.0
    """Share of all tokens, drawn from every image and step."""


def forms(n_prompts: int, d_in: int, larger: int) -> list[Form]:
    """Every shared form. A neuron of one prompt is needed by one of `n_prompts` images, so it counts as dead only after
    that many times as many tokens and images."""
    plain = scale_dead_thresholds(TrainConfig(), n_prompts)
    many = replace(plain, d_sae=larger * plain.sae_config(d_in).d_sae)
    return [
        Form("shared, cost of one", plain, 1 / n_prompts),
        Form("shared", plain),
        Form("shared, batches of 256", replace(plain, tokens_per_batch=256)),
        Form(f"shared, {larger} x neurons", many),
    ]


def main(options: Options) -> None:
    """Trains what is missing, measures all, writes the tables."""
    runs = {prompt: _run(options, prompt) for prompt in options.prompts}
    cells = {prompt: cell_of(run, prompt, 0) for prompt, run in runs.items()}
    rows, costs = [], {}
    for name, codes, seconds in every_form(options, runs, cells):
        costs[name] = seconds
        rows += rows_of(name, codes, cells)
        print(f"{name}: {seconds:.0f} s on a core", flush=True)
    print(table(write_results(options, rows, costs), SHOWN, "form"))


def every_form(
    options: Options, runs: dict[str, Run], cells: dict[str, Cell]
) -> Iterator[tuple[str, dict[str, np.ndarray], float]]:
    """The largest codes [image, neuron] of every prompt, and the seconds of training in all, form by form."""
    codes, timed = {}, []
    for prompt, run in runs.items():
        known = run.dir / "codes-matryoshka-0.safetensors"  # of the discovery benchmark
        if len(timed) >= options.timed and known.exists():
            codes[prompt] = load_file(known)["peak"]
        else:
            found, seconds = kept(options, APART, {prompt: cells[prompt]}, _source(run), TrainConfig())
            codes |= found
            timed.append(seconds)
    yield APART, codes, len(runs) * float(np.mean(timed))
    for form in forms(len(runs), next(iter(cells.values())).mid.shape[-1], options.larger):
        if not options.forms or form.name in options.forms:
            source = _source(*runs.values(), share=form.share)
            yield form.name, *kept(options, form.name, cells, source, form.config)


def kept(
    options: Options, name: str, cells: dict[str, Cell], source: Callable[[], Tensor], config: TrainConfig
) -> tuple[dict[str, np.ndarray], float]:
    """The codes of one autoencoder for these prompts and the CPU seconds of its training, from their file if they are
    there. (CPU time, unlike wall time, hardly depends on other load.)"""
    path = options.own / f"{name.replace(' ', '-').replace(',', '')}--{'-'.join(_last(p) for p in cells)}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        activations, started = source(), time.process_time()
        sae = trained(activations, config)
        seconds = time.process_time() - started
        found = {prompt: encode(sae, cell.mid).peak for prompt, cell in cells.items()}
        save_file(found | {"seconds": np.array([seconds])}, path)
    stored = load_file(path)
    return {prompt: stored[prompt] for prompt in cells}, float(stored["seconds"][0])


def rows_of(name: str, codes: dict[str, np.ndarray], cells: dict[str, Cell]) -> Iterator[dict]:
    """One row for each prompt, order of the list and measure."""
    for prompt, cell in cells.items():
        weights: dict[str, np.ndarray | float] = {"": 1.0}
        if name != APART:  # neurons of different autoencoders have no rates to compare
            here, elsewhere = rates(codes, prompt)
            weights |= {", frequent elsewhere first": elsewhere / (here + elsewhere + 1e-9),
                        ", frequent here first": here / (here + elsewhere + 1e-9),
                        ", rarer here only": (here < elsewhere).astype(float)}  # fmt: skip
        for suffix, weight in weights.items():
            found = listing(codes[prompt], cell, weight)
            for key, value in measure(found, Truth(cell.shows, cell.controls)).items():
                place = {"prompt": prompt, "generation_seed": 0, "sae_seed": 0}
                yield place | {"arm": name + suffix, "measure": key, "value": value}


def rates(codes: dict[str, np.ndarray], prompt: str) -> tuple[np.ndarray, np.ndarray]:
    """The share of the images of `prompt` in which each neuron fires clearly, and the mean share for the other prompts.
    What is clear is measured by its strongest images of `prompt`."""
    least = clear_from(codes[prompt])
    shares = {name: reaches(own, least).mean(0) for name, own in codes.items()}
    return shares[prompt], np.mean([shares[other] for other in codes if other != prompt], axis=0)


def listing(codes: Float[np.ndarray, "image neuron"], cell: Cell, weight: np.ndarray | float) -> Listing:
    """The list of a prompt to 5 %, its scores multiplied by `weight`, a number for each neuron; 0 removes the
    neuron."""
    codes = eligible(codes, MIN_IMAGES)
    scores = coherence_scores(codes, [cell.embeddings["clip"], cell.embeddings["pixels"]])
    weighted = scores._replace(minority_score=scores.minority_score * weight)
    neurons = prune(weighted, *DiscoverConfig(max_frequency=longer(len(codes))).pruning(len(codes)))
    neurons = neurons[weighted.minority_score[neurons] > 0][:N_LISTED]
    return Listing(codes[:, neurons], scores.frequency[neurons])


def write_results(options: Options, rows: list[dict], costs: dict[str, float]) -> Summary:
    """Writes all rows as CSV, and means, differences over prompts and costs as JSON; returns the means."""
    means = summary(rows, options.prompts, "prompts")
    result = {"prompts": list(options.prompts), "processor seconds of training": costs,
              "mean over prompts": means, f"less {APART}": differences(rows, APART)}  # fmt: skip
    write_text(options.results / f"{options.name}.csv", as_csv(rows))
    write_text(options.results / f"{options.name}.json", json.dumps(without_nan(result), indent=1) + "\n")
    return means


def _run(options: Options, prompt: str) -> Run:
    folder = options.work / _last(prompt) / "g0"
    is_there = (folder / "truth.safetensors").exists()
    return Run(folder) if is_there else capture(options.work, prompt, 0, options.n_images)


def _source(*runs: Run, share: float = 1.0) -> Callable[[], Tensor]:
    """A function that reads the activations of some runs, [image, step, token, d_in]; with a `share` below 1, that
    share of the positions of every step, drawn at random."""

    def read() -> Tensor:
        whole = [activations_of(run) for run in runs]
        return torch.cat([part if share == 1 else _thinned(part, share, n) for n, part in enumerate(whole)])

    return read


def _thinned(activations: Tensor, share: float, seed: int) -> Tensor:
    n_images, n_steps, n_tokens = activations.shape[:3]
    order = torch.rand(n_images, n_steps, n_tokens, generator=torch.Generator().manual_seed(seed)).argsort(-1)
    places = order[..., : max(1, round(share * n_tokens))]
    return activations.gather(2, places[..., None].expand(*places.shape, activations.shape[-1]))


def _last(prompt: str) -> str:
    return prompt.split()[-1]


if __name__ == "__main__":
    main(tyro.cli(Options))
