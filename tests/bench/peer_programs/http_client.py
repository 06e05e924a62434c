"""Posts one JSON body again and again on some connections: one request at a time on each.

It answers each line, a number of seconds, with how many answers came in how many. An answer that is not the first one
ends it.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time

port, path, connections, body = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
REQUEST = (
    f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(body)}\r\n\r\n{body}"
).encode()
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def answer(sock: socket.socket) -> bytes:
    """The body of the next answer."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += read(sock)
    found = LENGTH.search(data, 0, end + 2)
    assert data.startswith(b"HTTP/1.1 200"), data
    assert found, data
    while len(data) < end + 4 + int(found[1]):
        data += read(sock)
    return data[end + 4 :]


def read(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    assert data, "the server hung up"
    return data


def ask(seconds: float) -> dict[str, float]:
    for each in sockets:
        each.sendall(REQUEST)
    count, begun = 0, time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds:
        for each in sockets:
            told = answer(each)
            assert told == expected, told
            each.sendall(REQUEST)
        count += len(sockets)
    for each in sockets:
        answer(each)
    return {"count": count, "seconds": now - begun}


sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
sockets[0].sendall(REQUEST)
expected = answer(sockets[0])
print(json.dumps({"answer": json.loads(expected)}), flush=True)
for line in sys.stdin:
    print(json.dumps(ask(float(line))), flush=True)
