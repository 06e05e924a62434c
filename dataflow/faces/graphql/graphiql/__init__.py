"""GraphiQL, the editor for people, from our own files: it loads nothing from elsewhere.

`vendor/` has the files of others as they were published: see the README beside this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

from quart import Response

from dataflow.gateway.application import NOTHING_LOADED
from dataflow.gateway.face import Route

_TYPES = {"css": "text/css", "js": "text/javascript"}
_POLICY = (
    "script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; font-src data:; img-src data:;"
    f" {NOTHING_LOADED}"
)
_KEPT = {"Cache-Control": "max-age=3600"}


def routes(path: str, endpoint: str) -> Iterable[Route]:
    """The page at `path`, and its files below. `endpoint`: the path of the face, as browsers see it."""
    folder = files(__package__)
    page = folder.joinpath("page.html").read_text().replace("ENDPOINT", escape(endpoint))

    async def index() -> Response:
        return Response(page, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})

    yield Route(path, index)
    for place in (folder, folder / "vendor"):
        for asset in place.iterdir():
            kind = _TYPES.get(asset.name.rpartition(".")[2])
            if kind is not None:
                yield Route(f"{path}/{asset.name}", _view(asset, kind))


def _view(asset: Traversable, kind: str) -> Callable[[], Awaitable[Response]]:
    async def view() -> Response:
        # Read anew: a megabyte for the few who come is not kept for all who do not.
        return Response(asset.read_bytes(), mimetype=kind, headers=_KEPT)

    return view
