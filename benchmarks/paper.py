"""The tables of the paper (RAIGen, arXiv 2602.06806) on any model, beside the published figures:

`python -m benchmarks.paper --table 6 --model MODEL --judge openai:MODEL@URL --annotator openai:MODEL@URL`.

`--dry-run` says what a table costs. What is done is kept in `--work`, so the same command resumes. A table is printed,
and written to `paper_table_N.json`. The settings are the published ones (`--preset`), or for another model the
published score and pruning, with a tenth of the neurons coarse. Which table has which number in the paper is our
reading: the notes that we worked from have the figures, but not their numbers.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro

from benchmarks.amplification.methods import kept
from benchmarks.autoencoder import toy_tree
from benchmarks.common.arms import clip_clusters
from benchmarks.common.intervals import SHARE, interval_of, shown, without_nan
from benchmarks.common.results import RESULTS
from raigen.auditing.audit import capture_and_train, run_stage
from raigen.auditing.inputs import check_inputs
from raigen.auditing.plan import estimate
from raigen.config import AuditConfig, identity
from raigen.config.fields import FILE, PYTHON, need
from raigen.config.presets import PresetName, preset
from raigen.config.prompts import prompts_of
from raigen.diffusion.generation import defaults, layout_of
from raigen.diffusion.hookpoints import find_hookpoint
from raigen.diffusion.loading import load_pipeline
from raigen.discovery.codes import strongest
from raigen.discovery.discover import attributes_of, heatmaps_of
from raigen.discovery.listing import NeuronList
from raigen.discovery.scores import NeuronScores, minority_scores, prune
from raigen.errors import RaigenError
from raigen.report.formatting import duration
from raigen.runs.activations import ActivationStore
from raigen.runs.files import write_tensors, write_text
from raigen.runs.run import Run
from raigen.runs.study import slug
from raigen.sae.model import MatryoshkaSAE
from raigen.world.worlds import world_of

TableNumber = Literal["1", "6", "7", "8", "10", "11", "12"]
N_LISTED, N_CLUSTERS, LEAST_IMAGES = 10, 50, 50


@dataclass(frozen=True)
class Options:
    """A table of the paper."""

    table: TableNumber
    """1: presence of the listed attributes; 6: parts of the score; 7: numbers of images; 8: sizes of the coarse group;
    10: another embedder; 11: clusters of CLIP embeddings; 12: the toy tree, without a model."""
    model: str = "portraits"
    """`portraits` or `portraits-transformer` (bundled), or a folder or Hub id of a diffusers pipeline."""
    preset: PresetName | None = None
    """Take the published settings, but for the model: `paper-sd14`, `paper-sdxl` or `paper-flux`."""
    prompts: tuple[str, ...] = ()
    """Prompts. Without any: those of the portraits world for its models, else the list `professions`."""
    judge: tuple[str, ...] = ("auto",)
    """Judges, as for `raigen evaluate`; the paper asked vision-language models."""
    annotator: str = "clip"
    """The annotator, as for `raigen annotate`; the paper asked a vision-language model."""
    embedder: str | None = None
    """The embedder; None is raigen's default."""
    other_embedder: str = "google/siglip-base-patch16-224"
    """The second embedder of table 10."""
    n_images: int = 5000
    """Images of each audit, at least 50; table 7 takes .02, .2, 1 and 2 times as many, but never fewer than 50."""
    n_fresh_images: int = 1000
    """Fresh images on which rates are measured, at least 1."""
    store: bool = False
    """Keep the activations of all steps (SDXL: 655 GB a prompt). Without them, table 8 makes its images three times."""
    n_seeds: int = 20
    """Seeds of table 12, at least 1."""
    n_samples: int = 300_000
    """Samples of table 12 for each seed, at least 1,000."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    dry_run: bool = False
    """Only print what the table costs."""
    work: Path = Path("bench-work/paper")
    """Folder of the audits."""
    results: Path = RESULTS
    """Where the JSON goes."""

    def __post_init__(self) -> None:
        for name, least in (("n_images", LEAST_IMAGES), ("n_fresh_images", 1), ("n_seeds", 1), ("n_samples", 1000)):
            need(getattr(self, name) >= least, name, getattr(self, name), f"{least:,} or more")


class Variant(NamedTuple):
    """How a row departs from the published setting: its share of the images, the share of neurons that are coarse, what
    the list is made of, and whether the second embedder is used."""

    images: float = 1.0
    coarse: float = 0.1
    listed_by: Literal["score", "frequency", "distinctiveness", "clusters"] = "score"
    is_other_embedder: bool = False


class Table(NamedTuple):
    """What a table is taken to hold, its rows, and the published figures of some rows, by measure."""

    what: str
    rows: Mapping[str, Variant]
    published: Mapping[str, Mapping[str, float]]


OURS = "RAIGen"
TABLES: dict[str, Table] = {
    "1": Table("attribute presence (AP) of the listed attributes; OpenBias needs a language model and is not made here",
               {OURS: Variant()},
               {"RAIGen, SD 1.4, WinoBias": {"AP": 0.205}, "RAIGen, SD 1.4, COCO": {"AP": 0.220},
                "RAIGen, SDXL, WinoBias": {"AP": 0.194}, "RAIGen, SDXL, COCO": {"AP": 0.199},
                "OpenBias, WinoBias": {"AP": 0.941}, "OpenBias, COCO": {"AP": 0.933}}),
    "6": Table("the parts of the score alone (doctor, SDXL)",
               {"frequency": Variant(listed_by="frequency"),
                "distinctiveness": Variant(listed_by="distinctiveness"), "product": Variant()},
               {"frequency": {"interpretable": 0.375, "AP": 0.080},
                "distinctiveness": {"interpretable": 0.90, "AP": 0.257},
                "product": {"interpretable": 0.80, "AP": 0.150}}),
    "7": Table("numbers of images (doctor, SDXL: 100, 1,000, 5,000 and 10,000)",
               {"x .02": Variant(0.02), "x .2": Variant(0.2), "x 1": Variant(), "x 2": Variant(2.0)},
               {"x .02": {"interpretable": 0.1}, "x .2": {"interpretable": 0.5}, "x 1": {"interpretable": 0.8},
                "x 2": {"interpretable": 0.9}}),
    "8": Table("sizes of the coarse group (doctor, SDXL: 1,280, 2,048 and 10,240 of 20,480 neurons)",
               {"1/16": Variant(coarse=1 / 16), "1/10": Variant(), "1/2": Variant(coarse=0.5)},
               {"1/16": {"AP": 0.15}, "1/10": {"AP": 0.15}, "1/2": {"AP": 0.20}}),
    "10": Table("another embedder: how many of the first ten neurons are the same (the paper: SigLIP)",
                {"other embedder": Variant(is_other_embedder=True)}, {"other embedder": {"same neurons": 0.9}}),
    "11": Table("the ten smallest of 50 clusters of CLIP embeddings (six professions; the paper prints .37 for a mean "
                "of .44)", {"clusters": Variant(listed_by="clusters"), OURS: Variant()},
                {"clusters": {"AP": 0.44}, OURS: {"AP": 0.18}}),
    "12": Table("the toy tree: firing rates of neurons and frequencies of features", {},
                {name: {"spearman": 0.991, "P(rare | least active 0.1)": 0.846, "P(rare | least active 0.2)": 0.960,
                        "P(rare | least active 0.3)": 0.981} for name in toy_tree.WIDTHS}),
}  # fmt: skip


def main(options: Options) -> None:
    """Prints what the table is taken to hold and what it costs; then makes, prints and writes it.

    Raises RaigenError for settings and models that cannot be used, before the first image.
    """
    table = TABLES[options.table]
    check(options, table)
    print(f"table {options.table}, taken to be: {table.what}", cost(options), sep="\n", flush=True)
    if options.dry_run:
        return
    if options.table == "12":
        means = toy_rows(options)
    else:
        by_prompt = [rows_of(options, table, prompt) for prompt in prompts_for(options)]
        means = {row: mean_of([found[row] for found in by_prompt]) for row in table.rows}
    told = {name: value for name, value in asdict(options).items() if name not in ("work", "results", "dry_run")}
    result = {"table": options.table, "what": table.what, "options": told, "ours": means, "published": table.published}
    write_text(options.results / f"paper_table_{options.table}.json", json.dumps(without_nan(result), indent=1) + "\n")
    print("\n".join(lines_of(table, means)))


def check(options: Options, table: Table) -> None:
    """Raises RaigenError where an audit of the table would."""
    used = {with_other for variant in table.rows.values() for with_other in (False, variant.is_other_embedder)}
    for prompt in prompts_for(options):
        for is_other_embedder in used:
            check_inputs(config_of(options, prompt, Variant(is_other_embedder=is_other_embedder)))


def prompts_for(options: Options) -> Sequence[str]:
    """The prompts of the table."""
    world = world_of(options.model)
    return tuple(dict.fromkeys(options.prompts)) or (world.prompts if world else prompts_of("professions"))


def config_of(options: Options, prompt: str, variant: Variant, d_in: int | None = None) -> AuditConfig:
    """The audit of a row. The sizes of the groups depend on `d_in`, the width of a token."""
    chosen: dict[str, Any] = {"n_attributes": N_LISTED, "min_images": 1, "score": "published"}
    chosen |= preset(options.preset) if options.preset else {}
    d_sae = chosen.get("d_sae") or 16 * (d_in or 1)
    coarse = max(1, round(variant.coarse * d_sae))
    embedder = options.other_embedder if variant.is_other_embedder else options.embedder
    chosen |= {"embedder": embedder} if embedder else {}
    chosen |= {"d_sae": d_sae, "group_sizes": (coarse, d_sae - coarse)} if d_in else {}
    return AuditConfig.of(prompt, **chosen | {
        "model": options.model, "n_images": max(LEAST_IMAGES, round(variant.images * options.n_images)),
        "store": options.store, "device": options.device, "annotator": options.annotator, "judge": options.judge,
        "n_fresh_images": options.n_fresh_images, "n_suggested_images": 0, "n_label_images": 0,
    })  # fmt: skip


def cost(options: Options) -> str:
    """What a table costs: images, trainings and questions. In a dry run a few images are made, to say the time."""
    if options.table == "12":
        return f"{options.n_seeds * len(toy_tree.WIDTHS)} trainings on {options.n_samples:,} samples, no images"
    variants, n_prompts = list(TABLES[options.table].rows.values()), len(prompts_for(options))
    configs = [config_of(options, prompts_for(options)[0], variant) for variant in variants]
    audited, judged = {config.capture.n_images for config in configs}, options.table != "10"
    trainings = len({(config.capture.n_images, v.coarse) for config, v in zip(configs, variants, strict=True)})
    n_fresh = len(audited) * options.n_fresh_images * judged
    n_questions = len(variants) * N_LISTED * (options.n_fresh_images + 1) * judged
    is_asked = any(":" in each and not each.startswith((PYTHON, FILE)) for each in (*options.judge, options.annotator))
    asked = f", up to {n_questions:,} questions to each vision-language model" if is_asked else ""
    words = [f"{n_prompts} prompts, each with {sum(audited):,} audited and {n_fresh:,} fresh images, {trainings} "
             f"trainings{asked}"]  # fmt: skip
    if options.dry_run:
        plan = estimate(config_of(options, prompts_for(options)[0], Variant()), options.work)
        share = sum(audited) / options.n_images * n_prompts
        words.append(f"about {duration(plan.seconds_images * share)} for audited images, "
                     f"{duration(plan.seconds_fresh * len(audited) * n_prompts * judged)} for fresh ones, "
                     f"{duration(plan.seconds_training * share * trainings / len(audited))} for training")  # fmt: skip
        words += plan.shortages
    return "\n".join(words)


def rows_of(options: Options, table: Table, prompt: str) -> dict[str, dict[str, float]]:
    """The measures of each row for a prompt. What was measured before is read from the run's folder."""
    width, found = None, {}
    for name, variant in table.rows.items():
        model = Path(options.model).name
        run = Run.create(options.work / model / slug(prompt) / f"x{variant.images:g}")
        asked = {"variant": variant._asdict(), "config": {
            stage: identity(getattr(config_of(options, prompt, variant), stage))
            for stage in ("capture", "train", "discover", "annotate", "evaluate")}}  # fmt: skip
        path = run.dir / "cells" / f"table-{options.table}-{name.replace('/', '-of-').replace(' ', '-')}.json"

        def make(run: Run = run, variant: Variant = variant) -> dict[str, Any]:
            nonlocal width
            width = width or width_of(config_of(options, prompt, variant))
            return measured(run, options, variant, config_of(options, prompt, variant, width))

        found[name] = {key: value for key, value in kept(path, asked, make).items() if key != "asked"}
    return found


