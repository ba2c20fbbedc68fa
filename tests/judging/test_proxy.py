"""Proxies of the environment: which servers they lead to, what they are told, and what is said when they fail."""

import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from PIL import Image

from raigen.config import address_of
from raigen.errors import RaigenError
from raigen.judging.vlm.answers import NoReplyError
from raigen.judging.vlm.proxy import proxy_of
from raigen.judging.vlm.questions import presence_question
from raigen.judging.vlm.server import Server
from tests.support.vlm_server import KEY, serving

NO = '{"evidence": "none seen", "answer": "no"}'
LOGIN = "user:p%40ssword-1"  # its password is p@ssword-1
BASIC = "Basic " + base64.b64encode(b"user:p@ssword-1").decode()
HTTP, HTTPS = "http://model.example/v1", "https://model.example/v1"  # no network is needed: only the proxy is spoken to
ANSWER = json.dumps({"choices": [{"message": {"role": "assistant", "content": NO}, "finish_reason": "stop"}]}).encode()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAIGEN_API_KEY", KEY)


class ProxyHandler(BaseHTTPRequestHandler):
    """Writes down the request line and headers of every request, then does what its server is told by `reply`."""

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        with suppress(ConnectionError):
            super().handle_one_request()

    def do_CONNECT(self):
        self.server.heard.append((self.requestline, dict(self.headers)))
        self.server.reply(self)

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_CONNECT()


