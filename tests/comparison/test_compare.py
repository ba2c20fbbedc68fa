"""Comparing runs: planted differences come out, labels are merged, and what cannot be compared is refused."""

import csv
import json
import re
import shutil
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from selenium.webdriver.common.by import By

import raigen
from raigen.auditing.cross_prompt_rates import COLUMNS
from raigen.cli import main as cli
from raigen.comparison.axes import axis_of, axis_rate, proposed, read_axes
from raigen.comparison.changes import LOST, changes_of, kind_of, verdict_when_asked
from raigen.comparison.compare import plan as plan_of
from raigen.comparison.matching import match
from raigen.comparison.spread import distilled_models, effective_number, jackknifed, vendi_score
from raigen.comparison.union import merge
from raigen.config import AnnotateConfig, CaptureConfig, CompareConfig, DiscoverConfig, EvaluateConfig, TrainConfig
from raigen.discovery.embeddings import Embedder
from raigen.errors import RaigenError
from raigen.judging.fresh import first_seed
from raigen.judging.presence_table import table as presence_table
from raigen.judging.rates import Rates
from raigen.judging.vlm.answers import Answers, Budget
from raigen.runs.files import csv_text, write_tensors, write_text
from raigen.runs.records import Difference, Presence, RareAttribute, Sample
from raigen.runs.run import Run
from raigen.runs.steps import Outcome
from raigen.runs.study import Study
from raigen.runs.study_records import KINDS, Change, Compared, Finding
from raigen.world.attributes import VALUES
from tests.support.run_folder import on_device, portrait, save, view
from tests.support.tiny_vlm import devices_asked
from tests.support.vlm_server import question_of, serving

DOCTOR = "a photo of a doctor"
N, N_FRESH = 50, 40
TURBAN, CAT, SNOW = "wearing a turban", "holding a cat", "in the snow"
PLANTED = {"old": {"turban": range(14), "snow": range(30, 34)}, "new": {"cat": range(14, 28), "snow": range(30, 34)}}
LISTED = {"old": [TURBAN, CAT, SNOW], "new": ["In the  snow", TURBAN]}


def images(run, path, folder, n, base, shown):
    samples = [
        save(run, Sample(i, DOCTOR, base + i, f"{folder}/{i:06d}.png", ""), portrait(300 + i, shown.get(i)))
        for i in range(n)
    ]
    write_text(path, "".join(json.dumps(sample._asdict()) + "\n" for sample in samples))
    return samples


def finish(run, stage, config, facts):
    run.begin(stage, config)
    run.finish(stage, Outcome([], facts), 1.0)


