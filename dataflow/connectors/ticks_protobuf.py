"""Ticks that producers push: frames of a length in 4 bytes, big-endian, and a protobuf `Tick` of that length.

Rules of this file. Frames come in pieces, and many in one piece. A bad frame is named and left out, and the
connection goes on, because the next length is where it should be. Only a wrong length ends the connection:
behind it nothing can be found again. `dataflow/protobuf/marketdata.proto` says what a `Tick` is.

Problems: malformed_protobuf (also: not UTF-8), bad_length, and the refusals of `sources.intake`.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from attrs import field, frozen, validators

from actors.connector import Received
from dataflow.domain import Item
from dataflow.gateway.about import Sample, reached
from dataflow.sources.port import Judge, ListenerSettings
from dataflow.sources.reading import Unusable, excerpt

try:
    from google.protobuf.message import DecodeError

    from dataflow.protobuf.marketdata_pb2 import Tick
except ImportError as error:
    raise ImportError('it needs the library protobuf: pip install "dataflow[protobuf]"') from error

HEADER: Final = 4  # bytes
_length_at: Final = Struct(">I").unpack_from


@frozen(kw_only=True)
class Settings(ListenerSettings):
    """`max_frame_bytes`: a longer `Tick` ends the connection."""

    max_frame_bytes: int = field(default=1_000_000, validator=[validators.gt(0), validators.lt(1 << 32)])


class Codec:
    """The frames of one connection."""

    def __init__(self, settings: Settings, judge: Judge) -> None:
        self._most = settings.max_frame_bytes
        self._judge = judge
        self._tick = Tick()  # filled again for each frame
        self._rest = bytearray()  # the beginning of a frame
        self._needed = HEADER  # bytes in `_rest` with which to look again
        self.whole = 0

    @property
    def begun(self) -> bool:
        """Whether a frame has begun that is not whole yet."""
        return bool(self._rest)

    def decode(self, data: bytes, into: Received[Item]) -> None:
        """Add what the next bytes bring. The top of this file lists the problems."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:  # else a frame that drips in would be copied with every drop
                return
            data = bytes(self._rest)
        at = self._read(data, into)
        self._rest = bytearray(data[at:])

    def _read(self, data: bytes, into: Received[Item]) -> int:
        """Read the whole frames in `data`. Returns how far."""
        at, end, most = 0, len(data), self._most
        parse, judge, tick, take = self._tick.ParseFromString, self._judge, self._tick, into.items.append
        shown: dict[str, str] = {}  # by reason: an excerpt of each would cost more than the frames
        while end - at >= HEADER:
            length: int = _length_at(data, at)[0]
            if not 0 < length <= most:
                into.problems.append(("bad_length", excerpt(data[at:])))
                into.lost = f"a frame of {length:,} bytes; 1 to {most:,} are possible"
                return end
            begin, behind = at + HEADER, at + HEADER + length
            if behind > end:
                self._needed = HEADER + length
                return at
            at = behind
            self.whole += 1
            try:
                parse(data[begin:at])
                take(judge(tick))
            except (DecodeError, Unusable) as problem:
                reason = problem.reason if isinstance(problem, Unusable) else "malformed_protobuf"
                if reason not in shown:
                    shown[reason] = excerpt(data[begin:at])
                into.problems.append((reason, shown[reason]))
        self._needed = HEADER
        return at


# -- for the page `/faces` -----------------------------------------------------------------------------


def about(settings: Settings) -> Iterable[Sample]:
    """What producers connect to."""
    address = reached(settings.host, settings.port)
    host, _, port = address.rpartition(":")
    words = (
        "A producer pushes ticks: each a `Tick` of `dataflow/protobuf/marketdata.proto` behind its length in"
        " 4 bytes, big-endian."
    )
    lines = {
        "dataflow": f"dataflow simulate ticks --to {address} --symbol AAPL",
        "Python": _PYTHON.replace("HOST", host.strip("[]")).replace("PORT", port),
        "C++": _CPP.replace("HOST", host.strip("[]")).replace("PORT", port),
    }
    yield Sample("Ticks by TCP", f"tcp://{address}", words, lines=lines)


_PYTHON: Final = """\
# pip install "dataflow[protobuf]"
import socket, struct, time
from dataflow.protobuf.marketdata_pb2 import Tick

with socket.create_connection(("HOST", PORT)) as producer:
    tick = Tick(symbol="AAPL", price=150.25, volume=10, exchange_timestamp=time.time_ns())
    data = tick.SerializeToString()
    producer.sendall(struct.pack(">I", len(data)) + data)
    print("sent", tick.symbol, tick.price)
"""
_CPP: Final = """\
// protoc --cpp_out=. marketdata.proto && c++ -std=c++17 tick.cpp marketdata.pb.cc -lprotobuf
#include <arpa/inet.h>
#include <netdb.h>
#include <unistd.h>
#include <chrono>
#include "marketdata.pb.h"

int main() {
  addrinfo *found, wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  if (getaddrinfo("HOST", "PORT", &wanted, &found)) return 1;
  int producer = socket(found->ai_family, SOCK_STREAM, 0);
  if (connect(producer, found->ai_addr, found->ai_addrlen)) return 1;
  marketdata::Tick tick;
  tick.set_symbol("AAPL");
  tick.set_price(150.25);
  tick.set_volume(10);
  tick.set_exchange_timestamp(std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count());
  std::string data = tick.SerializeAsString();
  uint32_t length = htonl(data.size());
  data.insert(0, reinterpret_cast<char *>(&length), 4);
  for (size_t at = 0; at < data.size();) {
    ssize_t sent = write(producer, data.data() + at, data.size() - at);
    if (sent <= 0) return 1;
    at += sent;
  }
  close(producer);
}
"""
