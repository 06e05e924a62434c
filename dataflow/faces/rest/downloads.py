"""Answers without a bound, in constant memory: lines that are made while the client takes them.

Rules of this file. A part is read, written and sent before the next one is read, so a slow client costs one
part, and holds neither the disk nor a turn. A stream that cannot be finished breaks off, and its client sees
that: it never ends as if it were whole. The client pays for its bytes, and is slowed down when it owes some.
Live streams come first: a download uses half of the time at most.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import trio
from quart import Response

from dataflow.gateway.limits import Account
from dataflow.gateway.problems import TooManyRequests, Unavailable
from dataflow.gateway.responses import endless

P = TypeVar("P", bound=Sequence[Any])

AT_ONCE: Final = 250  # entries between two turns of others: less than half a millisecond
GIVES_WAY: Final = 0.02  # seconds at most: after each read as long as it took, for the threads share one lock
TRIES: Final = 10  # of a part that cannot be read at present ...
TRY_AGAIN: Final = 1.0  # ... after so many seconds


async def download(
    read: Callable[[], Awaitable[P | None]],
    write: Callable[[P], bytes],
    head: bytes,
    account: Account,
    content_type: str,
    limit: int | None = None,
) -> Response:
    """A response of all parts that `read` returns until None; of `limit` entries at most.

    Raises Problem when there is no room for it, or its first part cannot be had.
    """
    account.check_download()
    first = await read()

    async def body() -> AsyncIterator[bytes]:
        with account.downloading():
            if head:
                yield head
            part, left = first, limit
            while part is not None and left != 0:
                part = part[:left]  # type: ignore[assignment]
                left = None if left is None else left - len(part)
                for at in range(0, len(part), AT_ONCE):
                    text = write(part[at : at + AT_ONCE])  # type: ignore[arg-type]
                    account.pay(len(text))
                    yield text
                await account.paid()
                begin = trio.current_time()
                part = await _again(read)
                await trio.sleep(min(trio.current_time() - begin, GIVES_WAY))

    answer = endless(body(), content_type)
    answer.headers["Vary"] = "Accept"
    return answer


async def _again(read: Callable[[], Awaitable[P | None]]) -> P | None:
    """What `read` returns. A disk that does not answer at once is given some time."""
    for _ in range(TRIES - 1):
        try:
            return await read()
        except (Unavailable, TooManyRequests):
            await trio.sleep(TRY_AGAIN)
    return await read()
