"""Whatever lies in a file or comes from a model, a reader gives a value of its type or raises RaigenError."""

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raigen.comparison.axes import read_axes
from raigen.config import in_a_line, json_of, labels_of, lines_of, object_of, rows_of, text_of, visible
from raigen.config.fields import ModelAddress, address_of
from raigen.config.prompts import prompts_of
from raigen.config.text_files import HALF, UNSEEN
from raigen.diffusion.generation import _read_defaults
from raigen.errors import RaigenError
from raigen.judging.annotate import vocabulary
from raigen.judging.calibration import read_calibration
from raigen.judging.own_judges import read_verdicts
from raigen.judging.vlm.answers import Answers, Gate, NoReplyError, Reply
from raigen.judging.vlm.ask import Script
from raigen.judging.vlm.connection import Response
from raigen.judging.vlm.questions import (
    Annotation,
    Token,
    objects,
    read_annotation,
    read_color,
    read_presence,
    read_proposal,
    why_not,
    without_thought,
    yes_share,
)
from raigen.judging.vlm.server import reply_of, retry_after, words_of
from raigen.runs.files import csv_text, json_text, plain_cell
from raigen.runs.images import whole_samples
from raigen.runs.records import Causal, Difference, Presence, RareAttribute, Ratio, Sample
from raigen.runs.run import Run
from raigen.runs.study import Study

FUZZ = settings(derandomize=True, deadline=None, database=None, max_examples=40,
                suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
WORDS = st.sampled_from([
    "a hat", "judged", "true", "yes", "no", "label", "file", "shows", "seed", "question", "answer", "evidence",
    "format", "stages", "capture", "config", "runs", "prompt", "model", "folder", "index", "sha256", "reply", "key",
    "text", "rung", "endpoint", "n_showing", "keywords", "attribute", "axes", "name", "classes", "choices", "message",
    "content", "usage", "logprobs", "=1", "'", '"', ",", "\n", "{", "}", "[", "]", ":", "1", "1e999", "NaN", "\ufeff",
    "\0", "#", "\\ud800", "\u2028", "-1", "<think>", "</think>", "```json", "9" * 400,
])  # fmt: skip
TEXTS = st.one_of(st.text(st.characters(), max_size=40), st.lists(WORDS, max_size=30).map("".join))
BYTES = st.one_of(st.binary(max_size=60), TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
                  TEXTS.map(lambda text: text.encode("utf-16", "surrogatepass")))  # fmt: skip
NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(min_value=10**300, max_value=10**301))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, st.text(max_size=3)), inner,
                                                                         max_size=6)), max_leaves=12)  # fmt: skip
READERS = {
    "text": (text_of, str),
    "lines": (lines_of, list),
    "labels": (labels_of, list),
    "JSON": (json_of, object),
    "object": (object_of, dict),
    "rows": (lambda path: list(rows_of(path, ("label", "shows"))), list),
    "prompts": (lambda path: prompts_of(str(path)), tuple),
    "vocabulary": (lambda path: vocabulary(str(path), "x", "a photo"), list),
    "axes.json": (lambda path: read_axes(str(path), "closed"), list),
    "axes.toml": (lambda path: read_axes(str(path), "closed"), list),
    "calibration": (read_calibration, list),
    "verdicts": (read_verdicts, dict),
    "script": (lambda path: Script(address_of(f"scripted:{path}")), Script),
    "raigen.json": (_read_defaults, dict),
    "answers.jsonl": (Answers, Answers),
}


def read(reader, kind, path, data):
    """The property: a value of this kind, or one clear error."""
    path.write_bytes(data)
    try:
        found = reader(path)
    except RaigenError:
        return
    assert isinstance(found, kind)


@pytest.mark.parametrize("name", READERS)
def test_a_reader_of_files(name, tmp_path):
    @FUZZ
    @given(st.one_of(BYTES, JSON.map(lambda entry: json.dumps(entry).encode())))
    def check(data):
        read(*READERS[name], tmp_path / name, data)

    check()


