"""What is open and may not be meant is told at the start; what is safe is not."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow.faces import grpc, page
from dataflow.gateway.exposure import warnings
from dataflow.settings.schema import Gateway, Operator, Settings
from dataflow.sources.port import ListenerSettings

TLS = {"tls_certificate": "a", "tls_key": "b"}


def told(gateway: dict[str, Any], operator: dict[str, Any]) -> list[str]:
    return list(warnings(Settings(gateway=Gateway(**gateway), operator=Operator(**operator))))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_this_machine_alone_needs_nothing(host: str) -> None:
    """The default is safe, and so is every address of the loopback."""
    assert told({"host": host}, {}) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "feed.example"])
def test_other_machines_need_both(host: str) -> None:
    """One line, which names what lacks."""
    assert told({"host": host, **TLS}, {"token": "x"}) == []
    [both], [tls], [token] = (
        told({"host": host}, {}),
        told({"host": host}, {"token": "x"}),
        told({"host": host, **TLS}, {}),
    )
    assert "without TLS and without [operator] token" in both
    assert "without TLS:" in tls
    assert "without [operator] token:" in token
    assert all(line.startswith("[gateway] host: ") for line in (both, tls, token))


def test_a_listener_of_the_operator_counts_too() -> None:
    """It is told under its own name."""
    [line] = told({}, {"host": "0.0.0.0", "port": 1})
    assert line.startswith("[operator] host: 0.0.0.0 ")


def test_producers_from_other_machines_are_told() -> None:
    """They have no password, whatever the operator's token and the certificate are."""
    for host, count in (("127.0.0.1", 0), ("::1", 0), ("0.0.0.0", 1), ("192.0.2.7", 1)):
        ticks = ListenerSettings(connector="any", host=host)
        lines = list(warnings(Settings(sources={"ticks": ticks}, operator=Operator(token="x"))))
        assert len(lines) == count
        assert all(line.startswith(f"[sources.ticks] host: {host} is reachable") for line in lines)


def test_a_face_that_listens_by_itself_is_told() -> None:
    """Neither the certificate of the gateway nor the operator's token protects it. One that is off is silent."""
    for host, enabled, count in (("127.0.0.1", True, 0), ("0.0.0.0", False, 0), ("0.0.0.0", True, 1)):
        faces = {"grpc": grpc.Settings(enabled=enabled, host=host), "page": page.Settings()}
        settings = Settings(gateway=Gateway(**TLS), operator=Operator(token="x"), faces=faces)
        lines = list(warnings(settings))
        assert len(lines) == count
        assert all(line.startswith(f"[faces.grpc] host: {host} is reachable") for line in lines)


@pytest.mark.parametrize(
    "sign", [{"trusted_proxies": ("10.0.0.1",)}, {"root_path": "/a"}, {"hosts": ("a.b",)}]
)
def test_a_proxy_without_a_token_is_told(sign: dict[str, Any]) -> None:
    """Unless this machine is not trusted anyway."""
    [line] = told(sign, {})
    assert line.startswith(f"[gateway] {next(iter(sign))}: a proxy")
    assert told(sign, {"token": "x"}) == told(sign, {"trust_local": False}) == []
