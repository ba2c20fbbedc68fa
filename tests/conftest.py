"""Sets every test up the same way: signatures checked, no network, one thread, fixed seeds."""

import os
import random
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

import tests.support.typecheck  # noqa: F401  # the hook wants it imported

# Signatures are checked, tensor shapes among them: of whole rooms, and of every module of `runs` and `world` that names
# axes. (The other dataclasses there hold what people or JSON wrote, and check it themselves.)
ROOMS = (
    "stats",
    "sae",
    "diffusion",
    "discovery",
    "judging",
    "report",
    "amplification",
    "studio",
    "auditing",
    "comparison",
    "cli",
)
SOURCE = Path(__file__).parents[1] / "src" / "raigen"
OTHERS = [path for room in ("runs", "world", "world/emblems") for path in (SOURCE / room).glob("*.py")]
WITH_AXES = [path for path in OTHERS if "jaxtyping" in path.read_text(encoding="utf-8")]
HOOKED = [*ROOMS, *(".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in WITH_AXES)]
install_import_hook([f"raigen.{name}" for name in HOOKED], "tests.support.typecheck.checked")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tests.support.run_folder import browser  # noqa: E402, F401  # fixtures of the whole session
from tests.support.tiny import clip_folder, sd_folder, sdxl_folder  # noqa: E402, F401


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def portraits():
    """The bundled pipeline, for tests that do not change it."""
    from raigen.diffusion.loading import load_pipeline

    return load_pipeline("portraits", "cpu")


@pytest.fixture
def page(browser, whole):  # noqa: F811
    """The report of `whole`, in a wide window. The test's module defines `whole`."""
    from tests.support.run_folder import view

    view(browser, width=1280)
    browser.get(whole.report().resolve().as_uri())
    return browser


@pytest.fixture
def stages(monkeypatch):
    """Stand-ins for the stages, for tests that only go through them."""
    from tests.support.stages import Stages

    stages = Stages()
    monkeypatch.setattr("raigen.auditing.audit.stage_function", stages)
    monkeypatch.setattr("raigen.auditing.audit.check_inputs", lambda *args: None)  # of models that are not there
    return stages
