"""One suite over every face: found by its file, made from its settings, with words for what every client may meet."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from actors.update import Stream, Update
from dataflow import plugs
from dataflow.app import faces, hall
from dataflow.domain import Gap, Topic, Trade
from dataflow.domain.errors import ConfigError
from dataflow.domain.notice import Draining, Refused, SourceLost, SourceRestored, Waiting
from dataflow.domain.quality import Grade, Quality
from dataflow.faces.jsonrpc.format import JSONRPC
from dataflow.faces.sse import EVENTS, LINES
from dataflow.gateway import face
from dataflow.gateway.format import Format
from dataflow.settings.schema import FaceSettings, Settings

NAMES = plugs.names("faces")
FORMATS = [JSONRPC, EVENTS, LINES]
NOTICES = [
    SourceLost("binance", "cut", ("BTC-USDT",)),
    SourceRestored("binance", ("BTC-USDT",)),
    Waiting(3, 1.5),
    Refused("too many sessions", 7.5),
    Draining(),
]
BTC = Topic("trades", "BTC-USDT")


def trade(number: int) -> Trade:
    return Trade(
        "binance", "BTC-USDT", str(number), "buy", Decimal("2.50"), Decimal("0.5"), number * 1000, number
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_face_is_made_from_its_own_settings(name: str) -> None:
    """A module with both classes; every face can be switched off."""
    plug = plugs.find("faces", name)
    assert issubclass(plug.Settings, FaceSettings)
    assert issubclass(plug.Face, face.Face)
    for enabled in (True, False):
        made = faces(Settings(faces={name: plug.Settings(enabled=enabled)}))
        assert (name in [each.name for each in made]) is enabled
    assert (name in [each.name for each in faces(Settings())]) is plug.Settings().enabled


def test_a_path_that_another_face_has_is_a_mistake_of_the_configuration() -> None:
    """Both faces are named, for HTTP and for WebSockets, before anything starts."""
    on = {
        "pricehub": plugs.find("faces", "pricehub").Settings(enabled=True, path="/ws"),
        "stomp": plugs.find("faces", "stomp").Settings(enabled=True, path="/faces"),
    }
    with pytest.raises(ConfigError) as raised:
        hall(Settings(faces=on))
    assert raised.value.problems == [
        "[faces]: page and stomp both want GET /faces; give one another path",
        "[faces]: jsonrpc and pricehub both want the WebSocket /ws; give one another path",
    ]


def test_no_two_faces_want_the_same_path() -> None:
    """Neither of HTTP nor of WebSockets, when all are switched on. One face may have a path of both kinds."""
    on = {name: plugs.find("faces", name).Settings(enabled=True) for name in NAMES}
    built, routes, paths = hall(Settings(faces=on)), list[Any](), list[str]()
    for each in built.faces:
        own = [(method, route.path) for route in each.routes(built) for method in route.methods]
        sockets = [entrance.socket.path for entrance in each.sockets(built)]
        routes += [*own, *(("socket", path) for path in sockets)]
        paths += {*sockets, *(path for _, path in own)}
    assert len(set(routes)) == len(routes)
    assert {path for path in paths if paths.count(path) > 1} == {
        "/ws"
    }  # SockJS greets where JSON-RPC listens


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_every_place_has_its_words(format: Format) -> None:
    """Live: a text for each trade, gap and quality, in their order, whatever stands beside them."""
    gap, unknown = Gap(2, 4, "source_gap"), Gap(6, 6, "source_gap", exact=False)
    update = Update(
        Stream(BTC, 7, hole=Gap), 1, [(1, trade(1)), (4, gap), (5, trade(5)), (6, unknown), (7, trade(7))]
    )
    texts = update.texts(format)
    assert len(texts) == 5
    assert len(set(texts)) == 5
    alone = [Update(update.stream, place, [(place, entry)]).texts(format) for place, entry in update.places]
    assert [text for [text] in alone] == texts
    state = Quality("BTC-USDT", "binance", Grade.LOST, 0, "cut")
    [told] = Update(Stream(Topic("quality", "BTC-USDT"), 7), 1, [(1, state)]).texts(format)
    assert b"lost" in told


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_every_notice_and_every_loss_has_its_words(format: Format) -> None:
    """A client of any protocol learns what happens to it; no two notices read alike."""
    told = [format.notice(notice) for notice in NOTICES]
    assert all(told)
    assert len(set(told)) == len(NOTICES)
    skipped = format.gap(BTC, 7, Gap(3, 9, "slow_client"), 6)
    assert skipped is not None
    assert b"slow_client" in skipped
    assert b"6" in skipped
