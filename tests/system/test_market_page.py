"""The page in a real browser: all symbols, one symbol, and what both show while things break."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import define, field
from playwright.sync_api import Locator, Page, Route, expect
from trio.testing import wait_all_tasks_blocked

from simulators import Exchange, Trade, open_binance
from tests.bench.page import symbols
from tests.support.axe import barriers
from tests.support.browser import Heard, browse, in_the_test
from tests.support.waiting import until
from tests.system.daemon import Daemon, daemon, from_binance, http_client
from tests.system.process import Home
from tests.system.test_operate_page import ANSWERS

T = TypeVar("T")

BTC, ETH = "BTC-USDT", "ETH-USDT"
# In the chart, as far as candles are there; until its legend has the text.
GO_BACK = """text => {
    document.querySelector(".chart").dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
    return document.querySelector(".legend").textContent.includes(text); }"""
CUT = "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.textContent)"
NONE = "\N{EN DASH}"
START = 1_700_000_000_000_000  # us
SIZES: list[tuple[int, int, Any]] = [
    (320, 568, "light"),
    (390, 844, "dark"),
    (1440, 900, "light"),
    (2560, 1300, "dark"),
]


@define
class Market:
    """An exchange whose trades come one after the other, of each symbol with ids of its own."""

    exchange: Exchange
    last: dict[str, int] = field(factory=dict)

    async def trade(self, symbol: str, price: str, qty: str = "0.50000000", skip: int = 0) -> None:
        """One trade; `skip` trades before it never come."""
        number = self.last[symbol] = self.last.get(symbol, 0) + 1 + skip
        name = symbol.replace("-", "")
        await self.exchange.publish(Trade(number, name, "buy", price, qty, START + 1_000_000 * number))


@define
class Stage(Market):
    daemon: Daemon = field(kw_only=True)

    async def visit(self, look: Callable[[Page], T], **context: Any) -> T:
        """What `look(page)` returns, and no complaint of the page."""

        def visited(page: Page, heard: Heard) -> tuple[T, list[str]]:
            return look(page), heard.complaints

        seen, complaints = await browse(visited, **context)
        assert complaints == []
        return seen

    async def until_followed(self, channel: str) -> None:
        """Returns when a page follows all symbols. What it shows may be of its list: the streams come later."""
        topic = self.daemon.hall.desk.every(channel)
        await until(lambda: any(topic in session.lanes for session in self.daemon.lobby.clients))

    def now(self, job: Callable[..., Any], *arguments: Any) -> Any:
        """`job` in the loop of the daemon, called from the browser's thread."""
        return in_the_test(job, *arguments)


@asynccontextmanager
async def stage(*names: str, rest: bool = False, **more: Any) -> AsyncIterator[Stage]:
    """A daemon with the symbols of one Binance, all subscribed. `rest`: what is missing can be asked for."""
    names = names or (BTC, ETH)
    with trio.fail_after(120):
        async with open_binance() as exchange:
            refill_url = exchange.rest_url if rest else ""
            sources = from_binance(exchange.url, *names, eager=True, refill_url=refill_url, **more)
            async with daemon(sources=sources) as d:
                await exchange.wait_subscribed([name.replace("-", "") for name in names])
                yield Stage(exchange, daemon=d)


def row(page: Page, symbol: str) -> Locator:
    return page.locator("table.symbols tbody.rows tr", has=page.get_by_role("link", name=symbol, exact=True))


def cell(page: Page, symbol: str, column: str) -> Locator:
    return row(page, symbol).locator(f"td.{column}")


def tape(page: Page) -> list[str]:
    """The lines of the tape, the newest first: the place of a trade, or the words of another line."""
    script = "rows => rows.map(row => row.cells.length > 1 ? row.cells[5].textContent : row.textContent)"
    lines: list[str] = page.locator("table.tape tbody tr").evaluate_all(script)
    return lines


