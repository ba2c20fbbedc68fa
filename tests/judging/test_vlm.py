"""Models are asked over real HTTP, with real faults; no answer is paid for twice; what has no answer is unscored."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from raigen.config import AnnotateConfig, AskConfig, address_of
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import Answers, Budget, NoReplyError, Reply
from raigen.judging.vlm.ask import Job, ask_all, hash_of, plan
from raigen.judging.vlm.questions import Question, annotation_question, presence_question, read_presence
from raigen.judging.vlm.server import Server, data_uri
from raigen.world.portraits import draw, judge, sample_attributes
from tests.support.vlm_server import KEY, color_of, cut, hang, image_of, question_of, serving

PHRASES = ["wearing glasses", "holding a cat", "bald"]


@pytest.fixture(scope="module")
def images():
    import numpy as np

    rng = np.random.default_rng(5)
    return [draw(sample_attributes("a photo of a doctor", rng), rng) for _ in range(8)]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("RAIGEN_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")


@pytest.fixture
def server():
    with serving() as server:
        yield server


def jobs(images, phrases=PHRASES):
    return [Job((image,), presence_question(phrase), (index, phrase))
            for index, image in enumerate(images) for phrase in phrases]  # fmt: skip


def asked(server, images, tmp_path, phrases=PHRASES, **options):
    config = AskConfig(**{"timeout": 5.0, **options})
    answers = Answers(tmp_path / "answers.jsonl", Budget(config))
    return {result.tag: result for result in ask_all(address_of(server.model), jobs(images, phrases), answers, config)}


def ask_one(server, image, question: Question | None = None, timeout=5.0, retries=2) -> Reply:
    return Server(address_of(server.model), timeout, retries=retries).ask(
        [image], question or presence_question("bald")
    )


def no_check(server):
    """Faults meet the first questions, too, which ask for the colors of plain images."""
    server.spares_checks = False
    return server


def shows(request, image):
    """Whether a request is about this image."""
    return request["messages"][0]["content"][0]["image_url"]["url"] == data_uri(image)


def once(fault):
    """The fault at the first request only."""
    return lambda request, count, handler: fault(handler) if count == 1 else None


def test_the_answers_are_what_the_images_show(server, images, tmp_path):
    truth = judge(images)
    from tests.support.vlm_server import COLUMN

    results = asked(server, images, tmp_path)
    assert len(results) == len(images) * len(PHRASES) == len(server.requests)
    for (index, phrase), result in results.items():
        verdict = read_presence(result.reply.text)
        assert verdict == ("yes" if truth.shows[index, COLUMN[phrase]] else "no")
        assert result.reply.yes_share == pytest.approx(0.75 if verdict == "yes" else 0.25, abs=1e-3)
        assert (result.reply.rung, result.reply.tokens_in, result.reply.tokens_out) == ("json_schema", 100, 10)
    assert {read_presence(result.reply.text) for result in results.values()} == {"yes", "no"}


def test_a_second_run_makes_no_call(server, images, tmp_path):
    first = asked(server, images, tmp_path)
    n_requests = len(server.requests)
    assert asked(server, images, tmp_path) == first
    assert len(server.requests) == n_requests
    more = asked(server, images, tmp_path, [*PHRASES, "waving"])
    assert len(more) - len(first) == len(server.requests) - n_requests == len(images)


def test_another_model_or_server_or_image_is_another_question(server, images, tmp_path):
    answers = Answers(tmp_path / "answers.jsonl")
    config = AskConfig()
    other = address_of(server.model.replace("openai:m", "openai:n"))
    for address in (address_of(server.model), other):
        list(ask_all(address, jobs(images[:2], ["bald"]), answers, config))
    assert [request["model"] for request in server.requests] == ["m", "m", "n", "n"]
    assert hash_of(Image.new("RGB", (2, 8))) != hash_of(Image.new("RGB", (8, 2)))


def test_concurrency_is_bounded(server, images, tmp_path):
    server.fault = lambda request, count, handler: time.sleep(0.02)
    asked(server, images, tmp_path, concurrency=3)
    assert 1 < server.most_under_way <= 3


def test_all_questions_about_a_image_follow_each_other(server, images, tmp_path):
    asked(server, images[:4], tmp_path, concurrency=1)
    urls = [request["messages"][0]["content"][0]["image_url"]["url"] for request in server.requests]
    assert len({url for url, after in pairwise(urls) if url != after}) == 3
    assert all(url.startswith("data:image/png;base64,") for url in urls)


# Faults that pass.


def test_too_many_requests_waits_as_long_as_it_is_told(server, images):
    server.fault = once(lambda handler: handler.send(429, {"error": {"message": "slow"}}, Retry_After="1") or True)
    started = time.monotonic()
    assert read_presence(ask_one(server, images[0]).text) in ("yes", "no")
    assert 1.0 <= time.monotonic() - started < 3 and len(server.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [
        lambda handler: handler.send(500, {"error": {"message": "broken"}}, Retry_After="0.05") or True,
        lambda handler: handler.send(503, b"<html>try later</html>", Retry_After="0.05") or True,
        cut,
        lambda handler: hang(handler, 0.6),
    ],
    ids=["500", "503", "cut", "time-out"],
)
def test_a_fault_that_passes_is_outlasted(server, images, fault):
    server.fault = once(fault)
    assert read_presence(ask_one(server, images[0], timeout=0.4).text) in ("yes", "no")
    assert len(server.requests) == 2


def test_a_fault_that_stays_leaves_one_question_unanswered(server, images, tmp_path):
    def fault(request, count, handler):
        if "bald" in str(request["messages"][0]["content"][-1]):
            return handler.send(500, {"error": {"message": "broken"}}, Retry_After="0.01") or True
        return None

    server.fault = fault
    results = asked(server, images[:2], tmp_path)
    for (_, phrase), result in results.items():
        assert (result.reply is None) == (phrase == "bald")
    assert "broken" in results[0, "bald"].reason
    n_requests = len(server.requests)
    server.fault = lambda *_: None
    assert all(result.reply for result in asked(server, images[:2], tmp_path).values())
    assert len(server.requests) == n_requests + 2  # only what had no answer is asked again


def test_a_server_that_goes_away_stops_the_run_and_keeps_the_answers(server, images, tmp_path):
    def fault(request, count, handler):
        late = count > 4
        return (handler.send(500, {"error": {"message": "broken"}}, Retry_After="0.01") or True) if late else None

    server.fault = fault
    with pytest.raises(RaigenError, match=r"m at 127\.0\.0\.1:\d+: the last 5 questions got no reply \(.*broken"):
        asked(server, images, tmp_path, concurrency=1)
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2 + 4


@pytest.mark.parametrize("body", [b"<html>", b'"text"', b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}'])
def test_garbage_is_no_reply_and_is_not_kept(server, images, tmp_path, body):
    server.fault = lambda request, count, handler: handler.send(200, body) or True
    results = asked(server, images[:1], tmp_path, ["bald"])
    assert results[0, "bald"].reply is None and results[0, "bald"].reason.startswith("no reply: ")
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2  # the colors


# Answers that are none.


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('```json\n{"evidence": "a bare head", "answer": "yes"}\n```', "yes"),
        ('Sure! Here is my answer:\n\n{"evidence": "hair", "answer": "No"} I hope it helps {"x"', "no"),
        ('<think>{"answer": "yes"}?</think>{"evidence": "hair", "answer": "no"}', "no"),
        ("No.", "no"),
        ('{"verdict": true}', None),
        ('{"evidence": "hair", "answer": "perhaps"}', None),
        ('{"evidence": "a head that', None),
        ("The image shows no hair, yes.", None),
        ("", None),
    ],
)
def test_what_counts_as_a_verdict(server, images, tmp_path, text, verdict):
    server.fault = lambda request, count, handler: handler.answer(text) or True
    results = asked(server, images[:1], tmp_path, ["bald"])
    assert read_presence(results[0, "bald"].reply.text) == verdict
    n_requests = len(server.requests)
    asked(server, images[:1], tmp_path, ["bald"])
    assert len(server.requests) == n_requests  # it was paid for, and would come again


def test_a_refusal_is_a_reply_without_a_text(server, images, tmp_path):
    server.fault = lambda request, count, handler: handler.answer(None, refusal="I cannot help with that.") or True
    assert asked(server, images[:1], tmp_path, ["bald"])[0, "bald"].reply.text == ""
    assert len(server.requests) == 1


# The ladder.


def test_the_ladder_is_climbed_once_and_logged(server, images, tmp_path, caplog):
    caplog.set_level(logging.INFO, "raigen")

    def fault(request, count, handler):
        kind = request.get("response_format", {}).get("type")
        return handler.refuse(f"response_format {kind} is not supported") if kind else None

    no_check(server).fault = fault
    results = asked(server, images[:3], tmp_path)
    assert {result.reply.rung for result in results.values()} == {"structured_outputs"}
    assert (len(server.checks), len(server.requests)) == (2 + 1, 9)
    assert server.requests[1]["structured_outputs"]["json"]["required"] == ["evidence", "answer"]
    assert "takes no" not in caplog.text and "is asked with structured_outputs from here on" in caplog.text
    assert "does not take json_schema" in caplog.text and KEY not in caplog.text


def test_a_form_that_is_taken_and_then_ignored_is_left(server, images, tmp_path):
    def fault(request, count, handler):
        if request.get("response_format", {}).get("type") == "json_schema":
            return handler.refuse("unknown response_format")
        return (handler.answer("I see a man.") or True) if "structured_outputs" in request else None

    no_check(server).fault = fault
    results = asked(server, images[:2], tmp_path)
    assert {result.reply.rung for result in results.values()} == {"json_object"}
    assert (len(server.checks), len(server.requests)) == (2 + 2, 6)


def test_a_server_that_takes_no_form_is_asked_in_words(server, images, tmp_path):
    no_check(server).fault = lambda request, count, handler: (
        handler.refuse("extra fields") if {"response_format", "structured_outputs"} & set(request) else None
    )
    results = asked(server, images[:2], tmp_path)
    assert {result.reply.rung for result in results.values()} == {"text"}
    assert (len(server.checks), len(server.requests)) == (2 + 3, 6)


@pytest.mark.parametrize("status", [400, 403, 404, 422, 501])
def test_a_parameter_that_is_not_supported_is_left_out(server, images, tmp_path, status):
    """Whatever the status is (fault 2: a 403 was taken for a refused key)."""

    def fault(request, count, handler):
        for name in ("logprobs", "max_tokens", "temperature"):
            if name in request:
                return handler.refuse(f"You are not allowed to request {name} from this model", status)
        return None

    no_check(server).fault = fault
    results = asked(server, images[:2], tmp_path, concurrency=1)
    assert {(r.reply.rung, r.reply.yes_share) for r in results.values()} == {("json_schema", None)}
    assert (len(server.checks), len(server.requests)) == (2 + 2, 6 + 1)
    assert server.requests[-1]["max_completion_tokens"] == 300


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 300. Such images are not supported",
        "the image in {'temperature': 0, 'max_tokens': 300, 'logprobs': True, 'messages': '"
        + 400 * "x"
        + "'} is too wide",
        "this image is not allowed: temperature 0, max_tokens 300, logprobs true",
    ],
    ids=["too large", "echo", "in one sentence"],
)
def test_a_parameter_that_is_only_mentioned_stays(server, images, tmp_path, words):
    """Nor is it left out of later questions when leaving it out did not help."""
    bad = images[0]
    server.fault = lambda request, count, handler: handler.refuse(words) if shows(request, bad) else None
    results = asked(server, images[:3], tmp_path, ["bald"], concurrency=1)
    assert [results[index, "bald"].reply is None for index in range(3)] == [True, False, False]
    assert {"temperature", "max_tokens", "logprobs"} <= set(server.requests[-1])


@pytest.mark.parametrize("as_list", [False, True], ids=["text", "list"])
def test_a_reason_in_another_form_is_understood_and_told(server, images, tmp_path, as_list):
    """FastAPI's `detail`, as `transformers serve` and others refuse: a text, or pydantic's list with what was sent."""

    def fault(request, count, handler):
        if "logprobs" in request:
            reason = {"loc": ["body", "logprobs"], "msg": "Extra inputs are not permitted", "input": request}
            detail = [reason] if as_list else "Unexpected fields in the request: {'logprobs'}"
            return handler.send(422, {"detail": detail}) or True
        small = image_of(request).height < 256
        return (handler.send(400, {"detail": f"too small {KEY}"}) or True) if small else None

    server.fault = fault
    results = asked(server, [*images[:2], Image.new("RGB", (64, 32))], tmp_path, ["bald"], concurrency=1)
    assert "logprobs" in server.requests[0] and "logprobs" not in server.requests[1]
    assert "temperature" in server.requests[1]
    assert [result.reply and result.reply.rung for result in results.values()] == ["json_schema"] * 2 + [None]
    assert results[2, "bald"].reason == "no reply: 400: too small ***"
    assert len(server.requests) == 4


def test_a_image_that_the_server_will_not_take_costs_the_others_nothing(server, images, tmp_path):
    bad = Image.new("RGB", (700, 300))

    def fault(request, count, handler):
        url = request["messages"][0]["content"][0]["image_url"]["url"]
        return handler.refuse("the image is too wide") if "jpeg" in url[:20] else None

    server.fault = fault
    results = asked(server, [images[0], bad, images[1]], tmp_path, ["bald"], concurrency=1)
    assert [results[index, "bald"].reply is None for index in range(3)] == [False, True, False]
    assert "too wide" in results[1, "bald"].reason and len(server.requests) == 3


# Faults that stay.


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_that_is_refused_fails_at_once_and_stays_secret(server, images, tmp_path, status, caplog):
    caplog.set_level(logging.DEBUG)
    no_check(server).fault = lambda request, count, handler: handler.refuse(f"not with {KEY}", status)
    with pytest.raises(
        RaigenError, match=r"to take the model 'm' and the key in RAIGEN_API_KEY \(set\); it says"
    ) as caught:
        asked(server, images, tmp_path)
    assert KEY not in str(caught.value) and "***" in str(caught.value)
    assert KEY not in caplog.text and (len(server.checks), len(server.requests)) == (1, 0)
    assert not list(tmp_path.iterdir())


def test_no_server_gets_the_key_of_another(images, monkeypatch):
    seen = []
    with serving() as server:
        server.fault = lambda request, count, handler: seen.append(handler.headers["Authorization"])
        ask_one(server, images[0])
        monkeypatch.delenv("RAIGEN_API_KEY")
        ask_one(server, images[0])
    assert seen == [f"Bearer {KEY}", "Bearer none"]
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RaigenError, match="expected a key in the environment; type: export OPENAI_API_KEY="):
        Server(address_of("openai:gpt-4o-mini"), 5.0)


def test_a_server_that_is_not_there_fails_at_once(images):
    with serving() as server:
        pass
    with pytest.raises(RaigenError, match=rf"expected a server at {server.url}; .*Start it, or correct the URL"):
        ask_one(server, images[0], retries=0)


def test_quota_that_is_used_up_fails_at_once(server, images):
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    server.fault = lambda request, count, handler: handler.send(429, body, Retry_After="0.01") or True
    with pytest.raises(RaigenError, match="exceeded your quota"):
        ask_one(server, images[0])


# What may be spent.


def test_calls_are_counted_and_capped(server, images, tmp_path):
    """The two questions about colors are calls, too."""
    with pytest.raises(RaigenError, match=r"max_calls: 5 calls are made\. All answers are kept"):
        asked(server, images, tmp_path, max_calls=5)
    assert len(server.requests) == 3 and len((tmp_path / "answers.jsonl").read_text().splitlines()) == 5
    asked(server, images, tmp_path, max_calls=21)
    assert len(server.requests) == len(images) * len(PHRASES)
    asked(server, images, tmp_path, max_calls=0)


def test_every_request_is_a_call(server, images, tmp_path):
    """Those that find the form of an answer, too, and those that are repeated (attack 13: four for one)."""
    server.eyes = lambda request: {255: "red"}.get(image_of(request).getpixel((0, 0))[2], "a plain image")
    with pytest.raises(RaigenError, match=r"max_calls: 3 calls are made"):
        asked(server, images, tmp_path, max_calls=3)
    assert len(server.checks) == 3 and not (tmp_path / "answers.jsonl").exists()
    server.eyes, busy = color_of, {"error": {"message": "busy"}}
    server.fault = lambda request, count, handler: handler.send(503, busy, Retry_After="0.01") or True
    with pytest.raises(RaigenError, match=r"max_calls: 7 calls are made"):
        asked(server, images, tmp_path, max_calls=7, concurrency=1)
    assert (len(server.checks), len(server.requests)) == (3 + 2, 5)


def test_cost_is_counted_and_capped(server, images, tmp_path):
    prices = {"price_in": 10.0, "price_out": 100.0}  # 0.002 an answer
    with pytest.raises(RaigenError, match=r"max_cost: 0\.008 of 0\.0075 are spent"):
        asked(server, images, tmp_path, max_cost=0.0075, concurrency=1, **prices)
    assert (len(server.checks), len(server.requests)) == (2, 2)


@pytest.mark.parametrize("count", ["12", -5, 10**12, None, [], True, 1e308])
def test_a_count_that_is_none_is_estimated(server, images, tmp_path, count):
    """So a server that does not count cannot spend without end, and no later start fails on it (attack 8)."""
    server.usage = {"prompt_tokens": count, "completion_tokens": count}
    with pytest.raises(RaigenError, match=r"max_cost: .* are spent"):
        asked(server, images, tmp_path, max_cost=0.01, price_in=20.0, concurrency=1)
    assert 1 <= len(server.requests) < 8
    assert asked(server, images[:1], tmp_path, ["bald"])[0, "bald"].reply.tokens_in == 0


def test_an_odd_account_costs_no_answer(server, images, tmp_path):
    server.usage = "none"
    assert asked(server, images[:1], tmp_path, ["bald"])[0, "bald"].reply.tokens_in == 0


def test_a_plan_asks_nothing(server, images, tmp_path):
    """It counts the two questions about colors until they are answered."""
    config = AskConfig(price_in=10.0, price_out=100.0)
    address = address_of(server.model)
    answers = Answers(tmp_path / "answers.jsonl", Budget(config))
    guess = plan(address, jobs(images), answers)
    assert (guess.questions, guess.calls) == (26, 26) and guess.tokens_in > 24 * 81
    assert guess.is_guess and "a guess until the first answers are there" in str(guess)
    assert server.requests == server.checks == []
    asked(server, images[:4], tmp_path)
    known = plan(address, jobs(images), Answers(tmp_path / "answers.jsonl", Budget(config)))
    assert known[1:] == (24, 12, 1200, 120, pytest.approx(12 * 0.002), False) and len(server.requests) == 12
    assert str(known).endswith("24 questions, 12 answered before, 12 calls; about 1,200 tokens in and 120 out; cost about 0.024")  # fmt: skip  # noqa: E501


def test_the_first_answers_correct_the_estimate(server, images, tmp_path):
    """A model that bills 5,000 tokens an image is planned so as soon as it has named the colors (fault 15)."""

    def usage(request):
        return {"prompt_tokens": 5000 + round(len(question_of(request)) / 4), "completion_tokens": 20}

    server.usage, address, path = usage, address_of(server.model), tmp_path / "answers.jsonl"
    with pytest.raises(RaigenError, match="max_calls"):
        asked(server, images, tmp_path, max_calls=2)
    expected = plan(address, jobs(images), Answers(path))
    assert expected.calls == 24 and not expected.is_guess
    asked(server, images, tmp_path)
    really = sum(usage(request)["prompt_tokens"] for request in server.requests)
    assert expected.tokens_in == pytest.approx(really, rel=0.001)
    large = [image.resize((512, 512)) for image in images]  # of another size nothing is known
    assert plan(address, jobs(large), Answers(path)).is_guess


KILLED = """
import sys
from PIL import Image
from raigen.config import address_of
from raigen.config import AskConfig
from raigen.judging.vlm.questions import presence_question
from raigen.judging.vlm.answers import Answers, Budget
from raigen.judging.vlm.ask import Job, ask_all
from itertools import pairwise
from pathlib import Path
config = AskConfig(concurrency=4)
images = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in range(40)]
jobs = [Job((image,), presence_question("bald"), index) for index, image in enumerate(images)]
print(len(list(ask_all(address_of(sys.argv[1]), jobs, Answers(Path(sys.argv[2]), Budget(config)), config))))
"""


def test_kill_9_loses_only_what_was_under_way(tmp_path):
    path = tmp_path / "answers.jsonl"

    def brain(request):
        time.sleep(0.05)
        return '{"evidence": "", "answer": "no"}'

    with serving(brain) as server:
        command = [sys.executable, "-c", KILLED, server.model, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not path.exists() or path.read_bytes().count(b"\n") < 12:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kept = len(path.read_text().splitlines())
        with open(path, "a") as file:
            file.write('{"key": "torn in the mid')
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "40\n"
        n_requests = len(server.requests)
        assert 12 <= kept < 40 and 40 <= n_requests <= 40 + 4
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "40\n"
        assert len(server.requests) == n_requests
    text = path.read_text()
    assert KEY not in text and len([line for line in text.splitlines() if "torn" not in line]) == 2 + 40
    entry = json.loads(text.splitlines()[0])
    assert entry["model"] == "m" and entry["endpoint"] == server.url and entry["reply"]["rung"] == "json_schema"


# Scripts.


def script(tmp_path, text) -> str:
    path = tmp_path / "script.jsonl"
    path.write_text(text)
    return f"scripted:{path}"


def test_a_script_answers_by_question_and_image(images, tmp_path):
    entries = [
        {"question": "bald", "image": hash_of(images[0])[:12], "answer": {"evidence": "", "answer": "yes"}},
        {"question": "bald", "answer": "no"},
        {"question": "band", "answer": "none"},
    ]
    for text in ("\n".join(map(json.dumps, entries)), json.dumps(entries)):
        address, config = address_of(script(tmp_path, text)), AskConfig()
        asking = jobs(images[:2], ["bald", "a cat"])
        asking.append(Job((images[0],), annotation_question("a photo of a doctor", 10, 10), "name"))
        results = {r.tag: r for r in ask_all(address, asking, Answers(tmp_path / "none.jsonl"), config)}
        assert [read_presence(results[index, "bald"].reply.text) for index in (0, 1)] == ["yes", "no"]
        assert results[0, "a cat"].reply is None and "has no answer to it" in results[0, "a cat"].reason
        assert results["name"].reply.text == "none"


@pytest.mark.parametrize("text", ["{", '{"answer": 3}', "[3]", '"x"'])
def test_a_script_of_another_form_is_refused(images, tmp_path, text):
    address = address_of(script(tmp_path, text))
    with pytest.raises(RaigenError, match=r"script.jsonl: expected (entries such as|whole JSON)"):
        list(ask_all(address, jobs(images[:1]), Answers(tmp_path / "a.jsonl"), AskConfig()))
    with pytest.raises(RaigenError, match="nowhere: expected a file of answers; there is none"):
        list(ask_all(address_of("scripted:nowhere"), jobs(images[:1]), Answers(Path("a")), AskConfig()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpt-4o", r"annotator: expected clip, openai:MODEL for OpenAI, .*; got 'gpt-4o'"),
        ("openai:", r"got 'openai:'"),
        ("openai:m@http://me:secret@host/v1", r"annotator: expected a URL without a name, password, query, or"),
        ("openai:m@http://host/v1?api_key=secret", r"expected a URL without a name, password, query, or"),
        ("openai:m@https://host/v1#secret", r"expected a URL without a name, password, query, or"),
        *(
            (text, r"expected http:// or https:// and a host after the @, as in openai:MODEL@http://HOST:PORT/v1; got")
            for text in (
                "openai:qwen2.5vl:7b@localhost:8000/v1",
                "openai:m@127.0.0.1:11434/v1",
                "openai:m@http://",
                "openai:m@ftp://x",
                "openai:m@file:///etc/passwd",
                "openai:m@http:/127.0.0.1/v1",
                "openai:m@",
                "openai:m@http://[::1",
                "openai:m@http://h:x/v1",
                "openai:@http://h/v1",
                "openai:http://h/v1",
                "openai:m@me:secret@h/v1",
                "openai:m@http://h:99999/v1",
                "openai:m@http://\x07h/v1",
            )
        ),
    ],
)
def test_an_address_of_another_form_is_told(text, message):
    with pytest.raises(RaigenError, match=message) as caught:
        AnnotateConfig(annotator=text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "model", "endpoint"),
    [
        ("openai:gpt-4o-mini", "gpt-4o-mini", "https://api.openai.com/v1"),
        ("openai:@cf/llava@https://h/v1/", "@cf/llava", "https://h/v1"),
        ("openai:google/gemini@001@https://h/v1", "google/gemini@001", "https://h/v1"),
        ("openai:qwen2.5vl:7b@http://[::1]:8000/v1", "qwen2.5vl:7b", "http://[::1]:8000/v1"),
    ],
)
def test_names_of_models_may_hold_an_at(text, model, endpoint):
    assert address_of(text)[1:] == (model, endpoint)


def test_no_reply_is_no_error_for_a_person():
    assert not issubclass(NoReplyError, RaigenError)
