"""Finds the folder of a model; knows which models generate images of the planted world."""

import os
import re
from importlib.resources import files
from pathlib import Path

from raigen.config import WORLD, object_of
from raigen.errors import RaigenError

BUNDLED, TRANSFORMER = WORLD, "portraits-transformer"
FOLDERS = {BUNDLED: "pipeline", TRANSFORMER: "transformer"}  # of the bundled models
OWN_SETTINGS = "raigen.json"  # in the folder of a pipeline


def model_path(model: str) -> str:
    """Where the pipeline of `model` is: the folder of a bundled model, else a folder or an id on the Hub.

    Raises RaigenError when the folder of a bundled model is missing, and for a text that is neither a folder nor an id.

    >>> model_path("stabilityai/sdxl-turbo")
    'stabilityai/sdxl-turbo'
    """
    if model in FOLDERS:
        folder = Path(str(files("raigen.world"))) / "bundle" / FOLDERS[model]
        if not (folder / "model_index.json").is_file():
            module = "raigen.world.train" if model == BUNDLED else "raigen.world.train.transformer"
            raise RaigenError(f"{folder}: expected the weights of the bundled model {model}; they are missing. "
                              f"Train them with: python -m {module}")  # fmt: skip
        return str(folder)
    if os.path.isdir(_expanded(model)):  # False for a name that is too long
        return str(_expanded(model))
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model):
        known = " or ".join(map(repr, FOLDERS))
        raise RaigenError(f"model: expected {known}, a folder with a diffusers pipeline, or a Hub id such as "
                          f"'stabilityai/sdxl-turbo'; there is no folder {model!r}")  # fmt: skip
    return model


def makes_portraits(model: str) -> bool:
    """Whether `model` generates images of the planted world, so that the world's judge, embedder and vocabulary apply.
    The bundled models do, and every folder whose `raigen.json` says `"world": "portraits"`. Raises RaigenError when
    that file holds no JSON object.

    >>> makes_portraits("portraits-transformer"), makes_portraits("stabilityai/sdxl-turbo")
    (True, False)
    """
    if model in FOLDERS:
        return True
    path = _expanded(model) / OWN_SETTINGS
    return os.path.isfile(path) and object_of(path).get("world") == WORLD


def _expanded(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # there is no such user
        return Path(model)
