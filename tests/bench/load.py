"""The load client `native/wsload.c`, and its figures of one window after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from .processes import Program, ProgramFailed


@frozen(kw_only=True)
class Window:
    """The figures of all clients for some seconds.

    `skipped`: places in a stream that did not arrive, without a `stream.gap` for them. `gaps`: `stream.gap` messages.
    """

    seconds: float
    updates: int
    bytes: int  # with the heads of frames, and with answers
    skipped: int
    gaps: int
    compressed: int  # messages
    dead: int
    least: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    server_cpu: float  # shares of one core
    client_cpu: float

    @property
    def per_second(self) -> float:
        return self.updates / self.seconds

    def figures(self) -> dict[str, float]:
        """As a row of the results."""
        return {
            "per_second": self.per_second,
            "per_cpu_second": self.updates / (self.seconds * max(self.server_cpu, 0.001)),
            "bytes_per_update": self.bytes / max(self.updates, 1),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "max_ms": self.max_ms,
            "server_cpu": self.server_cpu,
            "client_cpu": self.client_cpu,
            "skipped": self.skipped,
            "gaps": self.gaps,
            "dead": self.dead,
            "least": self.least,
        }


class Load:
    """Many clients of one server. All are connected after `__init__`. Raises ProgramFailed."""

    def __init__(
        self,
        binary: Path,
        port: int,
        clients: int,
        *,
        text: str | Sequence[str],
        cores: set[int],
        log: Path,
        **options: Any,
    ) -> None:
        command: list[str | Path] = [binary, "--port", str(port), "--clients", str(clients)]
        for each in (text,) if isinstance(text, str) else text:
            command += ["--send", each] if each else []
        for name, value in options.items():
            command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        self.program = Program("load client", command, cores=cores, log=log)
        try:
            opened = self.program.answer(90)
            if opened["open"] < clients:
                raise ProgramFailed(f"{opened['open']} of {clients} clients could connect")
        except BaseException:
            self.program.close()
            raise
        self.connect_seconds = float(opened["seconds"])

    def window(self, seconds: float, server: Program) -> Window:
        """The window of the next `seconds` seconds."""
        self.mark()
        cpu, begun = server.cpu(), time.monotonic()
        time.sleep(seconds)
        return self.since(begun, cpu, server)

    def since(self, begun: float, cpu: float, server: Program) -> Window:
        """The window since the last mark. The mark was at `begun`; the server had used `cpu` seconds of CPU by then."""
        told = self.mark()
        elapsed = time.monotonic() - begun
        server.check()
        return Window(
            seconds=told["seconds"],
            updates=told["updates"],
            bytes=told["bytes"],
            skipped=told["skipped"],
            gaps=told["gaps"],
            compressed=told["compressed"],
            dead=told["dead"],
            least=told["least"],
            p50_ms=told["p50_ms"],
            p99_ms=told["p99_ms"],
            max_ms=told["max_ms"],
            server_cpu=(server.cpu() - cpu) / elapsed,
            client_cpu=told["cpu"] / told["seconds"],
        )

    def mark(self) -> dict[str, Any]:
        """End a window and begin the next. Returns the figures of the ended window."""
        return self.program.ask("mark")

    def sample(self) -> dict[str, Any]:
        """The first update, unchanged."""
        return self.program.ask("sample")

    def close(self) -> None:
        self.program.close()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
