"""Promises of net.tls, each end kept against Trio's own TLS, or OpenSSL's command, at the other."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD
from typing import Any

import pytest
import trio

from dataflow.net.stream import SocketStream, connect
from dataflow.net.tls import CrossedError, ReadAheadSocket, TlsSocket, server_context, shake_hands, wrap
from tests.support.certificates import Certificate, make_certificate
from tests.support.waiting import until

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

Theirs = trio.SSLStream[trio.SocketStream]


@contextmanager
def socketpair() -> Iterator[tuple[socket.socket, trio.SocketStream]]:
    """Ours, and a stream of the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    with ours, stream.socket:
        yield ours, stream


def certified(context: ssl.SSLContext, certificate: Certificate) -> ssl.SSLContext:
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def their_context(
    certificate: Certificate, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = certified(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)
    context.minimum_version = context.maximum_version = version
    return context


@asynccontextmanager
async def as_client(
    certificate: Certificate, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[SocketStream, Theirs]]:
    """Our stream, which is the client's end, and the server's."""
    with trio.fail_after(60), socketpair() as (sock, raw):
        ours = SocketStream(sock)
        theirs = trio.SSLStream(raw, their_context(certificate, version), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.encrypt, certificate.client_context(), "localhost")
            nursery.start_soon(theirs.do_handshake)
        assert isinstance(ours.socket, ReadAheadSocket)
        with ours.socket:
            yield ours, theirs


@asynccontextmanager
async def as_server(certificate: Certificate) -> AsyncIterator[tuple[TlsSocket, Theirs]]:
    """Our socket, which is the server's end, and the client's stream."""
    with trio.fail_after(60), socketpair() as (ours, raw):
        sock = wrap(certified(server_context(), certificate), ours)
        theirs = trio.SSLStream(raw, certificate.client_context(), server_hostname="localhost")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, sock)
            await theirs.do_handshake()
        assert isinstance(sock, TlsSocket)
        with sock:
            yield sock, theirs


async def read(stream: SocketStream | Theirs, count: int) -> bytes:
    received = b""
    while len(received) < count:
        received += await stream.receive_some(1 << 16)
    return received


# -- both ends ----------------------------------------------------------------------------------------


async def test_what_is_begun_comes_first_and_once(certificate: Certificate) -> None:
    """`send` gives 0 when TLS has begun. Offered again, with more behind it, the bytes arrive once."""

    async def hold(sock: TlsSocket | ReadAheadSocket, theirs: Theirs) -> None:
        first, taken = b"a" * 10_000, 0
        while sent := sock.send(first):
            assert sent == len(first)
            taken += 1
        rest = first + b"b" * 1000
        received = bytearray()
        while rest:
            with suppress(BlockingIOError):
                rest = rest[sock.send(rest) :]
            received += await theirs.receive_some(65536)
        total = len(first) * (taken + 1) + 1000
        received += await read(theirs, total - len(received))
        assert received == first * (taken + 1) + b"b" * 1000

    async with as_server(certificate) as (sock, theirs):
        await hold(sock, theirs)
    async with as_client(certificate) as (stream, theirs):
        ours: Any = stream.socket
        await hold(ours, theirs)


async def test_errors_are_those_of_a_socket(certificate: Certificate) -> None:
    """Nothing there: BlockingIOError; garbage instead of TLS, or a closed socket: OSError."""

    async def fail(sock: TlsSocket | ReadAheadSocket, theirs: Theirs) -> None:
        with pytest.raises(BlockingIOError):
            sock.recv(10)
        await theirs.transport_stream.send_all(b"garbage" * 10)
        with pytest.raises(OSError):  # noqa: PT011
            sock.recv(10)
        sock.close()
        for call in (lambda: sock.recv(10), lambda: sock.send(b"x")):
            with pytest.raises(OSError):  # noqa: PT011
                call()

    async with as_server(certificate) as (sock, theirs):
        await fail(sock, theirs)
    async with as_client(certificate) as (stream, theirs):
        ours: Any = stream.socket
        await fail(ours, theirs)


