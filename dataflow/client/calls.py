"""Single calls of JSON-RPC, by HTTP: each is one request.

They do not use the WebSocket of a feed. There an answer would wait behind all the trades that nobody takes.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

import anyio
import h11
import msgspec

from .address import Address
from .client import Error
from .faults import CallError, Unreachable, Unreadable
from .socket import LARGEST, SILENT_FOR, dial, in_short, next_event, reason_of


class _Answer(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw()
    error: Error | None = None


_answer: Final = msgspec.json.Decoder(_Answer)


async def call(
    address: Address, method: str, params: Mapping[str, Any], context: ssl.SSLContext | None = None
) -> bytes:
    """The result of a call, as JSON. Raises CallError, Unreachable, Unreadable."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    body = await _post(address, msgspec.json.encode(request), context)
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"the answer to {method}: {error}") from error
    if answer.error is not None:
        refused, about = answer.error, params.get("symbol")
        raise CallError(
            refused.code, refused.message, refused.data, about if isinstance(about, str) else None
        )
    if not bytes(answer.result):
        raise Unreadable(f"the answer to {method} has neither result nor error")
    return bytes(answer.result)


async def _post(address: Address, body: bytes, context: ssl.SSLContext | None) -> bytes:
    try:
        async with await dial(address, context) as stream:
            machine = h11.Connection(h11.CLIENT)
            headers = [
                ("Host", address.authority),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Connection", "close"),
                ("User-Agent", "dataflow-client"),
            ]
            request = h11.Request(method="POST", target=address.calls, headers=headers)
            parts = (request, h11.Data(body), h11.EndOfMessage())
            with anyio.fail_after(SILENT_FOR) as scope:
                await stream.send(b"".join(machine.send(part) or b"" for part in parts))
                answer = await next_event(stream, machine)
                told = bytearray()
                while isinstance(part := await next_event(stream, machine), h11.Data):
                    told += part.data
                    scope.deadline = anyio.current_time() + SILENT_FOR
                    if len(told) > LARGEST:
                        raise Unreadable(f"an answer of more than {LARGEST >> 20} MiB")
    except TimeoutError:
        raise Unreachable(f"{address.url} does not answer within {SILENT_FOR:.0f} s") from None
    except h11.RemoteProtocolError as error:
        raise Unreachable(f"what answers at {address.url} breaks off, or is no daemon ({error})") from error
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        if isinstance(error, Unreachable):
            raise
        raise Unreachable(f"{address.url} breaks off ({reason_of(error)})") from error
    if not isinstance(answer, h11.Response) or answer.status_code != 200:
        status = getattr(answer, "status_code", None)
        raise Unreachable(f"{address.url} answers a call with status {status}: {in_short(told)}", status)
    return bytes(told)
