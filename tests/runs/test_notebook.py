"""What a run and a study say of themselves: in a line, in a notebook, as a table."""

import re
import sys

import pytest
import torch

import raigen
from raigen.config import CaptureConfig
from raigen.errors import RaigenError
from raigen.runs.run import Run
from raigen.runs.study import Study
from tests.support.run_folder import HOSTILE, make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "run", n_attributes=4)


@pytest.fixture
def study(whole, tmp_path) -> Study:
    study = Study.create(tmp_path / "study")
    study.adopt([whole])
    return study


def test_a_run_says_what_it_is_in_a_line(whole, tmp_path):
    assert repr(whole) == (
        f"Run('{whole.dir}'): “a photo of a doctor” with portraits, 60 images; "
        "finished: capture, train, discover, annotate, evaluate, 4 attributes listed"
    )
    new = Run.create(tmp_path / "new")
    assert repr(new) == f"Run('{new.dir}'): nothing captured yet"
    new.begin("capture", CaptureConfig("a cat", n_images=1500))
    assert repr(new).endswith("“a cat” with portraits, 1,500 images; finished: no stage")


def test_results_say_what_they_are(whole, study):
    assert repr(study) == f"Study('{study.dir}'): 1 runs of 1 prompts and 1 models, not compared yet"
    first, *_, last = whole.attributes
    assert repr(first) == (
        "RareAttribute(1. neuron 21: “wearing a turban”, score 0.899, shown by 0.7 % of 300 fresh images)"
    )
    assert "no identified attribute" in repr(last)
    sae = raigen.MatryoshkaSAE(raigen.SAEConfig(d_in=4, d_sae=2000, group_sizes=(500, 1500), k=2))
    assert repr(sae) == (
        "MatryoshkaSAE(2,000 neurons in groups of 500, 1,500 for tokens of width 4, k = 2, threshold 0)"
    )
    assert isinstance(sae, torch.nn.Module)


def test_a_notebook_shows_the_ranking_with_images_and_nothing_live(whole, study):
    html = whole._repr_html_()
    assert html.count("<tr>") == 5 and html.count("data:image/webp;base64,") == 20
    assert HOSTILE not in html and "&lt;script&gt;" in html and "0.7% [0.1%, 2.4%]" in html
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    html = study._repr_html_()
    assert html.count("<tr>") == 2 and "a photo of a doctor" in html and HOSTILE not in html


def test_a_notebook_shows_what_there_is(whole, tmp_path):
    assert Run.create(tmp_path / "new")._repr_html_().count("nothing captured yet") == 1
    broken = make_run(tmp_path / "broken", n_attributes=1, until="discover")
    (broken.dir / broken.attributes[0].top_images[0]).unlink()
    assert "is missing" in broken._repr_html_() and "not measured" in broken._repr_html_()


def test_a_run_is_a_table(whole):
    table = whole.table()
    assert table["label"].tolist()[0] == "wearing a turban" and table["hits"].tolist()[:2] == [2, 1]
    assert [*table.columns[:3]] == ["rank", "neuron", "label"] and len(table) == 4
    assert table["rate"].isna().tolist() == [False, False, False, True]


def test_without_pandas_the_install_line_is_told(whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RaigenError, match=r"pip install 'raigen\[notebook\]'"):
        whole.table()


def test_facts_are_attributes(whole):
    assert whole.config.capture.n_images == 60 and whole.config.discover.n_attributes == 10
    assert whole.facts.capture.hookpoint == "unet.mid_block" and whole.facts.train.group_sizes == (307, 2765)
    assert whole.facts.capture.black_images == () and whole.facts.evaluate.n_unscored
    with pytest.raises(RaigenError, match="report has not finished; run: raigen report"):
        whole.facts.report  # noqa: B018
