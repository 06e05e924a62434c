"""A daemon that is not one: an HTTP server with prepared answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import attrs


@attrs.define
class Daemon:
    """An HTTP server with prepared answers. It records all requests. Without `goes_on` it hangs."""

    answers: dict[tuple[str, str], tuple[int, bytes]] = attrs.Factory(dict)
    asked: list[tuple[str, str, str | None, Any]] = attrs.Factory(list)
    url: str = ""
    goes_on: threading.Event = attrs.Factory(threading.Event)


@contextmanager
def listening() -> Iterator[Daemon]:
    told = Daemon()
    told.goes_on.set()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content = json.loads(body) if body else None
            told.asked.append((self.command, self.path, self.headers.get("Authorization"), content))
            told.goes_on.wait()
            status, answer = told.answers.get((self.command, self.path), (404, b'{"detail": "no such path"}'))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_port}"
        yield told
        told.goes_on.set()
        server.shutdown()
        thread.join()