def width_of(config: AuditConfig) -> int:
    """The width of the tokens at the hookpoint; it takes a denoising step."""
    capture = config.capture
    pipe = load_pipeline(capture.model, capture.device, capture)
    settings = defaults(pipe, capture.model, capture)
    return layout_of(pipe, capture.prompt, settings, find_hookpoint(pipe, capture.hookpoint)).d_in


def measured(run: Run, options: Options, variant: Variant, config: AuditConfig) -> dict[str, Any]:
    """Takes a run through the stages of a row, and measures what it lists. The fresh images of a run are kept."""
    if not config.capture.store and not run.has_finished("capture"):
        with run.locked():
            for _ in capture_and_train([run], [config]):
                pass
    at(run, "capture", config)
    at(run, "train", config)
    known: set[int] = set()
    if variant.is_other_embedder:
        first = config_of(options, config.capture.prompt, Variant(), run.facts.capture.d_in)
        at(run, "discover", first, again=True)
        known = {attribute.neuron for attribute in run.attributes}
    at(run, "discover", config, again=True)
    if variant.is_other_embedder:
        same = [attribute.neuron in known for attribute in run.attributes]
        return {"same neurons": float(np.mean(same)) if same else None}
    if variant.listed_by != "score":
        relist(run, variant.listed_by)
    for stage in ("annotate", "evaluate"):
        at(run, stage, config, again=True)
    named = [attribute.name is not None for attribute in run.attributes]
    rates = [a.presence.rate for a in run.attributes if a.name and a.presence and a.presence.n]
    return {"interpretable": float(np.mean(named)) if named else None, "AP": float(np.mean(rates)) if rates else None}


