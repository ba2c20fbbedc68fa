"""Servers that refuse, cut, hide, drip, redirect, repeat the key or see nothing: nothing is lost, spent or believed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from PIL import Image

from raigen.config import AskConfig, address_of
from raigen.errors import RaigenError
from raigen.judging.judges import Subject, VlmJudge
from raigen.judging.vlm import ask, connection
from raigen.judging.vlm.answers import Answers, Budget, NoReplyError, Reply, key_of
from raigen.judging.vlm.ask import Job, about_of, ask_all
from raigen.judging.vlm.questions import presence_question, read_presence
from raigen.judging.vlm.server import Server, data_uri, retry_after
from tests.support.vlm_server import KEY, color_of, question_of, serving

NO = '{"evidence": "none seen", "answer": "no"}'
SIX = ["a hat", "glasses", "a beard", "a cat", "a scar", "a mask"]
IMAGES = [Image.new("RGB", (64, 64), (shade, 90, 90)) for shade in range(0, 160, 20)]


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("RAIGEN_API_KEY", KEY)


@pytest.fixture
def server():
    with serving(lambda request: NO) as server:
        yield server


def jobs(images=IMAGES, labels=SIX):
    return [Job((image,), presence_question(label), (index, label))
            for index, image in enumerate(images) for label in labels]  # fmt: skip


def asked(server, tmp_path, images=IMAGES, labels=SIX, **options):
    config = AskConfig(**{"timeout": 5.0, **options})
    answers = Answers(tmp_path / "answers.jsonl", Budget(config))
    return list(ask_all(address_of(server.model), jobs(images, labels), answers, config))


def ask_one(url, timeout=1.0, retries=0):
    return Server(address_of(f"openai:m@{url}"), timeout, retries=retries).ask([IMAGES[0]], presence_question("bald"))


def shows(request, image):
    return request["messages"][0]["content"][0]["image_url"]["url"] == data_uri(image)


def reasons(results):
    return [result.reason for result in results if result.reply is None]


# A living server that refuses one question lives (fault 1).


@pytest.mark.parametrize("status", [400, 402, 403, 404, 413, 422, 451])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_refused_image_costs_no_other_answer(server, tmp_path, concurrency, status):
    """Wherever it lies, at every start; and it costs one request a question."""

    def fault(request, count, handler):
        return handler.refuse("flagged by the content filter", status) if shows(request, IMAGES[0]) else None

    server.fault = fault
    for more in (48, 6, 6):
        before = len(server.requests)
        results = asked(server, tmp_path, concurrency=concurrency)
        assert len([result for result in results if result.reply]) == 42
        assert reasons(results) == [f"no reply: {status}: flagged by the content filter"] * 6
        assert len(server.requests) == before + more
    assert len(server.checks) == 2


def test_two_refused_images_do_not_stop_a_later_start(server, tmp_path):
    server.fault = lambda request, count, handler: (
        handler.refuse("no") if any(shows(request, image) for image in IMAGES[2:7:4]) else None
    )
    for _ in range(2):
        assert len(reasons(asked(server, tmp_path, labels=SIX[:4]))) == 8


def test_a_server_that_refuses_all_from_some_point_on_is_found_out(server, tmp_path):
    """A key that ends in the middle would else leave thousands of questions unanswered."""
    server.spares_checks = False
    server.fault = lambda request, count, handler: handler.refuse("no credits", 402) if count > 4 else None
    with pytest.raises(
        RaigenError, match=r"the last 20 questions were refused, and so was one .*before \(402: no cred"
    ):
        asked(server, tmp_path, concurrency=1)
    assert len(server.requests) == 4 + 20
    server.fault = lambda *_: None
    assert reasons(asked(server, tmp_path)) == [] and len(server.requests) == 24 + 44


def test_a_server_that_takes_another_form_than_before_is_asked_anew(server, tmp_path):
    """The form is remembered from start to start; after 20 refusals it is found again."""
    asked(server, tmp_path, IMAGES[:1])
    server.spares_checks = False
    server.fault = lambda request, count, handler: (
        handler.refuse("response_format is unknown here") if "response_format" in request else None
    )
    results = asked(server, tmp_path, concurrency=1)
    assert len(reasons(results)) == 20
    assert {result.reply.rung for result in results if result.reply} == {"json_schema", "structured_outputs"}


# Answers that are cut or hidden (faults 3 and 32; attack 6).

DRAFT = '<think>Let me draft: {"evidence":"none seen","answer":"no"} but wait, actually I see it, so the final'


@pytest.mark.parametrize("text", ["", None, DRAFT, '{"evidence": "a hat and', NO])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_cut_answer_is_none_and_is_not_kept(server, tmp_path, text, concurrency):
    server.fault = lambda request, count, handler: handler.answer(text, finish_reason="length") or True
    for _ in range(2):
        before = len(server.requests)
        results = asked(server, tmp_path, labels=["a hat"], concurrency=concurrency)
        assert len(reasons(results)) == 8 == len(server.requests) - before
        assert all("cut at 300 tokens (a reasoning model?" in reason for reason in reasons(results))
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("text", [DRAFT, DRAFT.replace("think", "reasoning"), f"<think>{NO}"])
def test_an_open_thought_is_no_answer(server, tmp_path, text):
    server.fault = lambda request, count, handler: handler.answer(text) or True
    (result,) = asked(server, tmp_path, IMAGES[:1], ["a hat"])
    assert "only a thought" in result.reason and read_presence(text) is None


def test_a_server_that_cuts_all_answers_is_not_paid_for_all(server, tmp_path):
    server.fault = lambda request, count, handler: handler.answer("", finish_reason="length") or True
    with pytest.raises(RaigenError, match=r"the last 20 questions got no whole answer \(the answer is cut at 300"):
        asked(server, tmp_path, concurrency=1)
    assert 20 <= len(server.requests) <= 21  # the next one may be on its way


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", ["", None])
def test_an_answer_in_the_thoughts_is_read_where_the_content_is_empty(server, tmp_path, field, content):
    yes = '{"evidence": "a hat", "answer": "yes"}'
    server.fault = lambda request, count, handler: handler.answer(content, **{field: yes}) or True
    (result,) = asked(server, tmp_path, IMAGES[:1], ["a hat"])
    assert read_presence(result.reply.text) == "yes"
    server.fault = lambda request, count, handler: handler.answer(NO, **{field: yes}) or True
    (result,) = asked(server, tmp_path, IMAGES[:1], ["a cat"])
    assert read_presence(result.reply.text) == "no"


def test_what_a_filter_cut_is_a_refusal(server, tmp_path):
    server.fault = lambda request, count, handler: handler.answer(NO[:30], finish_reason="content_filter") or True
    assert asked(server, tmp_path, IMAGES[:1], ["a hat"])[0].reply.text == ""


@pytest.mark.parametrize(("text", "is_asked"), [("", True), (DRAFT, True), (NO[:20], True), (NO, False)])
def test_a_cut_answer_that_an_earlier_version_kept_is_asked_again(server, tmp_path, text, is_asked):
    address, (job,) = address_of(server.model), jobs(IMAGES[:1], ["a hat"])
    about = about_of(address, job)
    Answers(tmp_path / "answers.jsonl").add(key_of(about), about, Reply(text, None, "text", 100, 300))
    (result,) = asked(server, tmp_path, IMAGES[:1], ["a hat"])
    assert result.reply.text == NO and len(server.requests) == is_asked


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"answer": true}', "yes"), ('{"answer": false}', "no"), ("true", "yes"), ('{"answer": "True"}', "yes"),
        ('{"Answer": "yes"}', "yes"), ("Answer: yes", "yes"), ("answer: \"No\".", "no"), ("**Yes**", "yes"),
        ('{"properties": {"evidence": "a hat", "answer": "yes"}}', "yes"), ('[{"answer":"yes"}]', "yes"),
        ('{"answer": "yes"} {"answer": "no"}', None), ('{"answer": "yes"} {"answer": "yes"}', "yes"),
        ('{"answer": "yes"} {"answer": "perhaps"}', None), ('{"answer": 1}', None), ('{"answer": null}', None),
        ('{"type": "object", "properties": {"answer": {"type": "string"}}}', None), ("1", None),
        (f"<think>{NO}</think>I cannot tell", None), ("no</think>yes", "yes"), ('{"a":' * 50_000, None),
        ('{"answer": ' + "9" * 5000 + "}", None),
    ],
)  # fmt: skip
def test_what_a_verdict_is(text, verdict):
    assert read_presence(text) == verdict


# A judge must prove that it sees (fault 27).


def test_a_model_is_shown_two_plain_images_before_its_first_use(server, tmp_path):
    asked(server, tmp_path, IMAGES[:1])
    assert [json.loads(color_of(check))["color"] for check in server.checks] == ["red", "blue"]
    assert len({question_of(check) for check in server.checks}) == 1  # so a blind model answers both alike
    asked(server, tmp_path)
    assert len(server.checks) == 2  # the answers are kept
    asked(server, tmp_path, [Image.new("RGB", (32, 64))])
    assert len(server.checks) == 4  # a server may drop images of another size


@pytest.mark.parametrize("text", ["no", '{"color": "red"}', '{"color": "blue"}', "", "red, green, blue or yellow?", NO])
def test_a_judge_that_sees_no_image_is_refused(server, tmp_path, text):
    server.eyes = lambda request: text
    judge = VlmJudge(address_of(server.model), Answers(tmp_path / "answers.jsonl"), AskConfig(concurrency=8))
    with pytest.raises(RaigenError, match=r"m at .*: expected a model that sees images; asked for the colors of two"):
        judge.verdicts(IMAGES, [Subject("a hat")])
    assert server.requests == []


def test_a_server_that_was_given_its_eyes_is_shown_the_images_again(server, tmp_path):
    server.eyes = lambda request: '{"color": "red"}'
    with pytest.raises(RaigenError, match=r"it said '\{\"color\": \"red\"\}' for red and .* for blue"):
        asked(server, tmp_path)
    server.eyes = color_of
    assert reasons(asked(server, tmp_path)) == [] and len(server.checks) == 2 + 1  # red was right before


def test_a_server_that_does_not_name_the_color_is_told_why(server, tmp_path):
    server.spares_checks = False
    server.fault = lambda request, count, handler: handler.refuse("this model takes no images")
    with pytest.raises(RaigenError, match=r"an answer to the first question, .*no reply: 400: this model takes no ima"):
        asked(server, tmp_path)
    server.fault = lambda request, count, handler: handler.answer("", finish_reason="length") or True
    with pytest.raises(RaigenError, match="cut at 400 tokens"):
        asked(server, tmp_path)


def test_what_is_kept_needs_no_model(server, tmp_path):
    """Old runs know nothing of colors: with all answers there, nobody is asked."""
    asked(server, tmp_path)
    path = tmp_path / "answers.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    old = [{k: v for k, v in line.items() if k != "sizes"} for line in lines if "color" not in line["question"]]
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    before = len(server.requests), len(server.checks)
    assert len(asked(server, tmp_path, max_calls=0)) == 48 and (len(server.requests), len(server.checks)) == before
    config = AskConfig(price_in=10)
    known = ask.plan(address_of(server.model), jobs(labels=["a wig"]), Answers(path, Budget(config)))
    assert known.tokens_in >= 8 * 100 and not ask.plan(address_of(server.model), jobs(), Answers(path)).calls


# Nobody else hears of it: keys, redirects (attacks 5 and 14; proxies are in test_proxy.py).


def holds_key(folder):
    return any(KEY in path.read_text() for path in folder.rglob("*") if path.is_file())


def echo(handler):
    return f"<html>Authorization: {handler.headers['Authorization']} {'x' * 40}</html>"


@pytest.mark.parametrize(
    "fault",
    [
        lambda handler: handler.send(200, echo(handler).encode()),
        lambda handler: handler.send(200, {"error": {"message": echo(handler)}}),
        lambda handler: handler.send(200, {"choices": [echo(handler)]}),
        lambda handler: handler.send(200, {"choices": [{"message": {"content": [echo(handler)]}}]}),
        lambda handler: handler.answer(echo(handler)),
        lambda handler: handler.answer(json.dumps({"evidence": echo(handler), "answer": "no"})),
        lambda handler: handler.send(500, echo(handler).encode(), Retry_After="0.001"),
        lambda handler: handler.send(500, {"detail": echo(handler)}, Retry_After="0.001"),
        lambda handler: handler.send(400, {"message": "x" * 270 + echo(handler)}),
        lambda handler: handler.send(403, {"error": {"message": echo(handler)}}),
        lambda handler: handler.send(307, b"", Location=f"http://127.0.0.2/{KEY}"),
        lambda handler: handler.send(307, b"", Location=f"http://127.0.0.2:1/v1?{KEY}"),
    ],
    ids=["html", "error", "choice", "content", "text", "answer", "500", "detail", "late", "403", "path", "query"],
)
@pytest.mark.parametrize("spares_checks", [True, False])
def test_a_key_that_is_repeated_reaches_neither_disk_nor_screen(server, tmp_path, caplog, fault, spares_checks):
    caplog.set_level("DEBUG")
    server.spares_checks, server.fault = spares_checks, lambda request, count, handler: fault(handler) or True
    try:
        shown = str([(result.reason, result.reply) for result in asked(server, tmp_path, IMAGES[:2], ["a hat"])])
    except RaigenError as error:
        shown = str(error)
    assert any(word in shown for word in ("Authorization", "***", "elsewhere", "expected a message", "expected a text"))
    assert KEY not in shown and KEY[:12] not in shown and KEY not in caplog.text and not holds_key(tmp_path)


@pytest.mark.parametrize("key", ["sk-\u00e9\u00e9\u00e9\u00e9\u00e9", "sk-a\nb", "sk-\x1b[31m"])
def test_a_key_that_cannot_be_sent_is_told_and_not_shown(server, monkeypatch, key):
    monkeypatch.setenv("RAIGEN_API_KEY", key)
    with pytest.raises(RaigenError, match="expected a key of plain letters in RAIGEN_API_KEY") as caught:
        ask_one(server.url)
    assert key not in str(caught.value)
    monkeypatch.setenv("RAIGEN_API_KEY", KEY + "\n")
    assert ask_one(server.url).text == NO


def test_a_word_in_place_of_a_key_stays_in_answers(server, monkeypatch):
    monkeypatch.setenv("RAIGEN_API_KEY", "none")
    assert ask_one(server.url).text == NO


def test_a_redirect_is_not_followed(server, tmp_path):
    with serving(lambda request: NO) as other:
        server.spares_checks = False
        place = other.url + "/chat/completions"
        server.fault = lambda request, count, handler: handler.send(307, b"", Location=place) or True
        with pytest.raises(RaigenError, match=rf"it sends us elsewhere \(307: no words -> {place}\). If you trust"):
            asked(server, tmp_path)
        assert other.requests == other.checks == [] and len(server.checks) == 1


def test_a_server_hears_nothing_of_openai(server, monkeypatch):
    heard = {}
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "of-openai")
    server.fault = lambda request, count, handler: heard.update(handler.headers)
    ask_one(server.url)
    assert "of-openai" not in str(heard) and heard["Authorization"] == f"Bearer {KEY}"


# A whole answer in time, of a size that fits (attack 16).


@contextmanager
def raw(send):
    """A server on a bare socket: `send` writes whatever it wants."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done, threads = threading.Event(), []

        def one(peer):
            with peer:
                while b"\r\n\r\n" not in peer.recv(65536, socket.MSG_PEEK):
                    pass
                with suppress(OSError):  # the other side has had enough
                    send(peer, done)

        def run():
            while True:
                try:
                    peer, _ = listening.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=one, args=(peer,)))
                threads[-1].start()

        accepting = threading.Thread(target=run)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            done.set()
            listening.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join()


