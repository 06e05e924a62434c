"""The page's views Operate, Clients and Sources in a real browser, beside a real daemon whose parts are broken meanwhile."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from playwright.sync_api import expect

from dataflow.settings.schema import Chaos, Gateway, Operator, Session
from simulators import Exchange, Trade, open_binance
from tests.support.axe import Scheme, barriers
from tests.support.browser import Heard, browse, in_the_test
from tests.system.daemon import Daemon, client, daemon, from_binance
from tests.system.process import Home
from tests.system.test_trouble import beside_a_deaf_client

SYMBOLS = ("BTC-USDT", "ETH-USDT")
# What Chromium says by itself of a daemon that is away.
ANSWERS = re.compile(r"ERR_CONNECTION|ERR_EMPTY_RESPONSE|WebSocket connection to")


@asynccontextmanager
async def running(*symbols: str, **tables: Any) -> AsyncIterator[tuple[Daemon, Exchange]]:
    with trio.fail_after(120):
        async with (
            open_binance() as exchange,
            daemon(sources=from_binance(exchange.url, *(symbols or SYMBOLS), eager=True), **tables) as d,
        ):
            await exchange.wait_subscribed([(symbols or SYMBOLS)[0].replace("-", "")])
            yield d, exchange


async def visit(url: str, view: str, seen: Callable[[Any, Heard], Any], **context: Any) -> Any:
    """What `seen(page, heard)` returns, in a browser at that view. The page must not have complained."""

    def look(page: Any, heard: Heard) -> Any:
        page.goto(f"{url}/#/{view}")
        result = seen(page, heard)
        assert [each for each in heard.complaints if not ANSWERS.search(each)] == []
        return result

    return await browse(look, **context)


async def held(opening: Any, *, task_status: Any) -> None:
    """Keep what `opening` opens until the end of the nursery."""
    async with opening as opened:
        task_status.started(opened)
        await trio.sleep_forever()


def look_on(page: Any, turns: int) -> None:
    """Returns when the page has asked for the readiness so many times more, once in a second of its own clock."""
    page.clock.install()
    for _ in range(turns):
        with page.expect_response("**/ready?code=200"):
            page.clock.run_for(1000)  # the clock goes on by itself, too


def texts(page: Any, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


async def test_a_restart_asks_first_and_names_the_actor() -> None:
    """The tree is found by keyboard and filter; its restart names who restarts with it, and a Cancel restarts nobody.

    All of it by keyboard: the question begins at Cancel, and gives the focus back.
    """
    async with running() as (d, _):
        shards = len(d.root.supervisor("cache").tree().children)

        def seen(page: Any, heard: Heard) -> None:
            page.locator(".tree a.name", has_text="shard-0").click()
            page.wait_for_url("**/#/operate/cache/shard-0")
            expect(page.locator(".tree tr.chosen")).to_have_attribute("aria-level", "3")
            page.keyboard.press("ArrowLeft")
            expect(page.locator(".tree").get_by_role("link", name="cache", exact=True)).to_be_focused()
            # Chosen elsewhere: the keys stay where the focus is.
            page.evaluate("location.hash = '#/operate/gateway'")
            expect(page.locator(".tree tr.chosen a")).to_have_text("gateway")
            page.keyboard.press("ArrowLeft")  # folds
            page.locator(".tree a.name", has_text="shard-0").wait_for(state="detached")
            page.keyboard.press("Enter")
            page.wait_for_url("**/#/operate/cache")
            restart = page.get_by_role("button", name="restart cache")
            restart.press("Enter")
            dialog = page.get_by_role("dialog", name="Restart cache?")
            expect(dialog).to_contain_text(f"{shards} actors restart with it: shard-0, ")
            page.keyboard.press("Enter")
            dialog.wait_for(state="hidden")
            expect(restart).to_be_focused()
            restart.press("Enter")
            expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            page.locator(".actor .answer.good", has_text="is accepted").wait_for()
            expect(restart).to_be_focused()
            in_the_test(d.until, lambda: [e for e in d.events if e.path == "cache" and e.epoch == 2])
            assert len([url for url in heard.urls if url.endswith("/restart")]) == 1, "Cancel asked for none"
            page.get_by_label("Filter the actors").fill("sessions")
            page.locator(".tree a.name", has_text="shard-1").wait_for(state="detached")
            assert [text for text in texts(page, ".tree a.name") if text.isalpha()] == [
                "root",
                "gateway",
                "sessions",
            ]
            page.goto(f"{d.http}/#/operate/gateway/sessions/1")
            page.get_by_role("link", name="the client").wait_for()
            expect(page.locator(".actor .restart"), "a session is its client's").to_be_hidden()

        await visit(d.http, "operate", seen)
        restarted = {e.path for e in d.events if e.epoch > 1}
        assert {each for each in restarted if not each.startswith("cache")} == set(), (
            "the question told the truth"
        )


async def test_nothing_moves_under_the_pointer_among_a_thousand_actors() -> None:
    """Of 500 symbols with two topics each, what is shown is bounded, and no row comes while the pointer is there."""
    names = [f"S{n}-USDT" for n in range(500)]
    many = Session(max_subscriptions=1000)
    async with running(*names, session=many) as (d, _), client(d.url) as one, trio.open_nursery() as nursery:
        for channel in ("trades", "quality"):
            await one.call("subscribe", symbol=names, channel=channel)

        def seen(page: Any, _heard: Heard) -> None:
            page.locator(".tree a.name", has_text=re.compile("^topics$")).wait_for()
            page.locator(".actors .note", has_text=re.compile("1,0.. actors")).first.wait_for()
            assert page.locator(".tree tbody tr").count() < 100, "a wide branch is folded"
            row = page.locator(".tree tbody tr", has_text="sessions")
            row.locator(".fold").click()
            page.get_by_label("unfold topics").click()
            page.get_by_text("more: filter to see them").first.wait_for()
            assert page.locator(".tree tbody tr").count() <= 400
            page.get_by_label("fold topics", exact=True).click()
            page.get_by_label("unfold gateway/sessions").click()
            page.get_by_label("fold gateway/sessions", exact=True).wait_for()
            row.hover()
            before = row.bounding_box(), texts(page, ".tree a.name")
            in_the_test(nursery.start, held, client(d.url))
            page.locator(".actors .note", has_text="1 change waits until the pointer leaves").wait_for()
            assert (row.bounding_box(), texts(page, ".tree a.name")) == before
            page.locator("h2", has_text="Figures").hover()
            page.locator(".tree a.name", has_text=re.compile("^3$")).wait_for()

        await visit(d.http, "operate", seen)
        nursery.cancel_scope.cancel()


async def test_an_actor_that_crashes_tells_its_error_with_its_time() -> None:
    """A fault on purpose, where chaos is allowed: it is listed, withdrawn, and strikes; a message that it lost has its time."""
    async with running(chaos=Chaos(enabled=True)) as (d, exchange):

        async def trade() -> None:
            await exchange.publish(Trade(1, "BTCUSDT", "buy", "1", "1", 1_700_000_000_000_000))

        def seen(page: Any, heard: Heard) -> None:
            form = page.locator(".faults form")
            form.get_by_label("Actor").fill("cache/shard-0")
            form.get_by_label("Fault").select_option("hang")
            form.get_by_label("Seconds").fill("30")
            form.get_by_role("button", name="Inject").click()
            page.locator(".faults tbody tr", has_text="hang").wait_for()
            assert barriers(page, "light") == []
            page.locator(".faults tbody tr", has_text="hang").get_by_role("button").press("Enter")
            page.locator(".faults .answer.good", has_text="is withdrawn").wait_for()
            page.locator(".faults tbody tr").wait_for(state="detached")
            inject = form.get_by_role("button", name="Inject")
            expect(inject, "the focus is not lost").to_be_focused()
            assert in_the_test(active) == []
            form.get_by_label("Fault").select_option("drop")
            inject.click()
            page.locator(".faults .answer.bad", has_text="cannot suffer a drop").wait_for()
            page.locator(".tree a.name", has_text="shard-0").wait_for()
            for shard in texts(page, ".tree a.name"):
                if shard.startswith("shard-"):
                    form.get_by_label("Actor").fill(f"cache/{shard}")
                    form.get_by_label("Fault").select_option("crash")
                    inject.click()
                    page.locator(".faults tbody tr", has_text=shard).wait_for()
            in_the_test(trade)
            page.locator(
                ".tree td.error", has_text=re.compile(r"^\d\d:\d\d:\d\d .*injected crash")
            ).first.wait_for()
            page.locator(
                ".tree .lost.warn", has_text=re.compile(r"\u2212\d+ at \d\d:\d\d:\d\d")
            ).first.wait_for()
            conflating = page.locator(".tree td.mailbox[title*='the newest stands for all']")
            expect(conflating.locator(".fill.bad"), "a box that conflates is never full").to_have_count(0)
            crash = page.locator(".events li", has=page.locator(".kind", has_text="crashed")).first
            expect(crash).to_be_visible()
            expect(crash.locator("pre")).to_be_hidden()
            crash.locator("summary .text").click()
            crash.locator("pre", has_text="InjectedFault").wait_for()
            page.locator(".happened .choice button", has_text="crashed").click()
            crash.wait_for(state="detached")
            page.locator(".events .kind", has_text="fault").first.wait_for()
            page.locator(".plot svg[aria-label*=' now, highest ']").nth(5).wait_for()
            heard.complaints[:] = [each for each in heard.complaints if "status of 400" not in each]

        async def active() -> Any:
            assert d.core.faults is not None
            return d.core.faults.active()

        await visit(d.http, "operate", seen)


async def test_without_chaos_no_fault_is_offered() -> None:
    """The view says which key allows it, and asks for none: a browser writes each refusal into its console."""
    async with running() as (d, _):

        def seen(page: Any, heard: Heard) -> None:
            page.locator(".faults", has_text="[chaos] enabled = true").wait_for()
            expect(page.locator(".faults form")).to_be_hidden()
            look_on(page, 5)
            assert [url for url in heard.urls if url.endswith("/faults")] == []

        await visit(d.http, "operate", seen)


async def test_the_token_is_asked_for_once_and_forgotten_when_wrong() -> None:
    """While the door is shut nothing is asked, in no view; a right token opens all of them, in this tab alone."""
    async with running(operator=Operator(token="päss")) as (d, _):

        def seen(page: Any, heard: Heard) -> None:
            page.locator("main.clients .door:visible").get_by_label("Token").wait_for()
            asked = [url for url in heard.urls if "/api/v1/clients" in url]
            page.goto(f"{d.http}/#/operate")
            door = page.locator("main.operate .door:visible")
            door.get_by_label("Token").fill("wrong")
            page.locator("#ready.good").wait_for()
            assert [url for url in heard.urls if "/api/v1/clients" in url or "/actors" in url] == asked
            door.get_by_role("button", name="Enter").click()
            door.get_by_text("This token is not right.").wait_for()
            assert page.evaluate("sessionStorage.length") == 0
            door.get_by_label("Token").fill("päss")
            door.get_by_role("button", name="Enter").click()
            page.locator(".tree a.name", has_text="shard-0").wait_for()
            page.goto(f"{d.http}/#/clients")
            page.locator(".clients-list tbody tr").first.wait_for()
            assert page.evaluate("localStorage.length") == 0

        await visit(d.http, "clients", seen)


async def test_where_the_operator_has_a_listener_of_its_own_the_page_says_so() -> None:
    """At the clients' listener; and nothing is asked again."""
    async with running(operator=Operator(port=0)) as (d, _):

        def seen(page: Any, heard: Heard) -> None:
            page.locator(".door:visible", has_text="an address of its own").wait_for()
            asked = len(heard.urls)
            look_on(page, 3)
            assert [url for url in heard.urls[asked:] if "/actors" in url] == []

        await visit(d.http, "operate", seen)


