"""The SignalR hub over the real daemon: the clients that others have, by every transport and in both protocols."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define, field
from quart import Response
from quart_trio import QuartTrio
from signalrcore.hub_connection_builder import HubConnectionBuilder

from dataflow.faces.signalr import Settings
from dataflow.server.serve import serve
from dataflow.settings.schema import Gateway
from tests.support.browser import Heard, browse, in_the_test
from tests.support.node import MODULES, Program, install, program
from tests.support.ports import own_port
from tests.support.waiting import until
from tests.system.hub import RESTORED, SUBSCRIBE, SYMBOL, call, expected, stage


@define
class Page:
    """A program with hub clients by name, and what each was told."""

    program: Program
    received: dict[str, list[Any]] = field(factory=lambda: defaultdict(list))  # JSON-RPC, read
    events: dict[str, list[dict[str, Any]]] = field(factory=lambda: defaultdict(list))  # all else

    async def listen(self) -> None:
        while True:
            event = await self.program.hear()
            name = event.pop("name")
            if "received" in event:
                [text] = event["received"]  # exactly one argument
                assert isinstance(text, str)
                self.received[name].append(json.loads(text))
            else:
                self.events[name].append(event)

    async def tell(self, do: str, name: str, **order: Any) -> None:
        await self.program.tell({"do": do, "name": name} | order)

    async def ask(self, do: str, name: str, **order: Any) -> dict[str, Any]:
        """The next event of the client."""
        seen = len(self.events[name])
        await self.tell(do, name, **order)
        await until(lambda: len(self.events[name]) > seen)
        return self.events[name][seen]

    def trades(self, name: str) -> list[Any]:
        return [each["params"] for each in self.received[name] if each.get("method") == "trades.update"]

    def answers(self, name: str) -> list[Any]:
        return [each for each in self.received[name] if "id" in each]


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    async with program("signalr.mjs") as running, trio.open_nursery() as nursery:
        made = Page(running)
        nursery.start_soon(made.listen)
        yield made
        nursery.cancel_scope.cancel()


WAYS = {
    "WebSockets": {"transport": "WebSockets"},
    "skipped": {"transport": "WebSockets", "skip": True},
    "ServerSentEvents": {"transport": "ServerSentEvents"},
    "LongPolling": {"transport": "LongPolling"},
    "WebSockets, MessagePack": {"transport": "WebSockets", "protocol": "messagepack"},
    "LongPolling, MessagePack": {"transport": "LongPolling", "protocol": "messagepack"},
}


async def test_the_client_of_microsoft_works_by_every_way() -> None:
    """Exact trades in order, answers before completions, errors of the hub and of JSON-RPC; and nothing stays behind."""
    async with stage() as s, page() as p:
        await s.publish(60)
        for number, (name, way) in enumerate(WAYS.items(), start=1):
            assert await p.ask("start", name, url=s.url, **way) == {
                "started": "object" if "skip" in way else "string"
            }
            assert await p.ask("invoke", name, text=SUBSCRIBE) == {"result": None}
            assert p.received[name][0] == RESTORED
            [answer] = p.answers(name)  # it came before the invocation was complete
            assert (answer["id"], answer["result"]["event"]) == ("1", "subscribed")
            await until(lambda number=number: s.listeners == number)
            failed = await p.ask("invoke", name, target="Subscribe", text="x")
            assert "Unknown hub method 'Subscribe'" in failed["failed"]
            failed = await p.ask("invoke", name, texts=["x", "y"])
            assert "exactly one string" in failed["failed"]
        assert s.listeners == s.hubs == len(WAYS)
        await s.publish(300)
        for name in WAYS:
            await until(lambda name=name: len(p.trades(name)) == 300)
            assert p.trades(name) == [expected(number) for number in range(61, 361)]
            assert await p.ask("invoke", name, text=call("getRecentTrades", 7, symbol=SYMBOL)) == {
                "result": None
            }
            recent = p.answers(name)[-1]
            assert recent == {"jsonrpc": "2.0", "result": [expected(n) for n in range(360, 310, -1)], "id": 7}
            assert await p.ask("send", name, text=call("unsubscribe", 8, symbol=SYMBOL)) == {"sent": True}
            await until(lambda name=name: p.answers(name)[-1]["id"] == 8)
        assert s.listeners == 0
        for name in WAYS:
            assert await p.ask("stop", name) == {"closed": None}
        await until(lambda: s.hubs == 0)
        assert s.daemon.crashes() == []


async def test_clients_reconnect_across_a_restart_of_the_daemon() -> None:
    """They are told that they may, come back by themselves, and are told to subscribe anew; then trades go on."""
    ways = ("WebSockets", "ServerSentEvents", "LongPolling", "WebSockets, MessagePack")
    gateway = Gateway(port=own_port())
    async with page() as p:
        async with stage(gateway=gateway) as s:
            for name in ways:
                await p.ask("start", name, url=s.url, reconnect=True, **WAYS[name])
                await p.ask("invoke", name, text=SUBSCRIBE)
            await s.publish(2)
            await until(lambda: all(len(p.trades(name)) == 2 for name in ways))
        for name in ways:
            await until(lambda name=name: {"reconnecting": None} in p.events[name])
        async with stage(gateway=gateway) as s:
            for name in ways:
                await until(lambda name=name: {"reconnected": "string"} in p.events[name])
                await until(lambda name=name: p.received[name].count(RESTORED) == 2)
                await p.ask("invoke", name, text=SUBSCRIBE)
            await until(lambda: s.listeners == len(ways))
            await s.publish(3)
            for name in ways:
                await until(lambda name=name: len(p.trades(name)) == 5)
                assert p.trades(name) == [expected(number) for number in (1, 2, 1, 2, 3)]


# The client of Python's users.


@define
class Core:
    """A client by signalrcore, which runs in threads of its own."""

    hub: Any
    received: list[Any] = field(factory=list)
    opened: int = 0

    def on_message(self, arguments: list[Any]) -> None:
        [text] = arguments
        self.received.append(json.loads(text))

    def on_open(self) -> None:
        self.opened += 1

    async def say(self, text: str) -> None:
        await trio.to_thread.run_sync(self.hub.send, "SendMessage", [text])

    @property
    def trades(self) -> list[Any]:
        return [each["params"] for each in self.received if each.get("method") == "trades.update"]


@asynccontextmanager
async def core(url: str, **options: Any) -> AsyncIterator[Core]:
    reconnect = {"type": "raw", "keep_alive_interval": 1, "reconnect_interval": 0.05, "max_attempts": 100}
    builder = HubConnectionBuilder().with_url(url, options).with_automatic_reconnect(reconnect)
    made = Core(builder.build())
    made.hub.on("ReceiveMessage", made.on_message)
    made.hub.on_open(made.on_open)
    await trio.to_thread.run_sync(made.hub.start)
    try:
        await until(lambda: made.opened)
        yield made
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(made.hub.stop)


@pytest.mark.parametrize("skip", [False, True])
async def test_the_client_of_python_works(skip: bool) -> None:
    """Negotiation and handshake in version 0, a Host without a port, no close frame at the end: as it has always been."""
    settings = Settings(enabled=True, keepalive=0.1)  # when it stops it waits until something comes
    async with stage(settings) as s:
        await s.publish(3)
        async with core(s.url, skip_negotiation=skip) as hub:
            await hub.say(SUBSCRIBE)
            await until(lambda: s.listeners == 1)
            await s.publish(50)
            await until(lambda: len(hub.trades) == 50)
            assert hub.trades == [expected(number) for number in range(4, 54)]
            await hub.say(call("getRecentTrades", "2", symbol=SYMBOL, count=2))
            await until(lambda: hub.received[-1].get("id") == "2")
            assert hub.received[-1]["result"] == [expected(53), expected(52)]
        await until(lambda: s.hubs == 0 and s.listeners == 0)
        assert s.daemon.crashes() == []


# A page of another site, in a browser.

PAGE = """
<!doctype html><link rel="icon" href="data:,"><script src="signalr.js"></script><script>
  window.told = {};
  window.hubs = [];
  window.follow = async (url, transport, text) => {
    const received = window.told[transport] = [];
    const options = { transport: signalR.HttpTransportType[transport] };
    const hub = new signalR.HubConnectionBuilder().withUrl(url, options).build();
    hubs.push(hub);
    hub.on("ReceiveMessage", (text) => received.push(JSON.parse(text)));
    await hub.start();
    await hub.invoke("SendMessage", text);
    return hub.state;
  };
