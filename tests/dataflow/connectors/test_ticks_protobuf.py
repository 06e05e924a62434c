"""The frames of ticks: whole or in pieces, good or bad. Every byte is accepted, or has its named problem."""

from __future__ import annotations

import re
import struct
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.connector import Received
from dataflow.connectors.ticks_protobuf import Codec, Settings
from dataflow.domain import Trade
from dataflow.domain.errors import ConfigError
from dataflow.protobuf.marketdata_pb2 import Tick
from dataflow.settings.load import load
from dataflow.sources import Unusable

SETTINGS = Settings(connector="ticks_protobuf")
NOW = 1_735_201_234_567_000_001


def judge(tick: Any) -> Trade:
    """A judge that likes all but one symbol."""
    if tick.symbol == "BAD":
        raise Unusable("bad_symbol")
    moment: int = tick.exchange_timestamp
    return Trade("ticks", tick.symbol, None, None, Decimal(repr(tick.price)), Decimal(tick.volume), moment)


def framed(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message


def tick(symbol: str = "AAPL", price: float = 100.25, volume: int = 10, **more: Any) -> bytes:
    return Tick(symbol=symbol, price=price, volume=volume, exchange_timestamp=NOW, **more).SerializeToString()


def trade(symbol: str = "AAPL") -> Trade:
    return Trade("ticks", symbol, None, None, Decimal("100.25"), Decimal(10), NOW)


def read(
    pieces: Iterable[bytes], settings: Settings = SETTINGS
) -> tuple[list[Any], list[str], str | None, Codec]:
    codec, items, problems = Codec(settings, judge), [], []
    for piece in pieces:
        received: Received[Any] = Received()
        codec.decode(piece, received)
        items += received.items
        problems += [reason for reason, _ in received.problems]
        if received.lost is not None:
            return items, problems, received.lost, codec
    return items, problems, None, codec


def test_a_frame_is_a_trade() -> None:
    """Length, message, done: nothing is left over."""
    items, problems, lost, codec = read([framed(tick())])
    assert (items, problems, lost) == ([trade()], [], None)
    assert (codec.whole, codec.begun) == (1, False)


def test_equal_frames_are_as_many_trades() -> None:
    """Without an id nothing can be a duplicate."""
    assert read([framed(tick()) * 3])[0] == [trade()] * 3


def test_unknown_fields_are_skipped() -> None:
    """A newer producer may say more than we know."""
    unknown = b"\xba\x06\x03abc"  # field 103
    assert read([framed(tick() + unknown)])[0] == [trade()]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x0a", "malformed_protobuf"),  # a text that is missing
        (b"\xff" * 11, "malformed_protobuf"),  # a number that never ends
        (b"\x0a\x02\xff\xfe" + tick()[6:], "malformed_protobuf"),  # a symbol that is not UTF-8
        (tick()[:-1], "malformed_protobuf"),
        (tick("BAD"), "bad_symbol"),
    ],
)
def test_a_bad_frame_is_named_and_the_next_is_read(message: bytes, reason: str) -> None:
    """It costs nothing but itself."""
    items, problems, lost, _ = read([framed(tick("A")) + framed(message) + framed(tick("B"))])
    assert (items, problems, lost) == ([trade("A"), trade("B")], [reason], None)


@pytest.mark.parametrize("length", [0, 1_000_001, 0xFFFFFFFF])
def test_a_wrong_length_ends_the_connection(length: int) -> None:
    """Behind it nothing can be found again. What came before it is kept."""
    items, problems, lost, _ = read([framed(tick()) + struct.pack(">I", length) + framed(tick())])
    assert (items, problems) == ([trade()], ["bad_length"])
    assert lost == f"a frame of {length:,} bytes; 1 to 1,000,000 are possible"


def test_a_frame_of_exactly_the_longest_length() -> None:
    """1,000,000 bytes are fine, in any pieces, and cost no more than they are long."""
    filler = b"\xba\x06" + _varint(1_000_000 - len(tick()) - 5)
    message = tick() + filler + bytes(1_000_000 - len(tick()) - len(filler))
    assert len(message) == 1_000_000
    whole = framed(message) + framed(tick("B"))
    for size in (len(whole), 16_384, 999_999):
        items, problems, lost, _ = read(whole[at : at + size] for at in range(0, len(whole), size))
        assert (items, problems, lost) == ([trade(), trade("B")], [], None)


def test_the_bound_is_a_setting() -> None:
    """A shorter one refuses longer frames."""
    assert read([framed(tick())], attrs.evolve(SETTINGS, max_frame_bytes=len(tick())))[2] is None
    assert read([framed(tick())], attrs.evolve(SETTINGS, max_frame_bytes=len(tick()) - 1))[2] is not None


def _varint(number: int) -> bytes:
    return bytes([number & 127 | 128, number >> 7 & 127 | 128, number >> 14])


FRAMES = st.one_of(
    st.builds(lambda symbol: framed(tick(symbol)), st.sampled_from(["A", "AAPL", "BAD"])),
    st.builds(framed, st.binary(min_size=1, max_size=30)),
)


@given(frames=st.lists(FRAMES, max_size=12), cuts=st.lists(st.integers(0, 400), max_size=12))
def test_any_cut_of_the_stream_is_the_same_stream(frames: Sequence[bytes], cuts: Sequence[int]) -> None:
    """Bytes come in any pieces. The trades and the problems are those of the whole, one of them for each frame."""
    whole = b"".join(frames)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[a:b] for a, b in pairwise(edges)]
    at_once, in_pieces = read([whole]), read(pieces)
    assert in_pieces[:3] == at_once[:3]
    items, problems, lost, codec = in_pieces
    assert lost is None
    assert len(items) + len(problems) == codec.whole == len(frames)
    assert set(problems) <= {"malformed_protobuf", "bad_symbol"}
    assert not codec.begun