def fits(page: Page) -> bool:
    """Nothing is cut off at the right edge."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


# ---- all symbols


async def test_prices_keep_their_digits_and_stand_at_the_decimal_point() -> None:
    """As many digits for each symbol as were seen there; change and turnover of the UTC day; the source's quality."""
    async with stage() as s:

        def look(page: Page) -> None:
            page.goto(s.daemon.http)
            expect(row(page, BTC)).to_be_visible()
            s.now(s.trade, BTC, "61685.90000000")
            expect(cell(page, BTC, "price")).to_have_text("61685.9")
            s.now(s.trade, BTC, "61993.12300000")
            expect(cell(page, BTC, "price")).to_have_text("61993.123")
            s.now(s.trade, BTC, "62302.75900000")
            s.now(s.trade, BTC, "62302.75000000")
            expect(cell(page, BTC, "price")).to_have_text("62302.750")
            s.now(s.trade, ETH, "0.00000012")
            expect(cell(page, ETH, "price")).to_have_text("0.00000012")
            expect(cell(page, BTC, "change")).to_have_text("+1.00 %")
            expect(cell(page, BTC, "volume")).to_have_text("124.1 K")
            expect(cell(page, BTC, "quality")).to_have_text(re.compile("live|quiet"))
            expect(cell(page, BTC, "source")).to_have_text("binance")
            points = page.locator("td.price .fraction").evaluate_all(
                "all => all.map(each => each.getBoundingClientRect().left)"
            )
            assert len(set(points)) == 1

        await s.visit(look)


async def test_search_sort_and_filter_stand_in_the_address() -> None:
    """A link shows what was chosen. Keys: `/` to search, arrows through the rows, Enter opens; the focus goes on there.

    The rows are one stop of the Tab key, however many there are.
    """
    async with stage(BTC, ETH, "SOL-USDT") as s:

        def look(page: Page) -> None:
            names = page.locator("table.symbols tbody.rows th")
            page.goto(f"{s.daemon.http}#/market?search=usdt&sort=-symbol")
            expect(names).to_have_text(["SOL-USDT", ETH, BTC])
            expect(page.locator("th.symbol[aria-sort=descending]")).to_be_visible()
            page.get_by_role("button", name="symbol").click()
            expect(names).to_have_text([BTC, ETH, "SOL-USDT"])
            page.keyboard.press("/")
            page.keyboard.type("h-u")
            expect(names).to_have_text([ETH])
            expect(page).to_have_url(re.compile("search=h-u"))
            page.get_by_label("Filter by quality").select_option("lost")
            expect(page.get_by_text("No symbol is like that.")).to_be_visible()
            page.go_back()
            page.goto(f"{s.daemon.http}#/market")
            expect(names).to_have_count(3)
            page.keyboard.press("/")
            page.keyboard.press("ArrowDown")
            page.keyboard.press("ArrowDown")
            expect(page.get_by_role("link", name=ETH)).to_be_focused()
            page.keyboard.press("Tab")
            expect(page.get_by_role("link", name="what is served where")).to_be_focused()
            page.keyboard.press("Shift+Tab")
            expect(page.get_by_role("link", name=ETH)).to_be_focused()
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", name=ETH)).to_be_focused()
            expect(page).to_have_url(re.compile(f"#/market/{ETH}$"))
            page.go_back()
            expect(names).to_have_count(3)
            expect(page.get_by_role("heading", name="Market")).to_be_focused()

        await s.visit(look)


async def test_five_hundred_symbols_are_fifty_rows() -> None:
    """Only rows in sight are nodes; the last one is reached by a key, and a trade of it is shown there.

    The list is asked for before the streams, and names are there before the list: rows wait for neither.
    """
    names = symbols(500)
    async with stage(*names) as s:

        def look(page: Page) -> None:
            mute = page.context.new_page()
            mute.route_web_socket(re.compile("/ws$"), lambda _: None)
            mute.goto(s.daemon.http)
            expect(row(mute, names[0])).to_contain_text(NONE)
            mute.close()
            asked: list[str] = []
            page.on("websocket", lambda wire: wire.on("framesent", lambda frame: asked.append(str(frame))))
            page.goto(s.daemon.http)
            expect(page.locator(".note")).to_contain_text("500 symbols")
            expect(page.locator("table.symbols")).to_have_attribute("aria-rowcount", "501")
            assert page.locator("table.symbols tbody.rows tr").count() < 60
            expect(cell(page, names[0], "quality")).to_have_text(re.compile("live|quiet|idle"))
            those = [text for text in asked if "getSymbols" in text or "subscribe" in text]
            assert "getSymbols" in those[0]
            assert "subscribe" not in those[0]
            page.keyboard.press("/")
            page.keyboard.press("ArrowDown")
            page.keyboard.press("End")
            expect(page.get_by_role("link", name=names[-1])).to_be_focused()
            assert page.locator("table.symbols tbody.rows tr").count() < 60
            expect(row(page, names[-1])).to_have_attribute("aria-rowindex", "501")
            s.now(s.trade, names[-1], "1.25")
            expect(cell(page, names[-1], "price")).to_have_text("1.25")
            page.keyboard.press("Home")
            expect(page.get_by_role("link", name=names[0])).to_be_focused()

        await s.visit(look, viewport={"width": 1440, "height": 900})