def audited(dir, model, judge="portraits", n_fresh=N_FRESH, **capture) -> Run:
    """A run of `model` that is done, with drawn images."""
    run = Run.create(dir)
    config = CaptureConfig(DOCTOR, **{"model": model, "n_images": N, **capture})
    finish(run, "capture", config, {})
    finish(run, "train", TrainConfig(), {})
    audit = images(run, run.samples_path, "images", N, config.base_seed, dict.fromkeys(range(1, 6), "turban"))
    shown = {index: name for name, places in PLANTED[model].items() for index in places}
    images(run, run.fresh_samples_path, "fresh", n_fresh, first_seed(config), shown)
    embeddings = Embedder("portraits", "cpu").images([run.read_image(sample) for sample in audit])
    write_tensors(run.embeddings_path, {"embeddings": torch.from_numpy(embeddings)})
    finish(run, "discover", DiscoverConfig(), {"embedder": "portraits"})
    listed = [
        RareAttribute(rank, 7 * rank, 0.9 - 0.1 * rank - 0.01 * (model == "new"), 0.02, 0.3,
                      tuple(sample.file for sample in audit[rank : rank + 4]), label=label)
        for rank, label in enumerate(LISTED[model], 1)
    ]  # fmt: skip
    write_text(run.attributes_path, json.dumps([asdict(attribute) for attribute in listed]))
    finish(run, "annotate", AnnotateConfig(), {})
    none = Presence(0.0, 0.0, 1.0, 0, n_fresh, 0, judge, "95 % Clopper-Pearson")
    write_text(run.presence_path, presence_table(
        [replace(listed[0], presence=none)], {"with a beard": Rates((none,), None)}
    ))  # fmt: skip
    finish(run, "evaluate", EvaluateConfig(judge=(judge,)), {"n_fresh_images": n_fresh})
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two runs, of the models old and new. (`clip` stands in their records: the world's judge must be named.)"""
    folder = tmp_path_factory.mktemp("runs")
    return [audited(folder / model, model, judge="clip") for model in ("old", "new")]


@pytest.fixture(scope="module")
def study(two, tmp_path_factory):
    made = tmp_path_factory.mktemp("study") / "study"
    return raigen.compare(two, study=made, judge="portraits", n_asked_images=0)


def test_verdicts_of_ones_own_compare_runs(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdicts = Path("v.csv")
    lines = [f"{run.dir}/fresh/{i:06d}.png,{TURBAN},{'yes' if run is two[0] and i < 14 else 'no'}\n"
             for run in two for i in range(N_FRESH)]  # fmt: skip
    verdicts.write_text("file,label,shows\n" + "".join(lines))
    found = raigen.compare(two, study="study", judge="file:v.csv", n_asked_images=0).comparison()
    kinds = {change["label"]: change["kind"] for change in found["changes"]}
    assert kinds[TURBAN] == "worse" and {kind for label, kind in kinds.items() if label != TURBAN} == {"unmeasured"}
    assert found["judge"].startswith("v.csv, sha256 ")
    verdicts.write_text("file,label,shows\n" + "".join(lines[:N_FRESH]))
    with pytest.raises(RaigenError, match=f"it has none of .*{two[1].dir.name}"):
        raigen.compare(two, study="study", judge="file:v.csv", n_asked_images=0)


def test_runs_judged_by_two_versions_of_a_function_are_not_compared(two, tmp_path):
    runs = [Run(shutil.copytree(run.dir, tmp_path / run.dir.name)) for run in two]
    for run in runs:
        name = f"mine:shows, source {run.dir.name}"
        finish(run, "evaluate", EvaluateConfig(judge=("python:mine:shows",)),
               {"n_fresh_images": N_FRESH, "judge": name, "sources": {"mine.py": run.dir.name}})  # fmt: skip
    with pytest.raises(RaigenError, match=r"mine:shows, source old, .*mine:shows, source new: rates of two judges"):
        raigen.compare(runs, study=tmp_path / "study")


def test_planted_changes_have_their_direction(study):
    changes = {change["label"]: change for change in study.comparison()["changes"]}
    assert {label: change["kind"] for label, change in changes.items()} == {
        TURBAN: "worse", CAT: "fixed", SNOW: "same", "with a beard": "same",
    }  # fmt: skip
    moved = changes[TURBAN]["difference"]
    assert moved["n"] > 35 and moved["low"] < moved["difference"] < moved["high"] < 0
    assert all(change["q"] >= change["difference"]["p"] for change in changes.values())


def test_every_attribute_is_judged_on_the_same_seeds_of_all(study):
    found = study.comparison()
    assert (found["n_fresh_images"], found["models"], found["baseline"]) == (N_FRESH, ["old", "new"], "old")
    assert all(cell["presence"]["n"] + cell["presence"]["unscored"] == N_FRESH for cell in found["cells"])
    assert len(found["cells"]) == 4 * 2
    lines = [json.loads(line) for line in study.verdicts_path.read_text().splitlines()]
    signs = {(line["label"], line["model"]): line["shows"] for line in lines}
    assert signs[TURBAN, "old"][:14].count("1") >= 12 and signs[TURBAN, "new"][:14].count("1") <= 2


def test_given_attributes_stand_first_and_same_texts_are_one(study):
    first, *others = study.comparison()["attributes"]
    assert (first["label"], first["given"], first["findings"]) == ("with a beard", True, [])
    snow = next(attribute for attribute in others if attribute["label"] == SNOW)
    assert [(other["label"], other["agreement"]) for other in snow["merged"]] == [("In the  snow", None)]
    assert {finding["model"] for finding in snow["findings"]} == {"old", "new"}
    assert not any(attribute["merged"] for attribute in others if attribute is not snow)


def test_what_one_model_alone_lists(study):
    lone = [(entry["label"], entry["model"], entry["verdict"]) for entry in study.comparison()["lone"]]
    assert lone == [(CAT, "new", "shown unasked")]


def test_the_table_is_the_csv(study):
    table = study.table()
    rows = list(csv.DictReader(study.table_path.read_text().splitlines()))
    assert list(rows[0]) == list(table) and len(rows) == 8
    at = [(row["attribute"], row["model"]) for row in rows].index((TURBAN, "new"))
    assert rows[at]["change"] == table["change"][at] == "worse"
    assert float(rows[at]["difference"]) == table["difference"][at] < -0.25
    assert table["difference"].isna()[at - 1] and rows[at - 1]["difference"] == ""


def test_the_report_tells_the_numbers_and_asks_for_nothing(study):
    html = study.report_path.read_text()
    text = re.sub(
        r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S)))
    )
    assert (
        "Of 4 comparisons of new with old, 0 are newly rare, 1 is shown less, 1 is no longer rare, 0 are shown more, 2"
        in text
    )
    assert re.search(r"new shows “wearing a turban” less often than old: 0 % against 3\d %, -3\d\.\d points", text)
    assert not re.search(r"""https?://|(?:src|href)=["'](?!data:|#|[./a-z0-9-]+report\.html)""", html)
    assert html.count("<script") == 1 and "script-src 'sha256-" in html
    assert html.count('class="strip"') == 4 * 2
    assert 'href="../../' in html and "report.html" in html


