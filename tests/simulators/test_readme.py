"""The simulators' README is true: its commands are accepted, and its examples run as they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from simulators import Exchange, Player, binance_dialect, blockchain_dialect, exchanges, recorded, simulate
from simulators.client import Client, client_keys
from simulators.control_port import answer
from simulators.controls import Controls
from simulators.exchange import MODES
from simulators.faults import KINDS
from simulators.keyboard import exchange_keys

Connect = Callable[..., Any]
CURL = re.compile(r"^curl localhost:(\d+)(/\w+)(?: -X (\w+))?(?: -d '(.*?)')?", re.M)


@pytest.fixture(scope="module")
def readme(checkout: Path) -> str:
    return (checkout / "simulators" / "README.md").read_text()


def block(readme: str, containing: str) -> str:
    """The Python block that contains a text."""
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (found,) = [each for each in blocks if containing in each]
    return str(found)


async def test_every_request_is_accepted(readme: str) -> None:
    """Each curl line makes sense, and together they show every mode and every kind of fault."""
    both = {"5100": Exchange(blockchain_dialect()), "5101": Exchange(binance_dialect())}
    controls = {port: Controls(each, Player(each, recorded([]))) for port, each in both.items()}
    bodies = []
    for port, path, method, body in CURL.findall(readme):
        reply = await answer(controls[port], method or ("POST" if body else "GET"), path, body.encode())
        assert reply.status == 200, (path, body, reply.body)
        bodies.append(json.loads(body or "{}"))
    assert {body["mode"] for body in bodies if "mode" in body} == set(MODES)
    assert {body["kind"] for body in bodies if "kind" in body} == set(KINDS)


def test_every_key_is_listed(readme: str) -> None:
    """The two tables hold the keys of an exchange and of the client, and no others."""
    exchange, client = re.findall(r"### Keys of .*?\n\n(.*?)\n\n", readme, re.DOTALL)
    listed = partial(re.findall, r"^\| `(.)` \|", flags=re.M)
    controls = Controls(Exchange(blockchain_dialect()))
    assert listed(exchange) == list(exchange_keys(controls, print, lambda: None))
    assert listed(client) == list(client_keys(Client(symbols=())))


def test_every_kind_of_fault_is_explained(readme: str) -> None:
    """The table has a row for each."""
    assert all(f"\n| `{kind}` | " in readme for kind in KINDS)


def test_the_proxy_example_runs(checkout: Path, readme: str) -> None:
    """As a program of its own; all trouble is withdrawn at its end."""
    run = [sys.executable, "-c", block(readme, "open_proxy")]
    done = subprocess.run(run, cwd=checkout, capture_output=True, text=True, check=True)
    url, status = done.stdout.splitlines()
    assert url.endswith("/stream")
    assert "'held': False" in status


@pytest.fixture
def acme(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example, as a file beside the other exchanges."""
    (tmp_path / "acme.py").write_text(block(readme, "AcmeSession"))
    monkeypatch.setattr(exchanges, "__path__", [str(tmp_path), *exchanges.__path__])
    module = "simulators.exchanges.acme"
    monkeypatch.delitem(sys.modules, module, raising=False)
    yield
    sys.modules.pop(module, None)


@pytest.mark.usefixtures("acme")
async def test_the_example_is_served_by_its_name(checkout: Path, connect: Connect) -> None:
    """It subscribes, sends trades with the fields of a recorded one, and takes faults."""
    assert "acme" in exchanges.names()
    lines = (checkout / "tests" / "data" / "coinbase_matches_20210417.jsonl").read_text().splitlines()
    messages = (json.loads(json.loads(line)["msg"]) for line in lines)
    recorded_match = next(each for each in messages if each["type"] == "match")
    async with trio.open_nursery() as nursery:
        served = await nursery.start(partial(simulate, "acme", port=0, start="first_subscriber"))
        async with connect(served.url) as raw:
            served.controls.fault("refuse")
            call = {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["matches"]}
            assert (await raw.ask(**call))["type"] == "error"
            channels = (await raw.ask(**call))["channels"]
            assert channels == [{"name": "matches", "product_ids": ["BTC-USD"]}]
            first, second = await raw.get(), await raw.get()
            assert second["trade_id"] == first["trade_id"] + 1
            order_ids = {"maker_order_id", "taker_order_id"}  # simulated trades have no orders
            assert list(first) == [name for name in recorded_match if name not in order_ids]
            assert all(type(first[name]) is type(recorded_match[name]) for name in first)
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("message", ["{", "[]", "1", b"\xff", '{"type": "x", "product_ids": [[]]}'])
def test_the_example_answers_every_message(message: Any) -> None:
    """A wrong message gets an error, as the rules for sessions demand."""
    session = exchanges.find("acme").dialect(frozenset()).open("/", {}, lambda symbol: False)
    (text,) = session.receive(message)
    assert json.loads(text)["type"] == "error"


def test_links_lead_somewhere(checkout: Path, readme: str) -> None:
    """Every file that it links to exists."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert links
    assert [link for link in links if not (checkout / "simulators" / link).exists()] == []
