"""The examples of the pages run as they stand."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def names(request, tmp_path, monkeypatch) -> dict:
    """What stands after all examples of a page have run, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    page = DOCS / request.param
    examples = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert examples
    found: dict = {}
    for example in examples:
        exec(compile(example, page.name, "exec"), found)
    return found


@pytest.mark.parametrize("names", ["your-own-vectors.md"], indirect=True)
def test_training_on_vectors_of_ones_own(names):
    assert names["step"].step == 40 and names["step"].fvu[-1] < names["step"].fvu[0]
    assert (names["codes"] > 0).sum(dim=1).float().mean() == pytest.approx(8, abs=0.5)
    assert len(names["paths"]) == 4 and all(path.is_file() for path in names["paths"])


@pytest.mark.parametrize("names", ["steering.md"], indirect=True)
def test_steering_a_pipeline_of_ones_own(names):
    rows = {strength: np.stack([np.asarray(image) for image in row]) for strength, row in names["rows"].items()}
    before, after = (np.stack([np.asarray(image) for image in names[name]]) for name in ("before", "after"))
    assert np.array_equal(rows[0.0], before) and np.array_equal(after, before)
    moved = [np.abs(rows[strength].astype(float) - before).mean() for strength in (0.5, 1.0, 2.0)]
    assert 0 < moved[0] < moved[1] < moved[2]
    assert Path("steered.png").is_file() and names["sheet"].width > names["before"][0].width * 3
    modules = list(names["pipe"].unet.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
