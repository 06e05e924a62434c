"""Recordings are read completely: every digit is kept, and messages that cannot be played are counted."""

from __future__ import annotations

import codecs
import gzip
from importlib import resources
from pathlib import Path

import pytest

from simulators import RecordingError, StreamMessage, read, shipped


def test_shipped_recordings_are_complete() -> None:
    """The counts that their README states; ids without gaps."""
    for name, count, first in (
        ("binance_btcusdt_trades_20240808.jsonl.gz", 9757, 3735683259),
        ("binance_ethusdt_trades_20240808.jsonl.gz", 6106, 1520538925),
        ("binance_btcusdt_trades_20240809.csv.gz", 10166, 3735692997),
        ("binance_ethusdt_trades_20240809.csv.gz", 8417, 1520545023),
    ):
        recording = shipped(name)
        assert [trade.id for trade in recording.trades] == list(range(first, first + count))
        assert not recording.skipped
    assert shipped("binance_btcusdt_trades_20240808.jsonl.gz").ticks[0].at_ns == 1723161254087896568


def test_the_table_and_the_recording_agree_where_they_overlap() -> None:
    """Two independent sources of the same trades give the same ids, sides, prices, quantities and times."""
    for symbol, overlap in (("btcusdt", 19), ("ethusdt", 8)):
        wire = shipped(f"binance_{symbol}_trades_20240808.jsonl.gz").trades[-overlap:]
        table = shipped(f"binance_{symbol}_trades_20240809.csv.gz").trades[:overlap]
        assert [(t.id, t.symbol, t.side, t.price, t.qty, t.timestamp_us) for t in wire] == [
            (t.id, t.symbol, t.side, t.price, t.qty, t.timestamp_us) for t in table
        ]


@pytest.mark.parametrize("name", ["blockchain_doc_20200510.jsonl", "trades.csv"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path, name: str) -> None:
    """A file that an editor of Windows has saved is read as before."""
    plain = resources.files("simulators") / "data" / name
    table = b"trade_id,timestamp_us,symbol,side,price,qty\n1,1700000000000000,BTCUSDT,buy,1.0,2\n"
    content = table if name.endswith(".csv") else plain.read_bytes()
    before, after = tmp_path / f"before-{name}", tmp_path / f"after-{name}"
    before.write_bytes(content)
    after.write_bytes(codecs.BOM_UTF8 + content.replace(b"\n", b"\r\n"))
    assert read(after) == read(before)


def test_messages_that_cannot_be_replayed_are_counted_by_kind() -> None:
    """Twelve messages: one trade, and eleven that are counted."""
    recording = shipped("blockchain_doc_20200510.jsonl")
    assert [trade.qty for trade in recording.trades] == ["0.0005892"]
    assert sum(recording.skipped.values()) == 11
    assert recording.skipped["prices updated"] == 2


def test_other_streams_are_kept_as_they_are(recordings: Path) -> None:
    """Depth and best prices of a full recording are kept, with the trades between them."""
    recording = read(recordings / "recordings" / "spot_ethusdt_20240808.jsonl.gz")
    kinds = {each.item.stream for each in recording.ticks if isinstance(each.item, StreamMessage)}
    assert kinds == {"ethusdt@depth@100ms", "ethusdt@bookTicker"}
    assert recording.trades == shipped("binance_ethusdt_trades_20240808.jsonl.gz").trades


def test_aggregated_trades_keep_their_members(recordings: Path) -> None:
    """An aggregate has its own id, and the first and the last id of its trades."""
    first, second = read(recordings / "recordings" / "BINANCE.jsonl.gz").trades
    assert (first.id, first.aggregate) == (15683430, (19862790, 19862790))
    assert (second.symbol, second.price) == ("LRCBTC", "0.00000638")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"dir":"in","t":1,"msg":"{\\"e\\":\\"trade\\"}"}\n', "line 1"),
        ("a.jsonl", '{"dir":"in","t":1,"msg":"{}"}\nnot json\n', "line 2"),
        ("a.csv", "trade_id,timestamp_us,symbol,side,price,qty\n1,2,X,both,1,1\n", "line 2"),
        ("a.csv", "id,symbol\n1,X\n", "line 2"),
        ("a.txt", "", "neither .jsonl nor .csv"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_by_line(
    name: str, text: str, told: str, tmp_path: Path
) -> None:
    """The error names the file and the line; nothing is repaired."""
    (tmp_path / name).write_text(text)
    with pytest.raises(RecordingError, match=told) as error:
        read(tmp_path / name)
    assert name in str(error.value)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    """Half a file is an error, not a short recording."""
    whole = gzip.compress(b'{"dir":"in","t":1,"msg":"{}"}\n' * 500)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(RecordingError, match=r"a\.jsonl\.gz"):
        read(tmp_path / "a.jsonl.gz")
