"""The ids of a hub: unguessable, for one client each, forgotten when nobody uses them, and never too many."""

from __future__ import annotations

import pytest

from dataflow.faces.signalr import seats
from dataflow.faces.signalr.seats import EXPIRE_AFTER, NoSeat, Seats

EVERY = float("inf")


class Client:
    """Can be forgotten."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_names_and_secrets_are_unguessable_and_differ() -> None:
    """128 bits of chance each, never twice."""
    made = Seats[Client](Clock())
    ids = [id for _ in range(500) for id in made.reserve("a", EVERY)]
    assert len(set(ids)) == 1000
    assert min(map(len, ids)) >= 22


def test_an_id_is_for_one_client() -> None:
    """Free until it is taken, then in use, and unknown when its client is no more. The name opens nothing."""
    made = Seats[Client](Clock())
    name, id = made.reserve("a", EVERY)
    client: Client | None = Client()
    assert client is not None
    assert made.is_free(id)
    assert not made.is_free(name)
    assert made.client(id) is None
    assert made.take(id, client)
    assert made.client(id) is client
    assert not made.is_free(id)
    assert not made.take(id, Client())
    assert len(made) == 1
    client = None
    assert made.client(id) is None
    assert not made.is_free(id)
    assert len(made) == 0


def test_an_unused_id_expires() -> None:
    """After 15 s, to the moment; the others stay."""
    clock = Clock()
    made = Seats[Client](clock)
    _, first = made.reserve("a", EVERY)
    clock.now = 1.0
    _, second = made.reserve("a", EVERY)
    clock.now = EXPIRE_AFTER - 0.01
    assert made.is_free(first)
    clock.now = EXPIRE_AFTER
    assert EXPIRE_AFTER == 15
    assert not made.is_free(first)
    assert not made.take(first, Client())
    assert made.take(second, Client())


def test_an_account_has_a_bounded_number_of_unused_ids() -> None:
    """Others have theirs; room comes back by use and by time."""
    clock = Clock()
    made = Seats[Client](clock)
    _, id = made.reserve("a", 2)
    made.reserve("a", 2)
    with pytest.raises(NoSeat) as refused:
        made.reserve("a", 2)
    assert refused.value.of_one
    made.reserve("b", 2)
    client = Client()
    assert made.take(id, client)
    made.reserve("a", 2)
    with pytest.raises(NoSeat):
        made.reserve("a", 2)
    clock.now = EXPIRE_AFTER
    made.reserve("a", 2)
    assert len(made) == 2


def test_all_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes then is refused, and nobody is displaced."""
    monkeypatch.setattr(seats, "MOST_UNUSED", 3)
    made = Seats[Client](Clock())
    ids = [made.reserve(account, EVERY)[1] for account in "abc"]
    with pytest.raises(NoSeat) as refused:
        made.reserve("d", EVERY)
    assert not refused.value.of_one
    assert all(map(made.is_free, ids))