async def test_the_order_stays_while_somebody_points_at_it() -> None:
    """Sorted by price, two symbols change places only when the pointer has left the table."""
    async with stage() as s:

        def look(page: Page) -> None:
            names = page.locator("table.symbols tbody.rows th")
            page.clock.install()
            page.goto(f"{s.daemon.http}#/market?sort=price")
            s.now(s.trade, BTC, "1")
            s.now(s.trade, ETH, "2")
            expect(page.locator(".note")).to_contain_text("2 symbols")
            for symbol, price in ((BTC, "1"), (ETH, "2")):
                expect(cell(page, symbol, "price")).to_have_text(price)
            expect(names).to_have_text([BTC, ETH])
            row(page, BTC).hover()
            s.now(s.trade, BTC, "3")
            expect(cell(page, BTC, "price")).to_have_text("3")
            page.clock.run_for(10_000)
            expect(names).to_have_text([BTC, ETH])
            page.mouse.move(5, 5)
            expect(names).to_have_text([ETH, BTC])

        await s.visit(look)


async def test_equal_notices_are_one_line_with_all_names() -> None:
    """A gap names its symbol; gaps of several symbols are one notice. Nothing moves when it comes."""
    async with stage(refill=False, hold=0.0) as s:

        def look(page: Page) -> None:
            page.goto(s.daemon.http)
            for symbol in (BTC, ETH):
                s.now(s.trade, symbol, "5")
                expect(cell(page, symbol, "price")).to_have_text("5")
            s.now(s.until_followed, "trades")
            before = page.locator("main").bounding_box()
            for symbol in (BTC, ETH):
                s.now(s.trade, symbol, "6", "1", 3)
            line = page.locator("#notices-list li", has_text="Trades are missing (source_gap)")
            expect(line).to_contain_text(f"{BTC} places 2 to 4")
            expect(line).to_contain_text(f"{ETH} places 2 to 4")
            expect(line).to_have_count(1)
            assert page.locator("main").bounding_box() == before
            page.get_by_role("button", name="notices").click()
            expect(line).to_be_visible()
            page.keyboard.press("Escape")
            expect(line).to_be_hidden()

        await s.visit(look)


# ---- one symbol


async def test_a_fill_takes_the_place_of_its_gap() -> None:
    """In the tape, marked; later trades stay above it. Until then words say what is missing, there and at the candle.

    The candle is marked, too, also one of another interval.
    """
    async with stage(rest=True, hold=0.0) as s:

        async def lose(count: int) -> None:
            s.exchange.fault("rest_error", times=None)
            s.exchange.fault("drop", symbol="BTCUSDT", times=count)
            for _ in range(count):
                await s.trade(BTC, "5.5")

        async def have() -> None:
            s.exchange.faults.withdraw()

        def look(page: Page) -> list[str]:
            page.goto(f"{s.daemon.http}#/market/{BTC}?interval=1s")
            s.now(s.trade, BTC, "5")
            expect(page.locator("table.tape tbody tr")).to_have_count(1)
            s.now(lose, 2)
            s.now(s.trade, BTC, "6")
            gap = page.locator("table.tape .event", has_text="Gap: places 2 to 3, 2 missing (source_gap).")
            expect(gap).to_be_visible()
            expect(page.locator(".legend")).to_contain_text("incomplete: 2 missing (source_gap)")
            assert barriers(page, "dark") == []
            s.now(have)
            for _ in range(3):
                s.now(s.trade, BTC, "7")
            filled = page.locator("table.tape tr.filled")
            expect(filled).to_have_count(2)
            expect(gap).to_have_count(0)
            expect(filled.first).to_contain_text("5.5")
            lines = tape(page)
            page.get_by_role("link", name="5s", exact=True).click()
            expect(page.get_by_role("slider", name=f"Candles of {BTC}, 5s")).to_be_visible()
            expect(page.locator(".legend")).to_contain_text("C ")
            page.locator(".chart").press("Home")
            expect(page.locator(".legend")).to_contain_text("filled later")
            page.set_viewport_size({"width": 700, "height": 800})  # the candle has another place now
            page.wait_for_function("() => document.querySelector('.chart canvas')?.clientWidth < 700")
            expect(page.locator(".legend")).to_contain_text("filled later")
            return lines

        lines = await s.visit(look)
        assert lines == [str(place) for place in range(len(lines), 0, -1)]