def drip(text):
    def send(peer, done):
        for at in range(len(text)):
            if done.wait(0.05):
                return
            peer.sendall(text[at : at + 1])

    return send


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "send",
    [
        drip(HEAD + b"X: " + b"y" * 400),
        drip(b"HTTP/1.1 " * 100),
        lambda peer, done: (peer.sendall(HEAD + b"Content-Length: 400\r\n\r\n"), drip(b" " * 400)(peer, done)),
        lambda peer, done: (peer.sendall(HEAD + b"\r\n"), drip(b" " * 400)(peer, done)),
        lambda peer, done: done.wait(20),
    ],
    ids=["headers", "status", "body", "body without end", "nothing"],
)
def test_the_timeout_bounds_the_whole_answer(send):
    with raw(send) as url:
        started = time.monotonic()
        with pytest.raises(RaigenError, match=r"no whole answer within 0\.6 s. A slow server needs a longer --timeout"):
            ask_one(url, timeout=0.6)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad"])
@pytest.mark.parametrize("head", [b"Content-Length: 999999999\r\n\r\n", b"\r\n"], ids=["told", "endless"])
def test_a_huge_answer_is_cut(monkeypatch, status, head):
    monkeypatch.setattr(connection, "LONGEST", 100_000)
    n_sent = []

    def send(peer, done):
        peer.sendall(b"HTTP/1.1 " + status + b"\r\n" + head)
        while not done.is_set() and sum(n_sent) < 10**8:
            n_sent.append(peer.send(b"x" * 65536))

    with raw(send) as url, pytest.raises(NoReplyError, match="x" * 90):
        ask_one(url, timeout=10.0)
    assert sum(n_sent) < 2 * 10**7


