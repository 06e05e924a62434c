"""The simulated exchanges write the messages of the real ones, byte for byte."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators import Recording, StreamMessage, Trade, read, shipped
from simulators.dialect import HandshakeRefused
from simulators.exchanges.binance import BinanceSession, agg_trade_payload, binance_dialect, trade_payload
from simulators.exchanges.blockchain import BlockchainSession, blockchain_dialect, number, timestamp, updated

Make = Callable[..., Trade]
ORIGIN = {"origin": "https://exchange.blockchain.com"}
SHIPPED = ("binance_btcusdt_trades_20240808.jsonl.gz", "binance_ethusdt_trades_20240808.jsonl.gz")


def texts_of(path: Any) -> list[str]:
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).splitlines()
    return [line["msg"] for line in map(json.loads, lines) if line["dir"] == "in"]


def everything(recording: Recording) -> BinanceSession:
    """A session subscribed to every stream of a recording."""
    session = BinanceSession(True, lambda symbol: False)
    streams = {tick.item.stream for tick in recording.ticks if isinstance(tick.item, StreamMessage)}
    kinds = {t.symbol.lower() + ("@aggTrade" if t.aggregate else "@trade") for t in recording.trades}
    session.open_streams(sorted(streams | kinds))
    return session


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recorded_binance_trade_is_written_as_it_was(name: str) -> None:
    """A replayed trade is the recorded text, byte for byte."""
    recording = shipped(name)
    session = everything(recording)
    written = [text for tick in recording.ticks for text in session.encode(tick.item)]
    assert written == texts_of(resources.files("simulators") / "data" / name)
    assert len(written) > 6000


def test_the_one_recorded_blockchain_trade_is_written_as_it_was() -> None:
    """Numbers, timestamp and the order of fields are the exchange's own."""
    (trade,) = shipped("blockchain_doc_20200510.jsonl").trades
    source = texts_of(resources.files("simulators") / "data" / "blockchain_doc_20200510.jsonl")
    assert updated(6, trade) == source[6]


def test_heartbeat_and_acknowledgements_are_written_as_they_were() -> None:
    """`subscribed` and heartbeats have the recorded shape, and `seqnum` counts every message from 0."""
    source = texts_of(resources.files("simulators") / "data" / "blockchain_doc_20200510.jsonl")
    session = BlockchainSession(frozenset({"BTC-USD"}), lambda symbol: False)
    assert session.receive('{"action":"subscribe","channel":"heartbeat"}') == [source[0]]
    session.seqnum = 5
    assert session.receive('{"action":"subscribe","channel":"trades","symbol":"BTC-USD"}') == [source[5]]
    session.seqnum = 12
    assert session.beat(1589135620673134) == [source[-1]]


@pytest.mark.parametrize("name", ["spot_btcusdt_20240808", "spot_ethusdt_20240808", "BINANCE"])
def test_full_recordings_are_written_as_they_were(name: str, recordings: Path) -> None:
    """Depth, best prices and aggregated trades of whole recordings are written unchanged."""
    path = recordings / "recordings" / f"{name}.jsonl.gz"
    recording = read(path)
    session = everything(recording)
    written = [text for tick in recording.ticks for text in session.encode(tick.item)]
    assert written == [text for text in texts_of(path) if text.startswith('{"stream"')]
    skipped = sum(recording.skipped.values()) - recording.skipped["connect"]
    assert len(written) + skipped == len(texts_of(path))


def test_numbers_are_written_as_the_exchange_writes_them(recordings: Path) -> None:
    """Every number of a Blockchain.com recording is reproduced from its plain decimal."""
    texts = texts_of(recordings / "recordings" / "BLOCKCHAIN.jsonl.gz")
    seen = {token for text in texts for token in re.findall(r'"(?:px|qty)":([0-9.E+-]+)', text)}
    assert len(seen) > 400
    assert any("E-" in token for token in seen)
    assert {token: number(f"{Decimal(token):f}") for token in seen} == {token: token for token in seen}


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        ("0.0005892", "5.892E-4"),
        ("0.00001", "1.0E-5"),
        ("0.001", "0.001"),
        ("200", "200.0"),
        ("0", "0.0"),
        ("0.000", "0.0"),
        ("8501.10", "8501.1"),
        ("9999999.5", "9999999.5"),
        ("10000000", "1.0E7"),
        ("12345678.9", "1.23456789E7"),
    ],
)
def test_exponents_begin_where_they_do_on_the_real_exchange(plain: str, written: str) -> None:
    """Numbers below 0.001 and from ten million on have an exponent; all have a decimal point."""
    assert number(plain) == written


@given(st.decimals(min_value=0, max_value=10**12, places=8))
def test_no_digit_is_lost_in_writing(value: Decimal) -> None:
    """In every notation the number is exactly the given one."""
    assert Decimal(number(f"{value:f}")) == value


def test_timestamps_have_microseconds_and_a_z() -> None:
    """Also when the fraction is zero, and before the year 2000."""
    assert timestamp(1589135616696315) == "2020-05-10T18:33:36.696315Z"
    assert timestamp(1_000_000) == "1970-01-01T00:00:01.000000Z"


def test_the_side_is_the_takers(make: Make) -> None:
    """On Binance `m` is true when the buyer was the maker, so the taker sold."""
    assert json.loads(trade_payload(make(1, "BTCUSDT", side="sell")))["m"] is True
    assert json.loads(trade_payload(make(1, "BTCUSDT", side="buy")))["m"] is False


def test_a_plain_trade_is_its_own_aggregate(make: Make) -> None:
    """Subscribers of `@aggTrade` get single trades too."""
    payload = json.loads(agg_trade_payload(make(7, "BTCUSDT")))
    assert (payload["a"], payload["f"], payload["l"]) == (7, 7, 7)


