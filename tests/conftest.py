"""Sets every test up the same way: shapes checked, no network, one thread, fixed seeds."""

import os
import random
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# Rooms whose signatures carry tensor axes. `raigen.files` is not among them: it names Tensor without importing torch.
HOOKED = [
    f"raigen.{room}"
    for room in (
        "sae", "scores", "hierarchy", "stats", "measures", "detection", "cards", "figures", "listener", "diffusion",
        "activations", "embed", "capture", "train", "discover", "annotate", "evaluate", "judges", "label_scores",
        "effects", "fidelity", "mixture", "looking", "methods", "synonyms", "contrast", "axes", "yardstick",
        "study_page", "ear", "search", "dead",
    )
]  # fmt: skip
install_import_hook(HOOKED, "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def page(browser, whole):
    """The report of `whole`, wide open; both are fixtures of the module that asks."""
    from made import view

    view(browser, width=1280)
    browser.get(whole.report().resolve().as_uri())
    return browser


@pytest.fixture
def stages(monkeypatch):
    """Stand-ins for the stages, for what only walks through them."""
    from test_audit import Stages

    import raigen.audit  # noqa: F401  # the module, behind the function of that name

    stages = Stages()
    monkeypatch.setattr(sys.modules["raigen.audit"], "stage_function", stages)
    return stages