def at(run: Run, stage: str, config: AuditConfig, again: bool = False) -> None:
    """Runs a stage, unless it is done with this configuration; `again` runs it in any case."""
    begun, wanted = stage in run.manifest["stages"], getattr(config, stage)
    run_stage(run, stage, wanted, redo=begun and (again or identity(run.config_of(stage)) != identity(wanted)))


def relist(run: Run, by: str) -> None:
    """Lists neurons by one part of the score alone, or the smallest clusters of embeddings as if they were neurons."""
    embeddings, shown, codes = run.embeddings(), run.is_shown(), run.image_codes()
    if by == "clusters":
        found = clip_clusters(embeddings, seed=0, k=min(N_CLUSTERS, len(embeddings) // 5))
        near = np.exp(found.activations - found.activations.max())  # above 0, as codes are
        codes, frequency = near[:, :N_LISTED].astype(np.float32), found.rates[:N_LISTED]
        nothing = np.zeros(len(frequency))
        scores = NeuronScores(frequency, nothing, 1 - frequency, np.zeros((len(frequency), 1)))
        neurons = np.arange(len(frequency))
        write_tensors(run.codes_path, {"image_codes": torch.from_numpy(np.ascontiguousarray(codes))})
    else:
        scores = minority_scores(codes[shown], embeddings[shown])
        alone = (
            scores.distinctiveness if by == "distinctiveness" else np.where(scores.live, 1 - scores.frequency, np.nan)
        )
        scores = scores._replace(minority_score=alone)
        neurons = prune(scores)[:N_LISTED]
    top = [strongest(np.where(shown, codes[:, neuron], -1), N_LISTED) for neuron in neurons]
    listing = NeuronList(scores, neurons, np.array(top, int).reshape(len(neurons), N_LISTED))
    store, sae = ActivationStore(run.activations_dir), MatryoshkaSAE.load(run.sae_dir)
    maps = torch.zeros(*listing.top.shape, *store.grid) if by == "clusters" else heatmaps_of(listing, store, sae)
    write_tensors(run.heatmaps_path, {"heatmaps": maps})
    run.write_attributes(attributes_of(listing, run.samples(), None))


def toy_rows(options: Options) -> dict[str, dict[str, Any]]:
    """Table 12: the mean of each measure over the seeds."""
    torch.set_num_threads(1)
    found = {}
    for name, width in toy_tree.WIDTHS.items():
        cells = [
            kept(options.work / "toy" / "cells" / f"{width}-{seed}.json", {"n_samples": options.n_samples},
                 lambda seed=seed, width=width: toy_tree.one_seed(seed, options.n_samples, width))
            for seed in range(options.n_seeds)
        ]  # fmt: skip
        found[name] = mean_of([{key: value for key, value in cell.items() if key != "asked"} for cell in cells])
    return found


def mean_of(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """The mean of each measure over the prompts, or the seeds, that have it, with its interval."""
    columns = {name: np.array([row[name] for row in rows if row[name] is not None], float) for name in rows[0]}
    return {name: interval_of(values, SHARE) for name, values in columns.items()}


def lines_of(table: Table, means: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A line for each row and measure: ours, and the published figure."""
    for row in dict.fromkeys([*means, *table.published]):
        ours, theirs = means.get(row, {}), table.published.get(row, {})
        for name in dict.fromkeys([*ours, *theirs]):
            mine = shown(ours[name]) if name in ours else "not made here"
            paper = f"{theirs[name]:.3g}" if name in theirs else "no figure in our notes"
            yield f"{row} | {name} | {mine} | published: {paper}"


def run(args: Sequence[str] | None = None) -> None:
    """Makes the table that the arguments ask for. An error that the user can fix ends with status 1 and a line."""
    try:
        main(tyro.cli(Options, args=args))
    except RaigenError as error:
        sys.exit(f"benchmarks.paper: {error}")


if __name__ == "__main__":
    run()