async def test_a_client_that_does_not_read_is_seen_and_disconnected() -> None:
    """Its outbox and the age of the oldest message; sorted first; the question names it, and it is gone."""
    with trio.fail_after(120):
        async with beside_a_deaf_client(Session(outbox=100_000)) as (world, deaf):
            host, port = deaf.socket.getsockname()[:2]
            address = f"{host}:{port}"
            (stuck,) = [session for session in world.daemon.lobby.clients if session.peer == address]
            while not stuck.waiting:
                await world.publish(500)

            def seen(page: Any, _heard: Heard) -> None:
                first = page.locator(".clients-list tbody tr").first

                def point_and_go_on(route: Any) -> None:
                    first.hover()  # the question has taken the pointer from the list
                    route.continue_()

                page.get_by_role("button", name="Outbox").click()
                first.filter(has_text=address).wait_for()
                expect(page.locator(".clients-list th[aria-sort=descending]")).to_have_text("Outbox")
                first.locator("a").click()
                page.locator(
                    ".client dd", has_text=re.compile(r"[\d,]+ messages, .*, the oldest for \d")
                ).wait_for()
                page.route(re.compile(r"/api/v1/clients/\d+\?"), point_and_go_on)
                page.locator(".client .restart").press("Enter")
                dialog = page.locator("dialog")
                expect(dialog).to_contain_text(address)
                dialog.get_by_role("button", name=re.compile("Disconnect")).press("Enter")
                page.locator(".client .answer.good").wait_for()
                page.locator(".clients-list tbody tr.gone", has_text=address).wait_for()
                page.locator(".client .restart").wait_for(state="hidden")
                expect(page.get_by_role("heading", name=re.compile(r"^Client \d"))).to_be_focused()

            await visit(world.daemon.http, "clients", seen)


