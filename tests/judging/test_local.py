"""A local image-text-to-text model is asked in this process: a tiny real one, taught two answers in code."""

import pytest

from raigen.config import AskConfig, address_of
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import Answers
from raigen.judging.vlm.ask import Job, ask_all
from raigen.judging.vlm.local import Local
from raigen.judging.vlm.questions import Question, read_presence
from tests.support.tiny_vlm import ANSWERS, BLUE, RED, save_model

QUESTION = Question("Red?", {"properties": {"answer": {}}}, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "llava", QUESTION)


def test_it_says_what_it_was_taught(folder, tmp_path):
    address = address_of(f"transformers:{folder}")
    jobs = [Job((RED,), QUESTION, "red"), Job((BLUE,), QUESTION, "blue")]
    results = {r.tag: r.reply for r in ask_all(address, jobs, Answers(tmp_path / "answers.jsonl"), AskConfig())}
    assert {tag: reply.text for tag, reply in results.items()} == {"red": ANSWERS["yes"], "blue": ANSWERS["no"]}
    assert [read_presence(reply.text) for reply in results.values()] == ["yes", "no"]
    assert results["red"].yes_share > 0.8 and results["blue"].yes_share < 0.2
    assert results["red"].rung == "text" and results["red"].tokens_out == len(ANSWERS["yes"]) + 1
    assert address.name == f"{folder} at this machine"


def test_random_weights_give_no_verdict(tmp_path):
    save_model(tmp_path)
    reply = Local(address_of(f"transformers:{tmp_path}")).ask([RED, BLUE], QUESTION)
    assert read_presence(reply.text) is None and 1 <= reply.tokens_out <= 20


def test_a_model_that_cannot_be_asked_is_told(tmp_path):
    with pytest.raises(RaigenError, match="transformers:nowhere: expected an image-text-to-text model"):
        Local(address_of("transformers:nowhere"))
    save_model(tmp_path, template=None)
    with pytest.raises(RaigenError, match="expected a chat model; it has no chat template"):
        Local(address_of(f"transformers:{tmp_path}"))
