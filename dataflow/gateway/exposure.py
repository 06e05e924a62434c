"""What a configuration leaves open that may not be meant: told once, at the start.

Rules of this file: pure. It refuses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from dataflow.net.ip import is_this_machine
from dataflow.settings.schema import Settings
from dataflow.sources.port import ListenerSettings


def warnings(settings: Settings) -> Iterator[str]:
    """A line for each thing that is open."""
    gateway, operator = settings.gateway, settings.operator
    token = settings.operator_token is not None
    lacking = [*([] if gateway.tls_certificate else ["TLS"]), *([] if token else ["[operator] token"])]
    listeners = {"gateway": gateway.host} | ({} if operator.port is None else {"operator": operator.host})
    for table, host in listeners.items():
        if lacking and not _is_local(host):
            without = " and without ".join(lacking)
            yield (
                f"[{table}] host: {host} is reachable from other machines, without {without}:"
                f" {_effect(gateway.tls_certificate is None, token)}"
            )
    for name, source in settings.sources.items():
        if isinstance(source, ListenerSettings) and not _is_local(source.host):
            yield (
                f"[sources.{name}] host: {source.host} is reachable from other machines, and there is no"
                " password: whoever reaches it can push trades"
            )
    for name, face in settings.faces.items():
        own = getattr(face, "host", None)  # of a listener of its own
        if face.enabled and own is not None and not _is_local(own):
            yield (
                f"[faces.{name}] host: {own} is reachable from other machines, and this listener has neither"
                " TLS nor a password: whoever reaches it can use all that the face offers"
            )
    signs = [key for key in ("trusted_proxies", "root_path", "hosts") if getattr(gateway, key)]
    if signs and not token and operator.trust_local:
        yield (
            f"[gateway] {', '.join(signs)}: a proxy seems to stand before this daemon. A request that it"
            " passes on without saying so counts as this machine's own: set [operator] token, or"
            " trust_local = false"
        )


def _effect(readable: bool, token: bool) -> str:
    effects = ["everything can be read on the way"] if readable else []
    return " and ".join(effects if token else [*effects, "everybody may look inside (/actors, /metrics)"])


def _is_local(host: str) -> bool:
    return is_this_machine(host)