async def test_sources_stand_side_by_side() -> None:
    """Each with its last price, and how far it is from the lowest one; the spread between them is exact."""
    async with open_binance() as low, open_binance() as high:
        both = {
            name: from_binance(each.url, BTC, eager=True)["binance"]
            for name, each in (("a", low), ("b", high))
        }
        async with daemon(sources=both) as d:
            for each in (low, high):
                await each.wait_subscribed(["BTCUSDT"])
            s, other = Stage(low, daemon=d), Stage(high, daemon=d)

            def look(page: Page) -> None:
                page.goto(f"{d.http}#/market/{BTC}")
                s.now(s.trade, BTC, "61685.10")
                s.now(other.trade, BTC, "61685.1000000000000001")
                rows = page.locator("table.venues tbody tr")
                expect(rows).to_have_count(2)
                expect(rows.nth(0).locator("td").nth(1)).to_have_text("0.0000000000000000")
                expect(rows.nth(1).locator("td").nth(1)).to_have_text("0.0000000000000001")
                expect(page.get_by_text("spread 0.0000000000000001 (0.00 %)")).to_be_visible()

            await s.visit(look)


async def test_the_interval_stands_in_the_address() -> None:
    """Those that are configured are links; another one draws other candles. No complaint under the content policy.

    Keys lead from candle to candle, and a screen reader is told each of them with all digits.
    """
    async with stage() as s:
        for n in range(5):
            await s.trade(BTC, f"{100 + n}.50")

        def look(page: Page) -> None:
            choice = page.get_by_role("navigation", name="Interval of the candles")

            def come_late(route: Route) -> None:
                """Meanwhile other intervals are chosen: the last one is drawn."""
                for interval in ("15m", "4h", "1m"):
                    choice.get_by_role("link", name=interval).click()
                    expect(choice.locator("[aria-current]")).to_have_text(interval)
                route.continue_()

            page.route("**/vendor/*.mjs", come_late)
            page.goto(f"{s.daemon.http}#/market/{BTC}")
            expect(choice.get_by_role("link")).to_have_text(
                ["1s", "5s", "15s", "1m", "5m", "15m", "1h", "4h", "1d"]
            )
            expect(choice.locator("[aria-current]")).to_have_text("1m")
            expect(page.locator(".legend")).to_contain_text("O 100.5  H 104.5  L 100.5  C 104.5")
            choice.get_by_role("link", name="1s").click()
            expect(choice.locator("[aria-current]")).to_have_text("1s")
            expect(page).to_have_url(re.compile(rf"#/market/{BTC}\?interval=1s$"))
            expect(page.locator(".legend")).to_contain_text("O 104.5  H 104.5  L 104.5  C 104.5")
            chart = page.get_by_role("slider", name=f"Candles of {BTC}, 1s")
            chart.focus()
            for key, close in (("Left", "104.5"), ("Left", "103.5"), ("Left", "102.5"), ("Right", "103.5")):
                page.keyboard.press(f"Arrow{key}")
                expect(chart).to_have_attribute("aria-valuetext", re.compile(f" O {close} H .* 1 trades"))
                expect(page.locator(".legend")).to_contain_text(f"C {close}")
            page.keyboard.press("Home")
            expect(page.locator(".legend")).to_contain_text("C 100.5")
            page.keyboard.press("Escape")
            expect(page.locator(".legend")).to_contain_text("C 104.5")
            expect(page.get_by_role("link", name="TradingView Lightweight Charts")).to_be_visible()
            page.get_by_role("link", name=re.compile(". Market")).click()
            expect(row(page, BTC)).to_be_visible()

        await s.visit(look)


