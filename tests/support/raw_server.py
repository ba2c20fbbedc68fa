"""A server that sends whatever bytes it is told, as servers, proxies and attackers do."""

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

Reply = Callable[[socket.socket, bytes], None]


class RawServer:
    """Gives every connection on a free port of 127.0.0.1 to `reply`, with the body of its request."""

    def __init__(self, reply: Reply):
        self._listener, self._reply, self._ends = socket.create_server(("127.0.0.1", 0)), reply, False
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def close(self) -> None:
        self._ends = True
        self._listener.close()

    def _listen(self) -> None:
        while not self._ends:
            with suppress(OSError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with suppress(OSError), connection:
            data = b""
            while b"\r\n\r\n" not in data:
                if not (more := connection.recv(65536)):
                    return
                data += more
            head, _, body = data.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            while len(body) < int(found[1] if found else 0):
                body += connection.recv(65536)
            self._reply(connection, body)


def http(body: str | bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    """A response with its length."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + data
