"""Names the listed neurons: which phrase tells a neuron's top pictures from random ones of the same prompt."""

import json
import re
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from raigen.config import AnnotateConfig
from raigen.embed import Embedder
from raigen.errors import RaigenError
from raigen.loading import BUNDLED
from raigen.records import Outcome, RareAttribute, Tick
from raigen.run import Run, write_text
from raigen.world.attributes import VALUES

BUILT_IN = (BUNDLED, "general")
N_KEYWORDS = 3


class Naming(NamedTuple):
    """How well each phrase tells a neuron's top pictures from the rest, best first.

    `auroc` in [0, 1] of ranking top pictures above the rest; `contrast` is the difference of the mean similarity.
    """

    phrases: list[str]
    auroc: list[float]
    contrast: list[float]


def annotate(run: Run, config: AnnotateConfig) -> Generator[Tick, None, Outcome]:
    """Names each listed neuron with CLIP: the phrase of the vocabulary that its top pictures show and others do not.

    A phrase counts only if it tells the top pictures from all other pictures of the prompt with an AUROC of at least
    `min_auroc`; otherwise the answer is that no attribute was identified. Yields progress in neurons.

    Raises RaigenError when discovery has not run, or the vocabulary cannot be read.
    """
    prompt = run.config_of("capture").prompt
    phrases = vocabulary(config.vocabulary, run.config_of("capture").model, prompt)
    embeddings = run.read_tensors(run.embeddings_path, "discover")["embeddings"].numpy()
    attributes, name = run.attributes, run.facts_of("discover")["embedder"]
    yield Tick(0, len(attributes))
    texts = Embedder(name).texts([prompt, *(f"{prompt}, {phrase}" for phrase in phrases)])
    index_of = {sample.file: sample.index for sample in run.samples()}
    lines, named = [], []
    for done, attribute in enumerate(attributes, 1):
        top = np.array([index_of[file] for file in attribute.top_images])
        naming = name_of(embeddings, top, texts[1:] - texts[0], phrases)
        named.append(labeled(attribute, naming, prompt, config.min_auroc))
        line = {"neuron": attribute.neuron, "label": named[-1].label, "by": "CLIP", "embedder": name}
        lines.append(json.dumps(line | naming._asdict()))
        yield Tick(done, len(attributes), named[-1].label or "no identified attribute")
    write_text(run.annotations_path, "".join(line + "\n" for line in lines))
    write_text(run.attributes_path, json.dumps([asdict(attribute) for attribute in named], indent=1))
    facts = {
        "labeled_by": f"CLIP ({name})",
        "vocabulary": config.vocabulary,
        "n_phrases": len(phrases),
        "n_named": sum(attribute.label is not None for attribute in named),
    }
    return Outcome([run.annotations_path], facts)


def vocabulary(name: str, model: str, prompt: str) -> list[str]:
    """The phrases to choose from, without those that the prompt says already.

    `auto` is the list of the bundled world for its model, else the general one. Raises RaigenError when a file is
    missing or holds fewer than two phrases.
    """
    name = (BUNDLED if model == BUNDLED else "general") if name == "auto" else name
    if name == BUNDLED:
        phrases = [value.phrase for value in VALUES]
    elif name == "general":
        phrases = files("raigen").joinpath("vocabulary", "general.txt").read_text(encoding="utf-8").splitlines()
    else:
        path = Path(name)
        if not path.is_file():
            raise RaigenError(
                f"vocabulary: expected one of auto, {', '.join(BUILT_IN)}, or a text file with one phrase a line; "
                f"there is no file {name!r}"
            )
        phrases = path.read_text(encoding="utf-8").splitlines()
    said = set(_words(prompt))
    wanted = list(dict.fromkeys(phrase.strip() for phrase in phrases if phrase.strip() and not phrase.startswith("#")))
    left = [phrase for phrase in wanted if not set(_words(phrase)) <= said]
    if len(left) < 2:
        raise RaigenError(
            f"vocabulary: expected at least two phrases that the prompt does not say; {name} has {len(left)}"
        )
    return left


def name_of(
    embeddings: Float[np.ndarray, "image width"],
    top: np.ndarray,
    directions: Float[np.ndarray, "phrase width"],
    phrases: Sequence[str],
) -> Naming:
    """Ranks phrases by how much more similar the top pictures are to them than the other pictures, best first.

    `directions` are the embeddings of "prompt, phrase" less that of the prompt, so that what the prompt says already
    cancels. Phrases are ranked by the difference of means in units of the standard deviation over all pictures.
    """
    similarity = embeddings @ directions.T  # [image, phrase]
    is_top = np.zeros(len(embeddings), bool)
    is_top[top] = True
    ranks = rankdata(similarity, axis=0)[is_top].sum(0)
    n_top, n_rest = is_top.sum(), (~is_top).sum()
    auroc = (ranks - n_top * (n_top + 1) / 2) / (n_top * n_rest)
    contrast = similarity[is_top].mean(0) - similarity[~is_top].mean(0)
    order = np.argsort(-contrast / similarity.std(0), kind="stable")
    return Naming(
        [phrases[int(index)] for index in order], auroc[order].round(4).tolist(), contrast[order].round(5).tolist()
    )


def labeled(attribute: RareAttribute, naming: Naming, prompt: str, min_auroc: float) -> RareAttribute:
    """The attribute with its label, or without one when no phrase is good enough."""
    good = [phrase for phrase, auroc in zip(naming.phrases, naming.auroc, strict=True) if auroc >= min_auroc]
    unnamed = replace(
        attribute, label=None, keywords=(), suggested_prompt=None, label_auroc=None, labeled_by="CLIP", presence=None
    )
    if not good or good[0] != naming.phrases[0]:
        return unnamed
    return replace(
        unnamed,
        label=good[0],
        keywords=tuple(good[:N_KEYWORDS]),
        suggested_prompt=f"{prompt}, {good[0]}",
        label_auroc=naming.auroc[0],
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())