@contextmanager
def proxying(reply):
    """A proxy on a free port of this machine; `place` is its address, `heard` what it was asked."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), ProxyHandler)
    proxy.reply, proxy.heard, proxy.place = reply, [], f"127.0.0.1:{proxy.server_port}"
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


def sends(data):
    def reply(handler):
        handler.wfile.write(data)
        handler.close_connection = True

    return reply


def status(code, words=b""):
    return sends(f"HTTP/1.1 {code} Said by it\r\nContent-Length: {len(words)}\r\n\r\n".encode() + words)


def ask_one(url, timeout=2.0, retries=0):
    question = presence_question("bald")
    return Server(address_of(f"openai:m@{url}"), timeout, retries=retries).ask([Image.new("RGB", (64, 64))], question)


def failure(url, error=RaigenError, **options):
    with pytest.raises(error) as caught:
        ask_one(url, **options)
    assert not any(secret in str(caught.value) for secret in (KEY, "ssword-1", BASIC[6:]))
    return str(caught.value)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_an_http_server_is_asked_through_the_proxy(monkeypatch, name):
    def forward(handler):
        place = urlsplit(behind.url)
        connection = HTTPConnection(place.hostname, place.port)
        connection.request("POST", urlsplit(handler.path).path, handler.body, dict(handler.headers))
        response = connection.getresponse()
        body = response.read()
        connection.close()
        status(response.status, body)(handler)

    with serving(lambda request: NO) as behind, proxying(forward) as proxy:
        monkeypatch.setenv(name, f"http://{LOGIN}@{proxy.place}")
        assert ask_one(HTTP).text == NO
        assert len(behind.requests) == 1
    [(line, headers)] = proxy.heard
    assert line == "POST http://model.example/v1/chat/completions HTTP/1.1"
    assert headers["Host"] == "model.example" and headers["Proxy-Authorization"] == BASIC


def tunnel(context):
    """Opens the tunnel, and is the server at its end, which answers two requests."""

    def reply(handler):
        handler.send_response_only(200)
        handler.end_headers()
        handler.close_connection = True
        with context.wrap_socket(handler.connection, server_side=True) as inner, inner.makefile("rwb") as file:
            for _ in range(2):
                head = [file.readline()]
                while head[-1].strip():
                    head.append(file.readline())
                file.read(next(int(line.split()[1]) for line in head if line.lower().startswith(b"content-length")))
                handler.server.inside.append(b"".join(head).decode())
                file.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode() + ANSWER)
                file.flush()

    return reply


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl")
def test_an_https_server_is_asked_inside_a_tunnel(monkeypatch, tmp_path):
    own, key = tmp_path / "own.pem", tmp_path / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=model.example"]
    files = ["-addext", "subjectAltName=DNS:model.example", "-keyout", key, "-out", own]
    subprocess.run([*request, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    with proxying(tunnel(context)) as proxy:
        proxy.inside = []
        monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@{proxy.place}")
        model = Server(address_of(f"openai:m@{HTTPS}"), 5.0)
        for label in ("bald", "a hat"):
            assert model.ask([Image.new("RGB", (64, 64))], presence_question(label)).text == NO
        del model  # hangs up
    [(line, headers)] = proxy.heard
    assert line.startswith("CONNECT model.example:443 ") and headers["Proxy-Authorization"] == BASIC
    assert len(proxy.inside) == 2 and "Authorization" not in headers
    for request in proxy.inside:
        assert request.startswith("POST /v1/chat/completions ") and "Host: model.example\r\n" in request
        assert f"Authorization: Bearer {KEY}" in request and "Proxy-Authorization" not in request


def test_nothing_but_tls_follows_connect(monkeypatch):
    def reply(handler):
        handler.send_response_only(200)
        handler.end_headers()
        followed.append(handler.connection.recv(100))
        handler.close_connection = True

    followed = []
    with proxying(reply) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.place)
        assert f"through HTTPS_PROXY=http://{proxy.place}. Start it, or correct the URL. To do" in failure(HTTPS)
    assert followed[0][:2] == b"\x16\x03"  # the first record of TLS
    assert KEY not in str(proxy.heard)


@pytest.mark.parametrize("code", [403, 404, 407])
def test_a_proxy_that_refuses_is_named_at_once_and_the_key_is_not(monkeypatch, code):
    with proxying(status(code, b"<html>no</html>")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@{proxy.place}")
        monkeypatch.setenv("HTTP_PROXY", f"http://{LOGIN}@{proxy.place}")
        for url, name, words in ((HTTPS, "HTTPS_PROXY", ""), (HTTP, "HTTP_PROXY", ": <html>no</html>")):
            said = failure(url, retries=4)
            said_by_it = " Said by it" if url == HTTPS else ""
            assert f"answer from {url}; got {code}{said_by_it} through {name}=http://{proxy.place}{words}. " in said
            assert said.endswith(f"To do without the proxy, unset {name}, or add model.example to NO_PROXY")
            assert "key" not in said and ("http://USER:PASSWORD@HOST:PORT" in said) == (code == 407)
    assert len(proxy.heard) == 2


def test_a_refusal_inside_a_conversation_is_the_servers(monkeypatch):
    """A 403 after the first answer concerns one question, as it does without a proxy."""
    replies = [status(200, ANSWER), status(403, b"not this one")]
    with proxying(lambda handler: replies.pop(0)(handler)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.place)
        model = Server(address_of(f"openai:m@{HTTP}"), 2.0, retries=0)
        model.ask([], presence_question("bald"))
        with pytest.raises(NoReplyError, match=f"^403 through HTTP_PROXY=http://{proxy.place}: not this one$"):
            model.ask([], presence_question("a hat"))


@pytest.mark.parametrize("url", [HTTP, HTTPS])
@pytest.mark.parametrize(
    "data",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 999999 OK\r\n\r\n", b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n\r\n<html>" + BASIC.encode() + b" p@ssword-1 " + KEY.encode()],
    ids=["nothing", "garbage", "status", "503", "page"],
)  # fmt: skip
def test_a_proxy_that_breaks_is_named(monkeypatch, url, data):
    name = "HTTPS_PROXY" if url == HTTPS else "HTTP_PROXY"
    with proxying(sends(data)) as proxy:
        monkeypatch.setenv(name, f"http://{LOGIN}@{proxy.place}")
        said = failure(url, (RaigenError, NoReplyError))
    assert f"through {name}=http://{proxy.place}" in said and "the key" not in said


def test_a_dead_proxy_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("ALL_PROXY", f"http://{place}")
    for url in (HTTP, HTTPS):
        said = failure(url)
        assert (
            "refused through ALL_PROXY=http://" + place in said and "unset ALL_PROXY, or add model.example to" in said
        )


@pytest.mark.parametrize("url", [HTTP, HTTPS])
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b""])
def test_the_timeout_bounds_the_proxy_too(monkeypatch, url, head):
    def drip(handler):
        handler.wfile.write(head)
        with suppress(OSError):
            for _ in range(400):
                time.sleep(0.05)
                handler.wfile.write(b"y" if head else b"HTTP")
        handler.close_connection = True

    with proxying(drip) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.place)
        started = time.monotonic()
        assert "no whole answer within 0.6 s through ALL_PROXY=http://" in failure(url, timeout=0.6)
        assert time.monotonic() - started < 5


def test_a_timeout_before_there_is_a_connection_counts(monkeypatch):
    def drip(handler):
        with suppress(OSError):
            for _ in range(400):
                time.sleep(0.05)
                handler.wfile.write(b" ")

    def slowly(*args, **options):
        time.sleep(0.5)
        return found(*args, **options)

    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    with proxying(drip) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.place)
        started = time.monotonic()
        failure(HTTP, timeout=0.3)
        assert time.monotonic() - started < 5
    assert proxy.heard == []


@pytest.mark.parametrize(
    ("place", "got"),
    [("socks5://user:p%40ssword-1@127.0.0.1:9", "one that begins with socks5://"),
     ("socks5h://127.0.0.1:9", "one that begins with socks5h://"), ("https://127.0.0.1:9", "one that begins with https://"),
     ("http://", "another form"), ("http://user:p%40ssword-1@host:port", "another form"), ("http://[1", "another form"),
     ("http://user:1#p@ssword-1@host:9", "another form"), ("http://user:1/p@ssword-1@host:9", "another form"),
     ("http://host:0", "another form"), ("http://ho\x1bst:1", "another form")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_another_kind_of_proxy_is_refused_in_one_line(monkeypatch, name, place, got):
    monkeypatch.setenv(name, place)
    said = failure(HTTPS)
    assert said.startswith(f"{name}: expected an HTTP proxy, as in http://host:port") and f"; got {got}. To do" in said
    assert said.endswith(f"unset {name}, or add model.example to NO_PROXY") and "\n" not in said


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
@pytest.mark.parametrize("place", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "garbage"])
def test_a_server_on_this_machine_is_asked_without_a_proxy(monkeypatch, name, place):
    monkeypatch.setenv(name, place)
    with serving(lambda request: NO) as server:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            assert ask_one(url).text == NO
    with pytest.raises(RaigenError, match=r"Connection refused\. Start it, or correct the URL$"):
        ask_one("http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("server", "variables", "proxy"),
    [("https://a.b", {"HTTPS_PROXY": "h:1", "ALL_PROXY": "h:2"}, "HTTPS_PROXY=http://h:1"),
     ("http://a.b", {"HTTPS_PROXY": "h:1", "ALL_PROXY": "h:2"}, "ALL_PROXY=http://h:2"),
     ("http://a.b", {"HTTPS_PROXY": "h:1"}, "None"),
     ("https://a.b", {"HTTP_PROXY": "h:1"}, "None"),
     ("https://a.b", {"https_proxy": "h:1", "HTTPS_PROXY": "h:2"}, "https_proxy=http://h:1"),
     ("https://a.b", {"https_proxy": "", "HTTPS_PROXY": "h:2"}, "None"),
     ("https://a.b", {"HTTPS_PROXY": "http://h/"}, "HTTPS_PROXY=http://h:80"),
     ("https://a.b", {"HTTPS_PROXY": "http://u:p@[fd00::1]:3"}, "HTTPS_PROXY=http://[fd00::1]:3"),
     ("https://a.b", {"HTTPS_PROXY": "h:1", "NO_PROXY": "c, b"}, "None"),
     ("https://a.b", {"HTTPS_PROXY": "socks5://h:1", "no_proxy": "*"}, "None"),
     ("https://a.b", {"HTTPS_PROXY": "h:1", "NO_PROXY": "a.b:443"}, "None"),
     ("https://a.b:8", {"HTTPS_PROXY": "h:1", "NO_PROXY": "a.b:443"}, "HTTPS_PROXY=http://h:1"),
     ("http://[fd00::2]:8", {"HTTP_PROXY": "h:1", "NO_PROXY": "fd00::2"}, "None"),
     *((f"http://{host}:8", {"HTTP_PROXY": "h:1"}, "None") for host in
       ("localhost", "LOCALHOST.", "a.localhost", "127.9.9.9", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]")),
     ("http://10.0.0.1:8", {"HTTP_PROXY": "h:1"}, "HTTP_PROXY=http://h:1")],
)  # fmt: skip
def test_which_proxy_leads_to_a_server(monkeypatch, server, variables, proxy):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(proxy_of(urlsplit(server))) == proxy


def test_a_proxy_shows_no_password(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@host:9")
    proxy = proxy_of(urlsplit(HTTPS))
    assert proxy.headers == {"Proxy-Authorization": BASIC}
    assert not any(secret in f"{proxy!r} {proxy}" for secret in ("ssword", BASIC[6:]))