def test_a_seed_is_shown_through_all_models_and_the_matrix_is_filtered(study, browser):
    view(browser, 1280)
    address = study.report_path.resolve().as_uri()
    browser.get(address)

    def rows():
        found = browser.find_elements(By.CSS_SELECTOR, ".heat tbody tr")
        return [row.find_element(By.TAG_NAME, "a").text for row in found if row.is_displayed()]

    assert len(rows()) == 4
    browser.find_element(By.ID, "filter").send_keys("turban")
    assert rows() == [TURBAN] and browser.current_url.endswith("#filter=turban")
    assert browser.find_element(By.ID, "filter-count").text == "1 of 4 attributes"
    browser.get(f"{address}#kind=less")
    browser.refresh()
    assert rows() == [TURBAN]
    seed = first_seed(CaptureConfig(DOCTOR)) + 3
    browser.get(f"{address}#seed={seed}")
    browser.refresh()
    shown = browser.find_elements(By.CSS_SELECTOR, "#seed-images li")
    assert [one.find_element(By.TAG_NAME, "b").text for one in shown] == ["old", "new"]
    assert f"shows {TURBAN}" in shown[0].text and "shows none" in shown[1].text
    image = browser.find_elements(By.CSS_SELECTOR, ".strips img")[0]
    browser.execute_script("arguments[0].click()", image)
    assert f"seed={image.get_attribute('data-seed')}" in browser.current_url
    browser.back()
    assert browser.find_element(By.ID, "seed").get_attribute("value") == str(seed)
    for width in (375, 1280):
        view(browser, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []


def test_the_same_comparison_again_is_the_same(study, two):
    before = study.comparison_path.read_bytes()
    raigen.compare(study, judge="portraits", n_asked_images=0)
    assert study.comparison_path.read_bytes() == before
    raigen.compare(study.dir, judge="portraits", n_asked_images=0, baseline="new")
    turned = {change["label"]: change["kind"] for change in study.comparison()["changes"]}
    assert turned == {TURBAN: "better", CAT: "new", SNOW: "same", "with a beard": "same"}
    raigen.compare(study.dir, judge="portraits", n_asked_images=0)
    assert study.comparison_path.read_bytes() == before


def test_a_shared_autoencoder_is_told_by_prompt(study):
    assert "shared-title" not in study.report_path.read_text()
    rates = [("old", DOCTOR, 1, 7, TURBAN, under, rate) for under, rate in ((DOCTOR, 0.031), ("a <b>", 0.42))]
    study.rates_path.write_text(csv_text(COLUMNS, (dict(zip(COLUMNS, row, strict=True)) for row in rates)))
    html = raigen.compare(study, judge="portraits", n_asked_images=0).report_path.read_text()
    (section,) = re.findall(r'<section id="shared".*?</section>', html, flags=re.S)
    assert "a &lt;b&gt;" in section and "<b>" not in section
    assert re.findall(r"([\d.]+)\s%", section[section.index("<tbody>") :]) == ["3.1", "42"]
    study.rates_path.unlink()
    raigen.compare(study, judge="portraits", n_asked_images=0)


def test_clip_has_one_yardstick_for_all_models(two, tmp_path):
    found = raigen.compare(two, study=tmp_path / "study", n_asked_images=0).comparison()
    beard = [cell["presence"]["n"] for cell in found["cells"] if cell["label"] == "with a beard"]
    assert beard == [0, 0]  # given: there are no top images
    old, new = (cell["presence"] for cell in found["cells"] if cell["label"] == TURBAN)
    assert old["n"] == new["n"] == N_FRESH and (old["mode"], new["mode"]) == ("estimated", "estimated")
    assert 12 <= old["hits"] <= 16 and new["hits"] <= 2  # drawn in 14 and in none
    kinds = {change["label"]: change["kind"] for change in found["changes"]}
    assert kinds["with a beard"] == "unmeasured" and set(kinds.values()) <= set(KINDS)


def test_the_command_line_compares(two, tmp_path, capsys):
    args = ["compare", *(str(run.dir) for run in two)]
    assert cli.main(args) == 2
    assert "study: expected a folder for the comparison of single runs" in capsys.readouterr().err
    more = ["--study", str(tmp_path / "s"), "--judge", "portraits", "--n-asked-images", "0"]
    assert cli.main([*args, *more]) == 0
    out, err = capsys.readouterr()
    told = "2 of 4 differences hold (q <= 0.05): 4 attributes, 40 images of each"
    assert any(line.startswith(told) for line in out.splitlines())
    assert out.splitlines()[-1] == f"report: {tmp_path / 's' / 'report.html'}"
    assert err.splitlines()[-1].startswith("compare: done in ")
    assert cli.main([*args, *more, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "s" / "comparison.json").read_text())


def test_a_dry_run_says_what_would_be_made_and_writes_nothing(two, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for run in two for path in run.dir.rglob("*")}
    more = ["--judge", "portraits", "--n-fresh-images", str(N_FRESH + 3), "--n-asked-images", "5", "--dry-run"]
    assert cli.main(["compare", *(str(run.dir) for run in two), "--study", str(tmp_path / "s"), *more]) == 0
    out = capsys.readouterr().out
    assert f"judged by portraits: 5 labels in 43 images of each of 2 runs, {5 * 43 * 2} verdicts" in out
    # A capture of 50 images took a second. Alone are the cat, and the snow in another spelling on either side.
    assert "to be made: 6 fresh images, about 0.1 s; and at most 15 that are asked for" in out
    assert cli.main(["compare", *(str(run.dir) for run in two), "--study", str(tmp_path / "s"), *more, "--json"]) == 0
    assert json.loads(capsys.readouterr().out).items() >= {"n_labels": 5, "n_images": 43, "n_made": 6}.items()
    assert not (tmp_path / "s").exists()
    assert {path: path.stat().st_mtime_ns for run in two for path in run.dir.rglob("*")} == before
    (tmp_path / "answers.json").write_text("[]")
    plan = plan_of(two, CompareConfig(judge=f"scripted:{tmp_path / 'answers.json'}", closed_set="portraits"))
    assert [one.calls for one in plan.plans] == [plan.n_labels * N_FRESH] * 2
    assert plan.n_labels == 5 + 10 - 1 and not plan.is_open  # the turban is in both


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_images": 60}, r"n_images: expected the same in all runs; .*old has 50, .*odd has 60: .* one --n-images$"),
        ({"base_seed": 9}, r"base_seed: .*the same seeds"),
        (
            {"n_fresh": 39},
            r"n_fresh_images: .*has 40, .*has 39: .*Add --n-fresh-images N: what is missing is then made",
        ),
        ({"judge": "scripted:answers"}, r"judge: .*has clip, .*has scripted:answers: .*Add --judge JUDGE"),
    ],
)
def test_what_differs_is_refused_with_the_remedy(two, tmp_path, changed, message):
    other = Run.create(tmp_path / "odd")
    shutil.copytree(two[1].dir, other.dir, dirs_exist_ok=True)
    stages = other.manifest["stages"]
    if "n_fresh" in changed:
        stages["evaluate"]["facts"]["n_fresh_images"] = changed["n_fresh"]
    elif "judge" in changed:
        stages["evaluate"]["config"]["judge"] = [changed["judge"]]
    else:
        stages["capture"]["config"] |= changed
    other.manifest_path.write_text(json.dumps(other.manifest | {"stages": stages}))
    with pytest.raises(RaigenError, match=message):
        raigen.compare([two[0], other], study=tmp_path / "study")


