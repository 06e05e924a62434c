"""FastAPI on uvicorn: a loop over the sockets with one `send_text` each, as in its documentation."""

from __future__ import annotations

import asyncio
import contextlib

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from orders import Orders, listen, run

app = FastAPI()
orders = Orders()
clients: set[WebSocket] = set()


@app.websocket("/ws")
async def updates(client: WebSocket) -> None:
    await client.accept()
    clients.add(client)
    try:
        while True:
            await client.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        clients.discard(client)


async def broadcast() -> None:
    async for update in orders.updates():
        text = update.decode()
        for client in list(clients):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await client.send_text(text)


async def main() -> None:
    listener = listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", backlog=4096))
    orders.announce(listener.getsockname()[1])
    broadcasting = asyncio.create_task(broadcast())
    await server.serve(sockets=[listener])
    broadcasting.cancel()


run(main)
