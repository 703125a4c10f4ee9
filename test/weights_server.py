# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""A web server on this machine that serves weights, well or badly."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

# It begins as a pickle does, so that it passes for weights.
CONTENT = b'\x80\x02' + bytes(range(256)) * 4096


class WeightsServer(ThreadingHTTPServer):
    """Serves ``content`` under any path, in the way that its attributes and the path say.

    Attributes:
        headers: sent with the content, ``ETag`` and ``Last-Modified`` answered with 304.
        status: of every answer with content.
        head_status: of the answer to HEAD, 0 for a connection that is dropped.
        with_length: False ends the answer by closing the connection.
        with_range: True answers a request for the first byte with that byte.
        sent: how many bytes of the content go out, None for all.
        location: where ``/moved`` leads.
        answering: while it is cleared, no request is answered.
        requests: method, path and headers of each.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.content = CONTENT
        self.headers: dict[str, str] = {}
        self.status = 200
        self.head_status = 200
        self.with_length = True
        self.with_range = False
        self.sent: int | None = None
        self.location = '/good/model.pkl'
        self.answering = threading.Event()
        self.answering.set()
        self.requests: list[tuple[str, str, Message]] = []

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}'

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: WeightsServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        server = self.server
        server.requests.append((self.command, self.path, self.headers))
        server.answering.wait(120.0)
        if self.command == 'HEAD' and server.head_status != 200:
            if server.head_status:
                self.send_error(server.head_status)
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
        elif 'missing' in self.path:
            self.send_error(404)
        elif 'moved' in self.path:
            self.send_response(302)
            self.send_header('Location', server.location)
            self.end_headers()
        elif self._is_known():
            self.send_response(304)
            self.end_headers()
        else:
            self._send()

    def _is_known(self) -> bool:
        asked = {'ETag': 'If-None-Match', 'Last-Modified': 'If-Modified-Since'}
        had = [self.headers[asked[n]] == v for n, v in self.server.headers.items() if n in asked]
        return self.server.status == 200 and bool(had) and all(had)

    def _send(self) -> None:
        server = self.server
        ranged = server.with_range and 'Range' in self.headers
        self.send_response(206 if ranged else server.status)
        if ranged:
            self.send_header('Content-Range', f'bytes 0-0/{len(server.content)}')
        for name, value in server.headers.items():
            self.send_header(name, value)
        if server.with_length:
            self.send_header('Content-Length', str(1 if ranged else len(server.content)))
        self.end_headers()
        if self.command == 'GET':
            # Whoever asks for the headers alone leaves before the end.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(server.content[: 1 if ranged else server.sent])

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsServer]:
    monkeypatch.setenv('no_proxy', '127.0.0.1,localhost')
    with WeightsServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.answering.set()
            server.shutdown()
            thread.join()