def test_what_is_missing_is_named_with_what_makes_it(two, tmp_path):
    bare = Run.create(tmp_path / "bare")
    finish(bare, "capture", CaptureConfig(DOCTOR, model="bare", n_images=N), {})
    with pytest.raises(RaigenError, match=r"evaluate has not finished; run: raigen evaluate .*bare"):
        raigen.compare([two[0], bare], study=tmp_path / "one")
    with pytest.raises(RaigenError, match="expected two or more to compare; got 1"):
        raigen.compare([two[0]], study=tmp_path / "two")
    shutil.copytree(two[0].dir, tmp_path / "twin")
    with pytest.raises(RaigenError, match=r"are both of “a photo of a doctor” with old"):
        raigen.compare([two[0], tmp_path / "twin"], study=tmp_path / "three")
    other = Run.create(tmp_path / "nurse")
    shutil.copytree(two[1].dir, other.dir, dirs_exist_ok=True)
    stages = other.manifest["stages"]
    stages["capture"]["config"]["prompt"] = "a photo of a nurse"
    other.manifest_path.write_text(json.dumps(other.manifest | {"stages": stages}))
    with pytest.raises(RaigenError, match=r"there is no run of “a photo of a doctor” with new; .*raigen audit"):
        raigen.compare([two[0], other], study=tmp_path / "four")
    with pytest.raises(RaigenError, match=r"baseline: expected one of old, new; got 'newer'"):
        raigen.compare(two, study=tmp_path / "five", judge="portraits", baseline="newer")
    with pytest.raises(RaigenError, match=r"comparison\.json is missing; make it with: raigen compare"):
        Study.create(tmp_path / "six").table()


