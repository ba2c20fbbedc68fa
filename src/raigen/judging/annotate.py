"""Names the listed neurons by what tells their top images from other images of the same prompt."""

import json
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from scipy.stats import mannwhitneyu

from raigen.config import CLIP, AnnotateConfig, ModelAddress, address_of, labels_of, lines_of
from raigen.discovery.embeddings import Embedder, embedder_of
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import Answers, Budget, Reply
from raigen.judging.vlm.ask import Job, Plan, ask_all
from raigen.judging.vlm.ask import plan as plan_of
from raigen.judging.vlm.questions import annotation_question, read_annotation, why_not
from raigen.runs import pixels
from raigen.runs.files import write_tensors, write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome, Tick
from raigen.world.models import world_name
from raigen.world.worlds import WORLDS

BUILT_IN = (*WORLDS, "general")
N_KEYWORDS = 3


class Naming(NamedTuple):
    """How well each phrase tells a neuron's top images from the rest, best first.

    `auroc` in [0, 1] is the probability that a top image is more similar to the phrase than one of the rest, and
    `contrast` the difference of the mean similarities.
    """

    phrases: list[str]
    auroc: list[float]
    contrast: list[float]


class Named(NamedTuple):
    """An attribute with its new label, if it got one, and its line for annotations.jsonl."""

    attribute: RareAttribute
    line: dict[str, Any]


def annotate(run: Run, config: AnnotateConfig) -> Generator[Tick, None, Outcome]:
    """Names each listed neuron, with CLIP or with a vision-language model.

    CLIP chooses the phrase of the vocabulary that best tells the top images from all others, if its AUROC is at
    least `min_auroc`. A vision-language model sees the top images, the same images with the neuron's activation over
    them, and random ones for control, and says what the top images share. "No identified attribute" is an answer, too;
    without any answer `labeled_by` stays empty. What a person listed keeps its name. Yields progress in neurons.

    Raises RaigenError when discovery has not run, the vocabulary cannot be read, or the model cannot be asked.
    """
    attributes, by_hand = ([a for a in run.attributes if a.by_hand is wanted] for wanted in (False, True))
    yield Tick(0, len(attributes))
    by_clip = config.annotator == CLIP
    name = f"CLIP ({run.facts.discover.embedder})" if by_clip else address_of(config.annotator).name
    answers = Answers(run.answers_path, Budget(config))
    naming = _by_clip(run, attributes, config) if by_clip else _by_vlm(run, attributes, answers, config)
    found: dict[int, Named] = {}
    for named in naming:
        found[named.attribute.neuron] = named
        yield Tick(len(found), len(attributes), named.attribute.label or "no identified attribute")
    ordered = [found[attribute.neuron] for attribute in attributes]
    write_text(run.annotations_path, "".join(json.dumps(named.line) + "\n" for named in ordered))
    run.write_attributes([*(named.attribute for named in ordered), *(one.unmeasured() for one in by_hand)])
    facts: dict[str, Any] = {
        "labeled_by": name,
        "n_named": sum(named.attribute.label is not None for named in ordered),
        "n_unanswered": sum(named.attribute.labeled_by is None for named in ordered),
    }
    if not by_clip:
        facts["answers"] = answers.usage(address_of(config.annotator))._asdict()
    return Outcome([run.annotations_path, *([run.words_path] if by_clip else [])], facts)


def plan(run: Run, config: AnnotateConfig) -> list[Plan]:
    """What asking the vision-language model would take, without asking; empty for CLIP."""
    if config.annotator == CLIP:
        return []
    answers = Answers(run.answers_path, Budget(config))
    attributes = [attribute for attribute in run.attributes if not attribute.by_hand]
    return [plan_of(address_of(config.annotator), _jobs(run, attributes), answers)]


def control_samples(
    samples: Sequence[Sample], attribute: RareAttribute, base_seed: int, n: int | None = None
) -> list[Sample]:
    """Random images to compare a neuron's top images with, none of them a top image.

    As many as there are top images are drawn first: these are what an annotator sees. `n` = None takes these, a smaller
    `n` the first of them, and a larger `n` adds further ones.
    """
    rest = [sample for sample in samples if sample.file not in attribute.top_images]
    rng = np.random.default_rng([base_seed, attribute.neuron])
    seen = sorted(rng.choice(len(rest), size=min(len(attribute.top_images), len(rest)), replace=False).tolist())
    if n is None or n <= len(seen):
        return [rest[index] for index in seen[:n]]
    others = np.setdiff1d(np.arange(len(rest)), seen)
    more = sorted(rng.choice(others, size=min(n - len(seen), len(others)), replace=False).tolist())
    return [rest[index] for index in (*seen, *more)]


