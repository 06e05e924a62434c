"""The page for people, at `/`."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files

from attrs import frozen
from quart import Response

from dataflow.gateway import face
from dataflow.gateway.about import About, Answer
from dataflow.gateway.application import NOTHING_LOADED
from dataflow.gateway.face import Route
from dataflow.gateway.hall import Hall
from dataflow.settings.schema import FaceSettings

_TAGS = (b"script", b"style")
_BETWEEN = rb"<%b>(.*?)</%b>"
_INDEX = About("The state of the daemon, for people", {200: Answer("a page", str, "text/html")})


@frozen(kw_only=True)
class Settings(FaceSettings):
    """The table `[faces.page]`."""


class Face(face.Face):
    """One page."""

    def routes(self, hall: Hall) -> Iterable[Route]:
        page = files(__package__).joinpath("page.html").read_bytes()
        headers = {"Content-Security-Policy": policy(page)}

        async def index() -> Response:
            return Response(page, mimetype="text/html", headers=headers)

        return (Route("/", index, about=_INDEX),)


def policy(page: bytes) -> str:
    """The content security policy of a page: only its own scripts and styles run, named by their hashes. It
    may speak with where it came from."""
    scripts, styles = (" ".join(map(_hash, re.findall(_BETWEEN % (tag, tag), page, re.S))) for tag in _TAGS)
    own = f"script-src {scripts}; style-src {styles}; connect-src 'self'; img-src data:"
    return f"{own}; {NOTHING_LOADED}"


def _hash(text: bytes) -> str:
    return f"'sha256-{b64encode(sha256(text).digest()).decode()}'"
