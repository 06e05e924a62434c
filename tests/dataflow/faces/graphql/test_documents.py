"""Documents: what may be run, and what is refused before it costs anything."""

from __future__ import annotations

from contextlib import suppress

import pytest
from graphql import (
    GraphQLError,
    build_schema,
    find_schema_changes,
    get_introspection_query,
    parse,
    validate_schema,
)
from graphql.utilities import SafeChange
from hypothesis import given
from hypothesis import strategies as st

from dataflow.faces.graphql import documents
from dataflow.faces.graphql.documents import MAX_CHARACTERS, PRICE, Documents, Rejected, check_bounds, checked
from dataflow.faces.graphql.schema import SCHEMA

FULL_INTROSPECTION = get_introspection_query(
    descriptions=True,
    specified_by_url=True,
    directive_is_repeatable=True,
    schema_description=True,
    input_value_deprecation=True,
)
BAR = 'marketData(symbol:"A"){close}'


def rejected(text: str, max_depth: int = 15) -> str:
    with pytest.raises(Rejected) as caught:
        checked(text, max_depth)
    return str(caught.value)


PROMISED = """
type Query {
  marketData(symbol: String!): Aggregate
  trades(symbol: String!, from: String, to: String, after: String, limit: Int! = 100): Trades
  candles(symbol: String!, interval: String! = "1m", from: String, to: String, limit: Int! = 100): Candles
}
type Trades { symbol: String! epoch: String! trades: [Trade!]! gaps: [Gap!]! next: String rewound: String }
type Candles { candles: [Candle!]! next: String }
type Gap { from: Int! to: Int reason: String! }
type Candle { symbol: String! interval: String! start: String! open: Float! high: Float! low: Float! close: Float!
              volume: String! quoteVolume: String! buyVolume: String! count: Int! rev: Int! closed: Boolean!
              complete: Boolean! gaps: [Gap!]! firstOffset: Int! lastOffset: Int! }
type Aggregate { symbol: String open: Float high: Float low: Float close: Float volume: String timestamp: String }
type Subscription { marketData(symbol: String!): Aggregate! trades(symbol: String!): Trade! }
type Trade { symbol: String! price: Float! qty: Float! side: String tradeId: String timestamp: String! offset: Int!
             source: String! }
"""


def test_the_schema_holds_what_its_clients_know() -> None:
    """Every type and field of the contract, with its arguments and its type; more may be beside. The numbers are ours."""
    changes = find_schema_changes(build_schema(PROMISED), SCHEMA)
    unsafe = [change.description for change in changes if not isinstance(change, SafeChange)]
    assert unsafe == [f"{name} changed from a Scalar type to a Scalar type." for name in ("Int", "Float")]
    assert not validate_schema(SCHEMA)


@pytest.mark.parametrize("max_depth", [1, 2, 15])
def test_the_schema_can_be_asked_for_at_any_depth(max_depth: int) -> None:
    """As GraphiQL and code generators do it."""
    checked(FULL_INTROSPECTION, max_depth)


def test_depth_counts_fields_and_sees_through_fragments() -> None:
    """A document of that depth is run, one of more is not."""
    for text in (
        f"{{{BAR}}}",
        '{...F} fragment F on Query{marketData(symbol:"A"){...G}} fragment G on Aggregate{close}',
        '{...{marketData(symbol:"A"){...{close}}}}',
        "query($s:String!){a:marketData(symbol:$s){close}}",
    ):
        checked(text, 2)
        assert "deeper than 1 fields" in rejected(text, 1)


