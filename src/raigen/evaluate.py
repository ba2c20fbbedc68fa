"""Measures how often fresh pictures show each named attribute."""

import csv
import io
import json
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from raigen.config import CaptureConfig, EvaluateConfig
from raigen.diffusion import defaults, make_pictures
from raigen.embed import Embedder
from raigen.loading import BUNDLED, load_pipeline
from raigen.pictures import whole_samples, write_list, write_picture
from raigen.records import Outcome, Presence, RareAttribute, Sample, Tick
from raigen.run import Run, write_text
from raigen.stats import rate_interval
from raigen.world.attributes import PROMPTS, VALUES
from raigen.world.judge import Judgement, judge
from raigen.world.truth import truth_of

FRESH_SEEDS_FROM = 1_000_000_000  # beyond any base_seed in use, so that no fresh picture was seen before


class Verdicts(NamedTuple):
    """What a judge says of each fresh picture: 1 shows the attribute, 0 does not, NaN unscored; and its confidence."""

    judge: str
    shows: Float[np.ndarray, " image"]
    confidence: Float[np.ndarray, " image"]


def evaluate(run: Run, config: EvaluateConfig) -> Generator[Tick, None, Outcome]:
    """Makes pictures with seeds of their own and counts, per named attribute, how many show it.

    In the bundled world its judge decides, for every other model CLIP without calibration. What cannot be judged is
    unscored: it is counted apart and stays out of the rate. For the bundled world truth.json says which neurons were
    right. Stopped and started again it keeps the pictures that are whole. Yields progress in pictures.

    Raises RaigenError when annotation has not run or the model cannot be loaded.
    """
    run.facts_of("annotate")
    capture: CaptureConfig = run.config_of("capture")
    samples = yield from _fresh_pictures(run, capture, config)
    images = [run.read_image(sample, "evaluate") for sample in samples]
    attributes = run.attributes
    in_world = capture.model == BUNDLED and capture.prompt in PROMPTS
    reader = _WorldReader(judge(images)) if in_world else _ClipReader(run, images, capture.prompt)
    black = np.array([image.getbbox() is None for image in images])  # a safety checker's: nothing to judge
    verdicts = {attribute.neuron: without(reader.read(attribute), black) for attribute in attributes if attribute.label}
    measured = [
        replace(attribute, presence=presence_of(verdicts[attribute.neuron], config.confidence))
        if attribute.label
        else replace(attribute, presence=None)
        for attribute in attributes
    ]
    write_text(run.judgements_path, judgements(samples, measured, verdicts))
    write_text(run.presence_path, table(measured))
    write_text(run.attributes_path, json.dumps([asdict(attribute) for attribute in measured], indent=1))
    outputs = [run.fresh_samples_path, run.judgements_path, run.presence_path]
    outputs += [run.dir / sample.file for sample in samples]
    if in_world:
        outputs.append(_write_truth(run, measured))
    judges = sorted({verdict.judge for verdict in verdicts.values()})
    facts = {"judge": ", ".join(judges), "n_fresh_images": len(samples), "fresh_seeds_from": samples[0].seed}
    return Outcome(outputs, facts)


def _fresh_pictures(run: Run, capture: CaptureConfig, config: EvaluateConfig) -> Generator[Tick, None, list[Sample]]:
    base = FRESH_SEEDS_FROM + capture.base_seed
    kept = whole_samples(run, run.fresh_samples_path, run.fresh_dir, capture.prompt, base)
    samples = {index: sample for index, sample in kept.items() if index < config.n_fresh_images}
    missing = [index for index in range(config.n_fresh_images) if index not in samples]
    yield Tick(len(samples), config.n_fresh_images)
    if missing:
        pipe = load_pipeline(capture.model, capture.device, capture)
        settings = defaults(pipe, capture.model, capture)
        seeds = [base + index for index in missing]
        waiting = iter(missing)
        for images in make_pictures(pipe, capture.prompt, seeds, settings, capture.batch_size):
            for image, index in zip(images, waiting, strict=False):
                samples[index] = write_picture(run, run.fresh_dir, index, capture.prompt, base + index, image)
            write_list(run.fresh_samples_path, samples)
            yield Tick(len(samples), config.n_fresh_images)
    return [samples[index] for index in range(config.n_fresh_images)]


