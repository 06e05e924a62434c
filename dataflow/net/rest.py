"""Questions to an upstream by HTTP: one GET, and its whole answer or an error with a name.

Rules of this file. Nothing is believed and nothing is unbounded: an answer has a greatest size, also after it
was decompressed, and a total time. No redirection is followed, no proxy of the environment is used, nothing
is asked again. When a question may be asked is decided in `budget`.

Words from outside are for people: who shows them cuts them, and conceals what is secret.

Why an answer that is too long is not just left: the library reads it with generators inside generators, which
end in order only when their next read is cancelled.
"""

from __future__ import annotations

import os
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import trio

from .address import check_origin
from .budget import AT_ONCE, LIMITED_FOR, Budget, Priority, RestFailed
from .refusal import retry_after

_WORDS: Final = 512  # bytes of the body of an error
_WORDS_WITHIN: Final = 1.0  # seconds for them
_GZIP: Final = 31  # for zlib: a window of 32 KiB, and the header of gzip
_TAG: Final = 200  # characters: a longer one would not be whole, and never match
_CHAIN: Final = 10  # causes of an error that are looked at
_TOO_MANY: Final = frozenset({418, 429})


class RestClient:
    """Asks the upstream at `url`, which is scheme and host. Use it in an `async with`.

    `most_bytes` of an answer, `within` seconds in all. `connect_within`: of these, to connect.
    `weight_header`: the answer's header with the weight that is used in this minute. `proxy`: the address of
    an HTTP proxy, with its credentials; "": none. Raises ValueError for an address that cannot be used.
    """

    def __init__(
        self,
        url: str,
        budget: Budget,
        *,
        most_bytes: int,
        within: float,
        connect_within: float,
        weight_header: str | None = None,
        proxy: str = "",
    ) -> None:
        self._budget = budget
        self._most_bytes = most_bytes
        self._within = within
        self._connect_within = connect_within
        self._weight_header = weight_header
        self._proxy = proxy
        check_origin(url)
        self._url = httpx.URL(url)
        if proxy:
            httpx.Proxy(proxy)
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> RestClient:
        return self

    async def __aexit__(self, *_error: object) -> None:
        client, self._client = self._client, None
        if client is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await client.aclose()

    @property
    def budget(self) -> Budget:
        """What the upstream allows."""
        return self._budget

    async def get(self, path: str, weight: int = 1, priority: Priority = Priority.FILL) -> bytes:
        """The body of the answer to a GET of `path`, which begins with "/". Waits for its turn.

        Raises RestFailed.
        """
        async with self._budget.turn(weight, priority):
            return bytes((await self._ask(path)).body)

    async def get_changed(
        self, path: str, tag: str, weight: int = 1, priority: Priority = Priority.FILL
    ) -> tuple[bytes | None, str]:
        """The same, with the tag of the answer (`ETag`, "" without one). None for an answer that is still the
        one of the tag that is given."""
        async with self._budget.turn(weight, priority):
            reading = await self._ask(path, tag)
        return None if reading.is_unchanged else bytes(reading.body), reading.tag

    async def _ask(self, path: str, tag: str = "") -> _Reading:
        reading = _Reading(self._most_bytes, tag)
        url = self._url.copy_with(raw_path=path.encode())
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._within) as scope:
                async with self._opened().stream(
                    "GET", url, headers={"If-None-Match": tag} if tag else {}
                ) as response:
                    self._note(response)
                    await reading.read(response, scope)
        except httpx.HTTPError as error:
            if reading.failure is None:
                raise _failure(error, self._url) from error
        if reading.failure is not None:
            raise reading.failure
        if scope.cancelled_caught:
            raise RestFailed("no_answer", f"no whole answer within {self._within:g} s")
        return reading

    def _opened(self) -> httpx.AsyncClient:
        """Made at the first question, for the authorities take a while to load."""
        if self._client is None:
            encrypted = self._url.scheme == "https"
            self._client = httpx.AsyncClient(
                verify=ssl.create_default_context() if encrypted else False,
                timeout=httpx.Timeout(None, connect=self._connect_within),
                limits=httpx.Limits(max_connections=AT_ONCE, keepalive_expiry=30.0),
                headers={"Accept-Encoding": "gzip", "User-Agent": "dataflow", "Accept": "application/json"},
                proxy=self._proxy or None,
                trust_env=False,
                follow_redirects=False,
            )
        return self._client

    def _note(self, response: httpx.Response) -> None:
        """What the answer tells of the bounds."""
        now = trio.current_time()
        if self._weight_header is not None:
            told = response.headers.get(self._weight_header, "")
            if told.isascii() and told.isdecimal():
                self._budget.told(int(told[:10]), now)
        if wait := _wait(response):
            self._budget.close_until(now + wait)