def test_a_circle_of_fragments_is_an_error() -> None:
    """It is found, not followed."""
    assert "Cannot spread fragment" in rejected("{...F} fragment F on Query{...G} fragment G on Query{...F}")
    assert "Cannot spread fragment" in rejected("{__typename ...F} fragment F on Query{...F}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Syntax Error"),
        ("{", "Syntax Error"),
        ("{a" * 240, "nested too deeply"),
        ("{a(b:" + "[" * 400 + "1" + "]" * 40, "nested too deeply"),
        ("{a " * 4 + "#" * 20_000, "more than 8192 code points"),
        ("{" + "close " * 501 + "}", "more than 500 tokens"),
        ("{" + "#\n" * 501 + "}", "more than 500 tokens"),
        ("{" + BAR * 11 + "}", "'marketData' more than 10 times"),
        ("{" + "...F " * 11 + "} fragment F on Query{" + BAR + "}", "'marketData' more than 10 times"),
        ('{a:marketData(symbol:"A"){' + "close " * 11 + "}}", "'close' more than 10 times"),
        ("{" + ('marketData(symbol:"A"){' + "close " * 4 + "}") * 3 + "}", "'close' more than 10 times"),
        ("{__typename} fragment F on Query{" + BAR * 11 + "}", "'marketData' more than 10 times"),
        (
            "{__schema{types{fields{type{" + " ".join(f"a{n}:name" for n in range(130)) + "}}}}}",
            "8000 values",
        ),
        (
            "{...F0}" + "".join(f"fragment F{n} on Query{{...F{n + 1} ...F{n + 1}}}" for n in range(18)),
            "more than 2000 selections",
        ),
        (
            "{" + "".join(f"}} fragment F{n} on Query{{a{n}:__typename" for n in range(21)) + "}",
            "more than 20 fragments",
        ),
        ("{__schema{types" + "{ofType" * 20 + "{name}" + "}" * 21 + "}", "deeper than 15 fields"),
        ("{nothing}", "Cannot query field 'nothing'"),
        ("{marketData{close}}", "required"),
        ("{marketData(symbol:1){close}}", "String cannot represent"),
        ("mutation{close}", "mutation"),
        (
            'subscription{trades(symbol:"A"){price} marketData(symbol:"A"){close}}',
            "must select only one top level",
        ),
        ("{" + " ".join(f"a{n}" for n in range(300)) + "}", "Too many validation errors"),
    ],
)
def test_what_is_not_run(text: str, words: str) -> None:
    """Each bound, and each kind of mistake, with words for who wrote it."""
    assert words in rejected(text)


def test_a_new_document_is_paid_for() -> None:
    """By its length, also when it is rejected; one that is kept is not."""
    kept, paid = Documents(15), list[int]()
    for _ in range(2):
        kept.document("{__typename}", paid.append)
    assert paid == [12 * PRICE]
    for text in ("{", "x" * 60_000):
        with pytest.raises(Rejected):
            kept.document(text, paid.append)
    assert paid == [12 * PRICE, PRICE, MAX_CHARACTERS * PRICE]


def test_documents_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one used the longest ago goes; a mistake is not kept."""
    monkeypatch.setattr(documents, "KEPT_CHARACTERS", 3 * len("{a0:__typename}"))
    kept = Documents(15)
    texts = [f"{{a{n}:__typename}}" for n in range(4)]
    first, second, third = [kept.document(text, int) for text in texts[:3]]
    assert kept.document(texts[0], int) is first
    kept.document(texts[3], int)
    assert kept.document(texts[0], int) is first
    assert kept.document(texts[2], int) is third
    assert kept.document(texts[1], int) is not second
    with pytest.raises(Rejected):
        kept.document("{", int)
    assert kept.document(texts[1], int) is kept.document(texts[1], int)


WORDS = st.sampled_from(
    [
        "{",
        "}",
        "(",
        ")",
        "...",
        "on",
        "fragment",
        "query",
        "subscription",
        "marketData",
        "trades",
        "symbol",
        ":",
        '"A"',
        "$s",
        "!",
        "String",
        "close",
        "Aggregate",
        "Query",
        "@skip",
        "if",
        "true",
        "__schema",
        "types",
        "[",
    ]
)


@given(st.lists(WORDS, max_size=30).map(" ".join) | st.text())
def test_any_text_is_a_document_or_rejected(text: str) -> None:
    """And nothing else happens."""
    with suppress(Rejected):
        assert checked(text, 15).definitions


@given(st.lists(WORDS, max_size=40).map(" ".join))
def test_bounds_hold_for_documents_that_the_schema_does_not_know(text: str) -> None:
    """They are looked at before the schema is."""
    with suppress(GraphQLError):
        check_bounds(parse(text), 3)
