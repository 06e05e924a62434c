"""REST over the real daemon: pages and whole ranges, from memory and disk alike, and what is wrong with a question."""

from __future__ import annotations

import csv
import gc
import io
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import cache, partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trio
from attrs import define

from dataflow.cache.archive import Batch, Run
from dataflow.cache.history import History
from dataflow.domain import Trade
from dataflow.domain.timestamps import to_rfc3339
from dataflow.faces.rest import downloads
from dataflow.gateway.limits import DOWNLOADS_AT_ONCE, Account
from dataflow.gateway.reading import TradesWalk
from dataflow.settings.schema import Admission, Cache, Gateway, Limits
from simulators import open_binance
from tests.support.memory_archive import MemoryArchive
from tests.support.real_trades import admitted, rows
from tests.support.waiting import until
from tests.system.daemon import Daemon, client, daemon, from_binance, http_client

SYMBOL = "BTC-USDT"
SYMBOLS = {"BTCUSDT": SYMBOL, "ETHUSDT": "ETH-USDT"}
EPOCH = 1_700_000_000_000
START = 1_700_000_000 * 10**9
SECOND = 10**9
TRADES = f"/api/v1/trades/{SYMBOL}"
CSV = {"Accept": "text/csv"}
NDJSON = {"Accept": "application/x-ndjson"}


def trade(number: int, symbol: str = SYMBOL) -> Trade:
    """One a second; ids 11 to 13 are missing."""
    side: Any = "buy" if number % 2 else "sell"
    price, at = Decimal(f"{number}.50"), START + number * SECOND
    return Trade("binance", symbol, str(number), side, price, Decimal("0.10"), at, number)


def recorded(trades: Iterator[Trade] | list[Trade]) -> MemoryArchive:
    """A disk with these trades, each symbol in its order, and gaps where ids are missing."""
    archive, logs = MemoryArchive(), dict[str, History]()
    for each in trades:
        log = logs.setdefault(each.symbol, History(EPOCH, 1_000_000, 1e9))
        log.admit(each, 0.0)
    archive.begin(EPOCH)
    for symbol, log in logs.items():
        archive.append(Batch([Run.of(symbol, log.places(0, 1_000_000))]))
    archive.close(clean=True)
    return archive


@define
class Stage:
    daemon: Daemon
    http: httpx.AsyncClient
    archive: MemoryArchive

    async def get(self, path: str, **headers: str) -> Any:
        answer = await self.http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return exact(answer.text)

    async def pages(self, path: str) -> list[dict[str, Any]]:
        """All pages, by the links of the answers."""
        made = []
        url = httpx.URL(path)
        while True:
            answer = await self.http.get(url)
            assert answer.status_code == 200, answer.text
            made.append(exact(answer.text))
            if "next" not in answer.links:
                return made
            url = answer.url.join(answer.links["next"]["url"])