async def test_hundreds_of_clients_come_in_pages() -> None:
    """Fifty in a page; every client is in exactly one of them."""
    async with running() as (d, _), trio.open_nursery() as nursery:
        for _ in range(205):
            await nursery.start(held, client(d.url))

        def seen(page: Any, _heard: Heard) -> list[int]:
            found: list[int] = []
            page.locator(".clients-list .note", has_text="206 connected").first.wait_for()
            page.locator(".clients-list .note", has_text="each page is sorted by itself").first.wait_for()
            while True:
                page.wait_for_function("document.querySelectorAll('.clients-list tbody tr').length <= 50")
                ids = [int(text) for text in texts(page, ".clients-list tbody th")]
                assert len(ids) <= 50
                found += ids
                forth = page.get_by_role("button", name="newer")
                if forth.is_disabled():
                    return found
                forth.click()
                page.wait_for_function(
                    "id => document.querySelector('.clients-list tbody th').textContent !== String(id)",
                    arg=ids[0],
                )

        found = await visit(d.http, "clients", seen)
        assert len(found) == len(set(found)) == 206
        nursery.cancel_scope.cancel()


async def test_a_source_that_is_cut() -> None:
    """Its state, the reason with its time, and the quality of its symbols; and no error once it is back."""
    names = [f"S{n}-USDT" for n in range(500)]
    async with running(*names) as (d, exchange):

        def seen(page: Any, _heard: Heard) -> None:
            row = page.locator(".sources-list tbody tr", has_text="binance")
            row.locator(".state.good", has_text="connected").wait_for()
            page.locator(".fares .note", has_text="500 of 500").first.wait_for()
            assert page.locator(".fares tbody tr").count() <= 200
            page.get_by_label("Filter the symbols").fill("S499-")
            page.wait_for_function("document.querySelectorAll('.fares tbody tr').length === 1")
            in_the_test(exchange.disconnect, "drop", 600)
            row.locator(".state.bad").wait_for()
            row.locator(".why", has_text=re.compile(r"^\d\d:\d\d:\d\d \S")).wait_for()
            page.locator(".fares tbody .state.bad", has_text="lost").wait_for()
            in_the_test(accept)
            row.locator(".state.good", has_text="connected").wait_for()
            page.locator(".fares tbody .state.bad").wait_for(state="detached")
            expect(row.locator(".why")).to_have_text("")

        async def accept() -> None:
            await exchange.disconnect("drop", 0)

        await visit(d.http, "sources/binance", seen)