def test_missing_fresh_images_and_asked_ones_are_made_by_the_model(tmp_path, two):
    """The bundled model itself, in two steps: what is made stays, and the evaluation's own list is left alone."""
    runs = []
    for run in two:
        copy = Run.create(tmp_path / run.dir.name)
        shutil.copytree(run.dir, copy.dir, dirs_exist_ok=True)
        stages = copy.manifest["stages"]
        model = "portraits" if run.dir.name == "old" else _copy_of_portraits(tmp_path / "variant")
        stages["capture"]["config"] |= {"model": model, "num_inference_steps": 2}
        copy.manifest_path.write_text(json.dumps(copy.manifest | {"stages": stages}))
        runs.append(copy)
    before = [run.fresh_samples_path.read_bytes() for run in runs]
    options = {"judge": "portraits", "n_fresh_images": N_FRESH + 2, "n_asked_images": 2, "drawn_rate": 0.5}
    study = raigen.compare(runs, study=tmp_path / "study", **options)
    found = study.comparison()
    assert all(cell["presence"]["n"] + cell["presence"]["unscored"] == N_FRESH + 2 for cell in found["cells"])
    (lone,) = found["lone"]
    assert lone["label"] == CAT and lone["presence"]["n"] + lone["presence"]["unscored"] == 2
    assert [run.fresh_samples_path.read_bytes() for run in runs] == before
    folders = [folder for run in runs for folder in (run.compared_dir, run.asked_root_dir)]
    made = {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*.png")}
    assert len(made) == 2 * 2 + 2
    raigen.compare(study, **options)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    for run in runs:  # images of a prompt are the same whatever the autoencoder
        run.forget("train")
    assert all(path.is_file() for path in made)
    for run in runs:
        run.forget("capture")
    assert not any(folder.exists() for folder in folders)


def _copy_of_portraits(folder):
    from raigen.world.models import model_path

    shutil.copytree(model_path("portraits"), folder)
    return str(folder)


def test_what_closed_and_open_sets_find_and_miss(two, tmp_path):
    """Of the found turban, cat and snow, the closed set asks for the turban only, the open one for the cat."""
    (tmp_path / "closed.toml").write_text(
        f'head = ["{TURBAN}", "none"]\n[skin]\n"dark skin" = 0.3\n"light skin" = 0.7\n'
    )
    axes = [{"name": "pet", "classes": [CAT, "none"]}, {"name": "hair", "classes": ["bald", "long hair"]}]
    script = [{"question": f"many times for “{DOCTOR}”", "answer": {"axes": axes}}]
    (tmp_path / "script.json").write_text(json.dumps(script))
    options = {"closed_set": str(tmp_path / "closed.toml"), "open_set": f"scripted:{tmp_path / 'script.json'}"}
    study = raigen.compare(two, study=tmp_path / "study", judge="portraits", n_asked_images=0, **options)
    table = study.table().astype(object)
    table = table.where(table.notna(), None)
    rows = {name: [table[column][i] for column in ("found", "closed", "open")]
            for i, name in enumerate(table["attribute"])}  # fmt: skip
    assert (rows[TURBAN], rows[CAT]) == ([True, "head", None], [True, None, "pet"])
    assert (rows[SNOW], rows["bald"]) == ([True, None, None], [False, None, "hair"])
    rate = {(r["axis"], r["model"]): r for r in study.comparison()["axes"]}
    share = dict(zip(table["model"], (r for r, a in zip(table["rate"], table["attribute"]) if a == TURBAN)))  # noqa: B905
    assert rate["head", "old"]["shares"] == pytest.approx([share["old"], 1 - share["old"]]) and share["old"] > 0.3
    assert rate["head", "old"]["discrepancy"] < rate["head", "new"]["discrepancy"] and len(rate) == 4 * 2
    assert rate["skin", "old"]["reference"] == [0.3, 0.7]
    lines = list(csv.DictReader(study.axes_path.read_text().splitlines()))
    assert len(lines) == 4 * 2 * 2 and {line["approach"] for line in lines} == {"closed", "open"}
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", study.report_path.read_text())))
    assert "The closed set 2 axes with 3 values; raigen found 3 values." in text
    assert re.search(r"Both \(1\) wearing a turban head 0 % to 3\d % raigen only: in no axis \(2\)", text)
    card = (study.cards_dir / "old.md").read_text()
    data = ModelCard(card).data  # as the Hub reads it
    assert (data.pipeline_tag, data.library_name) == ("text-to-image", "diffusers") and "raigen" in data.tags
    shown = {(r.dataset_name, r.metric_type, r.metric_name): r.metric_value for r in data.eval_results}
    assert shown[DOCTOR, "presence", f"shows: {TURBAN}"] == pytest.approx(share["old"], abs=1e-4)
    assert shown[DOCTOR, "fairness-discrepancy", "head"] == pytest.approx(rate["head", "old"]["discrepancy"], abs=1e-4)
    assert re.search(r"\| wearing a turban \| this audit, closed set \| 3\d\.\d% \|", card)
    assert re.search(r", shown less \|", (study.cards_dir / "new.md").read_text())
    before = study.answers_path.read_bytes()
    (tmp_path / "script.json").write_text("[]")  # what was proposed is kept, and not asked for again
    raigen.compare(study, judge="portraits", n_asked_images=0, **options)
    assert study.answers_path.read_bytes() == before
    nothing = {"open_set": options["open_set"].replace("script.json", "other.json")}
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(
        RaigenError, match=r"open_set: script .* proposed no axes that can be read for “a photo of a doc"
    ):
        raigen.compare(study, judge="portraits", **nothing)


def test_a_server_proposes_axes_for_each_prompt_once(tmp_path):
    """Over real HTTP, without an image; the classes of an axis that has but one are left out."""
    pets = {"axes": [{"name": "pet", "classes": ["a cat", "a dog"]}, {"name": "mood", "classes": ["happy"]}]}
    hair = {"axes": [{"name": "hair", "classes": ["bald", "none"]}]}
    with serving(lambda request: json.dumps(pets if DOCTOR in question_of(request) else hair)) as server:
        config, path = CompareConfig(open_set=server.model), tmp_path / "answers.jsonl"
        axes = proposed([DOCTOR, "a nurse"], Answers(path, Budget(config)), config, "auto")
        assert [(axis.name, axis.categories, axis.prompt) for axis in axes] == [
            ("pet", ("a cat", "a dog"), DOCTOR), ("hair", ("bald", "none"), "a nurse"),
        ]  # fmt: skip
        assert all(len(request["messages"][0]["content"]) == 1 for request in server.requests)
        n_asked = len(server.requests)
        assert proposed([DOCTOR], Answers(path, Budget(config)), config, "auto") == axes[:1]
        assert len(server.requests) == n_asked


def test_a_model_in_this_process_runs_on_the_devices_of_the_runs(two, tmp_path, monkeypatch):
    """The shared judge on the device of each run, the model of the open set on that of the first."""
    copies = [Run(shutil.copytree(run.dir, tmp_path / run.dir.name)) for run in two]
    runs = [copies[0], on_device(copies[1], "cpu")]
    devices, address = devices_asked(monkeypatch), "transformers:some/model"
    raigen.compare(runs, study=tmp_path / "s", judge=address, n_asked_images=0)
    with pytest.raises(RaigenError, match="open_set: some/model at this machine proposed no axes"):
        raigen.compare(runs[::-1], study=tmp_path / "t", judge="portraits", n_asked_images=0, open_set=address)
    assert devices == ["auto", "cpu", "cpu"]


def test_clip_puts_every_image_into_one_category_of_an_axis(two, tmp_path):
    (tmp_path / "closed.json").write_text(json.dumps({"place": ["in an office", "in a library", "none"]}))
    found = raigen.compare(two, study=tmp_path / "s", n_asked_images=0, closed_set=str(tmp_path / "closed.json"))
    for rate in found.comparison()["axes"]:
        assert (rate["n"], rate["unscored"]) == (N_FRESH, 0) and sum(rate["shares"]) == pytest.approx(1)
        assert rate["shares"][0] > rate["shares"][1]  # three quarters of the doctors are drawn in an office


def test_an_axis_by_hand():
    axis = axis_of("closed", "skin", ["dark", "light", "none"])
    shows = {"dark": np.array([1.0, 0, 1, np.nan, 0, 0]), "light": np.array([0.0, 1, 1, 1, 1, 0])}
    rate = axis_rate(axis, DOCTOR, "a", shows)
    assert (rate.n, rate.none, rate.unscored, rate.shares) == (5, 1, 1, pytest.approx((0.3, 0.5, 0.2)))
    assert rate.discrepancy == pytest.approx(np.sqrt((1 / 30) ** 2 + (1 / 6) ** 2 + (2 / 15) ** 2))
    assert rate.severity == pytest.approx(1 - entropy([0.3, 0.5, 0.2]) / np.log(3))
    one = axis_rate(axis_of("closed", "skin", {"dark": 1, "light": 0}), DOCTOR, "a", shows | {"light": np.zeros(6)})
    assert (one.n, one.none, one.severity, one.discrepancy, one.by_chance) == (2, 3, 1.0, 0.0, 0.0)
    blank = axis_rate(axis, DOCTOR, "a", {"dark": np.full(6, np.nan), "light": np.ones(6)})
    assert (blank.n, blank.unscored, blank.discrepancy) == (0, 6, None)


def test_the_discrepancy_by_chance_is_that_of_fair_models():
    rng, axis = np.random.default_rng(0), axis_of("closed", "skin", {"a": 0.2, "b": 0.5, "c": 0.3})
    rates = []
    for _ in range(400):
        drawn = rng.choice(3, size=80, p=axis.reference)
        rates.append(axis_rate(axis, DOCTOR, "m", {name: (drawn == i).astype(float) for i, name in enumerate("abc")}))
    mean_square = np.mean([rate.discrepancy**2 for rate in rates])
    assert np.sqrt(mean_square) == pytest.approx(rates[0].by_chance, rel=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["dark"], "two or more categories for 'skin'"),
        (["dark", "dark"], "each once"),
        ({"dark": 0.5, "light": 0.6}, "the shares of 'skin' to add up to 1"),
        ("dark", "two or more categories"),
    ],
)
def test_what_is_no_axis_is_refused(given, message, tmp_path):
    with pytest.raises(RaigenError, match=message):
        axis_of("closed", "skin", given)
    with pytest.raises(RaigenError, match=r"closed_set: expected portraits or a file of axes .* no file 'none.toml'"):
        read_axes("none.toml", "closed")


