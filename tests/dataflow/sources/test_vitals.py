"""Live, quiet or stalled: what is concluded from trades, silences and answers, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from dataflow.domain import Trade
from dataflow.domain.quality import Grade
from dataflow.sources.cadence import LEAST, MOST
from dataflow.sources.port import Newest
from dataflow.sources.vitals import (
    GAPPED_FOR,
    GRACE,
    NEWER,
    NO_ANSWER,
    NOT_ASKED,
    UNCLEAR,
    UNHEARD,
    Pulse,
    Remedy,
    Seen,
    Vitals,
)

SYMBOL, OTHER = "BTC-USD", "ETH-USD"
STALL_AFTER = 10.0


def trade(number: int, symbol: str = SYMBOL) -> Trade:
    return Trade("x", symbol, str(number), "buy", Decimal(1), Decimal(1), number * 10**9, number)


@define
class Stage:
    """A source whose symbols are looked at once a second. The lists tell what was to be done, in order."""

    vitals: Vitals = field(factory=Vitals)
    now: float = 0.0
    ours: dict[str, Trade] = field(factory=dict)
    by_answer: set[str] = field(factory=set)
    left_out: Trade | None = None
    stands_by: bool = False
    done: list[Remedy] = field(factory=list)
    stall_after: float = STALL_AFTER

    def look(self, *symbols: str) -> None:
        for symbol in symbols or (SYMBOL,):
            seen = Seen(self.ours.get(symbol), 0.25, symbol in self.by_answer)
            if self.stands_by:
                seen = Seen(self.left_out, stands_by=True)
            self._take(self.vitals.look(symbol, self.now, seen, self.stall_after))

    def trade(self, number: int, symbol: str = SYMBOL) -> None:
        self.ours[symbol] = trade(number, symbol)
        self.look(symbol)

    def leave_out(self, number: int) -> None:
        """A trade comes while another source is preferred."""
        self.left_out = trade(number)
        self.look()

    def wait(self, seconds: float, *symbols: str) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            self.look(*symbols)

    def wait_until_due(self) -> float:
        """Returns how long that took."""
        begin = self.now
        while SYMBOL not in self.vitals.due(self.now):
            self.wait(1)
        return self.now - begin

    def answer(self, told: Newest | None, symbol: str = SYMBOL) -> None:
        self._take(self.vitals.answered(symbol, self.now, told))

    def subscribe(self, *symbols: str) -> None:
        for symbol in symbols or (SYMBOL,):
            self.vitals.subscribed(symbol)  # perhaps on another connection, so it need not have ended before
            self.look(symbol)

    def _take(self, remedy: Remedy | None) -> None:
        if remedy is not None:
            self.done.append(remedy)

    @property
    def pulse(self) -> Pulse:
        return self.vitals.pulses[SYMBOL]

    @property
    def state(self) -> tuple[Grade, str | None]:
        return self.pulse.grade, self.pulse.reason


def live(number: int = 1) -> Stage:
    """A symbol that has just traded."""
    stage = Stage()
    stage.subscribe()
    stage.trade(number)
    return stage


def stalled() -> Stage:
    """A symbol that was found stalled just now."""
    stage = live(1)
    stage.wait_until_due()
    stage.answer(Newest(2))
    stage.wait(GRACE)
    assert stage.state == (Grade.STALLED, NEWER)
    return stage


def test_a_silence_is_a_reason_to_ask_and_no_proof() -> None:
    """The symbol is live until the upstream has told its newest trade."""
    stage = live()
    assert stage.wait_until_due() == STALL_AFTER
    assert stage.state == (Grade.LIVE, None)


def test_what_is_learned_decides_when_nothing_is_configured() -> None:
    """A symbol that trades every second is asked about sooner than one that was silent for long; one that has
    not traded yet soon, for nobody knows whether it would come."""
    stage = Stage(stall_after=0.0)
    stage.subscribe()
    assert stage.wait_until_due() == LEAST
    stage.now += MOST
    stage.trade(1)
    assert stage.wait_until_due() == MOST
    for number in range(2, 200):
        stage.now += 1
        stage.trade(number)
    assert stage.wait_until_due() == LEAST


def test_no_newer_trade_there_is_quiet() -> None:
    """And nothing is done. The questions come less and less often, for ever; the next trade ends it."""
    stage = live(7)
    waits = []
    for _ in range(9):
        waits.append(stage.wait_until_due())
        stage.answer(Newest(7))
        assert stage.state == (Grade.QUIET, None)
    assert stage.done == []
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900]
    stage.trade(8)
    assert stage.state == (Grade.LIVE, None)
    assert stage.wait_until_due() == STALL_AFTER


def test_a_newer_trade_there_is_a_stall_if_it_does_not_come() -> None:
    """It may be on its way: only a moment later it is proven. Then the symbol is subscribed anew."""
    stage = live(7)
    stage.wait_until_due()
    stage.answer(Newest(8))
    stage.wait(GRACE - 1)
    assert (stage.state, stage.done) == ((Grade.LIVE, None), [])
    stage.wait(1)
    assert (stage.state, stage.done) == ((Grade.STALLED, NEWER), [Remedy.RESUBSCRIBE])


def test_a_trade_on_its_way_is_no_stall() -> None:
    """The REST of an upstream may know of it earlier than we."""
    stage = live(7)
    stage.wait_until_due()
    stage.answer(Newest(8))
    stage.trade(8)
    stage.wait(GRACE + 1)
    assert (stage.state, stage.done) == ((Grade.LIVE, None), [])


def test_an_older_answer_proves_nothing() -> None:
    """From a cache, or of another numbering: the symbol is silent, and that is why nobody knows more."""
    stage = live(7)
    stage.wait_until_due()
    stage.answer(Newest(5))
    stage.wait(GRACE + 1)
    assert (stage.state, stage.done) == ((Grade.QUIET, UNCLEAR), [])


def test_a_new_subscription_that_helps() -> None:
    """The first trade ends the stall."""
    stage = stalled()
    stage.subscribe()
    assert stage.state == (Grade.STALLED, NEWER)
    stage.trade(3)
    assert stage.state == (Grade.LIVE, None)
    assert stage.done == [Remedy.RESUBSCRIBE]


def test_what_a_refill_brings_is_no_sign_of_life() -> None:
    """The subscription may be as dead as before, however many trades are asked for. One that comes is a sign."""
    stage = stalled()
    stage.by_answer.add(SYMBOL)
    stage.subscribe()
    for number in range(2, 200):
        stage.now += 1
        stage.trade(number)
        if SYMBOL in stage.vitals.due(stage.now):
            stage.answer(Newest(number + 1))
    assert stage.state == (Grade.STALLED, NEWER)
    assert Remedy.RECONNECT in stage.done
    stage.by_answer.clear()
    stage.trade(200)
    assert stage.state == (Grade.LIVE, None)


def test_a_new_subscription_that_does_not_help_is_followed_by_a_new_connection() -> None:
    """What was missed before that subscription is no proof: the answers behind it are compared."""
    stage = stalled()
    stage.subscribe()
    stage.wait_until_due()
    stage.answer(Newest(5))
    stage.wait(GRACE + 1)
    assert stage.done == [Remedy.RESUBSCRIBE, Remedy.REFILL], "missed before it, perhaps"
    stage.wait_until_due()
    stage.answer(Newest(6))
    stage.wait(GRACE + 1)
    assert stage.done[2:] == [Remedy.RECONNECT]


def test_a_stalled_symbol_that_does_not_trade_any_more_is_quiet() -> None:
    """The source has nothing that it does not send."""
    stage = stalled()
    stage.subscribe()
    stage.wait_until_due()
    stage.answer(Newest(2))
    stage.wait_until_due()
    stage.answer(Newest(2))
    assert stage.state == (Grade.QUIET, None)


def test_what_was_missed_before_a_subscription_is_no_stall() -> None:
    """It is asked for; the subscription is not to blame."""
    stage = live(7)
    stage.subscribe()
    stage.wait_until_due()
    stage.answer(Newest(9))
    stage.wait(GRACE + 1)
    assert stage.state == (Grade.LIVE, None)
    assert stage.done == [Remedy.REFILL]


def test_nobody_knows_how_a_symbol_fares_before_its_first_sign_of_life() -> None:
    """Each subscription begins so, unless it was subscribed all the time. The first trade makes it live."""
    stage = Stage()
    stage.subscribe()
    assert stage.state == (Grade.QUIET, UNHEARD)
    stage.trade(1)
    assert stage.state == (Grade.LIVE, None)
    stage.subscribe()
    assert stage.state == (Grade.LIVE, None), "on another line: it was never away"
    stage.vitals.ended([SYMBOL])
    stage.subscribe()
    assert stage.state == (Grade.QUIET, UNHEARD)
    stage.wait_until_due()
    stage.answer(Newest(1))
    assert stage.state == (Grade.QUIET, None), "the newest trade there is the one that we have"


def test_what_we_have_from_before_is_not_missed() -> None:
    """An upstream that first tells an old trade, and then the one that we have, has nothing newer."""
    stage = live(2)
    stage.subscribe()
    stage.answer(Newest(1))
    stage.answer(Newest(2))
    stage.wait(GRACE)
    assert stage.state == (Grade.QUIET, None)
    assert stage.done == []


def test_a_symbol_that_never_traded_is_compared_with_the_answer_before() -> None:
    """The first answer is where it stands, so nobody knows more; the second one shows whether we miss something."""
    stage = Stage()
    stage.subscribe()
    stage.wait_until_due()
    stage.answer(Newest(100))
    assert stage.state == (Grade.QUIET, UNHEARD)
    stage.wait_until_due()
    stage.answer(Newest(100))
    assert stage.state == (Grade.QUIET, None)
    stage.wait_until_due()
    stage.answer(Newest(101))
    stage.wait(GRACE + 1)
    assert stage.done == [Remedy.RESUBSCRIBE]


def test_no_trade_at_all_is_quiet() -> None:
    """As the upstream says."""
    stage = Stage()
    stage.subscribe()
    stage.wait_until_due()
    stage.answer(None)
    assert stage.state == (Grade.QUIET, None)


def test_a_source_that_cannot_be_asked_says_so() -> None:
    """Its silent symbol is quiet, with the reason that nobody knows better."""
    stage = live()
    stage.wait_until_due()
    stage.vitals.cannot_ask([SYMBOL], stage.now)
    assert stage.state == (Grade.QUIET, NOT_ASKED)
    assert stage.wait_until_due() > 2 * STALL_AFTER


def test_questions_that_fail_come_less_and_less_often() -> None:
    """The whole source waits, and the reasons are counted. A good answer ends it."""
    stage = live(7)
    stage.wait_until_due()
    waits = []
    for _ in range(8):
        stage.vitals.refused([SYMBOL], stage.now, "status")
        waits.append(stage.wait_until_due())
    assert stage.state == (Grade.QUIET, NO_ANSWER)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert stage.vitals.failed == {"status": 8}
    stage.answer(Newest(7))
    stage.wait_until_due()
    stage.vitals.refused([SYMBOL], stage.now, "status")
    assert stage.wait_until_due() == 5


def test_a_silence_without_a_subscription_means_nothing() -> None:
    """Nobody asks about it, and an answer that comes too late is not taken."""
    stage = live(7)
    stage.wait_until_due()
    stage.vitals.ended([SYMBOL])
    assert list(stage.vitals.due(stage.now + 10_000)) == []
    stage.answer(Newest(9))
    assert (stage.state, stage.done) == ((Grade.QUIET, UNHEARD), [])


def standing_by() -> Stage:
    """A symbol that has traded, and whose stream is that of another source now."""
    stage = live(7)
    stage.stands_by = True
    stage.look()
    return stage


def test_what_is_left_out_is_a_sign_of_life() -> None:
    """A source that stands by lives by its trades, though they are no part of the stream. One that is told again,
    with a new subscription, is no sign."""
    stage = standing_by()
    assert stage.wait_until_due() == STALL_AFTER
    stage.leave_out(8)
    assert stage.state == (Grade.LIVE, None)
    assert stage.wait_until_due() == STALL_AFTER
    stage.answer(Newest(8))
    assert stage.state == (Grade.QUIET, None)
    stage.subscribe()
    stage.leave_out(8)
    assert stage.state == (Grade.QUIET, None)
    stage.leave_out(9)
    assert stage.state == (Grade.LIVE, None)


def test_a_source_that_stands_by_stalls_as_any_other() -> None:
    """Also if none of its trades was ever left out. Only trades end that, and the first one proves nothing: it may
    be of the past, told with the new subscription."""
    stage = standing_by()
    stage.wait_until_due()
    stage.answer(Newest(8))
    stage.wait(GRACE)
    assert (stage.state, stage.done) == ((Grade.STALLED, NEWER), [Remedy.RESUBSCRIBE])
    stage.subscribe()
    for _ in range(3):
        stage.wait_until_due()
        stage.answer(Newest(8))
    stage.leave_out(8)
    stage.wait(1)
    assert stage.state == (Grade.STALLED, NEWER)
    stage.leave_out(9)
    assert stage.state == (Grade.LIVE, None)


def test_a_change_of_roles_is_no_sign_of_life() -> None:
    """What its history holds, or was left out last, is old. What was known of its newest trade stays known."""
    stage = standing_by()
    stage.leave_out(8)
    stage.wait_until_due()
    stage.answer(Newest(8))
    stage.stands_by = False
    stage.wait(1)
    assert stage.state == (Grade.QUIET, None)
    stage.wait_until_due()
    stage.answer(Newest(8))
    assert (stage.state, stage.done) == ((Grade.QUIET, None), []), "it is not missing what was left out"
    stage.stands_by = True
    stage.wait(1)
    assert stage.state == (Grade.QUIET, None)


def test_the_lag_is_the_median_of_late() -> None:
    """One trade that came late does not count; None before the first sample."""
    stage = Stage()
    stage.subscribe()
    assert stage.pulse.lag is None
    for number, lag in enumerate((0.2, 9.0, 0.1), start=1):
        stage.vitals.look(SYMBOL, number, Seen(trade(number), lag), STALL_AFTER)
    assert stage.pulse.lag == 0.2


def test_a_symbol_is_gapped_for_a_while() -> None:
    """Gaps of this run, until they are filled or old; those of an earlier run are history."""
    stage = live()
    vitals, pulse = stage.vitals, stage.pulse
    vitals.began_at = 100.0
    pulse.missing, pulse.gapped_at = 3, 99.0
    assert not vitals.is_gapped(pulse, 200.0)
    pulse.gapped_at = 150.0
    assert vitals.is_gapped(pulse, 150.0 + GAPPED_FOR)
    assert not vitals.is_gapped(pulse, 151.0 + GAPPED_FOR)
    pulse.missing = 0
    assert not vitals.is_gapped(pulse, 200.0)


def test_the_symbol_that_waits_for_longest_is_asked_about_first() -> None:
    """The upstream may have a question for one symbol only."""
    stage = Stage()
    stage.subscribe(OTHER)
    stage.now += 1
    stage.subscribe(SYMBOL)
    stage.wait(STALL_AFTER)
    assert list(stage.vitals.due(stage.now)) == [OTHER, SYMBOL]


def lie_for(stage: Stage, symbols: Sequence[str], seconds: float) -> int:
    """The upstream tells of a newer trade at every question. Returns the number of connections it cost."""
    end, told = stage.now + seconds, 1000
    while stage.now < end:
        stage.wait(1, *symbols)
        for symbol in stage.vitals.due(stage.now):
            told += 1
            stage.answer(Newest(told), symbol)
        if stage.done and stage.done[-1] in (Remedy.RESUBSCRIBE, Remedy.RECONNECT):
            reconnected = stage.done[-1] is Remedy.RECONNECT
            stage.subscribe(*(symbols if reconnected else symbols[:1]))
            stage.done.append(Remedy.REFILL)
    return stage.done.count(Remedy.RECONNECT)


def test_an_upstream_that_lies_about_its_newest_trade_costs_little() -> None:
    """Fifty quiet symbols that seem stalled for a day: the connection is made anew some times, then hourly."""
    stage, symbols = Stage(), [SYMBOL, *(f"S{n}-USD" for n in range(49))]
    stage.subscribe(*symbols)
    for symbol in symbols:
        stage.trade(1, symbol)
    assert 1 <= lie_for(stage, symbols, 3600) <= 7
    assert lie_for(stage, symbols, 3 * 3600) <= 12


steps = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.integers(1, 40)),
        st.tuples(st.just("wait"), st.integers(1, 60)),
        st.tuples(st.just("answer"), st.one_of(st.none(), st.integers(1, 40))),
        st.tuples(st.just("subscribe"), st.none()),
        st.tuples(st.just("end"), st.none()),
        st.tuples(st.just("by_answer"), st.none()),
    ),
    max_size=60,
)


@given(steps)
def test_nothing_is_done_unless_the_upstream_told_of_a_newer_trade(
    walk: list[tuple[str, int | None]],
) -> None:
    """Whatever happens in whatever order: a remedy needs an answer that is newer than our newest trade."""
    stage, highest_told = Stage(), 0
    stage.subscribe()
    for what, number in walk:
        before = len(stage.done)
        if what == "trade" and number is not None:
            stage.trade(number)
        elif what == "wait" and number is not None:
            stage.wait(number)
        elif what == "answer":
            highest_told = max(highest_told, number or 0)
            stage.answer(None if number is None else Newest(number))
        elif what == "subscribe":
            stage.subscribe()
        elif what == "end":
            stage.vitals.ended([SYMBOL])
        else:
            stage.by_answer ^= {SYMBOL}
        if len(stage.done) > before:
            ours = stage.ours.get(SYMBOL)
            assert ours is None or (ours.sequence or 0) < highest_told
        if stage.pulse.grade is Grade.STALLED:
            assert {Remedy.RESUBSCRIBE, Remedy.RECONNECT} & set(stage.done)