class _WorldReader:
    """Verdicts of the world's judge, for labels that are phrases of the world."""

    def __init__(self, judgement: Judgement):
        self._judgement = judgement
        self._column = {value.phrase: index for index, value in enumerate(VALUES)}

    def read(self, attribute: RareAttribute) -> Verdicts:
        readable = self._judgement.readable
        column = self._column.get(attribute.label or "")
        if column is None:  # a label from a user's own vocabulary: this judge cannot tell
            return Verdicts("portraits judge", np.full(len(readable), np.nan), np.zeros(len(readable)))
        shows = np.where(readable, self._judgement.shows[:, column].astype(float), np.nan)
        return Verdicts("portraits judge", shows, self._judgement.confidence[:, column].astype(float))


class _ClipReader:
    """Verdicts of CLIP: nearer to the neuron's top pictures than to random ones, along the label's direction."""

    def __init__(self, run: Run, images: Sequence, prompt: str):
        name = run.facts_of("discover")["embedder"]
        self._embedder, self._prompt = Embedder(name), prompt
        self._fresh = self._embedder.images(images)
        self._audited = run.read_tensors(run.embeddings_path, "discover")["embeddings"].numpy()
        self._index = {sample.file: sample.index for sample in run.samples()}

    def read(self, attribute: RareAttribute) -> Verdicts:
        plain, named = self._embedder.texts([self._prompt, f"{self._prompt}, {attribute.label}"])
        direction = named - plain
        is_top = np.zeros(len(self._audited), bool)
        is_top[[self._index[file] for file in attribute.top_images]] = True
        seen = self._audited @ direction
        middle = (seen[is_top].mean() + seen[~is_top].mean()) / 2
        margin = (self._fresh @ direction - middle) / max(float(seen.std()), 1e-12)
        return Verdicts("CLIP, uncalibrated", (margin > 0).astype(float), 1 / (1 + np.exp(-np.abs(margin))))


def without(verdicts: Verdicts, black: Bool[np.ndarray, " image"]) -> Verdicts:
    """The verdicts with wholly black pictures unscored."""
    return verdicts._replace(shows=np.where(black, np.nan, verdicts.shows))


def presence_of(verdicts: Verdicts, confidence: float) -> Presence:
    """The rate of the attribute with its interval; unscored pictures are not in the denominator."""
    scored = ~np.isnan(verdicts.shows)
    hits, n = int(verdicts.shows[scored].sum()), int(scored.sum())
    interval = rate_interval(hits, n, confidence)
    return Presence(
        rate=hits / n if n else 0.0,
        low=interval.low,
        high=interval.high,
        hits=hits,
        n=n,
        unscored=int((~scored).sum()),
        judge=verdicts.judge,
        interval=f"{100 * confidence:g} % {interval.method}",
    )


def judgements(samples: Sequence[Sample], attributes: Sequence[RareAttribute], verdicts: dict[int, Verdicts]) -> str:
    """judgements.jsonl: a line for every picture and named attribute; `shows` is null where it was not scored."""
    lines = []
    for attribute in attributes:
        if attribute.neuron not in verdicts:
            continue
        name, shows, confidence = verdicts[attribute.neuron]
        for sample, verdict, sure in zip(samples, shows, confidence, strict=True):
            line = {"file": sample.file, "seed": sample.seed, "neuron": attribute.neuron, "label": attribute.label}
            verdict = None if np.isnan(verdict) else bool(verdict)
            lines.append(json.dumps(line | {"judge": name, "shows": verdict, "confidence": round(float(sure), 4)}))
    return "".join(line + "\n" for line in lines)


def table(attributes: Sequence[RareAttribute]) -> str:
    """presence.csv: one line per named attribute."""
    buffer = io.StringIO()
    names = ("rate", "low", "high", "hits", "n", "unscored", "judge", "interval")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rank", "neuron", "label", *names])
    for attribute in attributes:
        if attribute.presence:
            values = [getattr(attribute.presence, name) for name in names]
            writer.writerow([attribute.rank, attribute.neuron, attribute.label, *values])
    return buffer.getvalue()


def _write_truth(run: Run, attributes: Sequence[RareAttribute]):
    samples = run.samples()
    index_of = {sample.file: sample.index for sample in samples}
    judgement = judge([run.read_image(sample) for sample in samples])
    top = [[index_of[file] for file in attribute.top_images] for attribute in attributes]
    prompt = run.config_of("capture").prompt
    truth = truth_of(judgement, top, [attribute.neuron for attribute in attributes], prompt)
    write_text(run.truth_path, json.dumps(truth, indent=1))
    return run.truth_path