PARTS = {
    "run.json": lambda folder: Run(folder).manifest,
    "study.json": lambda folder: [tuple(entry) for entry in Study(folder).entries],
    "samples.jsonl": lambda folder: Run(folder).samples(),
    "attributes.json": lambda folder: Run(folder).attributes,
    "stopped": lambda folder: whole_samples(Run(folder), folder / "stopped", folder / "images", "p", 0),
}
SAMPLE = {"index": 0, "prompt": "p", "seed": 0, "file": "images/000000.png", "sha256": "0"}
ATTRIBUTE = asdict(RareAttribute(1, 2, 0.5, 0.1, 0.2, ("images/000000.png",)))
WHOLE = {
    "run.json": {"format": 1, "stages": {"capture": {"config": {"prompt": "p"}, "outputs": {}, "facts": {}}}},
    "study.json": {"format": 1, "options": {}, "runs": [{"prompt": "p", "model": "m", "folder": "f"}]},
    "samples.jsonl": SAMPLE,
    "attributes.json": [ATTRIBUTE],
    "stopped": SAMPLE,
}


def spoiled(entry, path, value):
    """The entry with another value at one place."""
    if not path or not isinstance(entry, dict | list) or not entry:
        return value
    keys = list(entry) if isinstance(entry, dict) else range(len(entry))
    key = keys[path[0] % len(keys)]
    copy = dict(entry) if isinstance(entry, dict) else list(entry)
    copy[key] = spoiled(entry[key], path[1:], value)
    return copy


@pytest.mark.parametrize("name", PARTS)
def test_a_folder_with_one_wrong_value(name, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(WHOLE["run.json"]))

    @FUZZ
    @given(st.lists(st.integers(0, 30), max_size=4), JSON)
    def check(path, value):
        (tmp_path / name).write_text(json.dumps(spoiled(WHOLE[name], path, value)) + "\n")
        try:
            found = PARTS[name](tmp_path)
        except RaigenError:
            return
        assert isinstance(found, list | dict)
        for one in found if name in ("samples.jsonl", "attributes.json") else ():
            assert type(one) in (Sample, RareAttribute) and isinstance(one[0] if type(one) is Sample else one.rank, int)

    check()


ANSWERS = st.one_of(TEXTS, JSON.map(json.dumps), JSON.map(lambda entry: f"<think>{{}}</think>{json.dumps(entry)}"))
COUNT = st.one_of(st.integers(-3, 30), NUMBERS)
SAID = st.fixed_dictionaries(
    {"evidence": TEXTS, "n_showing": COUNT, "n_control": COUNT, "attribute": TEXTS, "suggested_prompt": TEXTS,
     "keywords": st.lists(TEXTS, max_size=4)}
).map(json.dumps)  # fmt: skip


CHOICES = st.builds(
    lambda message, more: {"choices": [{"message": message} | more]}, JSON, st.dictionaries(WORDS, JSON, max_size=3)
)


@FUZZ
@given(ANSWERS)
def test_an_answer_of_a_model(text):
    assert read_presence(text) in (None, "yes", "no", "unsure")
    assert read_color(text) in (None, "red", "green", "blue", "yellow")
    assert all(isinstance(entry, dict) for entry in objects(text)) and isinstance(without_thought(text), str)
    proposal = read_proposal(text)
    assert proposal is None or all(len(classes) > 1 for classes in proposal.values())


@FUZZ
@given(st.one_of(ANSWERS, SAID))
def test_an_annotation(text):
    found = read_annotation(text)
    if found is not None:
        assert type(found) is Annotation
        words = (found.evidence, found.attribute, found.suggested_prompt, *found.keywords)
        assert all(in_a_line(word) == word for word in words)
        assert isinstance(why_not(found, "a photo of a doctor", 10, 10), str | None)


@FUZZ
@given(st.one_of(st.dictionaries(WORDS, JSON, max_size=4), CHOICES))
def test_a_completion(completion):
    try:
        reply = reply_of({"choices": None} | completion, "text", Gate(), 300)
    except NoReplyError:
        return
    assert type(reply) is Reply and isinstance(reply.text, str) and reply.tokens_in >= 0 and reply.tokens_out >= 0
    assert reply.yes_share is None or 0 <= reply.yes_share <= 1