</script>
"""


async def test_a_page_of_another_site_follows_trades() -> None:
    """In a real browser, which sends credentials and asks before: by every transport, and only from where it may."""
    await trio.to_thread.run_sync(install)
    script = (MODULES / "@microsoft" / "signalr" / "dist" / "browser" / "signalr.js").read_bytes()
    site = QuartTrio(__name__)

    @site.get("/")
    async def page_of_the_site() -> Response:
        return Response(PAGE, content_type="text/html")

    @site.get("/signalr.js")
    async def library() -> Response:
        return Response(script, content_type="text/javascript")

    async with trio.open_nursery() as nursery:
        (origin,) = await nursery.start(partial(serve, site, host="127.0.0.1", port=0))
        async with stage(Settings(enabled=True, origins=(origin,))) as s:
            transports = ("WebSockets", "ServerSentEvents", "LongPolling")
            publish = partial(in_the_test, s.publish)

            def visit(page: Any, heard: Heard) -> tuple[dict[str, Any], str]:
                page.goto(f"{origin}/")
                for transport in transports:
                    follow = f"follow({json.dumps(s.url)}, {json.dumps(transport)}, {json.dumps(SUBSCRIBE)})"
                    assert page.evaluate(follow) == "Connected"
                publish(20)
                page.wait_for_function("() => Object.values(told).every((each) => each.length == 22)")
                told = page.evaluate("told")
                page.evaluate("Promise.all(hubs.map((hub) => hub.stop()))")
                page.goto(f"{origin.replace('127.0.0.1', 'localhost')}/")  # another origin: nobody invited it
                refused = f"follow({json.dumps(s.url)}, 'WebSockets', 'x').catch((e) => e.message)"
                return told, page.evaluate(refused)

            told, refused = await browse(visit)
            for transport in transports:
                trades = [each["params"] for each in told[transport][2:]]
                assert trades == [expected(number) for number in range(1, 21)]
            assert "Failed to complete negotiation" in refused
            await until(lambda: s.hubs == 0)
        nursery.cancel_scope.cancel()
