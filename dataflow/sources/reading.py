"""Helpers to read messages from outside. The result is reliable, or a named problem.

Rules of this file. There is one error for bad input of any kind: `Unusable`. Nothing is repaired. How the
fields of a message are read stands in `fields`.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from dataflow.domain.secrets import without_kept

T = TypeVar("T")

EXCERPT: Final = 120  # characters of a message in logs and in the status
_SECRET: Final = 2048  # characters: a longer secret may be shown in part


class Unusable(ValueError):
    """A message or value from outside that cannot be used. `reason`: a snake_case name, for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decoded(message: str | bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The JSON of a text message, decoded by `decoder`.

    Raises Unusable: not_text, malformed_json, or unexpected_json for JSON of another shape.
    """
    if not isinstance(message, str):
        raise Unusable("not_text")
    try:
        return decoder.decode(message)
    except msgspec.ValidationError as error:
        raise Unusable("unexpected_json") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unusable("malformed_json") from error


def answered(answer: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The JSON of an answer by HTTP, decoded by `decoder`. Raises Unusable like `decoded`."""
    try:
        return decoded(answer.decode(), decoder)
    except UnicodeError as error:
        raise Unusable("malformed_json") from error


def excerpt(message: str | bytes) -> str:
    """The beginning of a message, in printable ASCII, at most `EXCERPT` characters. None of our secrets."""
    begin = message[: EXCERPT + _SECRET]
    if isinstance(begin, str):
        return _cut(ascii(without_kept(begin)[:EXCERPT]))
    return _cut(without_kept(ascii(begin).removeprefix("b")))


def in_short(words: str) -> str:
    """Words of ours, which may repeat some of an upstream: as an excerpt, and without quotation marks."""
    return _cut(ascii(without_kept(words[: EXCERPT + _SECRET])[:EXCERPT])[1:-1])


def _cut(shown: str) -> str:
    return shown if len(shown) <= EXCERPT else shown[: EXCERPT - 3] + "..."


def words_of(*said: Any, otherwise: str = "refused without a reason") -> str:
    """The words in which an upstream refuses, as far as they are texts; at most `EXCERPT` characters."""
    texts = [text for text in said if isinstance(text, str) and text]
    return ": ".join(texts)[:EXCERPT] or otherwise