class _Reading:
    """The body of one answer. What is found wrong with it is kept, and the next read cancelled."""

    def __init__(self, most: int, tag: str = "") -> None:
        self.tag = tag  # of what we have; then of the answer
        self.is_unchanged = False
        self.body = bytearray()
        self.failure: RestFailed | None = None
        self._most = most
        self._inflate: Any = None
        self._words = b""

    async def read(self, response: httpx.Response, scope: trio.CancelScope) -> None:
        take = self._begin(response, scope)
        async for piece in response.aiter_raw():
            if not take(piece):
                scope.cancel()
        if self._inflate is not None and not self._inflate.eof and self.failure is None:
            self.failure = RestFailed("broken", "the answer broke off")

    def _begin(self, response: httpx.Response, scope: trio.CancelScope) -> Callable[[bytes], bool]:
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if response.status_code == 304 and self.tag:
            self.is_unchanged = True
            return lambda _piece: False
        self.tag = response.headers.get("etag", "")[:_TAG]
        if response.status_code != 200:
            self.failure = _refusal(response)
            if encoding != "identity":
                return lambda _piece: False
            scope.deadline = min(scope.deadline, trio.current_time() + _WORDS_WITHIN)
            return self._take_words if response.status_code >= 400 else lambda _piece: False
        if encoding == "gzip":
            self._inflate = zlib.decompressobj(_GZIP)
        elif encoding != "identity":
            self.failure = RestFailed("bad_encoding", f"the answer is encoded as {encoding[:40]}")
            return lambda _piece: False
        return self._take

    def _take(self, piece: bytes) -> bool:
        """Whether the next piece is wanted."""
        if self._inflate is None:
            self.body += piece
        else:
            try:
                self.body += self._inflate.decompress(piece, self._most - len(self.body) + 1)
            except zlib.error as error:
                self.failure = RestFailed("bad_encoding", f"the answer is no gzip: {error}")
                return False
        if len(self.body) > self._most:
            self.failure = RestFailed("too_large", f"the answer is longer than {self._most} bytes")
        return self.failure is None

    def _take_words(self, piece: bytes) -> bool:
        """The same for the words of an error."""
        assert self.failure is not None
        self._words += piece[: _WORDS - len(self._words)]
        if self._words:
            said = self._words.decode("utf-8", "replace")
            self.failure = RestFailed(self.failure.reason, f"{self.failure}: {said}", self.failure.wait)
        return False


def _wait(response: httpx.Response) -> float:
    """Seconds in which the upstream wants no questions. One that is asked too often may not say it."""
    told = retry_after(response.status_code, response.headers.raw, time.time())
    return told or (LIMITED_FOR if response.status_code in _TOO_MANY else 0.0)


def _refusal(response: httpx.Response) -> RestFailed:
    """What a status other than 200 means."""
    status, wait = response.status_code, _wait(response)
    words = f"HTTP status {status}"
    if 300 <= status < 400:
        where = response.headers.get("location", "an address that is not told")
        return RestFailed("redirected", f"{words}; the new address is {where[:_WORDS]}")
    if wait:
        words += f"; to be asked again after {wait:g} s"
    if status in _TOO_MANY or (status == 503 and wait):
        return RestFailed("rate_limited", words, wait)
    return RestFailed("client_error" if 400 <= status < 500 else "server_error", words, wait)


def _failure(error: httpx.HTTPError, url: httpx.URL) -> RestFailed:
    """What an error of the library means."""
    causes = list(_causes(error))
    where = url.netloc.decode("ascii", "replace").rpartition("@")[2]
    if tls := next((each for each in causes if isinstance(each, ssl.SSLError)), None):
        return RestFailed("untrusted", f"no TLS with {where}: {_tls_words(tls)}")
    system = next((each for each in causes if isinstance(each, OSError) and each.errno), None)
    words = str(error) or type(error).__name__
    if isinstance(system, OSError) and system.errno is not None and system.errno > 0:
        words = os.strerror(system.errno)
    if isinstance(error, httpx.ConnectTimeout):
        return RestFailed("unreachable", f"cannot connect to {where} in time")
    if isinstance(error, httpx.ProxyError):
        return RestFailed("unreachable", f"the proxy refuses: {words}")
    if isinstance(error, httpx.ConnectError):
        return RestFailed("unreachable", f"cannot connect to {where}: {words}")
    return RestFailed("broken", f"the answer broke off: {words}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, as far as that matters."""
    each: BaseException | None = error
    for _ in range(_CHAIN):
        if each is None:
            return
        yield each
        if isinstance(each, BaseExceptionGroup):
            for inner in each.exceptions:
                yield from _causes(inner)
        each = each.__cause__ or each.__context__


def _tls_words(error: ssl.SSLError) -> str:
    return getattr(error, "verify_message", None) or error.reason or str(error)