@pytest.mark.parametrize(
    "reply",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 999999 OK\r\n\r\n", HEAD + b"Content-Length: 40\r\n\r\n{}",
     HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", HEAD + b"Content-Length: -1\r\n\r\n"],
)  # fmt: skip
def test_garbage_on_the_wire_is_no_server(reply):
    with raw(lambda peer, done: peer.sendall(reply)) as url, pytest.raises((RaigenError, NoReplyError)) as caught:
        ask_one(url)
    assert "expected a server at" in str(caught.value) or "expected a chat completion" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("3", 3), (" 0.25 ", 0.25), ("soon", 9), ("-1", 9), ("nan", 9), ("1e9", 9), ("", 9), ("0", 9),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 9), ("9" * 400, float("inf"))],
)  # fmt: skip
def test_what_retry_after_says(said, seconds):
    assert retry_after(connection.Response(429, {"retry-after": said}, b""), 9) == seconds


def test_a_date_in_retry_after_is_waited_for():
    from email.utils import formatdate

    response = connection.Response(429, {"retry-after": formatdate(time.time() + 60, usegmt=True)}, b"")
    assert 55 < retry_after(response, 9) <= 60


def test_a_server_that_wants_an_hour_is_not_waited_for(server):
    busy = {"error": {"message": "come back later"}}
    server.fault = lambda request, count, handler: handler.send(429, busy, Retry_After="3600") or True
    with pytest.raises(NoReplyError, match=r"come back later \(it wants to be asked again in 3,600 s\)"):
        ask_one(server.url, retries=4)
    assert len(server.requests) == 1


