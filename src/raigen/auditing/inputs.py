"""Checks everything that an audit needs and that needs no image, before the first image is made."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from raigen.config import CLIP, STAGES, AskConfig, AuditConfig, EvaluateConfig, address_of
from raigen.config.fields import FILE, JUDGES, PYTHON
from raigen.errors import RaigenError


def check_inputs(config: AuditConfig, stages: Collection[str] = STAGES, d_in: int | None = None) -> None:
    """Reads all files and opens all models that these `stages` will need, except for the image model. `d_in` is the
    width of the tokens, if these are captured already.

    Raises RaigenError if the autoencoder can have no legal shape, if a judge cannot judge these images, if a list is
    missing or empty, if a package, a key, a device or a model is missing, and if the prompt leaves no room for names in
    what CLIP reads.
    """
    from raigen.diffusion.checks import check_autoencoder  # loads torch
    from raigen.diffusion.loading import find_source
    from raigen.judging.annotate import vocabulary
    from raigen.judging.calibration import read_calibration
    from raigen.judging.judges import given_labels, judge_names
    from raigen.runs.device import resolve_device
    from raigen.sae.train import check_store_options, open_shared

    capture, phrases = config.capture, list[str]()
    if "capture" in stages:
        resolve_device(capture.device)
        find_source(capture.model, capture)
    if "train" in stages:
        if capture.store:
            check_store_options(config.train)
        if config.train.sae is not None:
            found = open_shared(config.train.sae, config.train.sae_revision, capture.offline)
            found.check(hookpoint=capture.hookpoint, d_in=d_in)
        elif d_in is not None:
            check_autoencoder(config.train, d_in, resolve_device(capture.device))
    if "annotate" in stages:
        if config.annotate.annotator == CLIP:
            phrases = vocabulary(config.annotate.vocabulary, capture.model, capture.prompt)
        else:
            check_model(config.annotate.annotator, config.annotate)
    if "evaluate" in stages:
        for judge in judge_names(config.evaluate.judge, capture):
            _check_judge(judge, config.evaluate)
        if config.evaluate.attributes is not None:
            given_labels(config.evaluate.attributes)
        if config.evaluate.calibration is not None:
            read_calibration(Path(config.evaluate.calibration))
    by_clip = "evaluate" in stages and CLIP in judge_names(config.evaluate.judge, capture)
    if "discover" in stages or phrases or by_clip:
        _check_embedders(config, phrases, by_clip)


def _check_embedders(config: AuditConfig, phrases: Sequence[str], by_clip: bool) -> None:
    from raigen.discovery.embeddings import LOOKS, Embedder, default_embedder
    from raigen.judging.annotate import fitting

    capture, discover = config.capture, config.discover
    embedder = Embedder(discover.embedder or default_embedder(capture.model), "cpu", offline=capture.offline)
    embedder.prove()
    if phrases:
        fitting(phrases, capture.prompt, embedder)
    if by_clip:
        embedder.need_texts()
    if discover.second_view != LOOKS:
        Embedder(discover.second_view, "cpu", offline=capture.offline).prove()


def _check_judge(judge: str, config: EvaluateConfig) -> None:
    from raigen.judging.own_judges import FunctionJudge, read_verdicts

    if judge.startswith(PYTHON):
        FunctionJudge(judge)
    elif judge.startswith(FILE):
        path = Path(judge.removeprefix(FILE))
        if os.path.lexists(path):  # else there are no verdicts yet
            read_verdicts(path)
    elif judge not in JUDGES:
        check_model(judge, config)


def check_model(address: str, config: AskConfig) -> None:
    """Opens a vision-language model without asking it. Of one that runs here only the configuration is read."""
    from raigen.judging.vlm.ask import open_model

    where = address_of(address)
    if where.kind != "transformers":
        open_model(where, config)
        return
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from raigen.diffusion.loading import explained

    expected = f"{address}: expected an image-text-to-text model in a folder or on the Hub"
    with explained(f"{expected}; it cannot be loaded"):
        kind = AutoConfig.from_pretrained(where.model).model_type
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise RaigenError(f"{expected}; it is {kind!r}")
