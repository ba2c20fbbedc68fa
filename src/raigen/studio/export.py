"""Writes the studio of a run as a Hugging Face Space: a folder that runs by itself."""

import json
import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path

import torch

from raigen.amplification.rendering import PATTERNS
from raigen.config import StudioConfig, in_a_line
from raigen.errors import RaigenError
from raigen.runs.files import is_clutter, write_tensors, write_text
from raigen.runs.run import Run
from raigen.studio.session import Studio
from raigen.world.models import FOLDERS, model_path

APP = '''"""The raigen studio, as a Space."""

import os
from pathlib import Path

from raigen.config import StudioConfig
from raigen.studio.launch import launch

here = StudioConfig(host="0.0.0.0", port=int(os.environ.get("PORT", "7860")))
launch(Path(__file__).parent / "run", here, tabs=("Steer",))
'''
README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
python_version: {python}
app_file: app.py
---

# {prompt}: what the model knows but hardly ever shows

The studio of raigen, which implements [RAIGen](https://arxiv.org/abs/2602.06806), for the model {model}. Move the
slider of an attribute and make images. Each steered image stands beside the unsteered image of the same seed.

To upload this folder: `hf upload USER/SPACE . --repo-type space`. A small model runs on a CPU; for a larger one, choose
a GPU in the settings of the Space. Everybody who can open the Space can make images on it.
"""
GRADIO = "6.31.0"  # with which the studio was tested
NEEDED = ("run.json", "samples.jsonl", "sae/config.json", "sae/model.safetensors", "codes.safetensors", "neurons.csv",
          "embeddings.safetensors", "look.safetensors", "look/relatives.jsonl", "attributes.json", "annotations.jsonl",
          "by_hand.safetensors")  # fmt: skip


def export(run: Run, folder: Path) -> None:
    """Writes app.py, README.md, requirements.txt, this package, and what the studio needs of the run into a new folder.

    The patterns of the listed attributes take the place of the activations, which may be large, so only listed
    attributes can be turned by contrast. Raises RaigenError when the folder holds files, and when the model is a folder
    of this machine, which a Space does not have.
    """
    model = run.config.capture.model
    if model not in FOLDERS and Path(model_path(model)).is_dir():
        raise RaigenError(f"export: a Space fetches its model from the Hub, and {model} is a folder of this machine. "
                          "Upload the model, and audit it by its Hub id")  # fmt: skip
    if folder.exists() and (not folder.is_dir() or any(not is_clutter(entry) for entry in folder.iterdir())):
        raise RaigenError(f"{folder}: expected a new or empty folder; it holds other files. Choose another --export")
    studio = Studio(run, StudioConfig())
    patterns = {str(one.neuron): studio.renderer.pattern(one.neuron).to(torch.float32) for one in studio.listed}
    for name in NEEDED:
        if (run.dir / name).is_file():
            (folder / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(run.dir / name, folder / "run" / name)
    write_tensors(Run(folder / "run").studio_dir / PATTERNS, patterns)
    _copy_package(folder)
    write_text(folder / "app.py", APP)
    write_text(folder / "README.md", _readme(run))


def _readme(run: Run) -> str:
    capture = run.config.capture
    prompt, model = in_a_line(capture.prompt), in_a_line(capture.model)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return README.format(title=json.dumps(f"raigen: {prompt}"), gradio=GRADIO, python=json.dumps(python),
                         prompt=prompt, model=model)  # fmt: skip


def _copy_package(folder: Path) -> None:
    """Copies the package with its metadata, which says its version, and lists what it needs."""
    package, known = Path(__file__).parents[1], distribution("raigen")
    shutil.copytree(package, folder / "raigen", ignore=shutil.ignore_patterns("__pycache__", "train"))
    metadata = folder / f"raigen-{known.version}.dist-info" / "METADATA"
    write_text(metadata, known.read_text("METADATA") or "")
    needed = [line for line in known.requires or () if "extra ==" not in line]
    write_text(folder / "requirements.txt", "\n".join([*needed, f"gradio=={GRADIO}", ""]))