def test_what_an_overloaded_server_says_is_told(server):
    server.fault = lambda request, count, handler: handler.send(200, {"error": {"message": "model overloaded"}}) or True
    with pytest.raises(NoReplyError, match="expected a chat completion; got 'model overloaded'"):
        ask_one(server.url)


@pytest.mark.parametrize(
    "logprobs",
    [{"content": [{"token": None, "logprob": 0, "top_logprobs": []}]}, {"content": 3}, [], "x", {"content": [3]},
     {"content": [{"token": "no", "top_logprobs": [{"token": "no", "logprob": "x"}]}]},
     {"content": [{"token": "no", "top_logprobs": [{"token": "no", "logprob": 1e9}, {"token": "yes", "logprob": 1}]}]},
     {"content": [{"token": "no", "top_logprobs": [{"token": 3, "logprob": -1}, {"token": "yes", "logprob": -1}]}]}],
)  # fmt: skip
def test_odd_probabilities_cost_no_answer(server, logprobs):
    message = {"role": "assistant", "content": NO}
    body = {"choices": [{"finish_reason": "stop", "message": message, "logprobs": logprobs}]}
    server.fault = lambda request, count, handler: handler.send(200, body) or True
    assert ask_one(server.url)[:2] == (NO, None)


def test_what_a_server_says_cannot_steer_a_terminal(server):
    server.fault = lambda request, count, handler: handler.refuse("\x1b]0;pwn\x07 \u202e\x9b31m no\nno", 400)
    with pytest.raises(NoReplyError, match=r"^400: \]0;pwn 31m no no$"):
        ask_one(server.url)


