"""The made-up exchange of `dataflow/connectors/README.md`, the server's side."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field

from simulators.dialect import Dialect, Refuse
from simulators.trade import Item, Trade

PATH = "/v2"


@define
class AcmeSession:
    """One connection. A market that nobody knows is refused."""

    refuse: Refuse
    _markets: dict[str, None] = field(factory=dict)

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(self._markets)

    def receive(self, message: str | bytes) -> list[str]:
        said: dict[str, Any] = json.loads(message)
        if said["op"] == "ping":
            return ['{"op": "pong"}']
        answer = {"op": said["op"], "ok": True, "id": said["id"]}
        refused = [market for market in said["markets"] if said["op"] == "sub" and self.refuse(market)]
        if refused:
            text = f"no such market: {', '.join(refused)}"
            return [json.dumps(answer | {"ok": False, "error": {"text": text}})]
        for market in said["markets"]:
            self._markets[market] = None
            if said["op"] == "unsub":
                del self._markets[market]
        return [json.dumps(answer)]

    def wants(self, item: Item) -> bool:
        return isinstance(item, Trade) and item.symbol in self._markets

    def encode(self, item: Item) -> list[str]:
        if not isinstance(item, Trade) or not self.wants(item):
            return []
        deal = {
            "n": item.id,
            "taker": item.side[0].upper(),
            "px": item.price,
            "ts": item.timestamp_us // 1000,
        }
        data = json.dumps(deal)[:-1] + f', "qty": {item.qty}}}'
        return [f'{{"op": "trades", "market": "{item.symbol}", "data": [{data}]}}']

    def beat(self, now_us: int) -> list[str]:
        return ['{"op": "hello"}']

    def skip(self) -> None:
        raise ValueError("it numbers no messages")


def acme_dialect() -> Dialect:
    """It says hello every five seconds."""
    return Dialect("acme", PATH, lambda _path, _headers, refuse: AcmeSession(refuse), heartbeat=5.0)
