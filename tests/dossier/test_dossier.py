"""The dossier: each export is valid by its own schema, says what the run measured, and leaves to people the rest."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from huggingface_hub import ModelCard

from raigen.cli.main import main
from raigen.dossier.audit import SECTIONS, TODO
from raigen.dossier.croissant import CONTEXT
from raigen.dossier.crosswalk import CROSSWALK
from raigen.dossier.dossier import dossier
from raigen.dossier.evidence import Item, Part, opened, parts_of
from raigen.dossier.findings import findings_of, intersections_of
from raigen.dossier.images import places
from raigen.dossier.tolerances import Tolerances, read_tolerances
from raigen.dossier.trust import judges_of_part
from raigen.errors import RaigenError
from raigen.judging.review import review
from raigen.runs.files import sha256
from raigen.runs.run import Run
from raigen.runs.study import Study
from tests.support.run_folder import HOSTILE, make_run, write

GOLDEN, SCHEMAS = Path(__file__).parents[1] / "golden", Path(__file__).parent / "every_eval_ever"
AGGREGATE, INSTANCE = (json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
                       for name in ("eval", "instance_level_eval"))  # fmt: skip
MINE = """
set_by = "the model team"
set_on = 2026-11-28
organization = "An organization"
relationship = "first_party"
purpose = "pictures for a course"
rules = ['presence("a red hat") >= 0.01', "asked >= 0.8"]
[protected]
headwear = ["a red hat"]
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A run with two judges and a calibration, and a study of two models, with their dossiers."""
    folder = tmp_path_factory.mktemp("old")
    for name in ("run", "study"):
        with zipfile.ZipFile(GOLDEN / f"{name}.zip") as archive:
            archive.extractall(folder)
        dossier(opened(folder / name), images=False)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def logs_of(place: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each evaluation with the lines of its verdicts."""
    found = []
    for path in sorted((place / "dossier").glob("evaluation*.json")):
        log = read(path)
        lines = (place / "dossier" / log["detailed_evaluation_results"]["file_path"]).read_text(encoding="utf-8")
        found.append((log, [json.loads(line) for line in lines.splitlines()]))
    return found


@pytest.mark.parametrize("name", ["run", "study"])
def test_evaluations_are_valid_by_the_schema_of_every_eval_ever(old, name):
    logs = logs_of(old / name)
    assert len(logs) == (1 if name == "run" else 2)
    for log, lines in logs:
        jsonschema.validate(log, AGGREGATE)
        assert log["schema_version"] == AGGREGATE["version"] == "0.3.0"
        check = jsonschema.Draft7Validator(INSTANCE)
        for line in lines:
            check.validate(line)
        detailed = log["detailed_evaluation_results"]
        file = old / name / "dossier" / detailed["file_path"]
        assert detailed["checksum"] == sha256(file.read_bytes()) and detailed["total_rows"] == len(lines)
        assert {line["evaluation_id"] for line in lines} == {log["evaluation_id"]}
        assert {line["model_id"] for line in lines} == {log["model_info"]["id"]}
        ids = [result["evaluation_result_id"] for result in log["evaluation_results"]]
        assert len(ids) == len(set(ids)) and {line["evaluation_result_id"] for line in lines} <= set(ids)
        twin = file.with_name(file.name.replace("_samples.jsonl", ".json"))  # where the datastore wants it
        assert read(twin) == log


def test_an_evaluation_says_every_rate_as_the_run_has_it(old):
    [(log, lines)], run = logs_of(old / "run"), Run(old / "run")
    of_id = {result["evaluation_result_id"]: result for result in log["evaluation_results"]}
    for attribute in run.attributes:
        for presence in attribute.presences:
            result = of_id[f"run/neuron-{attribute.neuron}/presence/{presence.judge}/{presence.mode}"]
            interval = result["score_details"]["uncertainty"]["confidence_interval"]
            assert result["score_details"]["score"] == presence.rate
            assert (interval["lower"], interval["upper"]) == (presence.low, presence.high)
            assert (interval["confidence_level"], interval["method"]) == (0.95, presence.interval)
            assert result["score_details"]["details"]["n"] == str(presence.n)
        raw = attribute.presences[0]
        place = f"run/neuron-{attribute.neuron}/presence/{raw.judge}/raw"
        said = [line["evaluation"]["score"] for line in lines if line["evaluation_result_id"] == place]
        assert sum(said) == raw.hits and len(said) == raw.n  # an image without a verdict has no line
    asked = [result for result in of_id.values() if result["metric_config"]["metric_id"].endswith("when-asked")]
    assert [one["score_details"]["score"] for one in asked] == [a.suggested.rate for a in run.attributes if a.suggested]
    assert {"CLIP, uncalibrated", "script answers.jsonl"} == {line["metadata"]["judge"] for line in lines}
    [scored] = {json.dumps(r["metric_config"]["llm_scoring"]["judges"]) for r in of_id.values()
                if "llm_scoring" in r["metric_config"]}  # fmt: skip
    assert "answers.jsonl" in scored  # the judge that was asked in words