# Ctrl-C (attack 7).

ASKING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from pathlib import Path
from PIL import Image
from raigen.config import AskConfig, address_of
from raigen.judging.vlm.answers import Answers
from raigen.judging.vlm.ask import Job, ask_all
from raigen.judging.vlm.questions import presence_question
jobs = [Job((Image.new("RGB", (64, 64), (shade, 0, 0)),), presence_question("bald"), shade) for shade in range(40)]
try:
    for result in ask_all(address_of(sys.argv[1]), jobs, Answers(Path(sys.argv[2])), AskConfig(concurrency=4)):
        pass
except KeyboardInterrupt:
    sys.exit(130)
"""


@contextmanager
def asking(server, path):
    """A process that asks, as soon as four questions are under way."""
    with subprocess.Popen([sys.executable, "-c", ASKING, server.model, str(path)], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while server.under_way < 4:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        yield process


@pytest.mark.parametrize("spares_checks", [True, False])
def test_after_ctrl_c_nothing_is_sent_and_what_is_under_way_is_kept(tmp_path, spares_checks):
    """`spares_checks` False: all but one wait for the first question, of which the server takes its time."""
    release, path = threading.Event(), tmp_path / "answers.jsonl"
    with serving(lambda request: NO) as server:
        server.fault = lambda request, count, handler: release.wait(60) and None
        with asking(server, path) as process:
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            assert process.poll() is None
            release.set()
            assert process.wait(30) == 130
            assert b"which are paid for; Ctrl-C again ends at once" in process.stderr.read()
        assert len(server.requests) == 4 and len(path.read_text().splitlines()) == 2 + 4


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    release = threading.Event()
    with serving(lambda request: NO) as server:
        server.fault = lambda request, count, handler: release.wait(60) and None
        with asking(server, tmp_path / "answers.jsonl") as process:
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(30)
            assert time.monotonic() - started < 5 and process.returncode not in (0, None)
            release.set()
        assert len(server.requests) == 4


def test_a_stopped_caller_waits_for_no_retry(server, tmp_path):
    busy = {"error": {"message": "busy"}}
    server.fault = lambda request, count, handler: handler.send(503, busy, Retry_After="60") or True
    started = time.monotonic()
    with pytest.raises(RaigenError, match="max_calls: 3 calls"):
        asked(server, tmp_path, max_calls=3, concurrency=2)
    assert time.monotonic() - started < 20


# Kept answers (attacks 8 and 10).


def test_a_file_with_odd_lines_is_read(server, tmp_path, caplog):
    asked(server, tmp_path, IMAGES[:1])
    path = tmp_path / "answers.jsonl"
    line = json.loads(path.read_text().splitlines()[-1])
    odd = ["[]", "3", "null", '"x"', "{}", "[" * 100_000, '{"key": 1', json.dumps(line | {"reply": 3}), "\ufeff{}",
           json.dumps(line | {"reply": {}}), json.dumps(line | {"reply": line["reply"] | {"text": 3}}),
           json.dumps(line | {"key": "other", "reply": line["reply"] | {"yes_share": 7}})]  # fmt: skip
    strange = line | {"key": "strange", "reply": line["reply"] | {"tokens_in": "12", "tokens_out": -5, "new": 1}}
    with path.open("ab") as file:
        file.write("\n".join([*odd, json.dumps(strange)]).encode() + b"\n\xff\xfe\n\x00\n")
    caplog.clear()
    answers = Answers(path)
    assert len([r for r in caplog.records if "skipped a broken line" in r.message]) == len(odd) + 2
    assert answers.get("strange")[3:] == (0, 0) and answers.get("other") is None
    before = len(server.requests)
    assert reasons(asked(server, tmp_path, IMAGES[:1])) == [] and len(server.requests) == before


def test_a_full_disk_is_told_and_tears_no_answer(tmp_path):
    """The limit on the size of a file acts as a full disk does: a part is written, then nothing."""
    resource = pytest.importorskip("resource")
    path, about = tmp_path / "answers.jsonl", {"model": "m", "endpoint": "e", "parameters": {"max_tokens": 300}}
    answers, reply = Answers(path), Reply(NO, None, "text", 1, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    answers.add("first", about, reply)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, hard))
    try:
        with pytest.raises(RaigenError, match=r"answers.jsonl: an answer cannot be written: .*free some space, or all"):
            answers.add("second", about, reply)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    answers.add("third", about, reply)
    kept = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert kept == ["first", "third"] and answers.get("second") is None


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path):
    (tmp_path / "answers.jsonl").mkdir()
    with pytest.raises(RaigenError, match="expected the answers of models; the file cannot be read"):
        Answers(tmp_path / "answers.jsonl")
    (tmp_path / "file").write_text("")
    about = {"model": "m", "endpoint": "e", "parameters": {"max_tokens": 300}}
    with pytest.raises(RaigenError, match="an answer cannot be written"):
        Answers(tmp_path / "file" / "answers.jsonl").add("key", about, Reply(NO, None, "text", 1, 1))


WRITING = """
import sys
from pathlib import Path
from raigen.judging.vlm.answers import Answers, Reply
answers = Answers(Path(sys.argv[1]))
about = {"model": "m", "endpoint": "e", "parameters": {"max_tokens": 300}, "question": "x" * 9000}
for index in range(150):
    answers.add(f"{sys.argv[2]}-{index}", about, Reply("no", None, "text", 1, 1))
