"""The examples of the pages run as they stand."""

import re
from pathlib import Path

import pytest

PAGES = [Path(__file__).parents[1] / "docs" / "your-own-vectors.md"]


def examples(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert examples(page)
    names: dict = {}
    for example in examples(page):
        exec(compile(example, page.name, "exec"), names)
    assert names["step"].step == 40 and names["step"].fvu[-1] < names["step"].fvu[0]
    assert (names["codes"] > 0).sum(dim=1).float().mean() == pytest.approx(8, abs=0.5)
    assert len(names["paths"]) == 4 and all(path.is_file() for path in names["paths"])
