"""The README of the faces is true: its example is a face, found by its file's name, in a real daemon."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from trio_websocket import ConnectionClosed

from dataflow import faces, plugs
from dataflow.app import hall
from dataflow.settings.load import load
from dataflow.settings.schema import Settings
from simulators import Trade, open_binance
from tests.support.waiting import until
from tests.system.daemon import client, connection, daemon, from_binance, http_client

NAME = "dataflow.faces.lines"


@pytest.fixture(scope="module")
def readme(checkout: Path) -> str:
    return (checkout / "dataflow" / "faces" / "README.md").read_text(encoding="utf-8")


def block(readme: str, language: str) -> str:
    """The README's only code block in `language`."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)
    return str(found)


@pytest.fixture
def lines(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example, as a file beside the other faces, and the file that switches it on."""
    (tmp_path / "lines.py").write_text(block(readme, "python"))
    config = tmp_path / "mine.toml"
    config.write_text(block(readme, "toml"))
    monkeypatch.setattr(faces, "__path__", [str(tmp_path), *faces.__path__])
    yield config
    sys.modules.pop(NAME, None)
    vars(faces).pop("lines", None)


async def test_the_example_is_a_face(readme: str, lines: Path) -> None:
    """Found by its name, switched on by its block; it says what the README shows, beside the other faces."""
    settings = load([lines], {})
    expected = block(readme, "text").splitlines()
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT", eager=True), faces=settings.faces) as d,
        connection(d.http.replace("http", "ws") + "/lines") as socket,
        client(d.url) as other,
    ):
        await exchange.wait_subscribed(["BTCUSDT"])
        said: list[str] = []

        async def hear(count: int) -> None:
            said.extend([await socket.get_message() for _ in range(count)])

        await socket.send_message("btc-usdt")
        await hear(1)
        await socket.send_message("BTC-USDT")
        await hear(1)
        for number, side, price, quantity in (
            (1, "buy", "61711.4", "0.0004"),
            (5, "sell", "61711.9", "0.25"),
        ):
            await exchange.publish(Trade(number, "BTCUSDT", side, price, quantity, 1_700_000_000_000_000))
        await hear(3)
        assert await other.call("ping") == "pong"
        await d.root.stop("gateway")
        await hear(1)
        assert said == expected
        assert d.crashes() == []


async def test_a_failure_in_hear_ends_one_session(readme: str, lines: Path) -> None:
    """With close code 1011; the other clients of the same face go on."""
    program = block(readme, "python")
    assert "text.strip()" in program
    (lines.parent / "lines.py").write_text(program.replace("text.strip()", "text.strip() or 1 / 0"))
    settings = load([lines], {})
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT"), faces=settings.faces) as d,
        connection(d.http.replace("http", "ws") + "/lines") as fails,
        connection(d.http.replace("http", "ws") + "/lines") as other,
    ):
        await fails.send_message("")
        with pytest.raises(ConnectionClosed) as closed:
            await fails.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1011
        await other.send_message("BTC-USDT")
        assert await other.get_message() == "# BTC-USDT behind place 0"
        await until(d.crashes)  # a session ends behind its closing handshake
        assert d.crashes() == ["gateway/sessions/1"] or d.crashes() == ["gateway/sessions/2"]


@pytest.mark.usefixtures("lines")
async def test_the_example_is_off_unless_it_is_switched_on() -> None:
    """Its own default: the path is unknown then."""
    assert "lines" in plugs.names("faces")
    async with (
        open_binance() as exchange,
        daemon(sources=from_binance(exchange.url, "BTC-USDT")) as d,
        http_client(d.http) as http,
    ):
        assert (await http.get("/lines")).status_code == 404


def test_every_face_is_listed(readme: str) -> None:
    """The first table has the faces of this folder."""
    table = readme[readme.index("## What is served where") : readme.index("## What a face gets")]
    listed = re.findall(r"^\| \[?`(\w+)(?:/|\.py)`", table, re.M)
    assert sorted(listed) == plugs.names("faces")


def test_links_lead_somewhere(checkout: Path, readme: str) -> None:
    """Every file that it links to exists."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert links
    assert [link for link in links if not (checkout / "dataflow" / "faces" / link).exists()] == []


def test_the_table_says_what_is_served_where(readme: str) -> None:
    """Each face with its addresses, and no others; and whether it is on by default."""
    on = {name: plugs.find("faces", name).Settings(enabled=True) for name in plugs.names("faces")}
    built = hall(Settings(faces=on))
    for face in built.faces:
        row = re.search(rf"^\| \[?`{face.name}(?:/|\.py)`.*", readme, re.M)
        assert row, face.name
        _, _, at, _, default, _ = row[0].split("|")
        addresses = re.findall(r"`([^`]+)`", at)
        paths = [route.path for route in face.routes(built)]
        paths += [entrance.socket.path for entrance in face.sockets(built)]
        told = [re.sub(r"<(?:\w+:)?(\w+)>", lambda found: found[1].upper(), path) for path in paths]
        for path in told:
            assert [each for each in addresses if f"{path}/".startswith(f"{each.rstrip('/')}/")], path
        for each in addresses:
            assert [path for path in told if f"{path}/".startswith(f"{each}/")], each
        assert f"{getattr(on[face.name], 'port', '')}" in at
        assert addresses or "port" in at
        assert default.strip() == ("on" if plugs.find("faces", face.name).Settings().enabled else "off")