async def test_older_candles_come_by_scrolling_back() -> None:
    """More than a page: the first candle of all can be reached."""
    async with stage() as s:
        for n in range(1100):
            await s.trade(BTC, f"{1000 + n}")
        async with http_client(s.daemon.http) as http:  # what comes live is no history
            path = f"/api/v1/candles/{BTC}?interval=1s&limit=1"
            while [each["close"] for each in (await http.get(path)).json()["candles"]] != [2099]:
                await wait_all_tasks_blocked(0.01)

        def look(page: Page) -> None:
            page.goto(f"{s.daemon.http}#/market/{BTC}?interval=1s")
            expect(page.locator(".legend")).to_contain_text("C 2099")
            page.wait_for_function(GO_BACK, arg="O 1000  ")

        await s.visit(look)


async def test_a_paused_tape_loses_nothing() -> None:
    """It says how many wait; when it goes on all of them are there, in order."""
    async with stage() as s:

        def look(page: Page) -> None:
            page.goto(f"{s.daemon.http}#/market/{BTC}")
            s.now(s.trade, BTC, "5")
            expect(page.locator("table.tape tbody tr")).to_have_count(1)
            page.get_by_role("button", name="pause").click()
            for _ in range(3):
                s.now(s.trade, BTC, "5")
            expect(page.get_by_text("paused, 3 new")).to_be_visible()
            assert tape(page) == ["1"]
            page.get_by_role("button", name="go on").click()
            expect(page.locator("table.tape tbody tr")).to_have_count(4)
            assert tape(page) == ["4", "3", "2", "1"]

        await s.visit(look)


async def test_a_symbol_that_is_none_is_told() -> None:
    """The page says so, and goes on."""
    async with stage() as s:

        def look(page: Page) -> None:
            page.goto(f"{s.daemon.http}#/market/NO-SUCH")
            expect(page.get_by_text("No source has a symbol NO-SUCH")).to_be_visible()
            page.get_by_role("link", name=re.compile(". Market")).click()
            expect(row(page, BTC)).to_be_visible()

        await s.visit(look)


async def test_an_address_that_is_none_shows_something() -> None:
    """A `%` that somebody typed is one; a view that is none is the market; the next link works, and the one to the content stays in its view."""
    async with stage() as s:

        def look(page: Page) -> None:
            page.goto(f"{s.daemon.http}#/market/100%")
            expect(page.get_by_text("No source has a symbol 100%")).to_be_visible()
            page.goto(f"{s.daemon.http}#/no-view/{BTC}")
            expect(row(page, BTC)).to_be_visible()
            page.goto(f"{s.daemon.http}#/%E0%A4%A/{BTC}")
            page.get_by_role("link", name=BTC, exact=True).click()
            expect(page.get_by_role("heading", name=BTC, exact=True)).to_be_visible()
            page.get_by_role("link", name="skip to the content").press("Enter")
            expect(page.locator("main")).to_be_focused()
            expect(page.get_by_role("heading", name=BTC, exact=True)).to_be_visible()

        await s.visit(look)


async def test_what_was_there_before_is_not_counted_as_news() -> None:
    """Trades of a snapshot make no rate and no age; the day of a symbol is known before it trades again. A price that
    is shown is never above the high beside it."""
    async with stage() as s:
        for price in ("100", "102", "101"):
            await s.trade(BTC, price)

        def look(page: Page) -> None:
            page.goto(f"{s.daemon.http}#/market/{BTC}")
            expect(page.locator("table.tape tbody tr")).to_have_count(3)
            venue = page.locator("table.venues tbody tr").locator("td")
            expect(venue.nth(4)).to_have_text(NONE)  # newest
            expect(page.locator(".numbers")).to_contain_text("high 102")
            s.now(s.trade, BTC, "104")
            shown = "() => document.querySelector('.price').textContent === '104' && document.querySelector('.numbers').textContent"
            assert "high 104" in page.wait_for_function(shown).json_value()
            s.now(s.trade, BTC, "101")
            expect(venue.nth(4)).to_have_text(re.compile(r"\d+ s"))
            page.goto(f"{s.daemon.http}#/market")
            expect(cell(page, BTC, "change")).to_have_text("+1.00 %")
            expect(cell(page, ETH, "price")).to_have_text(NONE)
            page.get_by_role("link", name=ETH, exact=True).click()
            s.now(s.trade, BTC, "103")  # while no view looks at it
            page.get_by_text("Market", exact=False).and_(page.locator(".back")).click()
            expect(cell(page, BTC, "price")).to_have_text("103")

        await s.visit(look)