def test_the_same_run_makes_the_same_dossier(old):
    before = {path: path.read_bytes() for path in (old / "run" / "dossier").rglob("*") if path.is_file()}
    dossier(opened(old / "run"), images=False)
    assert {path: path.read_bytes() for path in (old / "run" / "dossier").rglob("*") if path.is_file()} == before


def todos(entry: Any) -> int:
    if isinstance(entry, dict | list):
        return sum(map(todos, entry.values() if isinstance(entry, dict) else entry))
    return isinstance(entry, str) and entry.startswith(TODO)


def test_what_only_a_person_knows_is_counted_and_filled_in_by_a_tolerance_file(old, tmp_path):
    audit, page = (old / "run/dossier/audit.json"), (old / "run/dossier/audit.md")
    empty = read(audit)
    assert empty["todo"]["n"] == todos(empty) == len(empty["todo"]["fields"]) == 16
    assert f"**{todos(empty)} entries wait for a person.**" in page.read_text()
    assert page.read_text().count("**TODO") == todos(empty)
    assert set(empty["todo"]["sections"]) <= set(SECTIONS.values())
    assert empty["scope"]["protected"].startswith(TODO)  # never guessed
    assert all(not row["protected"] for part in empty["parts"] for row in part["findings"])
    (tmp_path / "mine.toml").write_text(MINE)
    dossier(opened(old / "run"), read_tolerances(tmp_path / "mine.toml"), images=False)
    filled, text = read(audit), page.read_text()
    assert filled["todo"]["n"] == todos(filled) == 10 and filled["scope"]["purpose"] == "pictures for a course"
    assert [row["state"] for row in filled["tolerances"]["decisions"]] == ["undecided", "undecided"]
    assert {row["attribute"]: row["protected"] for row in filled["parts"][0]["findings"]}["a red hat"] == ["headwear"]
    assert "the model team" in text and "`asked >= 0.8` | **undecided**" in text
    [(log, _)] = logs_of(old / "run")
    assert log["source_metadata"]["source_organization_name"] == "An organization"
    assert log["source_metadata"]["evaluator_relationship"] == "first_party"
    dossier(opened(old / "run"), images=False)


@pytest.mark.parametrize("name", ["run", "study"])
def test_the_audit_has_every_section_and_claims_no_compliance(old, name):
    text, entry = (old / name / "dossier/audit.md").read_text(), read(old / name / "dossier/audit.json")
    headings = [heading.partition(":")[0] for heading in re.findall(r"^##+ (.*)$", text, re.MULTILINE)]
    assert {section for demand in CROSSWALK for section in demand.sections} <= set(headings)
    assert {"In short", "Scope", "What to do", "Sign-off", "Crosswalk"} <= set(headings)
    ids = {demand.id for demand in CROSSWALK}
    assert {"MS-2.11-002", "MS-2.11-004", "MS-2.13-001", "MS-4.2-003", "MG-2.2-001", "Annex XI"} <= ids
    assert not re.search(r"\b(is|are) compliant|\bconforms? to\b|\bcertif|\bfulfil", text)
    assert "It does not say that a model, or anyone who uses it, complies" in text
    assert len(entry["parts"]) == (1 if name == "run" else 2) and (entry["changes"] is None) == (name == "run")
    assert "None" not in text and "{" not in text


