"""The promises of a channel, kept by every channel in dataflow/topics."""

from __future__ import annotations

import pytest

from dataflow import plugs
from dataflow.domain import Topic
from dataflow.domain.topic import CANDLES, DAYS, PRICES, QUALITY, TRADES
from dataflow.topics.candle_streams import Candles
from dataflow.topics.channel import Channel, channels
from tests.dataflow.topics.stage import SYMBOLS, Stage, check_log

MODULES = [module for name in plugs.names("topics") if hasattr(module := plugs.find("topics", name), "make")]


def test_channels_are_found_by_their_files() -> None:
    """A file with `make` is a channel, the other files of the folder are none."""
    found = channels(Stage().ground)
    assert list(found) == [CANDLES, DAYS, PRICES, QUALITY, TRADES]
    assert [channel.name for channel in found.values()] == list(found)
    assert [channel.name for channel in found.values() if channel.offered] == [CANDLES, QUALITY, TRADES]
    assert len(MODULES) == len(found)


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def played(request: pytest.FixtureRequest) -> tuple[Stage, Channel]:
    """Every channel, and the stage that it stands on."""
    stage = Stage()
    return stage, stage.make(request.param.make)


async def test_the_log_of_a_topic_keeps_its_promises(played: tuple[Stage, Channel]) -> None:
    """Places grow by one, and a reading from any place gives every entry that is owed.

    Where only the newest entries count, of each key the newest one is owed, once.
    """
    stage, channel = played

    def grow(number: int) -> None:
        stage.turn("ab"[number % 2], number)
        stage.trade(source="ab"[number % 2])
        if isinstance(channel, Candles):  # the others need no follower for this
            channel.news(SYMBOLS[0])
            while channel.advance():
                pass

    for topic in channel.topics(SYMBOLS[0]):
        check_log(channel, topic, grow)


def test_topics_have_names_for_paths(played: tuple[Stage, Channel]) -> None:
    """Each names its channel and its symbol; a slash would be another actor's path."""
    _stage, channel = played
    names = []
    for symbol in SYMBOLS:
        for topic in channel.topics(symbol):
            assert (topic.channel, topic.symbol) == (channel.name, symbol)
            assert "/" not in str(topic)
            names.append(str(topic))
    assert len(set(names)) == len(names) >= len(SYMBOLS)


def test_wanted_symbols_have_sources(played: tuple[Stage, Channel]) -> None:
    """A topic wants only symbols that are configured."""
    stage, channel = played
    for symbol in SYMBOLS:
        for topic in channel.topics(symbol):
            assert set(channel.wants(topic)) <= stage.ground.carriers.keys()


def test_unknown_symbols_are_no_trouble(played: tuple[Stage, Channel]) -> None:
    """An upstream may speak of a symbol that is not configured."""
    stage, channel = played
    channel.look(["X-Y", *SYMBOLS])
    assert stage.news == []


def test_topics_of_channels_differ() -> None:
    """No two channels have a topic with the same name in paths."""
    found = channels(Stage().ground).values()
    topics: list[Topic] = [t for channel in found for symbol in SYMBOLS for t in channel.topics(symbol)]
    assert len({str(topic) for topic in topics}) == len(topics)