def _by_clip(run: Run, attributes: Sequence[RareAttribute], config: AnnotateConfig) -> Iterator[Named]:
    prompt, name = run.config.capture.prompt, run.facts.discover.embedder
    embedder, embeddings, n_audited = embedder_of(run), run.all_embeddings(), len(run.embeddings())
    phrases = fitting(vocabulary(config.vocabulary, run.config.capture.model, prompt), prompt, embedder)
    texts = embedder.texts([prompt, *(f"{prompt}, {phrase}" for phrase in phrases)])
    write_words(run, phrases, texts[1:] - texts[0])
    index_of = run.index_of
    for attribute in attributes:
        top = np.array([index_of[file] for file in attribute.top_images])
        rows = np.union1d(np.arange(n_audited), top)  # relatives of the others are no fair sample of the prompt
        naming = name_of(embeddings[rows], np.searchsorted(rows, top), texts[1:] - texts[0], phrases)
        named = labeled(attribute, naming, prompt, config.min_auroc)
        line = {"neuron": attribute.neuron, "label": named.label, "by": "CLIP", "embedder": name}
        yield Named(named, line | naming._asdict())


def write_words(run: Run, phrases: Sequence[str], directions: Float[np.ndarray, "phrase width"]) -> None:
    """Writes words.safetensors: the direction of each phrase among the embeddings, with which the report is searched
    without a model. The phrases are a JSON list in UTF-8, as bytes."""
    said = torch.frombuffer(bytearray(json.dumps(list(phrases)).encode()), dtype=torch.uint8)
    write_tensors(run.words_path, {"phrases": said, "directions": torch.from_numpy(directions).half()})


def _by_vlm(run: Run, attributes: Sequence[RareAttribute], answers: Answers, config: AnnotateConfig) -> Iterator[Named]:
    address, capture = address_of(config.annotator), run.config.capture
    replies = ask_all(address, _jobs(run, attributes), answers, config, capture.device)
    for (attribute, n_control), reply, reason in replies:
        yield answered(attribute, reply, reason, address, capture.prompt, n_control)


def _jobs(run: Run, attributes: Sequence[RareAttribute]) -> Iterator[Job]:
    """The question about each neuron, with a sheet of its images."""
    prompt, base_seed = run.config.capture.prompt, run.config.capture.base_seed
    samples = run.samples()
    by_file = run.sample_of
    for attribute, maps in zip(attributes, run.heatmaps()[: len(attributes)], strict=True):
        top = [run.read_image(by_file[file]) for file in attribute.top_images]
        control = [run.read_image(sample) for sample in control_samples(samples, attribute, base_seed)]
        question = annotation_question(prompt, len(top), len(control))
        yield Job((evidence_sheet(top, maps, control),), question, (attribute, len(control)))


def evidence_sheet(
    top: Sequence[Image], heatmaps: Float[np.ndarray, "image row column"], control: Sequence[Image]
) -> Image:
    """What an annotator sees of a neuron: its top images, the same images under their heatmaps, and random ones."""
    peak = float(heatmaps[: len(top)].max(initial=0.0))
    tinted = []
    for image, heatmap in zip(top, heatmaps, strict=False):
        large = pixels.sized(image)
        overlay = pixels.heatmap_overlay(heatmap, large.size, peak)
        large.paste(overlay, mask=overlay.getchannel("A").point(lambda alpha: 0.7 * alpha))
        tinted.append(large)
    return pixels.sheet([
        ("A: where one inner feature of the model is strongest", top),
        ("B: the same pictures, tinted where it is active", tinted),
        ("C: random pictures of the same prompt", control),
    ])  # fmt: skip


def answered(
    attribute: RareAttribute, reply: Reply | None, reason: str, address: ModelAddress, prompt: str, n_control: int
) -> Named:
    """The attribute with the label of a model's reply. Without a label, `labeled_by` says whether "no attribute" was
    the model's answer, or is None where there is no answer."""
    annotation = read_annotation(reply.text) if reply else None
    unnamed = attribute.unnamed()
    line: dict[str, Any] = {"neuron": attribute.neuron, "label": None, "by": address.name}
    if reply is None or annotation is None:
        unread = "the answer cannot be read" if reply and reply.text else "the model refused to answer"
        return Named(unnamed, line | {"why_not": reason or unread, "text": reply.text if reply else None})
    n_top = len(attribute.top_images)
    against = why_not(annotation, prompt, n_top, n_control)
    line |= {"why_not": against, "n_top": n_top, "n_random": n_control, **annotation._asdict()}
    unnamed = replace(unnamed, labeled_by=address.name)
    if against:
        return Named(unnamed, line)
    named = replace(
        unnamed,
        label=annotation.attribute,
        keywords=annotation.keywords[:N_KEYWORDS],
        suggested_prompt=annotation.suggested_prompt or f"{prompt}, {annotation.attribute}",
    )
    return Named(named, line | {"label": named.label})