def test_the_audit_says_what_was_measured(old):
    text, run = (old / "run/dossier/audit.md").read_text(), Run(old / "run")
    [part] = read(old / "run/dossier/audit.json")["parts"]
    hat, given = part["findings"][0], part["findings"][-1]
    assert hat["does_it"]["mode"] == "calibrated"  # it comes before the judge's own
    assert [rate["mode"] for rate in hat["other_rates"]] == ["raw", "raw"]
    assert hat["can_it"]["rate"] == run.attributes[0].suggested.rate and hat["held_back"]["ratio"] == 0.0
    assert (given["attribute"], given["found_by"], given["does_it"]["judge"]) == (
        "a dog",
        "given",
        "script answers.jsonl",
    )
    assert hat["evidence"]["fresh_seeds"] == [1000000003, 1000000004, 1000000005]
    assert hat["evidence"]["top_images"][0]["seed"] == run.sample_of[run.attributes[0].top_images[0]].seed
    assert part["agreement"][0]["alpha"] == run.attributes[0].judges_alpha
    assert part["unscored"] == run.facts.evaluate.n_unscored and "no reply" in text
    [contrast, steering] = part["mitigation"]
    assert (contrast["method"], steering["beats_controls"]) == ("contrast", False)
    assert "nobody asks" not in text  # no attribute is shown to be held back


def test_what_a_person_ticked_counts_before_all_else(tmp_path):
    with zipfile.ZipFile(GOLDEN / "run.zip") as archive:
        archive.extractall(tmp_path)
    run = Run(tmp_path / "run")
    review(run, tmp_path / "ticks.json")
    [part] = parts_of(run)
    assert [item.presence.mode for item in part.items[:3] if item.presence] == ["checked"] * 3
    first, second = judges_of_part(part)
    ticked = read(tmp_path / "ticks.json")["reviewed"]
    assert first["human_checks"]["n"] == sum(
        file.startswith("fresh/") for one in ticked for file in (*one["shows"], *one["does_not"])
    )  # an older sheet also showed audited images
    assert second["human_checks"] is None
    dossier(run, images=False)
    assert "A person looked at" in (run.dir / "dossier/audit.md").read_text()


def with_shows(part: Part, **shows: list[bool]) -> Part:
    items = [Item(name, name, "given", shows={"judge": tuple(shown)}) for name, shown in shows.items()]
    return replace(part, items=tuple(items), fresh=())


def test_a_combination_that_never_shows_is_found(old):
    [part] = parts_of(Run(old / "run"))
    hat = [True] * 40 + [False] * 60
    planted = with_shows(
        part, hat=hat, beard=[not shown for shown in hat], snow=[True, False] * 50, never=[False] * 100
    )
    found = intersections_of(planted, Tolerances())
    assert found["n_tested"] == 3  # what never shows cannot be tested
    assert found["pairs"][0]["attributes"] == ["hat", "beard"] and found["pairs"][0]["together"] == 0
    assert found["pairs"][0]["expected"] == 24.0 and found["pairs"][0]["q"] < 0.001 and found["pairs"][1]["q"] > 0.05
    protected = intersections_of(planted, Tolerances(protected={"faith": ("snow",)}))
    assert protected["n_tested"] == 2 and all("snow" in pair["attributes"] for pair in protected["pairs"])


def test_a_family_and_a_neuron_of_one_label_are_one_finding(tmp_path):
    run = make_run(tmp_path / "run", n_attributes=3)
    first, second, third = run.attributes
    run.write_attributes([first, replace(second, label=first.label, presence=first.presence, is_family=True), third])
    [part] = parts_of(run)
    rows = findings_of(part, Tolerances())
    assert [row["found_by"] for row in rows] == ["neuron 21, family 38", "neuron 55"]
    run.write_attributes([first, replace(second, label=first.label, is_family=True), third])  # another rate
    assert len(parts_of(run)[0].items) == 3


def test_an_audit_that_was_not_evaluated_says_what_to_run(tmp_path, capsys):
    run = make_run(tmp_path / "run", until="discover")
    assert main(["dossier", str(run.dir), "--no-images"]) == 2
    assert "run: raigen evaluate" in capsys.readouterr().err


def test_a_study_that_was_not_compared_says_what_to_run(old, tmp_path, capsys):
    with zipfile.ZipFile(GOLDEN / "study.zip") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "study/comparison.json").unlink()
    assert main(["dossier", str(tmp_path / "study"), "--no-images"]) == 2
    assert "raigen compare" in capsys.readouterr().err