def exact(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


@asynccontextmanager
async def stage(trades: list[Trade] | None = None, *, kept: int = 10, **tables: Any) -> AsyncIterator[Stage]:
    """A daemon that was started on a disk with trades; the newest `kept` are in its memory."""
    archive = recorded([trade(n) for n in (*range(1, 11), *range(14, 31))] if trades is None else trades)
    async with (
        open_binance() as exchange,
        daemon(
            sources=from_binance(exchange.url, *SYMBOLS.values(), eager=True),
            archive=archive,
            cache=Cache(trades_per_symbol=kept),
            **tables,
        ) as d,
        http_client(d.http) as http,
    ):
        yield Stage(d, http, archive)


def offsets(page: dict[str, Any]) -> list[int]:
    return [each["offset"] for each in page["trades"]]


ALL = [*range(1, 11), *range(14, 31)]
GAP = {"from": 11, "to": 13, "reason": "source_gap"}


async def test_a_page_as_a_client_sees_it() -> None:
    """Every member of the contract, and the digits of the source."""
    async with stage() as s:
        page = await s.get(f"{TRADES}?limit=1")
        epoch = page["epoch"]
        assert page == {
            "symbol": SYMBOL,
            "epoch": epoch,
            "trades": [
                {
                    "seqnum": 1,
                    "event": "updated",
                    "channel": "trades",
                    "symbol": SYMBOL,
                    "timestamp": "2023-11-14T22:13:21.000000Z",
                    "side": "buy",
                    "qty": Decimal("0.10"),
                    "price": Decimal("1.50"),
                    "tradeId": "1",
                    "source": "binance",
                    "offset": 1,
                }
            ],
            "gaps": [],
            "next": {"epoch": epoch, "offset": 1},
        }
        assert str(page["trades"][0]["price"]) == "1.50"


@pytest.mark.parametrize("limit", [1, 7, 10_000])
async def test_pages_by_link_are_the_whole_stream(limit: int) -> None:
    """Up and down, over the seam between disk and memory; the link stands only where there is more."""
    async with stage() as s:
        up = await s.pages(f"{TRADES}?limit={limit}")
        assert [n for page in up for n in offsets(page)] == ALL
        assert [gap for page in up for gap in page["gaps"]] == [GAP]
        assert up[-1]["next"] == {"epoch": up[0]["epoch"], "offset": 30}
        down = await s.pages(f"{TRADES}?limit={limit}&order=desc")
        assert [n for page in down for n in offsets(page)] == ALL[::-1]
        assert down[-1]["next"] is None
        times = f"from={to_rfc3339(START + 5 * SECOND)}&to={to_rfc3339(START + 20 * SECOND)}"
        some = await s.pages(f"{TRADES}?limit={limit}&{times}")
        assert [n for page in some for n in offsets(page)] == [*range(5, 11), *range(14, 20)]
        assert some[-1]["next"] is None
        some = await s.pages(f"{TRADES}?limit={limit}&{times}&order=desc")
        assert [n for page in some for n in offsets(page)] == [*range(19, 13, -1), *range(10, 4, -1)]


async def test_the_link_holds_behind_a_proxy() -> None:
    """It names no host and no path, so a prefix that a proxy strips is no matter."""
    async with stage() as s:
        answer = await s.http.get(f"{TRADES}?limit=5&order=desc&to=2030-01-01T00:00:00%2B01:00")
        link = answer.links["next"]["url"]
        assert urlsplit(link)[:3] == ("", "", "")
        assert httpx.URL("https://a.example/feed/v1/x?y").join(link).path == "/feed/v1/x"
        asked = parse_qs(urlsplit(link).query)
        assert asked["to"] == ["2030-01-01T00:00:00+01:00"]
        assert asked["before"] == [f"{answer.json()['epoch']}:{answer.json()['next']['offset']}"]


async def test_positions_of_lost_branches_and_of_nobody() -> None:
    """As in getTrades: what is rewound, or the gap from 0; downloads tell it in their headers."""
    async with stage() as s:
        s.daemon.core.history(SYMBOL).shared = {5: 20}
        page = await s.get(f"{TRADES}?after=5:25&limit=2")
        assert (page["rewound"], offsets(page)) == ({"epoch": page["epoch"], "offset": 20}, [21, 22])
        page = await s.get(f"{TRADES}?after=6:25&limit=2")
        assert page["gaps"] == [{"from": 0, "to": None, "reason": "overrun"}]
        assert offsets(page) == [1]
        answer = await s.http.get(f"{TRADES}?after=5:25", headers=CSV)
        assert answer.headers["dataflow-epoch"] == str(page["epoch"])
        assert answer.headers["dataflow-rewound"] == f"{page['epoch']}:20"


# Whole ranges.


CHOICES: list[tuple[str | None, str | None]] = [
    (None, "application/json"),
    ("", "application/json"),
    ("*/*", "application/json"),
    ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
    ("text/csv", "text/csv"),
    ("TEXT/CSV; charset=utf-8", "text/csv"),
    ("text/*", "text/csv"),
    ("application/json;q=0.4, text/csv;q=0.5", "text/csv"),
    ("application/json;q=0.5, application/x-ndjson;q=0.6, */*;q=0.1", "application/x-ndjson"),
    ("application/json;q=0, */*;q=0.1", "text/csv"),
    ("text/csv;q=0", None),
    ("image/png", None),
    ("garbage", None),
]


async def test_the_client_chooses_the_media() -> None:
    """By weight; of equals JSON. Nothing that it would not take: 406, and what there is."""
    async with stage([trade(1)]) as s:
        s.http.headers.pop("accept")
        for accept, media in CHOICES:
            for method in ("GET", "HEAD"):
                headers = {} if accept is None else {"Accept": accept}
                answer = await s.http.request(method, TRADES, headers=headers)
                assert (answer.content == b"") is (method == "HEAD")
                if media is not None:
                    assert answer.headers["content-type"].partition(";")[0] == media, accept
                    assert answer.headers["vary"] == "Accept"
                    continue
                assert answer.status_code == 406, accept
                if method == "GET":
                    assert answer.json()["valid"] == ["application/json", "text/csv", "application/x-ndjson"]


async def test_csv_has_a_row_for_each_trade_and_gap() -> None:
    """The columns are the fields of JSON; of a gap the trade's are empty. Exactly these bytes."""
    trades = [trade(1), Trade("a,b", SYMBOL, None, None, Decimal("1E-8"), Decimal("0"), START), trade(3)]
    async with stage(trades) as s:
        answer = await s.http.get(TRADES, headers=CSV)
        assert answer.text.split("\r\n") == [
            "seqnum,event,channel,symbol,timestamp,side,qty,price,tradeId,source,offset,from,to,reason",
            f"1,updated,trades,{SYMBOL},2023-11-14T22:13:21.000000Z,buy,0.10,1.50,1,binance,1,,,",
            f'2,updated,trades,{SYMBOL},2023-11-14T22:13:20.000000Z,,0,1E-8,,"a,b",2,,,',
            ",,,,,,,,,,,3,3,source_gap",
            f"4,updated,trades,{SYMBOL},2023-11-14T22:13:23.000000Z,buy,0.10,3.50,3,binance,4,,,",
            "",
        ]


async def test_a_download_can_be_bounded_and_turned() -> None:
    """By time, by place, by limit, and with the newest first."""
    async with stage() as s:

        async def places(query: str) -> list[int]:
            answer = await s.http.get(f"{TRADES}?{query}", headers=NDJSON)
            return [each["offset"] for each in map(json.loads, answer.text.splitlines()) if "offset" in each]

        assert await places("") == ALL
        assert await places("limit=3") == [1, 2, 3]
        assert await places("order=desc&limit=20") == ALL[:-20:-1]  # the gap counts
        assert await places(f"from={to_rfc3339(START + 5 * SECOND)}&limit=3") == [5, 6, 7]
        epoch = (await s.get(f"{TRADES}?limit=1"))["epoch"]
        assert await places(f"after={epoch}:28") == [29, 30]
        assert await places(f"after={epoch}:14&before={epoch}:17") == [15, 16]


@cache
def oracle() -> dict[str, list[Mapping[str, str]]]:
    """Ten minutes of real trades, by symbol, in the order of the file."""
    found: dict[str, list[Mapping[str, str]]] = {symbol: [] for symbol in SYMBOLS.values()}
    for row in rows():
        found[SYMBOLS[row["symbol"]]].append(row)
    return found


def real_trades() -> Iterator[Trade]:
    for symbol, each in oracle().items():
        for row in each:
            yield admitted(row, symbol)


def told(each: dict[str, Any]) -> tuple[str, ...]:
    """A trade of an answer as the file has it, digit by digit."""
    return (each["tradeId"], each["timestamp"], each["side"], str(each["price"]), str(each["qty"]))


async def test_ten_minutes_of_real_trades_come_back() -> None:
    """Id by id and digit by digit: by getTrades, in pages of REST up and down, as CSV and as NDJSON. Most of them
    come from the disk, the newest from memory."""
    async with stage(list(real_trades()), kept=1000) as s, client(s.daemon.url) as rpc:
        for symbol, rows in oracle().items():
            assert len(rows) > 10_000
            expected = [
                (
                    row["trade_id"],
                    to_rfc3339(int(row["timestamp_us"]) * 1000),
                    row["side"],
                    row["price"],
                    row["qty"],
                )
                for row in rows
            ]
            assert len(s.daemon.core.history(symbol).newest(100_000)) <= 1000
            path = f"/api/v1/trades/{symbol}"
            pages = await s.pages(f"{path}?limit=10000")
            assert [told(each) for page in pages for each in page["trades"]] == expected
            gaps = [gap for page in pages for gap in page["gaps"]]
            down = await s.pages(f"{path}?limit=7000&order=desc")
            assert [told(each) for page in down for each in page["trades"]] == expected[::-1]

            table = list(csv.DictReader(io.StringIO((await s.http.get(path, headers=CSV)).text)))
            assert [told(row) for row in table if row["tradeId"]] == expected
            assert [int(row["from"]) for row in table if row["from"]] == [gap["from"] for gap in gaps]
            lines = [exact(line) for line in (await s.http.get(path, headers=NDJSON)).text.splitlines()]
            assert [told(each) for each in lines if "tradeId" in each] == expected
            assert [each for each in lines if "tradeId" not in each] == gaps

            found: list[tuple[str, ...]] = []
            more: dict[str, Any] = {}
            while len(found) < len(expected):
                page = await rpc.call("getTrades", symbol=symbol, limit=10_000, **more)
                found += [told(each) for each in page["trades"]]
                more = {"after": page["next"]}
            assert found == expected


async def test_candles_in_pages_and_whole() -> None:
    """The same candles by link, as CSV and as NDJSON; a gap makes a candle incomplete, in each of them."""
    async with stage() as s:
        path = f"/api/v1/candles/{SYMBOL}?interval=5s&from={to_rfc3339(START)}"
        pages = await s.pages(f"{path}&limit=2")
        assert [len(page["candles"]) for page in pages] == [2, 2, 2, 1]
        candles = [candle for page in pages for candle in page["candles"]]
        assert [each["count"] for each in candles] == [4, 5, 2, 5, 5, 5, 1]
        for limit, is_last in ((6, False), (7, True), (8, True)):
            full = await s.http.get(f"{path}&limit={limit}")
            assert exact(full.text)["candles"] == candles[:limit]
            assert ("link" in full.headers) is not is_last, "a full page may be the last one"
        text = (await s.http.get(path, headers=NDJSON)).text
        assert [exact(line) for line in text.splitlines()] == candles
        table = list(csv.DictReader(io.StringIO((await s.http.get(path, headers=CSV)).text)))
        for row, candle in zip(table, candles, strict=True):
            assert list(row) == list(candle)
            assert (row["open"], row["volume"]) == (str(candle["open"]), str(candle["volume"]))
            assert row["complete"] == str(candle["complete"]).lower()
            assert json.loads(row["gaps"] or "[]") == candle["gaps"]
        assert False in [candle["complete"] for candle in candles]
        assert (await s.get(f"/api/v1/candles/{SYMBOL}?limit=1"))["interval"] == "1m"


# What is wrong with a question.


MISTAKES: list[tuple[str, int, dict[str, Any]]] = [
    ("/api/v1/trades/BTC-USD", 404, {"nearest": ["BTC-USDT", "ETH-USDT"]}),
    ("/api/v1/candles/nothing", 404, {}),
    ("/api/v1/symbols/nothing", 404, {}),
    ("/api/v1/sources/nothing", 404, {"valid": ["binance"]}),
    (f"{TRADES}?fron=x", 400, {"param": "fron", "nearest": ["from"]}),
    (f"{TRADES}?limit=5&limit=6", 400, {"param": "limit"}),
    (f"{TRADES}?limit=0", 400, {"param": "limit", "problem": "must be 1 to 10000"}),
    (f"{TRADES}?limit=10001", 400, {"param": "limit"}),
    (f"{TRADES}?limit=-1", 400, {"param": "limit"}),
    (f"{TRADES}?limit=1e3", 400, {"param": "limit"}),
    (f"{TRADES}?from=yesterday", 400, {"param": "from", "example": "2020-05-10T18:33:36.696315Z"}),
    (
        f"{TRADES}?from=2024-01-02T00:00:00%2B01:00&to=2024-01-01T00:00:00Z",
        400,
        {
            "value": "2024-01-01T00:00:00.000000Z",
            "problem": "must not be before 2024-01-01T23:00:00.000000Z, `from`",
        },
    ),
    (
        f"{TRADES}?from=2024-01-02T00:00:00+01:00",
        400,
        {
            "problem": "not an RFC 3339 date-time: '2024-01-02T00:00:00 01:00'; a + in a URL is written %2B",
        },
    ),
    (f"{TRADES}?after=12", 400, {"param": "after", "example": "1763696936212:612"}),
    (f"{TRADES}?before=12:13", 400, {"param": "before"}),
    (f"{TRADES}?order=up", 400, {"param": "order", "valid": ["asc", "desc"]}),
    (f"/api/v1/candles/{SYMBOL}?interval=7m", 400, {"param": "interval"}),
    (f"/api/v1/candles/{SYMBOL}?order=asc", 400, {"param": "order"}),
]


async def test_a_mistake_is_told() -> None:
    """As a problem document, with what would be right; whatever the client wants to have."""
    async with stage([trade(1)]) as s:
        for path, status, words in MISTAKES:
            for headers in ({}, CSV):
                if headers and "10001" in path:
                    continue  # a download has no such bound
                answer = await s.http.get(path, headers=headers)
                assert answer.status_code == status, path
                assert answer.headers["content-type"] == "application/problem+json"
                body = answer.json()
                assert {name: body.get(name) for name in words} == words or headers, path


async def test_methods_and_heads() -> None:
    """HEAD has the headers of GET and no body; anything else is 405, and `Allow` says what is possible."""
    async with stage([trade(1)]) as s:
        for path in (
            TRADES,
            f"/api/v1/candles/{SYMBOL}",
            "/api/v1/symbols",
            f"/api/v1/symbols/{SYMBOL}",
            "/api/v1/status",
            "/api/v1/sources",
            "/api/v1/sources/binance",
        ):
            head = await s.http.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"] == "application/json"
            wrong = await s.http.post(path)
            assert wrong.status_code == 405
            assert wrong.headers["allow"] == "GET, HEAD, OPTIONS"
            assert wrong.headers["content-type"] == "application/problem+json"


async def test_the_head_of_a_download() -> None:
    """It has the headers of GET, and no length: nobody has made the body."""
    async with stage([trade(1)]) as s:
        for path in (TRADES, f"/api/v1/candles/{SYMBOL}"):
            for headers in (CSV, NDJSON):
                head, get = await s.http.head(path, headers=headers), await s.http.get(path, headers=headers)
                assert (head.status_code, head.content) == (200, b"")
                names = ("content-type", "vary", "dataflow-epoch", "content-length")
                assert [head.headers.get(each) for each in names] == [get.headers.get(each) for each in names]


async def test_symbols_are_those_of_json_rpc() -> None:
    """All of them, and one by its name."""
    async with stage([trade(1)]) as s, client(s.daemon.url) as rpc:
        await s.daemon.until_carried(*SYMBOLS.values())
        symbols = await s.get("/api/v1/symbols")
        assert symbols == await rpc.call("getSymbols")
        assert symbols[0] == await s.get(f"/api/v1/symbols/{symbols[0]['symbol']}")


async def test_a_page_that_has_not_changed_is_not_sent_again() -> None:
    """A client that keeps it gets a 304; when a trade has come, the new page."""
    async with stage() as s:
        for path in (TRADES, f"/api/v1/candles/{SYMBOL}"):
            first = await s.http.get(path)
            assert first.headers["cache-control"] == "no-cache"
            again = await s.http.get(path, headers={"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        tag = (await s.http.get(TRADES)).headers["etag"]
        s.daemon.core.history(SYMBOL).admit(trade(31), trio.current_time())
        assert (await s.http.get(TRADES, headers={"If-None-Match": tag})).status_code == 200


# Failures, and clients that cost.


async def test_a_disk_that_fails_is_told_before_and_seen_after() -> None:
    """A page or a download that cannot begin is a 503. One that breaks off never looks whole."""
    downloads_tries, downloads.TRIES = downloads.TRIES, 1  # type: ignore[misc]
    try:
        async with stage([trade(n) for n in range(1, 5001)]) as s:
            async with s.http.stream("GET", TRADES, headers=CSV) as answer:
                text = answer.aiter_raw(1000)
                await anext(text)
                s.archive.broken = "the disk is gone"
                with pytest.raises(httpx.RemoteProtocolError):
                    async for _ in text:
                        pass
            for headers in ({}, CSV):
                answer = await s.http.get(TRADES, headers=headers)
                assert answer.status_code == 503
                assert answer.json()["problem"] == "the disk is gone"
            epoch = s.daemon.core.history(SYMBOL).epoch
            assert offsets(await s.get(f"{TRADES}?after={epoch}:4995")) == [4996, 4997, 4998, 4999, 5000]
    finally:
        downloads.TRIES = downloads_tries  # type: ignore[misc]


async def test_who_waits_for_the_disk_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """One turn for all clients: while one of them waits for the disk, another is answered."""
    go_on, asked = threading.Event(), threading.Event()
    async with (
        stage(admission=Admission(at_once=1)) as s,
        client(s.daemon.url) as slow,
        client(s.daemon.url) as other,
    ):
        behind = s.archive.behind

        def waiting(*args: Any) -> Any:
            asked.set()
            go_on.wait(60)
            return behind(*args)

        monkeypatch.setattr(s.archive, "behind", waiting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(slow.call, "getTrades", symbol=SYMBOL))
            await until(asked.is_set)
            assert await other.call("ping") == "pong"
            go_on.set()


async def test_a_disk_that_is_away_for_a_moment_breaks_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part is asked for again, and no line is lost or told twice."""
    monkeypatch.setattr(downloads, "TRY_AGAIN", 0.0)
    part, failures = TradesWalk.part, [2]

    async def stumbling(walk: TradesWalk) -> Any:
        if walk._walk.at and failures[0]:
            failures[0] -= 1
            s.archive.broken = "busy"
        try:
            return await part(walk)
        finally:
            s.archive.broken = None

    monkeypatch.setattr(TradesWalk, "part", stumbling)
    async with stage([trade(n) for n in range(1, 5001)]) as s:
        lines = (await s.http.get(TRADES, headers=NDJSON)).text.splitlines()
        assert [json.loads(line)["offset"] for line in lines] == list(range(1, 5001))
        assert failures == [0]


ASK = f"GET {TRADES} HTTP/1.1\r\nHost: localhost\r\nAccept: text/csv\r\n\r\n".encode()


@asynccontextmanager
async def reader_of_little(s: Stage) -> AsyncIterator[trio.SocketStream]:
    """A client that has begun a download, and read its first bytes."""
    stream = await trio.open_tcp_stream("127.0.0.1", httpx.URL(s.daemon.http).port or 0)
    async with stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await stream.send_all(ASK)
        assert (await stream.receive_some(15)).startswith(b"HTTP/1.1 200")
        yield stream


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every range is without an end. Returns how many parts were read, as a list of one number."""
    read, part = [0], [(n, trade(n)) for n in range(1, 2001)]

    async def another(walk: TradesWalk) -> Any:
        read[0] += 1
        await trio.lowlevel.checkpoint()
        return part

    monkeypatch.setattr(TradesWalk, "part", another)
    return read


async def test_a_client_that_leaves_in_the_midst_leaves_nothing_behind(endless: list[int]) -> None:
    """Its place among the downloads is free at once, and the walk is not kept."""
    async with stage([trade(1)]) as s:
        quotas = s.daemon.lobby.quotas
        async with reader_of_little(s):
            await until(lambda: quotas.downloads == 1)
        await until(lambda: quotas.downloads == 0)
        await s.http.get("/health")
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, TradesWalk)]


async def test_a_slow_client_costs_one_part(endless: list[int]) -> None:
    """While it takes nothing, nothing more is read for it."""
    async with stage([trade(1)]) as s, reader_of_little(s):
        before = -1
        while endless[0] > before:
            before = endless[0]
            for _ in range(20):
                await s.http.get("/health")
        assert endless[0] > 0


async def test_downloads_are_bounded_for_one_and_for_all() -> None:
    """A client has some at once, and is told to come back later for more; pages are served all the same."""
    tables = {"limits": Limits(loopback=True), "gateway": Gateway(port=0)}
    async with stage([trade(n) for n in range(1, 8001)], **tables) as s, http_client(s.daemon.http) as http:
        await s.get(f"{TRADES}?limit=1")
        (account,) = s.daemon.lobby.quotas._accounts.values()
        account.downloads = DOWNLOADS_AT_ONCE
        refused = await http.get(TRADES, headers=CSV)
        assert refused.status_code == 429
        assert refused.json()["limit"] == "downloads"
        assert refused.headers["retry-after"] == "1"
        await s.get(f"{TRADES}?limit=1")
        account.downloads = 0
        s.daemon.lobby.quotas.downloads = 64
        assert (await http.get(TRADES, headers=CSV)).status_code == 503
        assert s.daemon.lobby.quotas.refused["downloads"] == 2


async def test_a_download_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes count, and who owes some waits before the next part."""
    paid, waited = [0], [0]
    monkeypatch.setattr(Account, "pay", lambda _account, count: paid.append(count))
    settle = Account.paid

    async def seen(account: Account) -> None:
        waited.append(1)
        await settle(account)

    monkeypatch.setattr(Account, "paid", seen)
    async with stage([trade(n) for n in range(1, 5001)]) as s:
        answer = await s.http.get(TRADES, headers=CSV)
        head = answer.content.index(b"\n") + 1
        assert sum(paid) == len(answer.content) - head
        assert sum(waited) >= 3
