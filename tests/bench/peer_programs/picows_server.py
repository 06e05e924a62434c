"""picows: WebSockets in Cython, without flow control. Its `send` makes a frame and writes it at once."""

from __future__ import annotations

from orders import Orders, listen, run
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

orders = Orders()
clients: set[WSTransport] = set()


class Client(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        clients.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        clients.discard(transport)


def welcome(_request: WSUpgradeRequest) -> Client:
    return Client()


async def main() -> None:
    listener = listen()
    await ws_create_server(welcome, sock=listener, backlog=4096)
    orders.announce(listener.getsockname()[1])
    async for update in orders.updates():
        for client in tuple(clients):
            client.send(WSMsgType.TEXT, update)


run(main)
