"""What lies beside the report can be read by other programs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from raigen.runs.run import Run
from tests.support.run_folder import HOSTILE, make_run, write


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    run = make_run(tmp_path_factory.mktemp("runs") / "whole")
    write(run)
    return run


def test_each_folder_of_images_has_metadata_of_exactly_its_files(whole: Run) -> None:
    codes = whole.read_tensors(whole.codes_path, "discover")["image_codes"].numpy()
    neurons = [attribute.neuron for attribute in whole.attributes]
    for folder, columns in ((whole.images_dir, neurons), (whole.fresh_dir, neurons[:3])):
        lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert sorted(line["file_name"] for line in lines) == sorted(path.name for path in folder.glob("*.png"))
        names = ["file_name", "prompt", "seed", *(f"neuron_{neuron}" for neuron in columns)]
        assert all(list(line) == names for line in lines)  # one schema, as imagefolder wants it
        if folder == whole.images_dir:
            found = np.array([[line[f"neuron_{neuron}"] for neuron in neurons] for line in lines])
            np.testing.assert_allclose(found, codes[:, neurons], atol=1e-6)
        else:
            shown = [line[f"neuron_{neurons[0]}"] for line in lines]
            assert shown == [True] * 2 + [False] * 21 + [None]


def test_the_library_datasets_reads_both_folders(whole: Run) -> None:
    datasets = pytest.importorskip("datasets")
    for folder in (whole.images_dir, whole.fresh_dir):
        found = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(folder.parent))
        assert len(found) == len(list(folder.glob("*.png"))) and {"image", "prompt", "seed"} <= set(found.column_names)


def test_parquet_says_what_the_tables_say(whole: Run) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in (whole.neurons_path, whole.presence_path):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        found = parquet.read_table(path.with_suffix(".parquet")).to_pylist()
        assert len(found) == len(rows) and list(found[0]) == list(rows[0])
        assert [row["neuron"] for row in found] == [int(row["neuron"]) for row in rows]


def test_the_card_says_every_rate_with_its_mode_and_escapes_labels(whole: Run) -> None:
    _, _, text = whole.card_path.read_text().split("---\n", 2)  # after the metadata, which are for the Hub
    assert "| 1 | wearing a turban | 21 |" in text and "| raw | 0.67% (2 of 300) |" in text
    assert HOSTILE not in text and "\\<script\\>alert\\(1\\)\\<" in text
    assert "| 4 | no identified attribute |" in text and "not measured" in text
    asked = "wearing a turban: “a photo of a doctor, wearing a turban” shows it in 60.00% (6 of 10; 26.24% to 87.84%)"
    assert f"### When requested\n\n- {asked}, 90 times as often (" in text
    assert "at least 41 times as often" in text
    assert "### Left out" in text and "- stands out too little: 287" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {9}


def test_writing_again_changes_nothing(whole: Run) -> None:
    paths: list[Path] = [whole.card_path, whole.images_dir / "metadata.jsonl", whole.fresh_dir / "metadata.jsonl"]
    before = [path.read_bytes() for path in paths]
    outputs = write(whole).outputs
    assert [path.read_bytes() for path in paths] == before and set(paths) <= set(outputs)
