"""The library websockets with its own `broadcast`: it frames a message once and writes it to all clients."""

from __future__ import annotations

from orders import Orders, listen, run
from websockets.asyncio.server import ServerConnection, broadcast, serve

orders = Orders()
clients: set[ServerConnection] = set()


async def attend(client: ServerConnection) -> None:
    clients.add(client)
    try:
        async for _message in client:
            pass
    finally:
        clients.discard(client)


async def main() -> None:
    listener = listen()
    async with serve(attend, sock=listener):
        orders.announce(listener.getsockname()[1])
        async for update in orders.updates():
            broadcast(clients, update, text=True)


run(main)
