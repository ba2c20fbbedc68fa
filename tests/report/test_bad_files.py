"""Files of a run that are damaged, foreign or of another shape: one clear error each, never a traceback."""

import json
import shutil

import numpy as np
import pytest

from raigen.config import ReportConfig
from raigen.errors import RaigenError
from raigen.judging.annotate import write_words
from raigen.judging.notes import notes_of
from raigen.judging.presence_table import read_given
from raigen.judging.review import tasks
from raigen.report.explorer import words_of
from raigen.report.neuron_cards import _evidence, _kin, _scores
from raigen.report.page import _truth, read_neurons
from raigen.report.report import report
from raigen.runs.files import write_text
from raigen.runs.images import whole_samples
from raigen.runs.run import Run
from tests.support.run_folder import PROMPT, make_run
from tests.support.tiny import drained

READERS = {
    "run.json": lambda run: (run.config, run.facts.capture.hookpoint),
    "samples.jsonl": lambda run: (run.samples(), run.index_of),
    "attributes.json": lambda run: run.attributes,
    "annotations.jsonl": _evidence,
    "kin.jsonl": _kin,
    "label_scores.jsonl": lambda run: (_scores(run), tasks(run)),
    "judgements.jsonl": tasks,
    "neurons.csv": lambda run: read_neurons(run, run.attributes),
    "presence.csv": read_given,
    "truth.json": lambda run: _truth(run, run.attributes),
    "codes.safetensors": lambda run: run.image_codes(),
    "embeddings.safetensors": lambda run: run.embeddings(),
    "heatmaps.safetensors": lambda run: run.heatmaps(),
    "words.safetensors": lambda run: words_of(run, np.eye(8)),
    "notes.json": notes_of,
}
DAMAGES = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2 + 1],
    "object": lambda data: b'{"neuron": 1}',
    "list": lambda data: b"[1, 2]",
    "null": lambda data: b"null",
    "text": lambda data: b'"a text"',
    "deep": lambda data: b"[" * 50_000,
    "latin-1": lambda data: b"caf\xe9," + data,
    "utf-16": lambda data: data.decode("utf-8", "replace").encode("utf-16"),
    "zeros": lambda data: bytes(len(data)),
    "huge number": lambda data: b'{"format": 1e999, "stages": 3}',
    "html": lambda data: b"<!doctype html><p>not found",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("whole") / "run", n_attributes=2)
    write_text(run.annotations_path, '{"neuron": 21, "label": "a hat", "evidence": "in all of A"}\n')
    write_words(run, ["a hat", "a cat"], np.ones((2, 8), np.float32))
    write_text(run.notes_path, '{"format": 1, "notes": []}')
    return run


@pytest.fixture
def run(whole, tmp_path):
    return Run(shutil.copytree(whole.dir, tmp_path / "run"))


@pytest.mark.parametrize("name", READERS)
def test_whatever_lies_in_place_of_a_file_ends_in_one_clear_error(run, name):
    path = run.dir / name
    data, before = path.read_bytes(), {p: p.read_bytes() for p in run.dir.rglob("*") if p.is_file()}
    READERS[name](run)
    said = []
    for spoil in DAMAGES.values():
        path.write_bytes(spoil(data))
        try:
            READERS[name](run)
        except RaigenError as error:
            said.append(str(error))
    assert said and all(str(run.dir) in text and "expected" in text for text in said)
    path.write_bytes(data)
    assert {p: p.read_bytes() for p in run.dir.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_list_of_images_that_cannot_be_read_holds_none(run, damage):
    run.samples_path.write_bytes(DAMAGES[damage](run.samples_path.read_bytes()))
    whole_samples(run, run.samples_path, run.images_dir, PROMPT, 5000)


def test_a_report_of_damaged_files_is_one_clear_error(run):
    lines = [json.loads(line) for line in run.kin_path.read_text().splitlines()]
    run.kin_path.write_text("".join(json.dumps(line | {"top_images": 3}) + "\n" for line in lines))
    with pytest.raises(RaigenError, match=r"expected files as the earlier stages wrote them; .*--redo$"):
        drained(report(run, ReportConfig()))
