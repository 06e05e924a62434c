"""A server that has all its trades at hand: it sends them as fast as a client reads, in the format that it asks for.

It speaks as the daemon does to one client: the answer to `subscribe`, then updates, joined as those of a busy daemon
are. So what is measured is the client. Each connection is served from the beginning.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import socket
from collections.abc import Sequence
from typing import Any

SYMBOL, EPOCH, BEGIN = "BTC-USDT", 1763696936212, 1_763_695_738_000_000
JOINED = 64  # updates in a message, of those who take several in one
SENT = 128  # messages in a send, of those who take one in each


def update(place: int) -> str:
    """A trade as it is usually written."""
    moment = BEGIN + 250 * place
    whole, part = divmod(moment - BEGIN, 1_000_000)
    time = f"2025-11-21T03:{28 + whole // 60:02}:{whole % 60:02}.{part:06}Z"
    return (
        f'{{"jsonrpc":"2.0","method":"trades.update","params":{{"seqnum":{place},"event":"updated","channel":"trades",'
        f'"symbol":"{SYMBOL}","timestamp":"{time}","side":"{side(place)}","qty":0.00{place % 9 + 1}6000,'
        f'"price":6168{place % 10}.90000000,"tradeId":"{5_023_817 + place}","source":"binance","offset":{place}}}}}'
    )


def row(place: int) -> str:
    """The same trade in the format `compact`."""
    return (
        f'[0,{place},{BEGIN + 250 * place},"{side(place)}",6168{place % 10}.90000000,0.00{place % 9 + 1}6000,'
        f'"{5_023_817 + place}",0]'
    )


def side(place: int) -> str:
    return "buy" if place % 3 else "sell"


def frame(text: str) -> bytes:
    """A text message of a server."""
    payload = text.encode()
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    return bytes((0x81, 126)) + length.to_bytes(2, "big") + payload


def answer(call: dict[str, Any]) -> str:
    """What the daemon answers."""
    result = {"channel": "trades", "symbol": SYMBOL, "event": "subscribed", "epoch": EPOCH, "offset": 0}
    if call["params"].get("format") == "compact":
        columns = ["topic", "offset", "timestamp", "side", "price", "qty", "tradeId", "source"]
        result |= {"columns": columns, "topic": 0, "sources": ["binance"]}
    return json.dumps({"jsonrpc": "2.0", "result": result, "id": call["id"]})


def chunks(call: dict[str, Any], count: int) -> Sequence[bytes]:
    """All updates, each element for one send."""
    params = call["params"]
    spell = row if params.get("format") == "compact" else update
    texts = [spell(place) for place in range(1, count + 1)]
    if params.get("batch"):
        return [frame(f"[{','.join(texts[at : at + JOINED])}]") for at in range(0, count, JOINED)]
    return [b"".join(map(frame, texts[at : at + SENT])) for at in range(0, count, SENT)]


def handshake(client: socket.socket) -> None:
    """Take the WebSocket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(4096)
    lines = head.decode().split("\r\n")
    key = next(
        line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("sec-websocket-key")
    )
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    accept = base64.b64encode(digest).decode()
    client.sendall(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )


def first_call(client: socket.socket) -> dict[str, Any]:
    """The first text of the client: a masked frame."""
    head = receive(client, 2)
    length = head[1] & 0x7F
    if length == 126:
        length = int.from_bytes(receive(client, 2), "big")
    mask = receive(client, 4)
    payload = receive(client, length)
    found: dict[str, Any] = json.loads(bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))
    return found


def receive(client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        got += client.recv(count - len(got))
    return got


def serve(client: socket.socket, count: int) -> None:
    """One client, until it leaves."""
    handshake(client)
    call = first_call(client)
    ready = chunks(call, count)
    client.sendall(frame(answer(call)))
    for chunk in ready:
        client.sendall(chunk)
    client.recv(4096)  # the goodbye: closing the connection is the answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    count = parser.parse_args().count
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        client, _peer = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client:
            serve(client, count)


if __name__ == "__main__":
    main()
