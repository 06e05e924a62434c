"""dataflow.sources.failover: what is decided, for any run of good and bad luck."""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import define, field
from hypothesis import event, given
from hypothesis import strategies as st

from dataflow.sources.failover import VOLUNTARY_EVERY, Standing, Turn
from dataflow.sources.health import ERRORS_WORST, LAG_WORST, Health, Rank, health

NAMES = ("a", "b", "c")
GOOD, POOR = health("live", True, None, 0), health("live", True, LAG_WORST, ERRORS_WORST)
BEGINNING, OUT = health("subscribing", True, None, 0), health("lost", False, None, 0)
UNSURE = health("quiet", True, None, 0, is_known=False)
OF_RANK = {
    Rank.GOOD: GOOD,
    Rank.POOR: POOR,
    Rank.UNSURE: UNSURE,
    Rank.BEGINNING: BEGINNING,
    Rank.OUT: OUT,
}


def standing(return_after: float = 10.0, active: str = "a") -> Standing:
    return Standing("BTC-USD", NAMES, return_after, active, since=0.0)


def at(**healths: Health) -> dict[str, Health]:
    """The others are out."""
    return {name: healths.get(name, OUT) for name in NAMES}


class TestHealth:
    @pytest.mark.parametrize(
        ("state", "is_connected", "rank"),
        [
            ("live", True, Rank.GOOD),
            ("quiet", True, Rank.GOOD),
            ("idle", True, Rank.GOOD),
            ("refilling", True, Rank.GOOD),
            ("gapped", True, Rank.GOOD),
            ("subscribing", True, Rank.BEGINNING),
            ("connecting", False, Rank.BEGINNING),
            ("lost", False, Rank.OUT),
            ("stalled", True, Rank.OUT),
            ("rejected", True, Rank.OUT),
            ("a state of tomorrow", True, Rank.OUT),
            ("live", False, Rank.OUT),
        ],
    )
    def test_the_state_decides_who_may_be_active(self, state: str, is_connected: bool, rank: Rank) -> None:
        """Stalled is as bad as lost. What has only begun is neither up nor down."""
        assert health(state, is_connected, None, 0).rank is rank

    def test_the_score_is_the_sum_of_its_parts(self) -> None:
        """A perfect source has 100 points, and what is shown adds up."""
        assert GOOD.score == 100
        poor = health("gapped", True, 4.0, 5)
        assert poor.parts == {"connection": 30, "quality": 20, "lag": 13, "errors": 15}
        assert poor.score == sum(poor.parts.values()) == 78
        assert OUT.score == 0

    def test_one_fault_at_its_worst_makes_a_source_poor(self) -> None:
        """Far behind, or full of errors: another source is better."""
        assert health("live", True, LAG_WORST, 0).rank is Rank.POOR
        assert health("live", True, None, ERRORS_WORST).rank is Rank.POOR
        assert health("live", True, 1.0, 0).rank is Rank.GOOD

    @given(st.floats(-1e6, 1e12), st.integers(0, 10**9))
    def test_a_score_stays_within_its_bounds(self, lag: float, errors: int) -> None:
        """A clock that is off, an upstream that floods nonsense: a part is worth nothing at worst."""
        assert 60 <= health("live", True, lag, errors).score <= 100


