"""dataflow.sources.breaker against the list of all that happened."""

from __future__ import annotations

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from dataflow.sources.breaker import Breaker, Circuit

AFTER, SECONDS = 3, 60.0


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(AFTER, SECONDS)
    for _ in range(AFTER):
        assert breaker.attempt(at)
        breaker.failed(at)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    """Failures with a success between them are no reason to stop asking."""
    breaker = Breaker(AFTER, SECONDS)
    for _ in range(AFTER - 1):
        breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(AFTER - 1):
        breaker.failed(0.0)
    assert breaker.state(0.0) is Circuit.CLOSED
    breaker.failed(0.0)
    assert breaker.state(0.0) is Circuit.OPEN
    assert not breaker.attempt(0.0)
    assert breaker.wait(10.0) == 50.0


def test_half_open_allows_one_trial_and_its_result_decides() -> None:
    """An upstream that is back is not met by all who waited for it; one that is not is left alone again."""
    breaker = opened()
    assert breaker.state(60.0) is Circuit.HALF_OPEN
    assert breaker.attempt(60.0)
    assert not breaker.attempt(60.0)
    breaker.failed(61.0)
    assert (breaker.state(61.0), breaker.wait(61.0)) == (Circuit.OPEN, 60.0)
    assert breaker.attempt(121.0)
    breaker.succeeded()
    assert breaker.state(121.0) is Circuit.CLOSED
    assert breaker.attempt(121.0)
    assert breaker.attempt(121.0)
    assert breaker.opened == 2


def test_a_trial_without_a_result_locks_nothing() -> None:
    """Whoever made the trial may be gone: the next one is allowed at once if told, else after a while."""
    breaker = opened()
    assert breaker.attempt(60.0)
    breaker.given_up()
    assert breaker.attempt(61.0)
    assert not breaker.attempt(120.9)
    assert breaker.attempt(121.0)


def test_attempts_from_before_do_not_keep_it_open_for_longer() -> None:
    """Ten connections that fail together open it for the time of one."""
    breaker = opened()
    for second in range(10):
        breaker.failed(float(second))
    assert breaker.wait(9.0) == 51.0
    assert breaker.opened == 1


def test_nonsense_is_refused() -> None:
    """A breaker that never opens, or for no time, is a mistake of the caller."""
    with pytest.raises(ValueError, match="after"):
        Breaker(0, SECONDS)
    with pytest.raises(ValueError, match="seconds"):
        Breaker(AFTER, 0.0)


@define
class Told:
    """Everything that happened, and what is allowed by the rules read from it."""

    failed_at: list[float] = field(factory=list)  # since the last success
    trial_at: float | None = None  # of the present half-open time
    open_since: float | None = None

    def allows(self, now: float) -> bool:
        if self.open_since is None:
            return True
        if now < self.open_since + SECONDS:
            return False
        return self.trial_at is None or now >= self.trial_at + SECONDS

    def asked(self, now: float) -> None:
        if self.open_since is not None and self.allows(now):
            self.trial_at = now

    def failed(self, now: float) -> None:
        self.failed_at.append(now)
        is_open = self.open_since is not None and now < self.open_since + SECONDS
        if len(self.failed_at) >= AFTER and not is_open:
            self.open_since, self.trial_at = now, None

    def succeeded(self) -> None:
        self.failed_at.clear()
        self.open_since = self.trial_at = None


@given(st.lists(st.tuples(st.sampled_from(["ask", "fail", "succeed", "give up"]), st.floats(0.0, 50.0))))
def test_it_is_what_the_rules_say(steps: list[tuple[str, float]]) -> None:
    """Whatever happens: no attempt while open, one at a time when half open, any number when closed."""
    breaker, told, now = Breaker(AFTER, SECONDS), Told(), 0.0
    for step, seconds in steps:
        now += seconds
        assert (breaker.wait(now) == 0.0) is told.allows(now)
        if step == "ask":
            assert breaker.attempt(now) is told.allows(now)
            told.asked(now)
        elif step == "fail":
            breaker.failed(now)
            told.failed(now)
        elif step == "succeed":
            breaker.succeeded()
            told.succeeded()
        else:
            breaker.given_up()
            told.trial_at = None
        assert (breaker.state(now) is Circuit.CLOSED) is (told.open_since is None)
        assert breaker.failures == len(told.failed_at)
