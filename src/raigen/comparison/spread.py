"""How much the images of each model differ, and which models are distilled from the baseline."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float
from scipy.stats import t

from raigen.comparison.matching import Match
from raigen.config import CompareConfig
from raigen.runs.records import Mean
from raigen.runs.study_records import Spread

N_PARTS = 10  # of the jackknife
TOP_PAIRS = 0.9  # pairs of the baseline's images above this quantile of similarity resemble each other
FEWER_STEPS = 2  # a model that takes at most one step for so many of the baseline counts as distilled


def spreads_of(matched: Match, confidence: float) -> Iterator[Spread]:
    """The spread of each prompt and model, from the embeddings of the audited images that show anything."""
    for prompt in matched.prompts:
        alike = _alike_from(_embeddings(matched, prompt, matched.models[0]))
        for model in matched.models:
            unit = _embeddings(matched, prompt, model)
            yield Spread(
                prompt, model,
                jackknifed(vendi_score, unit, confidence, least=1.0),
                jackknifed(effective_number, unit, confidence, least=1.0),
                jackknifed(lambda images, alike=alike: commonest_share(images, alike), unit, confidence, most=1.0),
            )  # fmt: skip


def distilled_models(matched: Match, config: CompareConfig) -> list[str]:
    """The models that take half of the baseline's denoising steps or fewer, or that take no guidance where the baseline
    does; and those that `config` names."""
    facts = {model: matched.run_of[matched.prompts[0], model].facts.capture for model in matched.models}
    base = facts[matched.models[0]]
    found = []
    for model, own in list(facts.items())[1:]:
        is_fast = 0 < FEWER_STEPS * own.num_inference_steps <= base.num_inference_steps
        is_unguided = (base.guidance_scale or 0) > 1 >= (own.guidance_scale or 0)
        if is_fast or is_unguided or model in config.distilled:
            found.append(model)
    return found


def vendi_score(unit: Float[np.ndarray, "image width"]) -> float:
    """exp(entropy of the eigenvalues of the similarities / n), 1 or more (Friedman and Dieng 2023), for embeddings of
    length 1.

    >>> round(vendi_score(np.eye(3)), 6), round(vendi_score(np.ones((3, 1))), 6)
    (3.0, 1.0)
    """
    values = np.linalg.eigvalsh(unit.T @ unit / len(unit)).clip(0)
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def effective_number(unit: Float[np.ndarray, "image width"]) -> float:
    """The Vendi score of order 2: one over the mean squared similarity of all pairs.

    >>> round(effective_number(np.eye(3)), 6)
    3.0
    """
    return float(1 / np.square(unit.T @ unit / len(unit)).sum())


def commonest_share(unit: Float[np.ndarray, "image width"], alike: float) -> float:
    """The share of other images with a similarity of at least `alike` to the image that has most of them.

    >>> commonest_share(np.array([[1.0, 0], [1, 0], [0, 1]]), 0.9)
    0.5
    """
    near = (unit @ unit.T >= alike).sum(axis=1) - 1
    return float(near.max() / (len(unit) - 1))


def jackknifed(
    measure: Callable[[Float[np.ndarray, "image width"]], float],
    unit: Float[np.ndarray, "image width"],
    confidence: float,
    least: float = 0.0,
    most: float = np.inf,
) -> Mean:
    """A measure of all images, with the interval of the jackknife that leaves out every tenth image (Student, nine
    degrees of freedom), within `least` and `most`."""
    value, places = measure(unit), np.arange(len(unit)) % N_PARTS
    parts = np.array([measure(unit[places != part]) for part in range(N_PARTS)])
    error = float(np.sqrt((N_PARTS - 1) / N_PARTS * np.square(parts - parts.mean()).sum()))
    half = float(t.ppf((1 + confidence) / 2, N_PARTS - 1)) * error
    return Mean(value, max(least, value - half), min(most, value + half), len(unit))


def _embeddings(matched: Match, prompt: str, model: str) -> Float[np.ndarray, "image width"]:
    run = matched.run_of[prompt, model]
    return run.embeddings()[run.is_shown()].astype(float)


def _alike_from(unit: Float[np.ndarray, "image width"]) -> float:
    """The similarity from which images count as alike."""
    pairs = np.triu_indices(len(unit), 1)
    return float(np.quantile((unit @ unit.T)[pairs], TOP_PAIRS))
