"""Promises of domain.topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import Topic
from dataflow.domain.topic import QUALITY, TRADES


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        (Topic(TRADES, "BTC-USD"), "BTC-USD"),
        (Topic(QUALITY, "BTC-USD"), "quality:BTC-USD"),
        (Topic("candles", "BTC-USD", "1m"), "candles:BTC-USD:1m"),
    ],
)
def test_a_topic_has_a_name_for_paths(topic: Topic, text: str) -> None:
    """Trades have the name of their symbol alone."""
    assert str(topic) == text
    assert f"{topic}" == text


words = st.from_regex(r"[a-z0-9]{1,4}", fullmatch=True)
symbols = st.from_regex(r"[A-Z]{1,3}-[A-Z]{1,3}", fullmatch=True)
topics = st.builds(Topic, words | st.just(TRADES), symbols, st.just("") | words).filter(
    lambda topic: topic.channel != TRADES or not topic.variant
)


@given(topics, topics)
def test_different_topics_have_different_names(one: Topic, other: Topic) -> None:
    """Neither a channel nor a symbol has a colon, so the name is the topic."""
    assert (str(one) == str(other)) == (one == other)


def test_equal_topics_are_one_key() -> None:
    """Lanes and subscriptions are found by topic."""
    assert {Topic(TRADES, "BTC-USD"): 1}[Topic(TRADES, "BTC-USD", "")] == 1
