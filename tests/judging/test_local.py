"""A local image-text-to-text model is asked in this process: a tiny real one, taught two answers in code."""

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from raigen.config import AskConfig, address_of
from raigen.errors import RaigenError
from raigen.judging.vlm import local
from raigen.judging.vlm.answers import Answers, Budget, CutError, NoReplyError
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
    """What they say goes on until it is cut: that is no answer."""
    save_model(tmp_path)
    with pytest.raises(CutError, match=r"the answer is cut at 20 tokens \(a reasoning model\?"):
        Local(address_of(f"transformers:{tmp_path}")).ask([RED, BLUE], QUESTION)


def test_a_model_that_tells_no_color_is_refused(tmp_path):
    save_model(tmp_path / "model")
    address, answers = address_of(f"transformers:{tmp_path / 'model'}"), Answers(tmp_path / "answers.jsonl")
    with pytest.raises(
        RaigenError, match=r"at this machine: expected (a model that sees|an answer to the first quest)"
    ):
        list(ask_all(address, [Job((RED,), QUESTION, "red")], answers, AskConfig()))


def test_a_question_that_the_model_cannot_take_is_no_reply(folder):
    """Whatever transformers raises for it: here its template."""
    model = Local(address_of(f"transformers:{folder}"))
    model.processor.chat_template = "{{ raise_exception('this model takes one image') }}"
    with pytest.raises(NoReplyError, match="TemplateError: this model takes one image"):
        model.ask([RED, BLUE], QUESTION)


def test_local_calls_are_counted(folder, tmp_path):
    address, answers = address_of(f"transformers:{folder}"), Answers(tmp_path / "a", Budget(AskConfig(max_calls=3)))
    with pytest.raises(RaigenError, match="max_calls: 3 calls"):
        list(ask_all(address, [Job((image,), QUESTION, 0) for image in (RED, BLUE)], answers, AskConfig()))
    assert answers.usage(address).answers == 3


def test_a_model_that_cannot_be_asked_is_told(tmp_path):
    with pytest.raises(RaigenError, match="transformers:nowhere: expected an image-text-to-text model"):
        Local(address_of("transformers:nowhere"))
    save_model(tmp_path, template=None)
    with pytest.raises(RaigenError, match="expected a chat model; it has no chat template"):
        Local(address_of(f"transformers:{tmp_path}"))


def test_it_runs_on_the_device_that_was_asked(folder, monkeypatch):
    monkeypatch.setattr(local, "resolve_device", {"cuda:1": torch.device("meta")}.get)
    assert Local(address_of(f"transformers:{folder}"), "cuda:1").model.device == torch.device("meta")
    monkeypatch.undo()
    with pytest.raises(RaigenError, match="device: 'cuda:99' was requested, but torch sees"):
        Local(address_of(f"transformers:{folder}"), "cuda:99")


def test_a_model_that_does_not_fit_on_the_device_is_told(folder, monkeypatch):
    def full(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LlavaForConditionalGeneration, "to", full)
    with pytest.raises(RaigenError, match="it cannot be loaded on cpu: OutOfMemoryError: CUDA out of memory"):
        Local(address_of(f"transformers:{folder}"), "cpu")
