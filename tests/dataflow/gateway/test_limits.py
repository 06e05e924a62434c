"""Quotas: one address, or one name, has its share and no more; who behaves never notices."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from dataflow.gateway.hops import networks
from dataflow.gateway.identity import ANONYMOUS, Principal
from dataflow.gateway.limits import (
    BURST_SECONDS,
    BYTES,
    CALLS,
    REMEMBERED,
    SESSIONS,
    SUBSCRIPTIONS,
    Bucket,
    Quotas,
)
from dataflow.gateway.problems import TooManyRequests, TooManySubscriptions
from dataflow.settings.schema import Limits

SMALL = Limits(sessions=2, subscriptions=3, calls_per_second=5, bytes_per_second=100)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _quotas(clock: _Clock | None = None) -> Quotas:
    return Quotas(SMALL, networks(["192.0.2.1"]), clock or _Clock())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.floats(0.5, 1000))
def test_bucket_never_gives_more_than_its_rate_and_burst(pauses: list[float], rate: float) -> None:
    """However the calls are spread, no more go through than the burst and the rate over the time."""
    bucket, now, taken = Bucket(rate, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        if bucket.wait(now, 1) == 0:
            bucket.take(1, now)
            taken += 1
    assert taken <= rate * (BURST_SECONDS + now) + 1
    wait = bucket.wait(now, 1)
    assert bucket.wait(now + wait + 1e-6, 1) == pytest.approx(0)  # what is told is enough


def test_steady_client_is_never_refused() -> None:
    """Calls at the configured rate, for an hour, all go through."""
    clock = _Clock()
    account = _quotas(clock).account(ANONYMOUS, "10.0.0.1")
    for _ in range(5 * 3600):
        account.call()
        clock.now += 0.2


def test_flood_of_calls_is_told_when_to_try_again() -> None:
    """Beyond the burst a call is refused, with the time after which it is not; another address is served."""
    clock = _Clock()
    quotas = _quotas(clock)
    account = quotas.account(ANONYMOUS, "10.0.0.1")
    for _ in range(int(SMALL.calls_per_second * BURST_SECONDS)):
        account.call()
    with pytest.raises(TooManyRequests) as caught:
        account.call()
    assert quotas.refused[CALLS] == 1
    assert 0 < caught.value.retry_after < 1
    quotas.account(ANONYMOUS, "10.0.0.2").call()
    clock.now += caught.value.retry_after + 0.001
    quotas.account(ANONYMOUS, "10.0.0.1").call()


def test_long_answers_are_paid_for_afterwards() -> None:
    """An answer is never cut; its price delays the next call."""
    clock = _Clock()
    quotas = _quotas(clock)
    account = quotas.account(ANONYMOUS, "10.0.0.1")
    account.pay(1000 + 500)
    with pytest.raises(TooManyRequests) as caught:
        account.call()
    assert caught.value.retry_after == pytest.approx(5)
    assert quotas.refused[BYTES] == 1


async def test_an_answer_that_goes_on_for_long_is_slowed_down(autojump_clock: MockClock) -> None:
    """To the rate that was configured; who owes nothing never waits."""
    quotas = Quotas(SMALL)
    account = quotas.account(ANONYMOUS, "192.0.2.7")
    begin = trio.current_time()
    for _ in range(100):
        account.pay(100)
        await account.paid()
    assert trio.current_time() - begin == pytest.approx(100 - BURST_SECONDS)
    quotas.exempt.pay(10**9)
    await quotas.exempt.paid()
    assert trio.current_time() - begin == pytest.approx(100 - BURST_SECONDS)


def test_names_count_wherever_they_come_from() -> None:
    """A principal with a name has one account at all addresses; without one, each address has its own."""
    quotas, name = _quotas(), Principal("desk-7")
    assert quotas.account(name, "10.0.0.1") is quotas.account(name, "10.0.0.2")
    assert quotas.account(name, "10.0.0.1") is not quotas.account(ANONYMOUS, "10.0.0.1")
    assert quotas.account(ANONYMOUS, "10.0.0.1") is not quotas.account(ANONYMOUS, "10.0.0.2")
    assert quotas.account(ANONYMOUS, "2001:db8::1") is quotas.account(ANONYMOUS, "2001:db8::2:3")
    assert quotas.account(ANONYMOUS, "2001:db8::1") is not quotas.account(ANONYMOUS, "2001:db8:0:1::1")


def test_exempt_addresses_have_no_bounds() -> None:
    """This machine's tools, and a proxy before many clients, are never refused."""
    quotas = _quotas()
    account = quotas.account(Principal("operator"), "127.0.0.1")
    assert quotas.account(ANONYMOUS, "192.0.2.1") is account
    assert quotas.account(ANONYMOUS, "192.0.2.2") is not account
    account.sessions = account.subscriptions = 10**6
    account.pay(10**12)
    for _ in range(1000):
        account.call()
    assert account.has_room_for_session()
    account.subscribe()
    assert not +quotas.refused


def test_sessions_and_subscriptions_are_bounded_and_counted() -> None:
    """The last one within the quota is let in, the next one is refused."""
    quotas = _quotas()
    account = quotas.account(ANONYMOUS, "10.0.0.1")
    account.sessions, account.subscriptions = 1, 2
    assert account.has_room_for_session()
    account.subscribe()
    account.sessions = 2
    assert not account.has_room_for_session()
    with pytest.raises(TooManySubscriptions):
        account.subscribe()
    assert account.subscriptions == 3
    assert quotas.refused[SESSIONS] == quotas.refused[SUBSCRIPTIONS] == 1


def test_accounts_in_use_are_never_forgotten() -> None:
    """The memory for strangers is bounded, and cannot be used to get rid of a count."""
    quotas = _quotas()
    used = quotas.account(ANONYMOUS, "10.0.0.1")
    used.sessions = 2
    unused = quotas.account(ANONYMOUS, "10.0.0.2")
    for number in range(2 * REMEMBERED):
        quotas.account(ANONYMOUS, f"stranger {number}")
    assert quotas.account(ANONYMOUS, "10.0.0.1") is used
    assert quotas.account(ANONYMOUS, "10.0.0.2") is not unused
    assert len(quotas) <= REMEMBERED + 1


def test_clients_of_a_proxy_have_no_reserve() -> None:
    """What is kept for an operator of this machine must not go to strangers whom a proxy of it brings."""
    quotas = Quotas(SMALL, networks(["127.0.0.1", "192.0.2.1"]), _Clock())
    several = ("127.0.0.1", "127.0.0.9", "192.0.2.1", "192.0.2.2")
    assert [each for each in several if quotas.has_reserve(each)] == ["127.0.0.9"]
    assert [each for each in several if quotas.is_exempt(each)] == list(several[:3])


def test_other_settings_hold_for_those_who_are_in() -> None:
    """Reloaded limits hold at once, for accounts that exist too; nobody is put out."""
    quotas = _quotas()
    account = quotas.account(ANONYMOUS, "10.0.0.1")
    account.sessions = 2
    quotas.use(Limits(sessions=1, calls_per_second=1_000), networks(["10.0.0.2"]))
    assert quotas.account(ANONYMOUS, "10.0.0.1") is account
    assert not account.has_room_for_session()
    for _ in range(1_000):  # more than the burst of before
        account.call()
    assert quotas.is_exempt("10.0.0.2")
    assert not quotas.is_exempt("192.0.2.1")