def test_the_shipped_sets_ask_what_the_judge_knows():
    phrases = {value.phrase for value in VALUES}
    for approach in ("closed", "open"):
        assert {label for axis in read_axes("portraits", approach) for label in axis.labels} < phrases


def test_what_a_distilled_model_lost_has_a_kind_of_its_own(two):
    seeds = np.arange(200)
    shows = {
        ("gone", "p", "base"): (seeds < 40).astype(float), ("gone", "p", "fast"): (seeds < 13).astype(float),
        ("less", "p", "base"): (seeds < 40).astype(float), ("less", "p", "fast"): (seeds < 14).astype(float),
        ("more", "p", "base"): (seeds < 10).astype(float), ("more", "p", "fast"): (seeds < 60).astype(float),
    }  # fmt: skip
    attributes = [Compared(label, True, (), ()) for label in ("gone", "less", "more")]
    for distilled, wanted in ((["fast"], [LOST, "new", "better"]), ([], ["new", "new", "better"])):
        found = changes_of(attributes, shows, ["p"], ["base", "fast"], 0.95, distilled)
        assert [change.kind for change in found] == wanted


@pytest.mark.parametrize(
    ("steps", "scale", "named", "is_distilled"),
    [(5, 1.0, (), True), (6, 1.0, (), False), (10, 1.0, ("new",), True), (10, 0.0, (), False)],
)
def test_a_distilled_model_is_known_by_its_steps_or_named(two, tmp_path, steps, scale, named, is_distilled):
    runs = [Run(shutil.copytree(run.dir, tmp_path / run.dir.name)) for run in two]
    for run, facts in zip(runs, ((10, 1.0), (steps, scale)), strict=True):
        manifest = run.manifest
        manifest["stages"]["capture"]["facts"] |= {"num_inference_steps": facts[0], "guidance_scale": facts[1]}
        run.manifest_path.write_text(json.dumps(manifest))
    config = CompareConfig(judge="portraits", distilled=named)
    assert distilled_models(match(runs, config), config) == (["new"] if is_distilled else [])


