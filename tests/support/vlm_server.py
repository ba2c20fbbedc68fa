"""A real HTTP server that speaks the chat-completions protocol, sees with the world's judge, and fails on request."""

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from raigen.judging.vlm.questions import COLORS, color_question
from raigen.world.attributes import VALUES
from raigen.world.judge import judge

COLUMN = {value.phrase: index for index, value in enumerate(VALUES)}
KEY = "sk-a-secret-of-the-test"


def image_of(request: dict[str, Any]) -> Image.Image:
    """The first image of a request, and a check that images come first."""
    first, *_, last = request["messages"][0]["content"]
    assert first["type"] == "image_url" and last["type"] == "text"
    return Image.open(io.BytesIO(base64.b64decode(first["image_url"]["url"].split(",", 1)[1])))


def question_of(request: dict[str, Any]) -> str:
    return request["messages"][0]["content"][-1]["text"]


def color_of(request: dict[str, Any]) -> str:
    """The color of a plain image: what a model that sees is first asked for."""
    pixel = image_of(request).convert("RGB").resize((1, 1)).getpixel((0, 0))
    near = min(COLORS, key=lambda color: sum(abs(a - b) for a, b in zip(COLORS[color], pixel, strict=True)))
    return json.dumps({"color": near})


class Brain:
    """Says by the world's judge whether an image shows a phrase. One image at a time: torch runs on one thread."""

    def __init__(self):
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any]) -> str:
        label = re.search(r"“(.*?)”", question_of(request))[1]
        with self._lock:
            seen = judge([image_of(request)])
        if not seen.readable[0] or label not in COLUMN:
            return json.dumps({"evidence": "a blur", "answer": "unsure"})
        return json.dumps({"evidence": "seen", "answer": "yes" if seen.shows[0, COLUMN[label]] else "no"})


class Handler(BaseHTTPRequestHandler):
    """One request: the server's `fault` may answer it, else the brain does, or its eyes where a color is asked for."""

    def log_message(self, *args):
        pass

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server.of
        is_check = question_of(request) == color_question().text
        with server.lock:
            (server.checks if is_check else server.requests).append(request)
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            fault = None if is_check and server.spares_checks else server.fault(request, len(server.requests), self)
            if fault is None:
                self.answer((server.eyes if is_check else server.brain)(request), request)
        finally:
            with server.lock:
                server.under_way -= 1

    def answer(self, text: str | None, request: dict[str, Any] | None = None, **message):
        reason = message.pop("finish_reason", "stop")
        choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text, **message}}
        if request and request.get("logprobs") and text:
            choice["logprobs"] = {"content": log_probabilities(text)}
        usage = self.server.of.usage
        usage = usage(request) if callable(usage) else usage
        self.send(200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                        "usage": usage})  # fmt: skip

    def send(self, status: int, body: Any, **headers: str):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, message: str, status: int = 400):
        self.send(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})
        return True


def log_probabilities(text: str) -> list[dict[str, Any]]:
    """Tokens of the text, .75 on the verdict and .25 on its opposite, and nothing else possible elsewhere."""
    tokens = []
    for part in re.findall(r'yes|no(?=")|unsure|.', text, re.DOTALL):
        other = {"yes": "no", "no": "yes"}.get(part, "unsure")
        top = [{"token": part, "logprob": -0.2877, "bytes": None}, {"token": other, "logprob": -1.3863, "bytes": None}]
        tokens.append({"token": part, "logprob": -0.2877, "bytes": None, "top_logprobs": top})
    return tokens


class FakeServer:
    """The server's address, what it was asked, and what it does wrong: `fault` answers itself and returns True.

    The colors of plain images (`checks`) are apart from the other `requests`; faults pass over them if it
    `spares_checks`.
    """

    def __init__(self, url: str, brain: Callable[[dict[str, Any]], str]):
        self.url, self.brain, self.eyes = url, brain, color_of
        self.requests: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.spares_checks = True
        self.usage: Any = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        self.fault: Callable[[dict[str, Any], int, Handler], bool | None] = lambda request, count, handler: None
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0

    @property
    def model(self) -> str:
        return f"openai:m@{self.url}"


@contextmanager
def serving(brain: Callable[[dict[str, Any]], str] | None = None) -> Iterator[FakeServer]:
    """A server on a free port of 127.0.0.1, until the end of the block."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.of = FakeServer(f"http://127.0.0.1:{httpd.server_port}/v1", brain or Brain())
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield httpd.of
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def hang(handler: Handler, seconds: float) -> bool:
    time.sleep(seconds)
    return True


def cut(handler: Handler) -> bool:
    """Promises a thousand bytes, sends a few, and hangs up."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": ')
    handler.wfile.flush()
    handler.connection.shutdown(2)
    return True
