"""The verdict over many lives: what was on disk is there, rewinds are told where they are due, and nowhere else."""

from __future__ import annotations

from decimal import Decimal

import pytest
from attrs import fields

from dataflow.chaos.check import Account, Admitted, Figures, Seen, SourceAccount
from dataflow.chaos.lives import Forks, Lives
from dataflow.chaos.plan import Deaths, fate


def seen(number: int) -> Seen:
    return Seen("x", str(number), "buy", Decimal("1.5"), Decimal(2))


def log(*entries: int | tuple[int, int]) -> Admitted:
    """An int is a trade at this place, a pair is a gap."""
    made = Admitted()
    for entry in entries:
        if isinstance(entry, int):
            made.trade(entry, seen(entry))
        else:
            made.gap(*entry, "source_gap")
    return made


class TestForks:
    def test_who_held_more_than_the_disk_goes_back_to_its_end(self) -> None:
        """It is told once. Who held no more is told nothing."""
        forks = Forks()
        forks.died({"A": 12, "B": 10, "C": None}, {"A": 10, "B": 10, "C": 10})
        assert list(forks.served("ABC", {"A": [10]})) == []
        assert list(forks.served("ABC", {"A": [10]})) == []

    @pytest.mark.parametrize("told", [[], [9], [11], [10, 10]])
    def test_another_word_is_found(self, told: list[int]) -> None:
        """No rewind, a wrong one, one too many."""
        forks = Forks()
        forks.died({"A": 12}, {"A": 10})
        assert len(list(forks.served("A", {"A": told}))) == 1

    def test_a_rewind_without_need_is_found(self) -> None:
        """All that the client held was on disk."""
        forks = Forks()
        forks.died({"A": 10}, {"A": 10})
        assert len(list(forks.served("A", {"A": [10]}))) == 1

    def test_who_was_not_served_between_two_deaths_goes_back_to_the_first_one(self) -> None:
        """The places behind it are of another branch, also when the disk has grown beyond what the client held."""
        forks = Forks()
        forks.died({"A": 12}, {"A": 10})
        forks.died({"A": 12}, {"A": 20})
        assert list(forks.served("A", {"A": [10]})) == []


class TestLives:
    def test_what_was_on_disk_must_be_in_the_record(self) -> None:
        """At its place, and the same."""
        lives = Lives()
        lives.found_on_disk({"A": {1: seen(1), 2: seen(2)}}, {"A": log(1, 2, 3)})
        assert (lives.on_disk, lives.held) == (2, True)
        lives.found_on_disk({"A": {2: seen(7), 4: seen(4)}}, {"A": log(1, 2, 3)})
        assert lives.violations == {"lost": 1}
        assert lives.evidence == ["lost: A: 2 trades, the first at 2"]

    def test_two_ways_to_read_the_record_must_agree(self) -> None:
        """In trades and in gaps."""
        lives = Lives()
        lives.compare("export", {"A": log(1, (2, 3), 4)}, {"A": log(1, (2, 3), 4)})
        assert lives.held
        lives.compare("export", {"A": log(1, (2, 3), 4)}, {"A": log(1, 2, 3, 4)})
        lives.compare("export", {"A": log(1)}, {})
        assert lives.violations == {"differing": 2}

    def test_every_account_counts(self) -> None:
        """A client that lacks a trade, and an exchange whose trade is nowhere."""
        lives = Lives(
            clients={"client-0": Account(missing=1)}, sources={"acme": SourceAccount(unaccounted=2)}
        )
        assert lives.violations == {"missing": 1, "unaccounted": 2}
        assert not lives.to_dict()["held"]


def test_the_same_seed_makes_the_same_lives() -> None:
    """As many kills as were asked for, none longer than it may be; some before the daemon listens."""
    made = fate(Deaths(7, deaths=100, seconds=1.5))
    assert made == fate(Deaths(7, deaths=100, seconds=1.5))
    assert [life.end for life in made.lives].count("kill") == 100
    assert all(0 <= life.seconds <= 1.5 for life in made.lives)
    assert {(life.end, life.from_start) for life in made.lives} == {
        ("kill", True),
        ("kill", False),
        ("stop", False),
    }


@pytest.mark.parametrize("kind", [Figures, Lives])
def test_no_finding_in_words_is_overlooked(kind: type[Figures] | type[Lives]) -> None:
    """Each ends the claim that all invariants held, and is shown."""
    names = [each.name for each in fields(kind) if each.type == "list[str]"]
    assert names
    for name in names:
        found = kind(**{name: ["somewhere"]})
        assert (found.held, found.violations, found.evidence) == (False, {name: 1}, [f"{name}: somewhere"])
