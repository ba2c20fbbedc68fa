"""The site is built strictly and needs no network, and the notebooks run as they stand. Needs the extra `docs`."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs the extra docs")
pytest.importorskip("nbclient", reason="needs the extra docs")

ROOT = Path(__file__).parents[2]
FETCHED = re.compile(
    r'<(?:script|img|iframe)[^>]*\ssrc="https?://|<link[^>]*\srel="(?:stylesheet|preconnect)"[^>]*https?://'
)


def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "gallery.html", "commands.html", "gpu.html", "faq.html", "notebooks/audit.html"} <= set(pages)
    assert [name for name, text in pages.items() if FETCHED.search(text)] == []
    assert (
        "<math" in pages["method.html"]
        and 'id="raigen.amplification.amplify.amplify"' in pages["api/amplification.html"]
    )
    assert 'href="audit.html"' in pages["index.html"] and "class RareAttribute" in re.sub(
        r"<[^>]+>", "", pages["api/runs.html"]
    )


@pytest.mark.parametrize("name", ["audit", "read-a-run", "steer", "compare", "vectors", "balance"])
def test_a_notebook_runs_as_it_stands(name, tmp_path_factory):
    from website.execute import FOLDER, LARGEST, executed

    place = tmp_path_factory.getbasetemp() / "notebooks"
    place.mkdir(exist_ok=True)  # shared: the audit of the first one is read by the others
    cells = executed(name, str(place)).cells
    kept = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    assert ["".join(cell["source"]) for cell in kept] == [cell["source"] for cell in cells]
    assert any(cell.get("outputs") for cell in kept) and (FOLDER / f"{name}.ipynb").stat().st_size <= LARGEST
