"""Real HTTP servers on loopback that speak as the real ones do, and break as asked."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Request:
    """What a server was sent."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """What it sends back.

    Attributes:
        body: JSON, or bytes as they are.
        status: HTTP status.
        headers: further headers.
        delay: seconds before the first byte.
        drip: seconds between single bytes of the body; 0 sends it at once.
        reset_after: bytes of the body after which the connection is reset; None sends all.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    reset_after: int | None = None

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Answer = Callable[[Request], Reply]


class Server:
    """One listening server.

    Args:
        answer: makes replies.
        certificate: file of key and certificate, for HTTPS.

    Attributes:
        url: its base URL.
        requests: all requests so far.
        most_at_once: most requests that were under way at one time.
        answer: makes replies; may be exchanged while it runs.
    """

    def __init__(self, answer: Answer, certificate: Path | None = None) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = Request(self.path, dict(self.headers), body)
                with outer._lock:
                    outer.requests.append(request)
                    outer._at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer._at_once)
                try:
                    outer._send(self, outer.answer(request))
                finally:
                    with outer._lock:
                        outer._at_once -= 1

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass  # clients that give up are what these tests are about

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        self._closing.wait(reply.delay)
        content = reply.content
        handler.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if reply.drip:
            for byte in content:
                handler.wfile.write(bytes([byte]))
                if self._closing.wait(reply.drip):
                    break
            handler.close_connection = True
        elif reply.reset_after is not None:
            handler.wfile.write(content[: reply.reset_after])
            handler.wfile.flush()
            # Linger of 0 seconds: closing sends a reset in place of an end.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.shutdown(socket.SHUT_RD)
            handler.connection.close()
            handler.close_connection = True
        else:
            handler.wfile.write(content)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def serving(answer: Answer, certificate: Path | None = None) -> Iterator[Server]:
    server = Server(answer, certificate)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def dead_url() -> Iterator[str]:
    """A base URL where connections are refused: bound, but not listening."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


def first(faults: list[Reply], then: Answer) -> Answer:
    """Send each of `faults` once, in order, then answer."""
    remaining = iter(faults)
    lock = threading.Lock()

    def answer(request: Request) -> Reply:
        with lock:
            fault = next(remaining, None)
        return fault if fault is not None else then(request)

    return answer


def fail(reason: str) -> Reply:
    pytest.fail(reason)
