"""Checks everything that an audit needs and that needs no image, before the first image is made."""

import os
from collections.abc import Collection
from pathlib import Path

from raigen.config import CLIP, STAGES, AskConfig, AuditConfig, EvaluateConfig, address_of
from raigen.config.fields import FILE, JUDGES, PYTHON
from raigen.errors import RaigenError


def check_inputs(config: AuditConfig, stages: Collection[str] = STAGES) -> None:
    """Reads all files and opens all models that these `stages` will need, except for the image model.

    Raises RaigenError if a judge cannot judge these images, if a list is missing or empty, if a package, a key, a
    device or a model is missing, and if the prompt leaves no room for names in what CLIP reads.
    """
    from raigen.diffusion.loading import find_source
    from raigen.discovery.embeddings import Embedder, default_embedder  # loads torch
    from raigen.judging.annotate import fitting, vocabulary
    from raigen.judging.calibration import read_calibration
    from raigen.judging.judges import given_labels, judge_names
    from raigen.runs.device import resolve_device

    capture, phrases = config.capture, list[str]()
    if "capture" in stages:
        resolve_device(capture.device)
        find_source(capture.model, capture)
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
    if "discover" in stages:
        name = config.discover.embedder or default_embedder(capture.model)
        embedder = Embedder(name, "cpu", offline=capture.offline)
        if phrases:
            fitting(phrases, capture.prompt, embedder)


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

    try:
        AutoConfig.from_pretrained(where.model)
    except (OSError, ValueError) as error:
        raise RaigenError(f"{address}: expected an image-text-to-text model in a folder or on the Hub; it cannot be "
                          f"loaded: {error}") from error  # fmt: skip
