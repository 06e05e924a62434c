"""The mailbox alone, against a model: rules 30, 31, 32 and 34 after every step of any history."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisors import Mailbox, Overflow, Put
from supervisors.mailbox import make_box

specs = st.builds(
    lambda size, overflow: Mailbox(size, overflow, _key if overflow is Overflow.CONFLATE else None),
    st.integers(1, 4),
    st.sampled_from(Overflow),
)


def _key(item: tuple[int, int]) -> int:
    return item[0]


class MailboxMachine(RuleBasedStateMachine):
    """The model: a list of the waiting messages, and a count of the fate of every message."""

    @initialize(spec=specs)
    def begin(self, spec: Mailbox) -> None:
        self.spec = spec
        self.box = make_box(spec)
        self.waiting: list[Any] = []
        self.hand: list[Any] = []
        self.joins = False
        self.closed = False
        self.fates = {"accepted": 0, "handled": 0, "lost": 0}
        self.dropped: dict[str, int] = {}
        self.serial = 0

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    @rule(key=st.integers(0, 3))
    def put(self, key: int) -> None:
        self.serial += 1
        item = (key, self.serial)
        self.fates["accepted"] += 1
        assert self.box.put(item) is self.expected(item)

    def expected(self, item: Any) -> Put:
        if self.closed:
            self.drop("closed")
            return Put.DROPPED
        same = [old for old in self.waiting if self.spec.key and self.spec.key(old) == self.spec.key(item)]
        if same:
            self.waiting[self.waiting.index(same[0])] = item
            self.drop("conflated")
            return Put.OK
        if len(self.waiting) >= self.spec.size:
            if self.spec.overflow in (Overflow.BLOCK, Overflow.DROP_NEWEST):
                self.drop("full")
                return Put.DROPPED
            self.waiting.pop(0)
            self.drop("oldest")
        self.waiting.append(item)
        return Put.OK

    def settle(self) -> None:
        self.fates["handled"] += len(self.hand)
        self.hand = []

    @precondition(lambda self: self.waiting)
    @rule()
    def receive(self) -> None:
        self.settle()
        self.box.settle()
        assert self.box.take() == self.waiting[0]
        self.hand, self.joins = [self.waiting.pop(0)], True

    @rule(limit=st.integers(0, 5))
    def drain(self, limit: int) -> None:
        if not self.joins:
            self.settle()
        batch = self.box.drain(limit)
        assert batch == self.waiting[:limit]
        self.hand, self.joins = self.hand + batch, False
        del self.waiting[:limit]

    @rule()
    def return_cleanly(self) -> None:
        self.settle()
        self.box.settle()
        self.joins = False

    @rule()
    def crash(self) -> None:
        assert list(self.box.lose(0.0)) == self.hand
        self.fates["lost"] += len(self.hand)
        self.hand, self.joins = [], False

    @rule()
    def close(self) -> None:
        self.box.close()
        self.closed = True

    @rule()
    def reopen(self) -> None:
        self.box.reopen()
        self.closed = False

    @precondition(lambda self: not self.hand)
    @rule(size=st.integers(1, 4))
    def respecify(self, size: int) -> None:
        self.spec = Mailbox(size, self.spec.overflow, self.spec.key)
        self.box = self.box.respecified(self.spec)
        self.closed, self.joins = False, False
        self.box.reopen()

    @rule()
    def discard(self) -> None:
        self.box.discard()
        for _ in self.waiting:
            self.drop("gone")
        self.waiting = []

    @invariant()
    def everything_is_accounted_for(self) -> None:
        node = self.box.node()
        assert node.accepted == node.handled + node.queued + sum(node.dropped.values()) + node.lost_in_flight
        assert (node.accepted, node.handled, node.lost_in_flight) == tuple(self.fates.values())
        assert node.queued == len(self.waiting) + len(self.hand)
        assert node.dropped == self.dropped


TestMailbox = MailboxMachine.TestCase
TestMailbox.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
