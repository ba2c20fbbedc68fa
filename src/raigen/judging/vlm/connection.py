"""Sends requests to one server over HTTP: only to the host that was named, and bounded in time and size."""

import os
import re
import selectors
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlsplit

import certifi

from raigen.judging.vlm.proxy import proxy_of

LONGEST = 8 * 2**20  # bytes of a response; one with the probabilities of 1,500 tokens has about 1 MB


class Response(NamedTuple):
    """What a server answered. Names of `headers` are in lower case; a `body` of more than `LONGEST` bytes is cut."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class BrokenError(Exception):
    """There is no server or no proxy, or it broke off."""


class ProxyRefusedError(Exception):
    """The proxy does not let us through to the server."""


class SlowError(Exception):
    """The whole response did not come in time."""


class Connection:
    """The way to one server. Connections stay open between requests; threads may share it.

    It follows no redirect, so nothing reaches a host that was not named. The environment may name a `proxy`: it opens a
    tunnel to an https server, and it reads the requests to an http server. `timeout` in seconds bounds a request as a
    whole, from the connection to the last byte. Raises RaigenError for a proxy that cannot be used.
    """

    def __init__(self, endpoint: str, timeout: float):
        place = urlsplit(endpoint)
        self._is_secure, self._host, self._timeout = place.scheme == "https", place.hostname or "", timeout
        self._port = place.port or (443 if self._is_secure else 80)
        self.proxy = proxy_of(place)
        self._start, self._headers = place.path, {"Accept-Encoding": "identity"}
        self.is_in_clear = self.proxy is not None and not self._is_secure  # the proxy reads requests, and may answer
        if self.proxy and self.is_in_clear:
            self._start = f"http://{place.netloc}{place.path}"
            self._headers |= self.proxy.headers
        self._idle: list[HTTPConnection] = []
        weakref.finalize(self, _close, self._idle)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """The response to a POST of `body`. Raises BrokenError, ProxyRefusedError or SlowError when none comes."""
        connection, late = self._connected(), threading.Event()
        held: list[socket.socket] = []  # the connection forgets its socket when the server wants to hang up
        watch = threading.Timer(self._timeout, _end, (connection, held, late))
        watch.daemon = True
        watch.start()
        try:
            if connection.sock is None:
                connection.connect()
            if connection.sock is not None:
                held.append(connection.sock)
            if late.is_set():  # there was no socket yet to end
                raise TimeoutError
            connection.request("POST", self._start + path, body, {**self._headers, **headers})
            response = connection.getresponse()
            data = response.read(LONGEST + 1)
        except (OSError, HTTPException, ValueError) as error:  # a negative size of a chunk, say
            connection.close()
            if late.is_set() or isinstance(error, TimeoutError):
                raise SlowError(f"no whole answer within {self._timeout:g} s") from error
            if refused := re.fullmatch(r"Tunnel connection failed: ((?!408|429)4.*)", str(error)):  # of http.client
                raise ProxyRefusedError(refused[1]) from error
            raise BrokenError(f"{type(error).__name__}: {error}") from error
        finally:
            watch.cancel()
        if late.is_set() or response.length or len(data) > LONGEST:
            connection.close()
            if late.is_set():
                raise SlowError(f"no whole answer within {self._timeout:g} s")
            if len(data) <= LONGEST:
                raise BrokenError("the answer breaks off")
        else:
            self._idle.append(connection)
        return Response(response.status, {name.lower(): value for name, value in response.getheaders()}, data)

    def _connected(self) -> HTTPConnection:
        """A connection that no other thread uses, opened by its first request."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._new()
        if connection.sock is not None:
            with selectors.DefaultSelector() as waiting:
                waiting.register(connection.sock, selectors.EVENT_READ)
                if waiting.select(0):  # the server hung up meanwhile
                    connection.close()
        return connection

    def _new(self) -> HTTPConnection:
        host, port = (self.proxy.place, None) if self.proxy else (self._host, self._port)
        if not self._is_secure:
            return HTTPConnection(host, port, timeout=self._timeout)
        trusted = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
        connection = HTTPSConnection(host, port, timeout=self._timeout, context=trusted)
        if self.proxy:
            connection.set_tunnel(self._host, self._port, self.proxy.headers)
        return connection


def _end(connection: HTTPConnection, held: list[socket.socket], late: threading.Event) -> None:
    """Ends a request that takes too long: whoever waits for its next byte gets an error."""
    late.set()
    for waiting in held or filter(None, [connection.sock]):
        with suppress(OSError):
            waiting.shutdown(socket.SHUT_RDWR)


def _close(idle: list[HTTPConnection]) -> None:
    for connection in idle:
        connection.close()