async def test_a_price_of_24_digits_is_drawn() -> None:
    """The axis has as many digits as a float; the page shows all of them, and all of a price of 1E-12."""
    async with stage() as s:
        for last in "135":
            await s.trade(BTC, f"123456789012.12345678901{last}")
            await s.trade(ETH, f"0.00000000000{last}")

        def look(page: Page) -> None:
            page.goto(f"{s.daemon.http}#/market")
            expect(cell(page, BTC, "price")).to_have_text("123456789012.123456789015")
            expect(cell(page, ETH, "price")).to_have_text("0.000000000005")
            cut = page.locator("td.price").evaluate_all(CUT)
            assert cut == []
            page.set_viewport_size({"width": 390, "height": 844})
            cut = page.locator("td.price").evaluate_all(CUT)
            assert cut == []
            page.goto(f"{s.daemon.http}#/market/{BTC}")
            expect(page.locator(".legend")).to_contain_text("C 123456789012.123456789015")
            expect(page.locator(".chart canvas").first).to_be_visible()

        await s.visit(look)


# ---- while things break


async def test_a_source_that_is_cut_is_seen_everywhere() -> None:
    """Lost in the table, with a notice that names source and symbols; in the tape where it happened. And its return."""
    async with stage(refill=False) as s:

        async def cut() -> None:
            await s.exchange.disconnect("drop", seconds=3600)

        async def back() -> None:
            await s.exchange.accept()

        def look(page: Page) -> None:
            page.goto(s.daemon.http)
            s.now(s.until_followed, "quality")
            other = page.context.new_page()
            other.goto(f"{s.daemon.http}#/market/{BTC}?interval=1s")
            s.now(s.trade, BTC, "5")
            expect(cell(page, BTC, "quality")).to_have_text(re.compile("live|quiet"))
            expect(other.locator("table.tape tbody tr")).to_have_count(1)
            s.now(cut)
            expect(cell(page, BTC, "quality")).to_have_text("lost")
            expect(page.locator("#strip")).to_contain_text("Source binance lost")
            expect(page.locator("#notices-list")).to_contain_text(f"Affected: {BTC}, {ETH}")
            expect(other.locator("table.tape .event.bad")).to_contain_text("Source binance lost")
            expect(other.locator("table.venues .state")).to_have_text("lost")

        await s.visit(look)


async def test_nothing_is_lost_while_an_actor_restarts() -> None:
    """A cache shard and a subscription crash; each place of the tape has its trade, or a gap that says so."""
    async with stage() as s:
        d = s.daemon

        async def restart(path: str) -> None:
            async with http_client(d.http) as http:
                assert (await http.post(f"/actors/{path}/restart")).status_code == 202
            await d.until(lambda: any(e.path == path and e.kind == "ready" and e.epoch > 1 for e in d.events))

        def look(page: Page) -> list[str]:
            page.goto(f"{d.http}#/market/{BTC}")
            for path in ("", f"topics/{BTC}", ""):
                for _ in range(3):
                    s.now(s.trade, BTC, "5")
                expect(page.locator("table.tape tbody tr").nth(2)).to_be_visible()  # it is followed
                if path:
                    s.now(restart, path)
            expect(page.locator("table.tape tbody tr").first).to_contain_text("9")
            return tape(page)

        assert await s.visit(look) == [str(place) for place in range(9, 0, -1)]


