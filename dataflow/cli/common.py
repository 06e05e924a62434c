"""Shared by several commands: options, HTTP calls to a running daemon, and the end by a signal."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from cyclopts import Parameter

from .ends import Failure, Mistake, NotThere, only, wrong
from .streams import interrupt_write, let_out

if TYPE_CHECKING:
    import ssl

    import trio


Url: TypeAlias = Annotated[
    str | None,
    Parameter(
        help="The daemon's address; with https:// or wss:// over TLS, where SSL_CERT_FILE may name a private"
        " authority. [default: from DATAFLOW__GATEWAY__HOST and __PORT]"
    ),
]
Token: TypeAlias = Annotated[
    str | None,
    Parameter(
        env_var=["DATAFLOW__OPERATOR__TOKEN", "DATAFLOW__GATEWAY__ADMIN_TOKEN"],
        help="The operator's token, if the daemon has one.",
        show_default=False,
    ),
]


def _as_utf_8(_type: object, wanted: bool) -> None:
    """JSON has one encoding, whatever the terminal's is. A lone surrogate becomes JSON's own escape."""
    if wanted and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


# The validator is the one place that every command with this option passes through.
Json: TypeAlias = Annotated[bool, Parameter(help="JSON for programs.", validator=_as_utf_8)]


_HTTP = {"": "http", "ws": "http", "wss": "https"}


def daemon_url(given: str | None) -> str:
    """The address of the daemon, without a final slash. Default: from the environment that configures it.

    Raises Mistake.
    """
    if given is not None:
        scheme, _, rest = given.rpartition("://")
        return _checked(f"{_HTTP.get(scheme, scheme)}://{rest.removesuffix('/')}", "--url", given)
    host = os.environ.get("DATAFLOW__GATEWAY__HOST", "127.0.0.1").strip("\"'")
    # "all networks" is an address to listen on, but not one to connect to
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    scheme = "https" if os.environ.get("DATAFLOW__GATEWAY__TLS_CERTIFICATE") else "http"
    url = f"{scheme}://{host}:{os.environ.get('DATAFLOW__GATEWAY__PORT', '8080')}"
    return _checked(url, "DATAFLOW__GATEWAY__HOST and __PORT", url)


def _checked(url: str, where: str, given: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in _HTTP.values() and parts.hostname and parts.port != 0:
            return url
    except ValueError:  # no port of 16 bits, or half an address of IPv6
        pass
    raise wrong(where, given or "nothing", "an address such as http://127.0.0.1:8080")


def call(
    method: str, url: str, token: str | None = None, body: Any = None, *, ok: tuple[int, ...] = ()
) -> Any:
    """The JSON answer of the daemon. Raises Mistake or Failure with a remedy in its text.

    `ok` are error statuses with an answer that the caller wants.
    """
    import httpx

    headers = _bearer(token) if token else {}
    try:
        # no proxy from the environment: the daemon is nearly always on this machine
        answer = httpx.request(
            method, url, headers=headers, json=body, timeout=10.0, trust_env=False, verify=_authorities(url)
        )
    except httpx.InvalidURL as error:
        raise Mistake(f"{url} is not an address: {error}") from None
    except httpx.TimeoutException:
        raise Failure(f"{url} does not answer within 10 s") from None
    except httpx.TransportError as error:
        raise Mistake(not_running(url, error)) from None
    return _content(answer, ok)


def _bearer(token: str) -> dict[bytes, bytes]:
    from dataflow.settings.schema import why_not_sendable

    if (why := why_not_sendable(token)) is not None:
        raise Mistake(f"the token {why}")
    return {b"Authorization": b"Bearer " + token.encode(errors="surrogateescape")}


def _authorities(url: str) -> ssl.SSLContext | bool:
    """The trusted authorities: those of this machine and SSL_CERT_FILE, instead of the list inside httpx."""
    import ssl

    return ssl.create_default_context() if url.startswith("https:") else True


def _content(answer: Any, ok: tuple[int, ...]) -> Any:
    try:
        content = answer.json() if answer.content else None
    except ValueError:
        kind = NotThere if answer.status_code == 404 else Mistake
        raise kind(f"{answer.url} answers, but is not a dataflow daemon") from None
    if answer.is_success or answer.status_code in ok:
        return content
    told = _problem(content) or f"{answer.url} answers with status {answer.status_code}"
    if answer.status_code == 401:
        told = "the daemon asks for the operator's token: --token, or DATAFLOW__OPERATOR__TOKEN"
        told += ", and it has another one" if "Authorization" in answer.request.headers else ""
    if answer.status_code == 404:
        raise NotThere(told)
    raise (Mistake if answer.is_client_error else Failure)(told)


def _problem(content: Any) -> str | None:
    """An `application/problem+json` in one line."""
    if not isinstance(content, dict) or "detail" not in content:
        return None
    nearest = content.get("nearest")
    return f"{content['detail']}; the nearest are {', '.join(nearest)}" if nearest else str(content["detail"])


def not_running(url: str, error: BaseException | None) -> str:
    """The error text for a daemon that cannot be reached."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"{url} has no certificate that is trusted here ({error}); SSL_CERT_FILE may name its authority"
        )
    why = re.sub(r"\[Errno -?\d+\] ", "", str(error or "")) or type(error).__name__
    return f"nothing answers at {url} ({why}); start a daemon with `dataflow demo` or `dataflow run`"


def until_interrupted(function: Callable[..., Awaitable[object]], *arguments: object) -> None:
    """Run an async function. Ctrl-C and SIGTERM end it without an error, also if nobody reads its output."""
    import trio

    async def main() -> None:
        # a nursery, so that every error comes out in a group, whether the function has one of its own or not
        async with trio.open_nursery() as nursery:
            with _cancelled_by_signals(nursery.cancel_scope):
                await function(*arguments)

    try:
        trio.run(main)
    except BaseException as error:
        if not isinstance(only(error), KeyboardInterrupt):  # which `interrupt_write` raises
            raise


@contextmanager
def _cancelled_by_signals(scope: trio.CancelScope) -> Iterator[None]:
    import trio

    token = trio.lowlevel.current_trio_token()

    def told(_number: int, _frame: object) -> None:
        token.run_sync_soon(scope.cancel)
        interrupt_write()  # a loop that is stuck there would never cancel anything

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if scope.cancel_called:
            let_out(sys.stdout)
