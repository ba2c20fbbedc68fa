"""Finds the folder of a model; knows which models generate images of a planted world."""

import os
import re
from importlib.resources import files
from pathlib import Path

from raigen.config import EMBLEMS, PORTRAITS, WORLDS, object_of
from raigen.errors import RaigenError

BUNDLED, TRANSFORMER = PORTRAITS, "portraits-transformer"
BUNDLE = Path(str(files("raigen.world"))) / "bundle"
FOLDERS = {BUNDLED: "pipeline", TRANSFORMER: "transformer", EMBLEMS: "emblems/pipeline"}  # of the bundled models
CLIPS = {PORTRAITS: "clip", EMBLEMS: "emblems/clip"}  # the folders of the bundled embedders
TRAINED_BY = {BUNDLED: "raigen.world.train", TRANSFORMER: "raigen.world.train.transformer",
              EMBLEMS: "raigen.world.train.emblems"}  # fmt: skip
OWN_SETTINGS = "raigen.json"  # in the folder of a pipeline


def model_path(model: str) -> str:
    """Where the pipeline of `model` is: the folder of a bundled model, else a folder or an id on the Hub.

    Raises RaigenError when the folder of a bundled model is missing, and for a text that is neither a folder nor an id.

    >>> model_path("stabilityai/sdxl-turbo")
    'stabilityai/sdxl-turbo'
    """
    if model in FOLDERS:
        folder = BUNDLE / FOLDERS[model]
        if not (folder / "model_index.json").is_file():
            raise RaigenError(f"{folder}: expected the weights of the bundled model {model}; they are missing. "
                              f"Train them with: python -m {TRAINED_BY[model]}")  # fmt: skip
        return str(folder)
    if os.path.isdir(_expanded(model)):  # False for a name that is too long
        return str(_expanded(model))
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model):
        known = " or ".join(map(repr, FOLDERS))
        raise RaigenError(f"model: expected {known}, a folder with a diffusers pipeline, or a Hub id such as "
                          f"'stabilityai/sdxl-turbo'; there is no folder {model!r}")  # fmt: skip
    return model


def world_name(model: str) -> str | None:
    """The name of the planted world whose images `model` generates, so that the world's judge, embedder and vocabulary
    apply; None for all other models. The folder of a model says it, in `raigen.json`, as `"world": "portraits"`. Raises
    RaigenError when that file holds no JSON object.

    >>> world_name("portraits-transformer"), world_name("emblems"), world_name("stabilityai/sdxl-turbo")
    ('portraits', 'emblems', None)
    """
    folder = BUNDLE / FOLDERS[model] if model in FOLDERS else _expanded(model)
    path = folder / OWN_SETTINGS
    name = object_of(path).get("world") if os.path.isfile(path) else None
    return name if name in WORLDS else None


def _expanded(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # there is no such user
        return Path(model)
