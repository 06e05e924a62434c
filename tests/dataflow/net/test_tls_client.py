"""Promises of net.tls_client, kept against Trio's own TLS at the other end."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from dataflow.net.tls_client import EncryptedStream
from tests.support.certificates import Certificate, make_certificate

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def server_context(certificate: Certificate, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    context.minimum_version = context.maximum_version = version
    return context


@asynccontextmanager
async def connected(
    certificate: Certificate, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[EncryptedStream, trio.SSLStream[trio.abc.Stream], trio.abc.Stream]]:
    """Ours, the server's, and the transport beneath the server's."""
    transport, beneath = memory_stream_pair()
    ours = EncryptedStream(transport, certificate.client_context(), "localhost")
    theirs = trio.SSLStream(beneath, server_context(certificate, version), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    yield ours, theirs, beneath


async def read(stream: EncryptedStream, count: int) -> bytes:
    received = b""
    while len(received) < count:
        received += await stream.receive_some(1 << 16)
    return received


@pytest.mark.parametrize("version", VERSIONS)
async def test_bytes_arrive_in_order_in_both_directions_at_once(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    """Also many records' worth of them."""
    ours_said, theirs_said = bytes(range(256)) * 1000, bytes(reversed(range(256))) * 1000
    heard = b""
    async with connected(certificate, version) as (ours, theirs, _), trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, ours_said)
        nursery.start_soon(theirs.send_all, theirs_said)
        assert await read(ours, len(theirs_said)) == theirs_said
        while len(heard) < len(ours_said):
            heard += await theirs.receive_some()
    assert heard == ours_said


async def test_everything_that_has_come_is_one_read(certificate: Certificate) -> None:
    """A hundred messages in a hundred records, which the scheduler need not turn a hundred times for."""
    async with connected(certificate) as (ours, theirs, _):
        for number in range(100):
            await theirs.send_all(b"%03d" % number)
        assert await ours.receive_some(1 << 16) == b"".join(b"%03d" % number for number in range(100))


async def test_a_read_takes_no_more_than_it_wants(certificate: Certificate) -> None:
    """The rest is kept for the next one."""
    async with connected(certificate) as (ours, theirs, _):
        await theirs.send_all(b"abcdef")
        assert [await ours.receive_some(4), await ours.receive_some(4)] == [b"abcd", b"ef"]


async def test_a_cancelled_read_loses_nothing(certificate: Certificate) -> None:
    """Before something came, and with something in hand."""
    async with connected(certificate) as (ours, theirs, _):
        heard = b""
        for number in range(20):
            with trio.CancelScope() as scope:
                scope.cancel()
                heard += await ours.receive_some(2)
            await theirs.send_all(b"%02d." % number)
            heard += await ours.receive_some(2)
        heard += await read(ours, 60 - len(heard))
        assert heard == b"".join(b"%02d." % number for number in range(20))


@pytest.mark.parametrize("polite", [True, False])
async def test_the_end_comes_after_everything(certificate: Certificate, polite: bool) -> None:
    """With a goodbye of TLS or without one; and it stays the end."""
    async with connected(certificate) as (ours, theirs, beneath):
        await theirs.send_all(b"last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon((theirs if polite else beneath).aclose)
            assert await read(ours, 10) == b"last words"
            assert [await ours.receive_some(9), await ours.receive_some(9)] == [b"", b""]
            await ours.aclose()


async def test_what_is_not_tls_breaks_the_stream_after_what_was(certificate: Certificate) -> None:
    """Nothing that could be read is lost, and garbage is no end."""
    async with connected(certificate) as (ours, theirs, beneath):
        await theirs.send_all(b"good")
        await beneath.send_all(b"garbage that is no record")
        assert await ours.receive_some(99) == b"good"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await ours.receive_some(99)


async def test_a_send_that_was_cut_off_is_the_last_one(certificate: Certificate) -> None:
    """Half a record can only be followed by its other half."""
    async with connected(certificate) as (ours, _, _):
        hanging = trio.Event()

        async def hang(data: bytes) -> None:
            hanging.set()
            await trio.sleep_forever()

        ours._transport.send_all = hang  # type: ignore[method-assign, assignment]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, b"half")
            await hanging.wait()
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"other")


async def test_a_stranger_is_not_believed(certificate: Certificate, tmp_path: Path) -> None:
    """A certificate that nobody vouches for, or of another name."""
    for context, host in (
        (ssl.create_default_context(cafile=str(make_certificate(tmp_path).certificate)), "localhost"),
        (certificate.client_context(), "elsewhere"),
    ):
        transport, beneath = memory_stream_pair()
        theirs = trio.SSLStream(
            beneath, server_context(certificate, ssl.TLSVersion.TLSv1_3), server_side=True
        )

        async def serve(stream: trio.SSLStream[trio.abc.Stream] = theirs) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await EncryptedStream(transport, context, host).do_handshake()
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
            await transport.aclose()


async def test_a_transport_that_ends_during_the_handshake_is_told() -> None:
    """It is no agreement, and nobody waits for ever."""
    transport, beneath = memory_stream_pair()
    await beneath.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await EncryptedStream(transport, ssl.create_default_context(), "localhost").do_handshake()