@given(garbage=st.lists(st.binary(max_size=200), max_size=5))
def test_any_garbage_is_accepted_or_named(garbage: Sequence[bytes]) -> None:
    """No bytes of a producer raise, and whatever is not a trade is counted."""
    items, problems, lost, codec = read(garbage)
    told = Counter(problems)
    assert set(told) <= {"malformed_protobuf", "bad_symbol", "bad_length"}
    assert told["bad_length"] == (lost is not None)
    assert len(items) + len(problems) - told["bad_length"] == codec.whole


@given(st.integers(0, 200))
def test_the_middle_of_a_frame_is_known(cut: int) -> None:
    """So that an end there can be told from an end between two frames."""
    frame = framed(tick())
    cut %= 2 * len(frame)
    assert read([(frame * 2)[:cut]])[3].begun == (cut % len(frame) != 0)


def test_a_dripping_frame_is_not_copied_with_every_drop() -> None:
    """A producer that sends one byte at a time costs its bytes, not their square."""
    codec, drops = Codec(SETTINGS, judge), 0
    received: Received[Any] = Received()
    frame = framed(b"\xba\x06" + _varint(500_000 - 5) + bytes(500_000 - 5))
    codec.decode(frame[:5], received)
    rest = codec._rest
    for at in range(5, 2_000):
        codec.decode(frame[at : at + 1], received)
        drops += codec._rest is rest
    assert drops == 1_995


# -- settings


def server_toml() -> str:
    return (Path(__file__).parents[3] / "config" / "server.toml").read_text()


def test_server_toml_shows_the_source_with_all_its_defaults(tmp_path: Path) -> None:
    """Its commented table has every key, its default, and can be used as it stands."""
    block = re.search(r"^# (\[sources\.ticks\]\n(?:#.*\n)*)", server_toml(), re.MULTILINE)
    assert block
    keys = re.findall(r"^# ([a-z_]+ = .*)$", block[1], re.MULTILINE)
    (tmp_path / "ticks.toml").write_text("[sources.ticks]\n" + "\n".join(keys))
    assert load([tmp_path / "ticks.toml"], {}).sources == {"ticks": SETTINGS}
    assert tomllib.loads("\n".join(keys)).keys() == {a.name for a in attrs.fields(Settings)}


def test_without_its_library_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who takes ticks needs it."""
    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    monkeypatch.delitem(sys.modules, "dataflow.connectors.ticks_protobuf")
    file = tmp_path / "ticks.toml"
    file.write_text('[sources.ticks]\nconnector = "ticks_protobuf"\n')
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    assert caught.value.problems == [
        f'{file}: [sources.ticks] connector: found "ticks_protobuf"; cannot be used: ImportError: it needs the'
        ' library protobuf: pip install "dataflow[protobuf]"'
    ]


@pytest.mark.parametrize(
    ("others", "whose"),
    [
        ("[gateway]\nport = 9000\n", "[gateway]"),
        ("[operator]\nport = 9000\n", "[operator]"),
        ('[sources.a]\nconnector = "ticks_protobuf"\n', "[sources.a]"),
    ],
)
def test_a_port_has_one_listener(tmp_path: Path, others: str, whose: str) -> None:
    """That two want the same one is found before anything starts, also when it is a default."""
    file = tmp_path / "ticks.toml"
    file.write_text(f'{others}[sources.ticks]\nconnector = "ticks_protobuf"\n')
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    assert caught.value.problems == [f"{file}: [sources.ticks] port: 9000 is that of {whose} already"]


def test_what_an_exchange_has_cannot_be_named(tmp_path: Path) -> None:
    """Each tick of it would be refused, and yet the symbol would count as live."""
    file = tmp_path / "ticks.toml"
    exchange = (
        '[sources.a]\nconnector = "binance"\nurl = "ws://127.0.0.1:9/"\nsymbols = ["BTC-USDT", "ETH-USDT"]\n'
    )
    ticks = '[sources.ticks]\nconnector = "ticks_protobuf"\n'
    file.write_text(f'{exchange}{ticks}symbols = ["AAPL", "ETH-USDT"]\n')
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    assert caught.value.problems == [
        f'{file}: [sources.ticks] symbols: "ETH-USDT" is that of [sources.a], and cannot be pushed; leave it out'
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            'symbols = ["aapl"]',
            '"aapl" must be capitals, digits and . _ : -, at most 32; or "*", which is any',
        ),
        ('symbols = ["*", "AAPL"]', 'must be ["*"], or symbols; they do not go together'),
        ('symbols = ["A", "A"]', '"A" is named more than once'),
        ("port = 65536", "must be <= 65535"),
        ("max_connections = 0", "must be > 0"),
        ("max_symbols = 0", "must be > 0"),
        ("max_frame_bytes = 0", "must be > 0"),
        ('url = "ws://x/"', "unknown key"),
        ("eager = true", "unknown key"),
    ],
)
def test_a_mistake_has_its_line(tmp_path: Path, line: str, why: str) -> None:
    """Keys of another kind of source are mistakes here, too."""
    file = tmp_path / "ticks.toml"
    file.write_text(f'[sources.ticks]\nconnector = "ticks_protobuf"\n{line}\n')
    with pytest.raises(ConfigError) as caught:
        load([file], {})
    [problem] = caught.value.problems
    assert problem.startswith(f"{file}: [sources.ticks] {line.split(' ')[0]}: ")
    assert why in problem
