"""The pure decisions, against a small independent model of OTP's supervisor (`add_restart`, `in_period`)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisors import Backoff, Limit, Restart
from supervisors.policy import Action, Ended, Fate, Rules, State, next_step

limits = st.builds(
    Limit,
    restarts=st.none() | st.integers(0, 4),
    within=st.integers(0, 6).map(float),
    give_up_after=st.none() | st.integers(1, 6),
)
rules = st.builds(
    Rules,
    restart=st.sampled_from(Restart),
    backoff=st.builds(Backoff, reset_after=st.integers(0, 6).map(float)),
    limit=limits,
    alone=st.booleans(),
)
steps = st.lists(
    st.tuples(
        st.integers(0, 4),  # seconds since the step before
        st.booleans(),  # abnormal
        st.none() | st.integers(0, 8),  # seconds it was healthy; None: never ready
        st.booleans(),  # charged
    ),
    max_size=25,
)


class Otp:
    """The model: it remembers every failure and counts anew each time."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.failures: list[tuple[float, float | None]] = []
        self.charged: list[float] = []

    def decide(self, exit: Ended, now: float) -> Fate:
        kind = self.rules.restart
        if kind is Restart.TEMPORARY or (kind is Restart.TRANSIENT and not exit.abnormal):
            return Fate.END
        self.failures.append((now, None if exit.ready_at is None else now - exit.ready_at))
        if exit.charge:
            self.charged.append(now)
        fits = not self.too_often(now, exit.charge) and not self.hopeless()
        return Fate.RESTART if fits else Fate.GIVE_UP if self.rules.alone else Fate.ESCALATE

    def too_often(self, now: float, charged: bool) -> bool:
        limit = self.rules.limit
        recent = [at for at in self.charged if at >= now - limit.within]
        return charged and limit.restarts is not None and len(recent) > limit.restarts

    def in_a_row(self) -> int:
        count = 0
        for _, healthy in reversed(self.failures):
            count += 1
            if healthy is not None and healthy >= self.rules.backoff.reset_after:
                break
        return count

    def hopeless(self) -> bool:
        limit = self.rules.limit.give_up_after
        return limit is not None and self.in_a_row() >= limit


@given(rules, steps)
def test_decisions_are_those_of_the_model(
    rules: Rules, steps: list[tuple[int, bool, int | None, bool]]
) -> None:
    """6, 8, 11, 14, 15, 16: for any history, up to the first decision that ends the child."""
    model, state, now = Otp(rules), State(rules), 0.0
    for pause, abnormal, healthy, charge in steps:
        now += pause
        exit = Ended(abnormal, None if healthy is None else now - healthy, charge)
        action = next_step(state, exit, now)
        assert action.fate is model.decide(exit, now)
        if action.fate is not Fate.RESTART:
            return
        assert action.state.failures == model.in_a_row()
        state = action.state


@given(rules, steps)
def test_memory_is_bounded(rules: Rules, steps: list[tuple[int, bool, int | None, bool]]) -> None:
    """A child that fails for a year needs no more memory: the state holds at most `Limit.restarts` times."""
    state, now = State(rules), 0.0
    for pause, abnormal, healthy, charge in steps:
        now += pause
        action = next_step(state, Ended(abnormal, None if healthy is None else now, charge), now)
        if action.fate is not Fate.RESTART:
            return
        state = action.state
        assert len(state.charged) <= (rules.limit.restarts or 0)


def test_a_decision_is_a_function() -> None:
    """The same state, end and time give the same decision, and the state is unchanged."""
    state = State(Rules(Restart.PERMANENT, Backoff(), Limit(1, 5.0), alone=False), 1, (0.0,))
    exit = Ended(abnormal=True, ready_at=None)
    expected = Action(Fate.ESCALATE, State(state.rules, 2, (0.0, 5.0)))
    assert next_step(state, exit, 5.0) == next_step(state, exit, 5.0) == expected
    assert next_step(state, exit, 5.1) == Action(Fate.RESTART, State(state.rules, 2, (5.1,)))
    assert state.charged == (0.0,)
