"""Mappings of real and made-up exchanges, as a configuration has them."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from dataflow.connectors.mapped_json import Settings
from dataflow.settings.load import load

README = Path(__file__).parents[3] / "dataflow" / "connectors" / "README.md"


def acme() -> str:
    """The made-up exchange of the README."""
    (block,) = re.findall(r"```toml\n(\[sources\.acme\].*?)```", README.read_text(), re.DOTALL)
    return str(block)


COINBASE = """
[sources.coinbase]
connector = "mapped_json"
url = "wss://ws-feed.exchange.coinbase.com"
symbols = SYMBOLS

[sources.coinbase.requests]
subscribe = '{"type": "subscribe", "product_ids": {symbols}, "channels": ["matches"]}'
unsubscribe = '{"type": "unsubscribe", "product_ids": {symbols}, "channels": ["matches"]}'

[sources.coinbase.answers]
subscribed = { when = { type = "subscriptions" }, symbol = "channels.[name=matches].product_ids", is_all = true }
refused = { when = { type = "error" }, reason = "reason" }
ignored = [{ type = "heartbeat" }]

[sources.coinbase.trades]
when = { type = ["match", "last_match"] }
symbol = "product_id"
price = "price"
quantity = "size"
time = "time"
time_unit = "rfc3339"
side = "side"
sides = { buy = "sell", sell = "buy" }
id = "trade_id"
sequence = "trade_id"
"""

BINANCE = """
[sources.binance]
connector = "mapped_json"
url = "wss://stream.binance.com:443/stream"
refill_url = "https://api.binance.com"
symbols = SYMBOLS
form = "{BASE}{QUOTE}"
requests_per_second = 5

[sources.binance.requests]
subscribe = '{"method": "SUBSCRIBE", "id": {id}, "params": {symbols}}'
unsubscribe = '{"method": "UNSUBSCRIBE", "id": {id}, "params": {symbols}}'
each = "{symbol:lower}@trade"
probe = '{"method": "LIST_SUBSCRIPTIONS", "id": {id}}'

[sources.binance.answers]
refused = { when = { error = "*" }, id = "id", reason = "error.msg" }
subscribed = { when = { result = "*" }, id = "id" }
leaving = { data.e = "serverShutdown" }

[sources.binance.trades]
when = { data.e = "trade" }
at = "data"
symbol = "s"
price = "p"
quantity = "q"
time = "T"
time_unit = "ms"
side = "m"
sides = { true = "sell", false = "buy" }
id = "t"
sequence = "t"

[sources.binance.rest]
newest = "/api/v3/historicalTrades?symbol={symbol}"
after = "/api/v3/historicalTrades?symbol={symbol}&fromId={next_sequence}&limit=1000"
weight = 25

[sources.binance.rest.trades]
at = "*"
price = "price"
quantity = "qty"
time = "time"
time_unit = "ms"
side = "isBuyerMaker"
sides = { true = "sell", false = "buy" }
id = "id"
sequence = "id"
"""

KRAKEN = """
[sources.kraken]
connector = "mapped_json"
url = "wss://ws.kraken.com"
symbols = SYMBOLS
form = "{BASE}/{QUOTE}"

[sources.kraken.requests]
subscribe = '{"event": "subscribe", "pair": {symbols}, "subscription": {"name": "trade"}}'
unsubscribe = '{"event": "unsubscribe", "pair": {symbols}, "subscription": {"name": "trade"}}'

[sources.kraken.answers]
subscribed = { when = { event = "subscriptionStatus", status = "subscribed" }, symbol = "pair" }
unsubscribed = { when = { event = "subscriptionStatus", status = "unsubscribed" }, symbol = "pair" }
refused = { when = { status = "error" }, symbol = "pair", reason = "errorMessage" }
ignored = [{ event = ["heartbeat", "systemStatus"] }]

[sources.kraken.trades]
when = { 2 = "trade" }
at = "1.*"
symbol = "$.-1"
price = "0"
quantity = "1"
time = "2"
time_unit = "s"
side = "3"
sides = { b = "buy", s = "sell" }
"""

BITSTAMP = """
[sources.bitstamp]
connector = "mapped_json"
url = "wss://ws.bitstamp.net"
symbols = SYMBOLS
form = "{base}{quote}"

[sources.bitstamp.requests]
subscribe = '{"event": "bts:subscribe", "data": {"channel": "live_trades_{symbol}"}}'
unsubscribe = '{"event": "bts:unsubscribe", "data": {"channel": "live_trades_{symbol}"}}'
probe = '{"event": "bts:heartbeat"}'

[sources.bitstamp.answers]
leaving = { event = "bts:request_reconnect" }
ignored = [{ event = "bts:heartbeat" }]

[sources.bitstamp.answers.subscribed]
when = { event = "bts:subscription_succeeded" }
symbol = "channel"
symbol_form = "live_trades_{symbol}"

[sources.bitstamp.trades]
when = { event = "trade" }
at = "data"
symbol = "$.channel"
symbol_form = "live_trades_{symbol}"
price = "price_str"
quantity = "amount_str"
time = "microtimestamp"
time_unit = "us"
side = "type"
sides = { 0 = "buy", 1 = "sell" }
id = "id"
"""


def settings(written: str, symbols: Iterable[str] = ()) -> Settings:
    """The only source of a configuration, read as the daemon reads it. `symbols` stand for SYMBOLS in it."""
    names = json.dumps(list(symbols), ensure_ascii=False)  # a list of TOML too
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mapped.toml"
        file.write_text(written.replace("SYMBOLS", names))
        (made,) = load([file], {}).sources.values()
    return cast(Settings, made)


def tables(written: str, symbols: Iterable[str]) -> dict[str, Any]:
    """The tables of a mapping, as keys of its settings."""
    made = settings(written, symbols)
    names = ("form", "headers", "refill_url", "requests", "answers", "trades", "rest")
    return {name: getattr(made, name) for name in names}