def test_binance_prices_have_eight_decimals_and_never_fewer_digits(make: Make) -> None:
    """Zeros fill up to eight decimals; more than eight decimals stay."""
    payload = json.loads(trade_payload(make(1, "X", price="8501.1", qty="0.0000000012")))
    assert (payload["p"], payload["q"]) == ("8501.10000000", "0.0000000012")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            {"action": "subscribe", "channel": "trades", "symbol": "NOPE-USD"},
            ("trades", "invalid symbol identifier"),
        ),
        ({"action": "subscribe", "channel": "trades"}, ("trades", "missing symbol field")),
        ({"action": "subscribe", "channel": "nope"}, ("nope", "Invalid channel")),
        ({"channel": "trades"}, ("trades", "Missing action")),
        ({"action": "subscribe"}, ("", "Invalid channel")),
        ({"action": "unsubscribe", "channel": "trades", "symbol": "BTC-USD"}, ("trades", "Not subscribed")),
        ([1], ("", "Invalid json received")),
    ],
)
def test_blockchain_rejects_with_a_reason(request_: Any, answer: tuple[str, str]) -> None:
    """A wrong request is answered with `rejected` and a reason, and changes nothing."""
    session = BlockchainSession(frozenset({"BTC-USD"}), lambda symbol: False)
    (text,) = session.receive(json.dumps(request_))
    said = json.loads(text)
    assert (said["event"], said["channel"], said["text"]) == ("rejected", *answer)
    assert session.symbols == frozenset()


def test_blockchain_rejects_a_second_subscription() -> None:
    """Like the real exchange: `Already subscribed`; the first subscription stays."""
    session = BlockchainSession(frozenset({"BTC-USD"}), lambda symbol: False)
    subscribe = '{"action":"subscribe","channel":"trades","symbol":"BTC-USD"}'
    session.receive(subscribe)
    assert json.loads(session.receive(subscribe)[0])["text"] == "Already subscribed"
    assert session.symbols == {"BTC-USD"}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("{", 3),
        ("[]", 2),
        ('{"method":"SUBSCRIBE","params":["a@trade"]}', 2),
        ('{"params":[],"id":1}', 2),
        ('{"method":"NOPE","id":1}', 2),
        ('{"method":"SUBSCRIBE","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":["a@trade"],"id":true}', 2),
    ],
)
def test_binance_answers_a_malformed_request_with_a_code(request_: str, code: int) -> None:
    """The answer is an error with its code and the request's id; nothing is subscribed."""
    session = BinanceSession(False, lambda symbol: False)
    said = json.loads(session.receive(request_)[0])
    assert said["error"]["code"] == code
    assert "result" not in said
    assert session.streams == ()


def test_binance_subscribes_lists_and_unsubscribes() -> None:
    """The three methods answer with their ids, in the exchange's compact form."""
    session = BinanceSession(False, lambda symbol: False)
    assert session.receive('{"method":"SUBSCRIBE","params":["btcusdt@trade","x@depth"],"id":1}') == [
        '{"result":null,"id":1}'
    ]
    assert session.symbols == {"BTCUSDT"}
    assert session.receive('{"method":"LIST_SUBSCRIPTIONS","id":3}') == [
        '{"result":["btcusdt@trade","x@depth"],"id":3}'
    ]
    assert session.receive('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":"z"}') == [
        '{"result":null,"id":"z"}'
    ]
    assert session.symbols == frozenset()


@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
def test_no_message_of_a_client_can_make_a_session_fail(message: str | bytes) -> None:
    """Every message of a client is answered with one JSON text."""
    for session in (
        BlockchainSession(frozenset(), lambda symbol: False),
        BinanceSession(True, lambda symbol: False),
    ):
        (answer,) = session.receive(message)
        assert isinstance(json.loads(answer), dict)


@pytest.mark.parametrize(
    ("path", "streams", "wrapped"),
    [
        ("/stream?streams=a@trade/b@trade", ("a@trade", "b@trade"), True),
        ("/stream", (), True),
        ("/ws", (), False),
        ("/ws/a@aggTrade", ("a@aggTrade",), False),
    ],
)
def test_binance_takes_subscriptions_in_the_url(path: str, streams: tuple[str, ...], wrapped: bool) -> None:
    """`/stream` wraps and `/ws` does not; either may name streams."""
    session = binance_dialect().open(path, {}, lambda symbol: False)
    assert isinstance(session, BinanceSession)
    assert (session.streams, session.wrapped) == (streams, wrapped)


def test_blockchain_wants_its_origin() -> None:
    """Without the right Origin the handshake ends with status 400, unless that is switched off."""
    with pytest.raises(HandshakeRefused) as refused:
        blockchain_dialect().open("/ws", {"origin": "https://elsewhere"}, lambda symbol: False)
    assert refused.value.status == 400
    blockchain_dialect().open("/ws", ORIGIN, lambda symbol: False)
    blockchain_dialect(require_origin=False).open("/any/ws", {}, lambda symbol: False)


@pytest.mark.parametrize("dialect", [blockchain_dialect(), binance_dialect()])
def test_an_unknown_path_is_refused(dialect: Any) -> None:
    """A wrong path fails in the handshake, not silently later."""
    with pytest.raises(HandshakeRefused) as refused:
        dialect.open("/nope", ORIGIN, lambda symbol: False)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    "wrong", [{"price": "1E-5"}, {"qty": "-1"}, {"price": ""}, {"side": "BUY"}, {"qty": "1."}]
)
def test_a_wrong_trade_cannot_be_made(wrong: dict[str, Any], make: Make) -> None:
    """Only faults send nonsense, never a mistake in a test."""
    with pytest.raises(ValueError, match="must be"):
        make(1, **wrong)