async def test_the_daemon_is_killed_and_comes_back(tmp_path: Path) -> None:
    """Meanwhile the page says since when it is old; then the tape has each place once, or a gap with its name."""
    with trio.fail_after(240):  # two lives to start
        async with open_binance() as exchange:
            market, home = Market(exchange), Home(tmp_path, exchange.url, (BTC,))

            async def trade(count: int) -> None:
                await exchange.wait_subscribed(["BTCUSDT"])
                for _ in range(count):
                    await market.trade(BTC, "5")

            def look(page: Page, heard: Heard) -> tuple[list[str], list[str]]:
                page.goto(f"http://127.0.0.1:{home.port}#/market/{BTC}?interval=1s")
                in_the_test(trade, 5)
                expect(page.locator("table.tape tbody tr")).to_have_count(5)
                in_the_test(died.set)
                expect(page.locator("#link")).to_have_text("away")
                expect(page.locator("#strip")).to_contain_text(
                    re.compile(r"No connection to dataflow since \d\d:\d\d:\d\d")
                )
                expect(page.locator("body")).to_have_class("away")
                expect(page.locator("#ready")).to_be_hidden()
                assert barriers(page) == []
                in_the_test(missed.set)
                in_the_test(back.wait)
                expect(page.locator("#link")).to_have_text("connected")
                in_the_test(trade, 4)
                expect(page.locator("body")).not_to_have_class("away")
                expect(page.locator("table.tape tbody tr td:nth-child(6)").first).to_have_text(
                    re.compile(r"^(9|1\d)$")
                )
                return tape(page), [each for each in heard.complaints if not ANSWERS.search(each)]

            died, missed, back = trio.Event(), trio.Event(), trio.Event()

            async def lives() -> None:
                await died.wait()
                await first.kill()
                await trade_while_dead()
                await missed.wait()
                async with home.living():
                    back.set()
                    await trio.sleep_forever()

            async def trade_while_dead() -> None:
                for _ in range(2):
                    await market.trade(BTC, "5")

            async with home.living() as first, trio.open_nursery() as nursery:
                nursery.start_soon(lives)
                lines, complaints = await browse(look)
                nursery.cancel_scope.cancel()
    assert complaints == []
    assert any("lost" in line for line in lines)
    places = []
    for line in reversed(lines):
        if line.isdigit():
            places.append(int(line))
        elif gap := re.match(r"Gap: places? (\d+)(?: to (\d+))?, ", line):
            places += range(int(gap[1]), int(gap[2] or gap[1]) + 1)
    assert places == list(range(1, places[-1] + 1)), lines


# ---- sizes and colours


async def test_nothing_is_cut_off_at_any_size() -> None:
    """Both views fit from a telephone to a wall, in both colours, and keep nobody out."""
    async with stage() as s:
        for n in range(30):
            await s.trade(BTC, f"{61685 + n}.12345678")

        def look(page: Page) -> None:
            for width, height, scheme in SIZES:
                page.set_viewport_size({"width": width, "height": height})
                page.emulate_media(color_scheme=scheme)
                page.goto(f"{s.daemon.http}#/market")
                expect(cell(page, BTC, "price")).to_have_text("61714.12345678")
                assert fits(page)
                for column in ("price", "change", "quality")[:: 2 if width < 390 else 1]:
                    expect(cell(page, BTC, column)).to_be_in_viewport(ratio=1)
                assert barriers(page, scheme) == []
                row(page, BTC).get_by_role("link").click()
                expect(page.locator(".legend")).to_contain_text("C 61714.12345678")
                expect(page.locator("table.tape tbody tr")).to_have_count(30)
                assert fits(page)
                assert barriers(page, scheme) == []

        await s.visit(look)


async def test_nothing_moves_when_the_daemon_is_unwell() -> None:
    """However much the head has to say, it is as high as before, and what it says is still to be seen."""
    says = """([word, cause]) => { const ready = document.querySelector("#ready"), more = ready.lastChild.cloneNode();
        more.textContent = cause;
        ready.replaceChildren(word, more);
        return ["header", "#ready"].map(each => document.querySelector(each).getBoundingClientRect()); }"""
    news = """count => Object.assign(document.querySelector("#notices-count"), { hidden: !count, textContent: count })"""
    async with stage() as s:

        def look(page: Page) -> None:
            page.goto(f"{s.daemon.http}#/market")
            expect(page.locator("#ready")).to_have_text("ready")
            for width in (320, 390, 620, 621, 760, 761, 1000, 1001, 1280, 1440):
                page.set_viewport_size({"width": width, "height": 800})
                page.evaluate(news, "")
                well, _ = page.evaluate(says, ["ready", ""])
                page.evaluate(news, "27")
                _, word = page.evaluate(says, ["not ready", ""])
                unwell, words = page.evaluate(says, ["not ready", ": binance: ETH-USDT refilling" * 3])
                assert (well["height"], fits(page)) == (unwell["height"], True), width
                assert words["width"] >= word["width"], width
                if width <= 620:  # the word alone, and whole
                    assert page.locator("#ready").evaluate("node => node.scrollWidth <= node.clientWidth"), (
                        width
                    )

        await s.visit(look)


def test_the_page_of_the_readme_is_small(checkout: Path) -> None:
    """The picture in the README is one of this page, and no larger than 300 KB."""
    assert (checkout / "dataflow" / "faces" / "page" / "page.png").stat().st_size <= 300_000