def test_the_images_need_pyarrow_and_say_so_before_anything_is_written(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "run", n_attributes=1)
    monkeypatch.setattr("raigen.dossier.images.find_spec", lambda name: None)
    assert main(["dossier", str(run.dir)]) == 2
    assert "pip install 'raigen[export]'" in capsys.readouterr().err and not run.dossier_dir.exists()
    assert main(["dossier", str(run.dir), "--no-images"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(run.dossier_dir / "audit.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """A run with its dossier, images and all."""
    pytest.importorskip("pyarrow")
    run = make_run(tmp_path_factory.mktemp("whole") / "run", n_attributes=3)
    dossier(run)
    return run


def test_the_images_hold_their_bytes_codes_and_verdicts(whole):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(whole.dossier_dir / "images.parquet").to_pylist()
    samples, fresh = whole.samples(), whole.samples(whole.fresh_samples_path)
    assert [row["seed"] for row in rows] == [sample.seed for sample in (*samples, *fresh)]
    assert all(row["image"]["bytes"] == (whole.dir / row["file"]).read_bytes() for row in rows)
    codes, attribute = whole.image_codes(), whole.attributes[0]
    audited, later = rows[: len(samples)], rows[len(samples) :]
    assert [row["code_21_wearing_a_turban"] for row in audited] == pytest.approx(codes[:, attribute.neuron].tolist())
    assert [row["shows_neuron_21_wearing_a_turban"] for row in later] == [True] * 2 + [False] * 21 + [None]
    assert all(row["x"] is None and row["code_21_wearing_a_turban"] is None for row in later)
    assert [(row["x"], row["y"]) for row in audited] == [pytest.approx(spot) for spot in places(whole.embeddings())]


def test_datasets_reads_the_images_as_images(whole):
    datasets = pytest.importorskip("datasets")
    table = datasets.load_dataset("parquet", data_files=str(whole.dossier_dir / "images.parquet"), split="train",
                                  cache_dir=str(whole.dir.parent / "cache"))  # fmt: skip
    assert table[0]["image"].size == whole.read_image(whole.samples()[0]).size and len(table) == 84


@pytest.mark.filterwarnings("ignore")  # of the libraries that mlcroissant loads
def test_mlcroissant_reads_every_record(whole):
    mlcroissant = pytest.importorskip("mlcroissant")
    data = mlcroissant.Dataset(str(whole.dossier_dir / "croissant.json"))
    assert not data.metadata.ctx.issues.errors and not data.metadata.ctx.issues.warnings
    assert len(list(data.records("images"))) == 84
    verdicts = list(data.records("verdicts-1"))
    shown = [one["verdicts-1/shows"] for one in verdicts if one["verdicts-1/attribute"] == b"wearing a turban"]
    assert (sum(shown), len(shown)) == (2, 23)


@pytest.mark.parametrize("name", ["run", "study"])
def test_croissant_describes_the_files_that_are_there(old, name):
    folder = old / name / "dossier"
    entry = read(folder / "croissant.json")
    files = {file["@id"]: file for file in entry["distribution"]}
    assert len(files) == len(list(folder.glob("data/**/*.jsonl")))
    for file in files.values():
        assert file["sha256"] == sha256((folder / file["contentUrl"]).read_bytes())
    fields = [field for records in entry["recordSet"] for field in records["field"]]
    assert fields and all(field["source"]["fileObject"]["@id"] in files for field in fields)
    assert len({field["@id"] for field in fields}) == len(fields)
    rai = [key for key in entry if key.startswith("rai:")]
    assert len(rai) >= 10 and CONTEXT["rai"] == "http://mlcommons.org/croissant/RAI/"


def test_the_model_card_of_a_run_has_its_rates_where_the_hub_looks(tmp_path):
    run = make_run(tmp_path / "run", n_attributes=3)
    write(run)
    data = ModelCard(run.card_path.read_text(encoding="utf-8")).data
    results = {result.metric_name: result for result in data.eval_results or []}
    turban = results["shows: wearing a turban"]
    assert (turban.metric_type, turban.dataset_name, turban.metric_value) == ("presence", "a photo of a doctor", 0.0067)
    assert f"shows: {HOSTILE}" in results and data.model_name == run.config.capture.model


def test_opening_names_what_is_wrong(tmp_path):
    with pytest.raises(RaigenError, match=r"expected a run folder or a study folder"):
        opened(tmp_path)
    assert isinstance(opened(make_run(tmp_path / "run", n_attributes=1).dir), Run)
    assert isinstance(opened(Study.create(tmp_path / "study").dir), Study)