class TestSwitching:
    def test_a_forced_switch_is_immediate(self) -> None:
        """The active source is out, another one delivers. Nothing is waited for, also right after a switch."""
        made = standing()
        assert made.weigh(at(b=POOR, c=GOOD), 1.0) == Turn("c", "a is lost", is_forced=True)
        made.turn(Turn("c", "", is_forced=True), 1.0)
        assert made.weigh(at(b=POOR), 1.0) == Turn("b", "c is lost", is_forced=True)

    def test_of_equals_the_first_one_is_preferred(self) -> None:
        """In the order of the configuration."""
        turn = standing(active="a").weigh(at(b=GOOD, c=GOOD), 0.0)
        assert turn is not None
        assert turn.source == "b"

    def test_what_has_only_begun_is_neither_left_nor_taken(self) -> None:
        """The answer to a subscription is on its way: to switch meanwhile would cost two switches."""
        assert standing().weigh(at(a=BEGINNING, b=GOOD), 0.0) is None
        assert standing().weigh(at(b=BEGINNING), 0.0) is None

    def test_but_not_for_ever(self) -> None:
        """If it stays so, the other one is better for long enough."""
        made = standing()
        assert made.weigh(at(a=BEGINNING, b=GOOD), 0.0) is None
        assert made.due == 10.0
        turn = made.weigh(at(a=BEGINNING, b=GOOD), 10.0)
        assert turn == Turn("b", "b is better: 100 points", is_forced=False)

    def test_the_preferred_source_is_taken_back_after_a_time_of_health(self) -> None:
        """Without a break: a relapse begins it anew."""
        made = standing(active="b")
        assert made.weigh(at(a=GOOD, b=GOOD), 0.0) is None
        assert made.weigh(at(a=POOR, b=GOOD), 9.0) is None
        assert made.weigh(at(a=GOOD, b=GOOD), 9.5) is None
        assert made.weigh(at(a=GOOD, b=GOOD), 19.4) is None
        assert made.weigh(at(a=GOOD, b=GOOD), 19.5) == Turn("a", "a is preferred", is_forced=False)

    def test_a_voluntary_switch_comes_once_a_minute_at_most(self) -> None:
        """However short `return_after` is."""
        made = standing(return_after=0.0, active="b")
        turn = made.weigh(at(a=GOOD, b=GOOD), 0.0)
        assert turn is not None
        made.turn(turn, 0.0)
        made.turn(Turn("b", "", is_forced=True), 1.0)
        assert made.weigh(at(a=GOOD, b=GOOD), 59.9) is None
        assert made.due == 60.0
        assert made.weigh(at(a=GOOD, b=GOOD), 60.0) is not None

    def test_of_whom_nobody_knows_is_taken_when_there_is_no_better_one(self) -> None:
        """By force only, behind one that delivers, and before one that has only begun."""
        assert standing().weigh(at(b=UNSURE, c=POOR), 0.0) == Turn("c", "a is lost", is_forced=True)
        assert standing().weigh(at(b=BEGINNING, c=UNSURE), 0.0) == Turn("c", "a is lost", is_forced=True)
        preferred = standing(return_after=0.0, active="b")
        assert preferred.weigh(at(a=UNSURE, b=POOR), 0.0) is None
        assert preferred.weigh(at(a=UNSURE, b=BEGINNING), 0.0) is None
        assert preferred.weigh(at(a=UNSURE, b=UNSURE), 0.0) is None
        turn = preferred.weigh(at(a=GOOD, b=GOOD), 0.0)
        assert turn is not None
        assert turn.source == "a"

    def test_the_active_source_is_not_left_for_its_silence(self) -> None:
        """Nobody knows whether it would deliver, and most often nothing trades."""
        assert standing(return_after=0.0).weigh(at(a=UNSURE, b=GOOD), 0.0) is None

    def test_when_all_are_out_nothing_changes(self) -> None:
        """There is nobody to take over; whoever comes first does."""
        made = standing()
        assert made.weigh(at(), 0.0) is None
        assert made.weigh(at(c=POOR), 0.0) == Turn("c", "a is lost", is_forced=True)


@define
class Life:
    """A run of luck, and what was decided."""

    standing: Standing
    now: float = 0.0
    turns: list[tuple[float, Turn]] = field(factory=list)
    best_since: dict[str, float] = field(factory=dict)

    def step(self, seconds: float, healths: dict[str, Health]) -> None:
        self.now += seconds
        turn = self.standing.weigh(healths, self.now)
        if turn is not None:
            self.turns.append((self.now, turn))
            self.standing.turn(turn, self.now)


def rank_of(name: str, active: str, healths: dict[str, Health]) -> Rank:
    found = healths[name]
    return found.rank if name == active else found.rank_in_standby


ranks = st.sampled_from(list(Rank))
steps = st.lists(st.tuples(st.floats(0.0, 20.0), st.tuples(ranks, ranks, ranks)), max_size=60)


@given(steps, st.sampled_from([0.0, 5.0, 10.0]))
def test_whatever_happens(luck: list[tuple[float, tuple[Rank, ...]]], return_after: float) -> None:
    """Never a source that is out while another delivers; voluntary switches a minute apart; each to a source that
    was better than the active one for long enough."""
    life = Life(standing(return_after))
    better: tuple[str, float] | None = None  # by the rules, read from the luck alone
    for seconds, found in luck:
        healths = {name: OF_RANK[rank] for name, rank in zip(NAMES, found, strict=True)}
        active, count = life.standing.active, len(life.turns)
        by_rank = {name: rank_of(name, active, healths) for name in NAMES}
        best = min(NAMES, key=lambda name: (by_rank[name], NAMES.index(name)))
        moment, worst = life.now + seconds, Rank.UNSURE if by_rank[active] is Rank.OUT else Rank.POOR
        if best == active or by_rank[best] > worst:
            better = None
        elif better is None or better[0] != best:
            better = best, moment
        life.step(seconds, healths)
        lives = [name for name in NAMES if healths[name].rank <= Rank.POOR]
        assert healths[life.standing.active].rank is not Rank.OUT or not lives
        if len(life.turns) > count:
            turn = life.turns[-1][1]
            assert turn.is_forced == (healths[active].rank is Rank.OUT)
            assert better is not None
            assert turn.source == better[0]
            assert turn.is_forced or moment - better[1] >= return_after
            event("forced" if turn.is_forced else "voluntary")
            better = None
    voluntary = [when for when, turn in life.turns if not turn.is_forced]
    assert all(later - earlier >= VOLUNTARY_EVERY for earlier, later in pairwise(voluntary))