def test_a_model_without_guidance_is_distilled_from_one_with(two, tmp_path):
    runs = [Run(shutil.copytree(run.dir, tmp_path / run.dir.name)) for run in two]
    for run, scale in zip(runs, (2.0, 1.0), strict=True):
        manifest = run.manifest
        manifest["stages"]["capture"]["facts"] |= {"num_inference_steps": 10, "guidance_scale": scale}
        run.manifest_path.write_text(json.dumps(manifest))
    config = CompareConfig(judge="portraits")
    assert distilled_models(match(runs, config), config) == ["new"]


def test_the_spread_of_each_prompt_and_model_is_told(study):
    spreads = study.comparison()["spreads"]
    assert [(one["prompt"], one["model"]) for one in spreads] == [(DOCTOR, "old"), (DOCTOR, "new")]
    for one in spreads:
        for name in ("vendi", "effective", "commonest"):
            assert one[name]["low"] <= one[name]["mean"] <= one[name]["high"]
        assert 1 <= one["effective"]["mean"] <= one["vendi"]["mean"] and 0.1 <= one["commonest"]["mean"] <= 1
    assert study.report_path.read_text().count("wholly different images") == 2


@given(st.integers(2, 6), st.integers(0, 100))
def test_copies_do_not_add_to_the_spread_and_new_images_do(n, seed):
    unit = np.random.default_rng(seed).normal(size=(n, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    twice, wider = np.repeat(unit, 3, axis=0), np.eye(8)[:n]
    for measure in (vendi_score, effective_number):
        assert measure(twice) == pytest.approx(measure(unit)) and 1 <= measure(unit) <= n + 1e-9
        assert measure(wider) == pytest.approx(n)


def test_the_interval_of_a_spread_holds_it():
    """Images in five clusters of unequal size: the Vendi score of many of them is the truth."""
    rng, centers = np.random.default_rng(0), np.eye(16)[:5]

    def some(n: int) -> np.ndarray:
        unit = centers[rng.choice(5, n, p=[0.5, 0.3, 0.1, 0.06, 0.04])] + 0.1 * rng.normal(size=(n, 16))
        return unit / np.linalg.norm(unit, axis=1, keepdims=True)

    truth = vendi_score(some(20_000))
    found = [jackknifed(vendi_score, some(200), 0.95, least=1.0) for _ in range(100)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.85
    assert max(one.high - one.low for one in found) < 2


def test_kinds_of_change():
    def kind(difference, q, *listed):
        moved = Difference(difference, 100, difference - 0.1, difference + 0.1, 0.01)
        return kind_of(Change("a", "p", "m", "b", moved, None, ""), q, *listed)

    assert kind(-0.2, 0.01, True, True) == kind(-0.2, 0.01, True, False) == "worse"
    assert kind(-0.2, 0.01, False, True) == "new"
    assert kind(0.2, 0.01, True, False) == "fixed"
    assert kind(0.2, 0.01, True, True) == kind(0.2, 0.01, False, False) == "better"
    assert kind(0.2, 0.06, True, False) == "same"
    assert kind_of(Change("a", "p", "m", "b", None, None, ""), None, True, True) == "unmeasured"


def test_few_false_alarms_and_most_large_changes_are_found():
    rng = np.random.default_rng(0)
    attributes = [Compared(f"a{i}", True, (), ()) for i in range(200)]
    base = rng.uniform(0.005, 0.1, 200)
    after = np.where(np.arange(200) < 100, base, np.where(np.arange(200) % 2, base * 3, base / 3))
    shows = {(a.label, "p", model): (rng.random(1000) < rate[i]).astype(float)
             for i, a in enumerate(attributes) for model, rate in (("x", base), ("y", after))}  # fmt: skip
    kinds = np.array([change.kind for change in changes_of(attributes, shows, ["p"], ["x", "y"], 0.95)])
    assert (kinds[:100] != "same").mean() <= 0.05
    large = (np.arange(200) >= 100) & (np.minimum(base, after) * 1000 >= 10)
    assert (kinds[large] != "same").mean() >= 0.9
    is_up = np.arange(200)[large] % 2 == 1
    assert ((kinds[large] == "better") == is_up)[kinds[large] != "same"].all()


def test_labels_merge_only_when_text_and_images_agree():
    labels, near = ["a hat", "a cap", "a cat", "A hat"], np.full((4, 4), 0.9)
    agree = {(0, 1): 0.95, (0, 2): 0.1, (1, 2): 0.2}
    groups = merge(labels, near, lambda one, other: agree[one, other], 0.8, 0.8)
    assert [(g.head, [other[0] for other in g.others]) for g in groups] == [(0, [1, 3]), (2, [])]
    assert len(merge(labels[:3], near, lambda one, other: agree[one, other], 0.95, 0.8)) == 3
    assert len(merge(labels[:3], near, lambda one, other: None, 0.8, 0.8)) == 3


def test_verdicts_of_what_is_not_listed():
    rate = Presence(0.0, 0.0, 0.05, 0, 80, 0, "judge", "exact")
    often = replace(rate, rate=0.5, low=0.4, high=0.6, hits=40)
    assert verdict_when_asked(often, None, 0.2) == "shown unasked"
    assert verdict_when_asked(rate, often, 0.2) == "only not shown"
    assert verdict_when_asked(rate, rate, 0.2) == "not encoded"
    assert verdict_when_asked(rate, replace(rate, high=0.3), 0.2) == verdict_when_asked(rate, None, 0.2) == "unclear"


def test_a_finding_is_of_a_prompt_and_a_model():
    found = Compared("a cat", False, (), (Finding("p", "m", 1, 2, "a cat", 0.5, "p, a cat"),))
    assert found.is_listed("p", "m") and not found.is_listed("p", "n")