"""


def test_two_processes_keep_all_lines_whole(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "torn')  # a half line before them costs neither a line
    writers = [subprocess.Popen([sys.executable, "-c", WRITING, str(path), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    torn, *lines = path.read_text().splitlines()
    assert torn == '{"key": "torn'
    assert {json.loads(line)["key"] for line in lines} == {f"{name}-{index}" for name in "ab" for index in range(150)}
    assert len(lines) == 300


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_without_permission_is_told(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("")
    path.chmod(0o400)
    about = {"model": "m", "endpoint": "e", "parameters": {"max_tokens": 300}}
    with pytest.raises(RaigenError, match="an answer cannot be written: Permission denied"):
        Answers(path).add("key", about, Reply(NO, None, "text", 1, 1))


# Settings that fit.


@pytest.mark.parametrize("options", [{"timeout": 1e30}, {"timeout": float("nan")}, {"concurrency": 10**6}])
def test_settings_that_no_machine_can_follow_are_refused(options):
    with pytest.raises(RaigenError, match="expected a number in"):
        AskConfig(**options)


@pytest.mark.parametrize("prices", [{"price_in": float("inf")}, {"price_out": float("nan")}, {"price_in": -1.0}])
def test_prices_are_finite(prices):
    with pytest.raises(RaigenError, match="price"):
        AskConfig(**prices)
