"""The door for files that people write: every reader takes UTF-8 with or without a byte order mark, nothing else."""

import json

import pytest

from raigen.comparison.axes import read_axes
from raigen.config import address_of, lines_of, rows_of, text_of
from raigen.config.prompts import prompts_of
from raigen.config.text_files import json_of, object_of, shaped
from raigen.diffusion.generation import _read_defaults
from raigen.errors import RaigenError
from raigen.judging.annotate import vocabulary
from raigen.judging.calibration import read_calibration
from raigen.judging.judges import given_labels
from raigen.judging.vlm.ask import Script
from raigen.runs.run import Run
from raigen.sae.interchange import _settings
from raigen.world.models import world_name

READERS = {
    "prompts.txt": ("# a café\r\na photo of a café owner\r\n", lambda path: prompts_of(str(path))),
    "labels.txt": ("wearing a béret\r\n", lambda path: given_labels(str(path))),
    "phrases.txt": ("a béret\n  # a comment\na café\n", lambda path: vocabulary(str(path), "x", "a photo")),
    "axes.json": ('{"béret": ["a béret", "a hat"]}', lambda path: read_axes(str(path), "closed")),
    "axes.toml": ('"béret" = ["a béret", "a hat"]', lambda path: read_axes(str(path), "closed")),
    "known.csv": ("judged,true,label\r\nyes,no,a béret\r\n", read_calibration),
    "script.jsonl": (
        '{"question": "béret", "answer": "yes"}\n',
        lambda path: Script(address_of(f"scripted:{path}"))._entries,
    ),
    "raigen.json": (
        '{"world": "portraits", "num_inference_steps": 3, "note": "é"}',
        lambda path: (_read_defaults(path), world_name(str(path.parent))),
    ),
    "config.json": ('{"k": 4, "note": "é"}', _settings),
    "run.json": ('{"format": 1, "stages": {}, "note": "é"}', lambda path: Run(path.parent).manifest),
}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_changes_nothing_and_other_encodings_are_named(name, tmp_path):
    text, read = READERS[name]
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8"))
    plain = read(path)
    assert (plain and "é" in repr(plain)) or name in ("raigen.json", "prompts.txt")
    path.write_bytes(text.encode("utf-8-sig"))
    assert read(path) == plain
    for encoding in ("cp1252", "utf-16", "utf-16-le"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(RaigenError, match=rf"{name}: expected a text in UTF-8"):
            read(path)


def test_a_line_ends_at_a_line_end_only(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("a photo\u2028of a nurse\x0b\r\nb\x85c\rd\n".encode())
    assert lines_of(path) == ["a photo\u2028of a nurse", "b\x85c", "d"]


def test_size_length_and_depth_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("[" * 200_000)
    with pytest.raises(RaigenError, match=r"x\.json: expected whole JSON; it is nested too deeply$"):
        json_of(path)
    path.write_text('{"a": \n 1,}')
    with pytest.raises(RaigenError, match=r"x\.json: expected whole JSON; it is broken \(.* line 2 column"):
        json_of(path)
    path.write_text("[1, 2]")
    with pytest.raises(RaigenError, match=r"x\.json: expected a JSON object with a, b; found list"):
        object_of(path, "a", "b")
    path.write_text('{"a": 1, "c": 2}')
    with pytest.raises(RaigenError, match=r"expected a JSON object with a, b; found the keys a, c"):
        object_of(path, "a", "b")
    path.write_text("short\n" + "x" * 10_001)
    with pytest.raises(RaigenError, match=r"lines of at most 10,000 characters; line 2 has 10,001"):
        lines_of(path)
    for gone in (tmp_path / "gone.txt", tmp_path):
        with pytest.raises(RaigenError, match="expected a text file; "):
            text_of(gone)
    monkeypatch.setattr("raigen.config.text_files.LARGEST", 0.001)
    with pytest.raises(RaigenError, match=r"expected a text of at most 0.001 MB"):
        text_of(path)


def test_a_table_names_the_columns_that_it_found(tmp_path):
    path = tmp_path / "known.csv"
    path.write_text("judged;true\nyes;no\n")
    with pytest.raises(RaigenError, match=r"columns judged, true, with commas between them; judged is missing, found "
                                          r"judged;true"):  # fmt: skip
        list(rows_of(path, ("judged", "true")))
    path.write_text(" judged , true\nyes,no\nyes\nno,no,,\n")
    assert list(rows_of(path, ("judged", "true"))) == [
        (2, {"judged": "yes", "true": "no"}), (3, {"judged": "yes", "true": ""}), (4, {"judged": "no", "true": "no"})
    ]  # fmt: skip
    path.write_text("judged,true\nno,no,yes,yes\n")
    with pytest.raises(RaigenError, match=r"expected 2 cells in line 2; it has 4\. A text with commas needs quotes"):
        list(rows_of(path, ("judged", "true")))
    path.write_text("judged,true\nyes,no\nyes," + "n" * 200_000)
    with pytest.raises(RaigenError, match=r"known\.csv: expected a table in CSV; line 3 cannot be read"):
        list(rows_of(path, ("judged", "true")))


@pytest.mark.parametrize("entry", [{}, [], {"neuron": 1e999}, {"neuron": "x"}, {"neuron": None}, None, 3])
def test_another_shape_is_one_clear_error(entry):
    with (
        pytest.raises(RaigenError, match=r"^here: expected a neuron; .*\. Do this$"),
        shaped("here", "a neuron", "Do this"),
    ):
        int(entry["neuron"])
    with pytest.raises(RaigenError, match=r"^mine$"), shaped("here", "a neuron"):
        raise RaigenError("mine")


def test_axes_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "axes.json"
    for wrong in ('{"a": [["b"], ["c"]]}', '{"a": [{}, {}]}', '{"a": 3}', "[]", "null"):
        path.write_text(wrong)
        with pytest.raises(RaigenError, match="closed_set: expected"):
            read_axes(str(path), "closed")
    path.with_suffix(".toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(RaigenError, match=r"closed_set: .*axes\.toml cannot be read"):
        read_axes(str(path.with_suffix(".toml")), "closed")


@pytest.mark.parametrize(
    "entry", ['{"question": 3, "answer": "yes"}', '[{"question": 3, "answer": "yes"}]', "[3]", "3"]
)
def test_a_script_of_another_shape_is_refused(entry, tmp_path):
    path = tmp_path / "script.jsonl"
    path.write_text(entry)
    with pytest.raises(RaigenError, match=r"script\.jsonl: expected entries such as .*, one a line; "):
        Script(address_of(f"scripted:{path}"))


def test_a_prompt_that_is_no_text_is_refused():
    from raigen.config import CaptureConfig

    with pytest.raises(RaigenError, match="prompt: expected a text of whole characters"):
        CaptureConfig("a photo of a caf\udce9")
    assert json.dumps(CaptureConfig("a café\u2028b").prompt)
