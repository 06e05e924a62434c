"""Documents: read, bounded, checked against the schema, and kept for the next client with the same one.

Rules of this file: pure. What a document may cost is decided before the schema is asked: a check takes time
that grows with the square of some documents. The costs are those of its text and of its answer, so a small
document with a long answer is refused, too.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    parse,
    validate,
)

from .schema import SCHEMA

# Of one document. GraphiQL's introspection has 183 tokens and costs 6,500; the worst document within
# all bounds takes some 25 ms.
MAX_CHARACTERS: Final = 8192
MAX_TOKENS: Final = 500  # comments among them
MAX_FRAGMENTS: Final = 20  # pairs of them are compared
MAX_REPEATED: Final = 10  # one field of one object, fragments included: pairs of them are compared
MAX_COST: Final = 8000  # values in the answer, or about so many
MAX_STEPS: Final = 2000  # selections, each as often as fragments repeat it
INTROSPECTION_DEPTH: Final = 15  # what GraphiQL asks for, whatever `max_depth` is

KEPT_CHARACTERS: Final = 65_536  # of documents that are kept: at most some 10 MB of syntax trees
MAX_ERRORS: Final = 10  # of one document
PRICE: Final = 500  # bytes a character: to check a document takes as long as to send so many
_LENGTHS: Final = {"types": 16, "fields": 4, "enumValues": 2, "directives": 6}  # of the schema's lists


class Rejected(Exception):
    """A document that is not run. `errors` says why."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


class Documents:
    """Documents by their text."""

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth
        self._kept: OrderedDict[str, DocumentNode] = OrderedDict()
        self._characters = 0

    def document(self, text: str, pay: Callable[[int], object]) -> DocumentNode:
        """A document that may be run. One that is not kept is paid for, in bytes. Raises Rejected."""
        document = self._kept.get(text)
        if document is None:
            pay(PRICE * min(len(text), MAX_CHARACTERS))
            document = checked(text, self._max_depth)
            self._keep(text, document)
        self._kept.move_to_end(text)
        return document

    def _keep(self, text: str, document: DocumentNode) -> None:
        self._kept[text] = document
        self._characters += len(text)
        while self._characters > KEPT_CHARACTERS:
            dropped, _ = self._kept.popitem(last=False)
            self._characters -= len(dropped)


def checked(text: str, max_depth: int) -> DocumentNode:
    """The document of this text, if it keeps all bounds. Raises Rejected."""
    try:
        document = parse(text, max_tokens=MAX_TOKENS, max_source_length=MAX_CHARACTERS)
        check_bounds(document, max_depth)
    except GraphQLError as error:
        raise Rejected([error]) from None
    errors = validate(SCHEMA, document, max_errors=MAX_ERRORS)
    if errors:
        raise Rejected(errors)
    return document


def check_bounds(document: DocumentNode, max_depth: int) -> None:
    """Raises GraphQLError when a definition is too deep, or costs too much."""
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    if len(fragments) > MAX_FRAGMENTS:
        raise GraphQLError(f"Document has more than {MAX_FRAGMENTS} fragments.")
    walk = _Walk(fragments)
    for definition in document.definitions:
        walk.repeated.clear()
        if isinstance(definition, OperationDefinitionNode):
            walk.through(definition.selection_set.selections, (), 1, max_depth, frozenset())
        elif isinstance(definition, FragmentDefinitionNode):  # depth and cost count where it is used
            deepest = max(max_depth, INTROSPECTION_DEPTH)
            walk.through(definition.selection_set.selections, (), 0, deepest, frozenset())


class _Walk:
    """A way through the selections of a document, each as often as fragments repeat it."""

    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self.repeated: Counter[tuple[str, ...]] = Counter()
        self._fragments = fragments
        self._steps = 0
        self._cost = 0

    def through(
        self,
        selections: Sequence[SelectionNode],
        path: tuple[str, ...],
        times: int,
        deepest: int,
        inside: frozenset[str],
    ) -> None:
        """`times`: how often the answer has the object at `path`. `inside`: these fragments."""
        for selection in selections:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise GraphQLError(f"Document has more than {MAX_STEPS} selections.", selection)
            if isinstance(selection, FieldNode):
                self._field(selection, path, times, deepest, inside)
            elif isinstance(selection, InlineFragmentNode):
                self.through(selection.selection_set.selections, path, times, deepest, inside)
            elif isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                fragment = self._fragments.get(name)
                if fragment is not None and name not in inside:  # a circle is for the schema's rules
                    self.through(fragment.selection_set.selections, path, times, deepest, inside | {name})

    def _field(
        self, field: FieldNode, path: tuple[str, ...], times: int, deepest: int, inside: frozenset[str]
    ) -> None:
        name = field.name.value
        path = (*path, field.alias.value if field.alias else name)
        if name in ("__schema", "__type"):
            deepest = max(deepest, INTROSPECTION_DEPTH)
        if len(path) > deepest:
            raise GraphQLError(f"Document is deeper than {deepest} fields.", field)
        self.repeated[path] += 1
        if self.repeated[path] > MAX_REPEATED:
            raise GraphQLError(f"Document has '{path[-1]}' more than {MAX_REPEATED} times.", field)
        self._cost += times
        if self._cost > MAX_COST:
            raise GraphQLError(f"Document asks for more than {MAX_COST} values.", field)
        if field.selection_set is not None:
            times *= _LENGTHS.get(name, 1)
            self.through(field.selection_set.selections, path, times, deepest, inside)