@FUZZ
@given(st.binary(max_size=60) | JSON.map(lambda entry: json.dumps(entry).encode()), TEXTS)
def test_an_error_of_a_server(body, header):
    assert isinstance(words_of(body), str)
    assert isinstance(retry_after(Response(429, {"retry-after": header}, body), 0.5), float)


ALTERNATIVES = st.lists(st.tuples(TEXTS, st.floats(-50, 0)), max_size=4).map(tuple)


@FUZZ
@given(st.lists(st.builds(Token, TEXTS, ALTERNATIVES), max_size=5))
def test_a_share_of_yes(tokens):
    share = yes_share(tokens)
    assert share is None or 0 <= share <= 1


@FUZZ
@given(st.one_of(TEXTS, st.builds("openai:{}@http://{}".format, TEXTS, TEXTS)))
def test_an_address(text):
    try:
        found = address_of(text)
    except RaigenError:
        return
    assert type(found) is ModelAddress and isinstance(found.name, str)
    assert "@http" not in text or found.kind != "openai" or found.endpoint != "https://api.openai.com/v1"


# What is valid comes back as it was.


@FUZZ
@given(TEXTS)
def test_what_is_shown_is_visible(text):
    for shown in (visible(text), in_a_line(text)):
        assert visible(shown) == shown and not UNSEEN.search(shown) and not HALF.search(shown)
        shown.encode()
    assert in_a_line(text) == " ".join(in_a_line(text).split())


@FUZZ
@given(st.one_of(TEXTS, st.sampled_from(["'=1", "''@a", "=1", "-5", "'tis"])))
def test_a_cell_of_a_table(text):
    written = csv_text(["label", "n"], [{"label": text, "n": 1}])
    (row,) = csv.DictReader(io.StringIO(written))
    assert plain_cell(row["label"]) == visible(text)


@FUZZ
@given(JSON.filter(lambda entry: "NaN" not in json.dumps(entry)))
def test_json(entry):
    text = json_text(entry)
    assert json.loads(text) == entry and visible(text) == text


SHARES = st.floats(0, 1)
PRESENCES = st.builds(Presence, SHARES, SHARES, SHARES, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9),
                      st.text(max_size=5), st.text(max_size=5))  # fmt: skip
DIFFERENCES = st.builds(Difference, SHARES, st.integers(0, 9), SHARES, SHARES, SHARES)
CAUSES = st.builds(Causal, SHARES, SHARES, DIFFERENCES, DIFFERENCES, DIFFERENCES, SHARES, SHARES, st.booleans())
RATIOS = st.builds(Ratio, st.none() | st.floats(0, 1e9), SHARES, st.none() | SHARES)
ATTRIBUTES = st.builds(
    RareAttribute, st.integers(1, 99), st.integers(0, 9999), SHARES, SHARES, SHARES,
    st.lists(st.text(max_size=5), max_size=3).map(tuple), st.none() | st.text(max_size=9),
    st.lists(st.text(max_size=5), max_size=3).map(tuple), presence=st.none() | PRESENCES, corrected=st.just(()),
    other_presences=st.lists(PRESENCES, max_size=2).map(tuple), ratio=st.none() | RATIOS, causal=st.none() | CAUSES,
    label_holds=st.none() | st.booleans(), found_by=st.none() | st.integers(1, 9),
)  # fmt: skip


@FUZZ
@given(ATTRIBUTES)
def test_an_attribute(attribute):
    assert RareAttribute.from_json(json.loads(json.dumps(asdict(attribute)))) == attribute
    assert math.isfinite(attribute.minority_score) and visible(repr(attribute)) == repr(attribute)


LETTERS = st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])


@FUZZ
@given(st.lists(st.text(LETTERS, max_size=20), max_size=5))
def test_the_lines_of_a_file(lines):
    path = Path("lines.txt")
    found = [line.strip() for line in lines]
    path.write_text("\n".join(lines), encoding="utf-8-sig", newline="")
    assert lines_of(path) == list(dict.fromkeys(line for line in found if line and not line.startswith("#")))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
