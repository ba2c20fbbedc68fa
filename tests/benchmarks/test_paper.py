"""The tables of the paper: what each costs is said first, rows differ as they should, and nothing is made twice."""

import json

import numpy as np
import pytest

from benchmarks import paper
from benchmarks.paper import TABLES, Options, Variant, config_of, cost, lines_of, main, mean_of, relist
from raigen.auditing.audit import run_stage

PROMPT = "a photo of a doctor"


def test_the_published_figures_are_those_of_the_notes():
    assert TABLES["6"].published["product"] == {"interpretable": 0.8, "AP": 0.15}
    assert [TABLES["7"].published[row]["interpretable"] for row in TABLES["7"].rows] == [0.1, 0.5, 0.8, 0.9]
    for table in TABLES.values():
        assert not table.rows or set(table.rows) == {"RAIGen"} or set(table.rows) == set(table.published)


def test_a_row_is_a_published_audit_but_for_what_it_varies():
    options = Options("8", n_images=5000, preset="paper-sdxl", model="some/model", judge=("clip",))
    found = {name: config_of(options, PROMPT, variant, d_in=1280) for name, variant in TABLES["8"].rows.items()}
    assert [config.train.group_sizes for config in found.values()] == [(1280, 19200), (2048, 18432), (10240, 10240)]
    assert found["1/10"].capture.model == "some/model" and found["1/10"].train.k == 32
    sizes = [config_of(options, PROMPT, variant).capture.n_images for variant in TABLES["7"].rows.values()]
    assert sizes == [100, 1000, 5000, 10000]
    plain = config_of(Options("6"), PROMPT, Variant(), d_in=50)
    assert plain.discover.score == "published" and plain.train.group_sizes == (80, 720)


def test_the_cost_is_counted_before_anything_is_made():
    options = Options("7", prompts=(PROMPT, "b"), judge=("openai:m@http://localhost/v1",))
    assert cost(options) == ("2 prompts, each with 16,100 audited and 4,000 fresh images, 4 trainings, up to 40,040 "
                             "questions to each vision-language model")  # fmt: skip
    assert cost(Options("8", prompts=(PROMPT,))).startswith(
        "1 prompts, each with 5,000 audited and 1,000 fresh images, 3"
    )
    assert cost(Options("12")) == "40 trainings on 300,000 samples, no images"


def test_ours_stand_beside_the_published_figures():
    means = {"product": mean_of([{"AP": 0.2, "interpretable": 1.0}, {"AP": None, "interpretable": 0.5}])}
    lines = list(lines_of(TABLES["6"], means))
    assert lines[0] == "product | AP | .20 | published: 0.15" and lines[1].startswith("product | interpretable | .75")
    assert "frequency | AP | not made here | published: 0.08" in lines
    assert next(lines_of(TABLES["12"], {"as many neurons as features": mean_of([{"matched cosine": 1.0}])})).endswith(
        "no figure in our notes"
    )


@pytest.fixture(scope="module")
def options(sd_folder, clip_folder, tmp_path_factory):
    work = tmp_path_factory.mktemp("paper")
    return Options("6", str(sd_folder), prompts=(PROMPT,), embedder=str(clip_folder), n_images=50, n_fresh_images=2,
                   device="cpu", work=work, results=work / "results")  # fmt: skip


def test_a_table_is_made_once_and_read_the_second_time(options, monkeypatch, capsys):
    main(options)
    out = capsys.readouterr().out
    assert "table 6, taken to be: the parts of the score alone" in out and "1 trainings\n" in out
    made = json.loads((options.results / "paper_table_6.json").read_text())
    assert set(made["ours"]) == set(TABLES["6"].rows) and made["published"]["product"]["AP"] == 0.15
    monkeypatch.setattr(paper, "run_stage", None)
    monkeypatch.setattr(paper, "capture_and_train", None)
    main(options)
    assert json.loads((options.results / "paper_table_6.json").read_text()) == made


def test_a_list_can_be_made_of_parts_of_the_score_and_of_clusters(options):
    main(options)
    (run_dir,) = (path.parent for path in options.work.rglob("run.json"))
    run = paper.Run(run_dir)
    config = config_of(options, PROMPT, Variant(), run.facts.capture.d_in)
    run_stage(run, "discover", config.discover, redo=True)
    for by in ("frequency", "distinctiveness"):
        relist(run, by)
        scores = [getattr(a, by) if by == "distinctiveness" else -a.frequency for a in run.attributes]
        assert scores == sorted(scores, reverse=True) and run.heatmaps().shape[0] == len(scores)
    relist(run, "clusters")
    codes, listed = run.image_codes(), run.attributes
    assert len(listed) == 10 == codes.shape[1] and (codes > 0).all()
    assert [a.frequency for a in listed] == sorted(a.frequency for a in listed)  # the smallest first
    index_of = run.index_of
    for attribute in listed:
        nearest = np.argsort(-codes[:, attribute.neuron], kind="stable")[:10]
        assert [index_of[file] for file in attribute.top_images] == nearest.tolist()
    for stage in ("annotate", "evaluate"):
        run_stage(run, stage, getattr(config, stage), redo=True)  # names and rates as for neurons


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--table", "7", "--n-images", "-5"], "n_images: expected 50 or more; got -5"),
        (["--table", "12", "--n-seeds", "0"], "n_seeds: expected 1 or more"),
        (["--table", "12", "--n-samples", "3"], "n_samples: expected 1,000 or more"),
        (["--table", "1", "--judge", "nope"], "benchmarks.paper: judge: expected auto"),
        (["--table", "1", "--model", "/nope"], "benchmarks.paper: model: expected 'portraits'"),
        (["--table", "10", "--other-embedder", "/nope"], "benchmarks.paper: embedder: expected a CLIP"),
        (["--table", "8", "--device", "cuda:99", "--dry-run"], "benchmarks.paper: device: 'cuda:99' was requested"),
    ],
)
def test_what_cannot_be_made_is_told_before_the_first_image(args, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paper, "rows_of", None)
    monkeypatch.setattr(paper, "toy_rows", None)
    with pytest.raises(SystemExit) as ended:
        paper.run([*args, "--work", str(tmp_path / "work"), "--results", str(tmp_path)])
    told = " ".join(f"{ended.value.code} {capsys.readouterr().err}".replace("│", " ").split())
    assert expected in told and list(tmp_path.iterdir()) == []


def test_a_prompt_is_a_folder_within_the_work_and_counts_once(options, monkeypatch):
    monkeypatch.setattr(paper, "kept", lambda path, asked, make: {"AP": str(path.relative_to(options.work))})
    (found,) = paper.rows_of(options, TABLES["1"], "../a photo").values()
    assert found["AP"].split("/")[1:3] == ["a-photo", "x1"]
    assert list(paper.prompts_for(Options("1", prompts=("a", "b", "a")))) == ["a", "b"]