async def test_a_peer_that_asks_for_new_keys_gets_them(certificate: Certificate) -> None:
    """TLS 1.3 allows it at any time; either end answers and goes on, in both directions."""
    pair = "-cert", str(certificate.certificate), "-key", str(certificate.key)
    server = ["openssl", "s_server", "-tls1_3", "-naccept", "1", "-accept", "127.0.0.1:0", *pair]

    async def talk(openssl: Any, stream: SocketStream) -> None:
        for line in (b"hello\n", b"K\n", b"world\n", b"K\n", b"end\n"):  # K: its command for new keys
            await openssl.stdin.send_all(line)
            await until(lambda: not any(ioctl(openssl.stdin.fileno(), FIONREAD, bytes(4))))
            if line != b"K\n":
                assert await read(stream, len(line)) == line
        await stream.send_all(b"understood\n")
        said = b""
        while b"understood" not in said:
            said += await openssl.stdout.receive_some()
        openssl.terminate()
        stream.close()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            openssl = await nursery.start(_run, server)
            said = b""
            while b"ACCEPT 127.0.0.1:" not in said or b"\n" not in said.partition(b"ACCEPT")[2]:
                said += await openssl.stdout.receive_some()
            port = int(said.partition(b"ACCEPT 127.0.0.1:")[2].split()[0])
            context = certificate.client_context()
            await talk(openssl, await connect("127.0.0.1", port, context, "localhost"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with trio.open_nursery() as nursery:
                client = ["openssl", "s_client", "-tls1_3", "-connect"]
                openssl = await nursery.start(_run, [*client, f"127.0.0.1:{listener.getsockname()[1]}"])
                await trio.lowlevel.wait_readable(listener)
                stream = SocketStream(listener.accept()[0])
                await stream.encrypt(certified(server_context(), certificate))
                await talk(openssl, stream)


async def _run(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    pipe = subprocess.PIPE
    process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    assert process.stdin is not None
    assert process.stdout is not None
    task_status.started(process)
    async with process.stdin, process.stdout:
        await process.wait()


# -- the server's end ---------------------------------------------------------------------------------


async def test_close_tells_that_nothing_was_cut_off(certificate: Certificate) -> None:
    """A client that insists on an orderly end of TLS sees one."""
    async with as_server(certificate) as (sock, theirs):
        sock.send(b"all")
        sock.close()
        assert await theirs.receive_some() == b"all"
        assert await theirs.receive_some() == b""  # and not BrokenResourceError


def test_old_tls_is_refused() -> None:
    """TLS 1.2 is the least, and renegotiation is refused."""
    context = server_context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


# -- the client's end ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_bytes_arrive_in_order_in_both_directions_at_once(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    """Also many records of them."""
    ours_said, theirs_said = bytes(range(256)) * 1000, bytes(reversed(range(256))) * 1000
    async with as_client(certificate, version) as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, ours_said)
        nursery.start_soon(theirs.send_all, theirs_said)
        assert await read(ours, len(theirs_said)) == theirs_said
        assert await read(theirs, len(ours_said)) == ours_said


async def test_everything_that_has_come_is_one_read(certificate: Certificate) -> None:
    """A hundred messages in a hundred records, for one turn of the scheduler."""
    async with as_client(certificate) as (ours, theirs):
        for number in range(100):
            await theirs.send_all(b"%03d" % number)
        assert await ours.receive_some(1 << 16) == b"".join(b"%03d" % number for number in range(100))


async def test_a_read_takes_no_more_than_it_wants(certificate: Certificate) -> None:
    """The rest is kept for the next one, which does not wait for the poller."""
    async with as_client(certificate) as (ours, theirs):
        await theirs.send_all(b"abcdef")
        assert [await ours.receive_some(4), await ours.receive_some(4)] == [b"abcd", b"ef"]


async def test_a_read_after_a_full_system_call_does_not_wait_for_the_poller(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records take room of their own: 64 KiB from the kernel are less for the reader, and more is waiting."""
    async with as_client(certificate) as (ours, theirs), trio.open_nursery() as nursery:
        sent = bytes(300_000)
        nursery.start_soon(theirs.send_all, sent)
        await trio.testing.wait_all_tasks_blocked()
        got = await ours.receive_some()
        assert 0 < len(got) < 65536
        with monkeypatch.context() as patch:
            patch.setattr(trio.lowlevel, "wait_readable", None)
            got += await ours.receive_some()
        got += await read(ours, len(sent) - len(got))
        assert got == sent


async def test_bytes_right_behind_the_handshake_are_not_lost(certificate: Certificate) -> None:
    """They come in the system call of the last step, so that no poller sees them."""
    with trio.fail_after(60), socketpair() as (sock, raw):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = their_context(certificate, ssl.TLSVersion.TLSv1_2)
        server = context.wrap_bio(incoming, outgoing, server_side=True)
        ours = SocketStream(sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.encrypt, certificate.client_context(), "localhost")
            while True:
                incoming.write(bytes(await raw.receive_some()))
                try:
                    server.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await raw.send_all(outgoing.read())
            server.write(b"early")
            await raw.send_all(outgoing.read())
        assert await ours.receive_some() == b"early"
        ours.close()
        await raw.aclose()


async def test_a_cancelled_read_loses_nothing(certificate: Certificate) -> None:
    """Before something came, and with something in hand."""
    async with as_client(certificate) as (ours, theirs):
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
    """With a goodbye of TLS or without one; and it stays the end, also where TCP has not ended."""
    async with as_client(certificate) as (ours, theirs):
        await theirs.send_all(b"last words")
        if polite:
            with pytest.raises(ssl.SSLWantReadError):
                theirs._ssl_object.unwrap()  # type: ignore[attr-defined]
            await theirs.transport_stream.send_all(theirs._outgoing.read())  # type: ignore[attr-defined]
        else:
            await theirs.transport_stream.aclose()
        assert await read(ours, 10) == b"last words"
        assert [await ours.receive_some(9), await ours.receive_some(9)] == [b"", b""]


async def test_what_is_not_tls_breaks_the_stream_after_what_was(certificate: Certificate) -> None:
    """Nothing that could be read is lost, and garbage is no end."""
    async with as_client(certificate) as (ours, theirs):
        await theirs.send_all(b"good")
        await theirs.transport_stream.send_all(b"garbage that is no record")
        assert await ours.receive_some(99) == b"good"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await ours.receive_some(99)


async def test_a_peer_that_reads_no_answers_is_read_no_further(certificate: Certificate) -> None:
    """Requests for new keys without end must not fill the memory with answers."""
    async with as_client(certificate) as (stream, theirs):
        ours: Any = stream.socket
        while ours.send(bytes(10_000)):
            pass
        await theirs.send_all(b"x")
        ours._unsent += bytes(100_000)
        with pytest.raises(CrossedError):
            ours.recv(10)


async def test_a_stranger_is_not_believed(certificate: Certificate, tmp_path: Path) -> None:
    """Its certificate has no known authority, or another name."""
    for context, host in (
        (ssl.create_default_context(cafile=str(make_certificate(tmp_path).certificate)), "localhost"),
        (certificate.client_context(), "elsewhere"),
    ):
        with trio.fail_after(60), socketpair() as (sock, raw):
            theirs = trio.SSLStream(raw, their_context(certificate), server_side=True)

            async def serve(stream: Theirs = theirs) -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                ours = SocketStream(sock)
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await ours.encrypt(context, host)
                assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
                ours.close()
            await raw.aclose()


async def test_a_transport_that_ends_during_the_handshake_is_told() -> None:
    """The handshake fails at once instead of waiting for ever."""
    with trio.fail_after(60), socketpair() as (sock, raw):
        await raw.aclose()
        ours = SocketStream(sock)
        with pytest.raises(trio.BrokenResourceError):
            await ours.encrypt(ssl.create_default_context(), "localhost")
        ours.close()
