"""The decision about a child that has ended: a pure function, without Trio, clock or random numbers.

Rules of this file (measured against OTP's supervisor)
- A PERMANENT child always comes back, a TRANSIENT one after an abnormal exit, a TEMPORARY one never.
- A window of `Limit.within` seconds holds at most `Limit.restarts` charged failures. A failure that is
  exactly `within` old still counts.
- The `give_up_after`-th failure in a row is one too many. After `reset_after` healthy seconds the count
  starts from one again.
- A failure beyond these limits ends the supervisor. In a Pool every child has its own budget, so there it
  ends that child alone.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from .specs import Backoff, Limit, Restart


class Fate(Enum):
    """The future of an ended child."""

    END = "end"
    RESTART = "restart"
    GIVE_UP = "give_up"  # the child alone
    ESCALATE = "escalate"  # its whole supervisor


@frozen
class Rules:
    """The part of the specs that decides."""

    restart: Restart
    backoff: Backoff
    limit: Limit
    alone: bool  # a budget per child (Pool) instead of one per supervisor


@frozen
class State:
    """The memory of a decision: the child's failures in a row, and the charged failures in the window."""

    rules: Rules
    failures: int = 0
    charged: tuple[float, ...] = ()


@frozen
class Ended:
    """The end of an incarnation, as far as it matters here."""

    abnormal: bool
    ready_at: float | None  # None: it failed before it was ready
    charge: bool = True  # False for a failed restart by hand: the operator pays, not the budget


@frozen
class Action:
    """The decision, and the state for the next one."""

    fate: Fate
    state: State


def next_step(state: State, exit: Ended, now: float) -> Action:
    """Decide the future of a child that ended at `now`, when nobody had asked for its end."""
    rules = state.rules
    if not _comes_back(rules.restart, exit.abnormal):
        return Action(Fate.END, state)
    state = State(rules, _failures(state, exit, now), _window(state, exit, now))
    if _within_limits(state):
        return Action(Fate.RESTART, state)
    return Action(Fate.GIVE_UP if rules.alone else Fate.ESCALATE, state)


def _comes_back(restart: Restart, abnormal: bool) -> bool:
    return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and abnormal)


def forgives(backoff: Backoff, ready_at: float | None, now: float) -> bool:
    """Whether a life that was ready at `ready_at` has run for long enough to forgive all earlier failures."""
    return ready_at is not None and now - ready_at >= backoff.reset_after


def _failures(state: State, exit: Ended, now: float) -> int:
    return 1 if forgives(state.rules.backoff, exit.ready_at, now) else state.failures + 1


def _window(state: State, exit: Ended, now: float) -> tuple[float, ...]:
    limit = state.rules.limit
    if limit.restarts is None or not exit.charge:
        return state.charged
    return (*(at for at in state.charged if now - at <= limit.within), now)


def _within_limits(state: State) -> bool:
    limit = state.rules.limit
    too_often = limit.restarts is not None and len(state.charged) > limit.restarts
    hopeless = limit.give_up_after is not None and state.failures >= limit.give_up_after
    return not too_often and not hopeless
