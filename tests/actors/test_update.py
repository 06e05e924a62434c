"""Updates and renderings: what is the same for many is made once, and what lies behind a position is a part."""

from __future__ import annotations

from collections.abc import Sequence

from actors.update import Fill, Personal, Rendering, Stream, Update, rendering
from tests.actors import fakes
from tests.actors.fakes import Hole, Words, joined


def entries(*places: tuple[int, object], first: int) -> Update:
    return Update(Stream("a", 1, Hole), first, places)


def test_an_update_is_encoded_once_a_format_and_packed_once_a_rendering() -> None:
    """However many sessions ask, texts and bytes are made once and are the same objects."""
    words, packed = Words(), list[Sequence[bytes]]()

    def frame(texts: Sequence[bytes]) -> bytes:
        packed.append(texts)
        return b"".join(texts)

    update = entries((1, "x"), (2, "y"), first=1)
    plain, batch = Rendering(words, None, frame), Rendering(words, joined, frame)
    assert plain.payload(update) is plain.payload(update)
    assert batch.payload(update) is batch.payload(update)
    assert packed == [[b"x", b"y"], [b"[x,y]"]]
    assert words.encoded == 1


def test_one_rendering_serves_all_of_a_kind() -> None:
    """The fan-out finds the payload by the rendering's identity, so equal ones must be one."""
    words = Words()
    assert rendering(words, joined, fakes.lines) is rendering(words, joined, fakes.lines)
    assert rendering(words, joined, fakes.lines) is not rendering(words, None, fakes.lines)


def test_a_personal_payload_is_remembered_by_nobody() -> None:
    """A thousand clients would leave a thousand payloads at an update; the texts in them are made once."""
    words, update = Words(), entries((1, "x"), first=1)
    mine = Personal(words, None, fakes.lines, heads=[(b"1:", b"")])
    theirs = Personal(words, None, fakes.lines, heads=[(b"2:", b"")])
    assert (mine.payload(update), theirs.payload(update)) == (b"1:x\n", b"2:x\n")
    assert mine.payload(update) is not mine.payload(update)
    assert words.encoded == 1
    assert [mine.shared, theirs.shared] == [False, False]


def test_several_heads_send_each_text_so_many_times() -> None:
    """A client that follows a topic under two ids gets each entry under both, in order."""
    update = entries((1, "x"), (2, "y"), first=1)
    twice = Personal(Words(), None, fakes.lines, heads=[(b"1:", b""), (b"2:", b"!")])
    assert twice.payload(update) == b"1:x\n2:x!\n1:y\n2:y!\n"


def test_an_encoder_is_kept_for_the_stream() -> None:
    """One encoder a topic and format: it may keep what repeats from update to update."""

    class Counting(Words):
        made = 0

        def encoder(self, topic: object, epoch: int) -> fakes.Encode:
            self.made += 1
            return super().encoder(topic, epoch)

    stream, counting = Stream("a", 1), Counting()
    for place in range(3):
        Update(stream, place, [(place, "x")]).texts(counting)
    assert (counting.made, counting.encoded) == (1, 3)


def test_the_rest_of_an_update_begins_behind_the_position() -> None:
    """`after` gives the whole, a part, or nothing; of a hole that the position cuts, the whole."""
    update = entries((3, "x"), (6, Hole()), (7, "y"), first=3)
    assert (update.first, update.last, update.items) == (3, 7, 2)
    assert update.after(2) is update
    rest = [update.after(position) for position in (3, 5, 6, 7)]
    assert [r and (r.first, [last for last, _ in r.places]) for r in rest] == [
        (4, [6, 7]),
        (4, [6, 7]),
        (7, [7]),
        None,
    ]
    assert update.upto(2).last == 6


def test_of_a_state_only_the_newest_of_each_key_is_kept() -> None:
    """In the order of the places; whoever stands between two of them gets all that changed since."""
    stream = Stream("a", 1, newest_by=lambda entry: entry[0])
    both = Update(stream, 1, [(1, "x1"), (2, "y2")]).superseded_by(Update(stream, 3, [(3, "x3"), (4, "z4")]))
    assert both.places == [(2, "y2"), (3, "x3"), (4, "z4")]
    rest = both.after(2)
    assert rest is not None
    assert rest.places == [(3, "x3"), (4, "z4")]


def test_a_superseded_state_is_not_encoded_again() -> None:
    """However often that happens to however many slow clients: each entry once a format."""
    words, stream = Words(), Stream("a", 1, newest_by=lambda entry: entry[0])
    waiting = [Update(stream, 1, [(1, "x1"), (2, "y2")]) for _ in range(2)]
    assert [each.texts(words) for each in waiting] == [[b"x1", b"y2"]] * 2
    for place in range(3, 9):
        newer = Update(stream, place, [(place, f"x{place}")])
        waiting = [each.superseded_by(newer) for each in waiting]
        assert [each.texts(words) for each in waiting] == [[b"y2", b"x%d" % place]] * 2
    assert words.encoded == 2 + 6


def test_a_fill_is_written_once_for_all_and_cut_to_what_a_client_was_told() -> None:
    """The same object where all of it counts; nothing where nothing does."""
    words = Words()
    fill = Fill(Stream("a", 1, Hole), 3, [(5, "x"), (6, "y"), (7, "z")])
    plain = Rendering(words, None, fakes.lines)
    assert fill.payload(plain) is fill.payload(plain)
    assert fill.payload(plain) == b"filled x y z\n"
    assert words.encoded == 1
    assert fill.within(1, 7) is fill
    cut = fill.within(6, 6)
    assert cut is not None
    assert (cut.number, cut.places) == (3, [(6, "y")])
    assert fill.within(1, 4) is None
    assert fill.within(8, 9) is None


def test_who_has_no_word_for_a_fill_gets_none() -> None:
    """And a client with an id of its own gets it under that."""

    class Mute(Words):
        def filled(self, topic: object, epoch: int, places: object) -> None:
            return None

    fill = Fill(Stream("a", 1, Hole), 1, [(5, "x")])
    assert fill.payload(Rendering(Mute(), None, fakes.lines)) is None
    assert fill.payload(Personal(Words(), None, fakes.lines, ((b"<1>", b""),))) == b"<1>filled x\n"