async def test_while_the_daemon_is_away_the_old_says_so(tmp_path: Path) -> None:
    """Killed and started again: the view is dimmed and says since when, then shows the new life."""
    with trio.fail_after(240):  # two lives to start
        async with open_binance() as exchange:
            home = Home(tmp_path, exchange.url)
            async with trio.open_nursery() as nursery:
                life = await nursery.start(held, home.living())

                def seen(page: Any, _heard: Heard) -> None:
                    page.locator(".tree a.name", has_text="shard-0").wait_for()
                    in_the_test(life.process.kill)
                    page.locator("body.away").wait_for()
                    expect(page.locator("#strip")).to_contain_text(re.compile(r"since \d\d:\d\d:\d\d"))
                    expect(page.locator(".tree a.name", has_text="shard-0")).to_be_visible()
                    assert barriers(page, "light") == []
                    in_the_test(nursery.start, held, home.living())
                    page.locator("body:not(.away)").wait_for()
                    page.locator(".actor dd", has_text=re.compile(r"running for \d+ s")).wait_for()

                await visit(life.http, "operate", seen)
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(390, 844, "light"), (1440, 900, "dark"), (2560, 1440, "light")]
)
async def test_every_size_and_colour(width: int, height: int, scheme: Scheme) -> None:
    """No view is wider than its window, and none keeps anybody out."""
    async with running(gateway=Gateway(port=0, root_path="/feed")) as (d, _):

        def seen(page: Any, _heard: Heard) -> None:
            page.set_viewport_size({"width": width, "height": 400})
            page.reload()
            page.locator(".tree tr.chosen").wait_for()
            assert page.evaluate("document.querySelector('main').scrollTop") == 0
            page.set_viewport_size({"width": width, "height": height})
            for view, first in (
                ("operate/sources/binance", ".tree tr.chosen a[title='sources/binance']"),
                ("clients", ".clients-list tbody tr"),
                ("sources", ".fares tbody tr"),
            ):
                page.goto(f"{d.http}/feed/#/{view}")
                page.locator(first).first.wait_for()
                assert page.evaluate("document.documentElement.scrollWidth") <= width, view
                top = page.evaluate("document.querySelector('main').scrollTop")
                assert top == 0 or "/" in view, "a view begins at its beginning"
                assert barriers(page, scheme) == []

        await visit(
            f"{d.http}/feed",
            "operate",
            seen,
            viewport={"width": width, "height": height},
            color_scheme=scheme,
        )