def vocabulary(name: str, model: str, prompt: str) -> list[str]:
    """The phrases to choose from, without those that the prompt says already.

    `auto` takes the phrases of a planted world for its models, else the general list. Raises RaigenError when a file
    is missing, or fewer than two phrases are left.
    """
    name = (world_name(model) or "general") if name == "auto" else name
    if name in WORLDS:
        phrases = [value.phrase for value in WORLDS[name].values]
    elif name == "general":
        phrases = lines_of(Path(str(files("raigen.judging"))) / "vocabulary" / "general.txt")
    else:
        path = Path(name)
        if not path.is_file():
            raise RaigenError(
                f"vocabulary: expected one of auto, {', '.join(BUILT_IN)}, or a text file with one phrase a line; "
                f"there is no file {name!r}"
            )
        phrases = labels_of(path)
    said = set(_words(prompt))
    left = [phrase for phrase in phrases if not set(_words(phrase)) <= said]
    if len(left) < 2:
        raise RaigenError(
            f"vocabulary: expected at least two phrases that the prompt does not say; {name} has {len(left)}"
        )
    return left


def fitting(phrases: Sequence[str], prompt: str, embedder: Embedder) -> list[str]:
    """The phrases for which the prompt leaves room in the text that CLIP reads.

    Raises RaigenError when these are fewer than two.
    """
    cut = embedder.cut_texts([f"{prompt}, {phrase}" for phrase in phrases])
    left = [phrase for phrase, is_cut in zip(phrases, cut, strict=True) if not is_cut]
    if len(left) < 2:
        raise RaigenError(
            f"annotator: expected a prompt that leaves room for a name in the {embedder.n_tokens} tokens that CLIP "
            "reads; this one is too long. Name the neurons with a vision-language model: --annotator openai:MODEL"
        )
    return left


def name_of(
    embeddings: Float[np.ndarray, "image width"],
    top: np.ndarray,
    directions: Float[np.ndarray, "phrase width"],
    phrases: Sequence[str],
) -> Naming:
    """Ranks phrases by how much more similar to them the top images are than the other images, best first.

    `directions` are text("prompt, phrase") - text("prompt"), so what the prompt says already cancels out. Phrases are
    ranked by the difference of means in units of the standard deviation over all images.
    """
    similarity = embeddings @ directions.T  # [image, phrase]
    is_top = np.zeros(len(embeddings), bool)
    is_top[top] = True
    n_above = mannwhitneyu(similarity[is_top], similarity[~is_top], axis=0, method="asymptotic").statistic
    auroc = n_above / (is_top.sum() * (~is_top).sum())  # the share of pairs in which the top image is the more similar
    contrast = similarity[is_top].mean(0) - similarity[~is_top].mean(0)
    order = np.argsort(-contrast / similarity.std(0), kind="stable")
    return Naming(
        [phrases[int(index)] for index in order], auroc[order].round(4).tolist(), contrast[order].round(5).tolist()
    )


def labeled(attribute: RareAttribute, naming: Naming, prompt: str, min_auroc: float) -> RareAttribute:
    """The attribute with the best phrase as its label, or without a label when that phrase is not good enough."""
    good = [phrase for phrase, auroc in zip(naming.phrases, naming.auroc, strict=True) if auroc >= min_auroc]
    unnamed = replace(attribute.unnamed(), labeled_by="CLIP")
    if not good or good[0] != naming.phrases[0]:
        return unnamed
    return replace(
        unnamed,
        label=good[0],
        keywords=tuple(good[:N_KEYWORDS]),
        suggested_prompt=f"{prompt}, {good[0]}",
        label_auroc=naming.auroc[0],
    )


def as_annotated(run: Run) -> list[RareAttribute]:
    """The listed attributes as annotation left them, with its labels where an evaluation took others, and with the
    names that people gave in their place.

    Raises RaigenError before `annotate` has run.
    """
    return [_renamed(run, a) if a.given_name else relabeled(run, a, a.former_label) if a.former_label
            else a.unmeasured() for a in run.attributes]  # fmt: skip


def _renamed(run: Run, attribute: RareAttribute) -> RareAttribute:
    """The attribute with the name that a person gave as its label, and nothing measured for the label before."""
    name = attribute.given_name
    return replace(attribute.unmeasured(), label=name, suggested_prompt=f"{run.config.capture.prompt}, {name}",
                   label_auroc=None, labeled_by=attribute.named_by, former_label=None, causal=None)  # fmt: skip


def relabeled(run: Run, attribute: RareAttribute, label: str) -> RareAttribute:
    """The attribute with another of its annotator's phrases as its label, and nothing measured for the label before.

    `former_label` is the annotator's own label, unless that is the one. Raises RaigenError before `annotate` has run.
    """
    lines = run.read_lines(run.annotations_path, "annotate")
    line = next(line for line in lines if line["neuron"] == attribute.neuron)
    is_first = label == line["label"]
    return replace(
        attribute.unmeasured(), label=label, former_label=None if is_first else line["label"],
        suggested_prompt=(is_first and line.get("suggested_prompt")) or f"{run.config.capture.prompt}, {label}",
        label_auroc=dict(zip(line.get("phrases", ()), line.get("auroc", ()), strict=True)).get(label), causal=None,
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())
