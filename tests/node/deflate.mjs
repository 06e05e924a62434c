// A client that offers permessage-deflate, as ws does by default: node deflate.mjs ws://HOST:PORT/ws
// Each line {symbol, since, until} is a life of it: it follows the symbol from a position up to the place `until`, and
// tells {extensions, bytes, trades: [[offset, id], ...]}. `bytes`: read from its socket.
import { createInterface } from "node:readline";
import WebSocket from "ws";

for await (const line of createInterface({ input: process.stdin })) {
  const { symbol, since, until } = JSON.parse(line);
  const socket = new WebSocket(process.argv[2]);
  const trades = [];
  const take = ({ offset, tradeId }) => trades.push([offset, tradeId]);
  await new Promise((done) => {
    socket.on("open", () => {
      const params = { channel: "trades", symbol, since };
      socket.send(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "subscribe", params }));
    });
    socket.on("message", (text) => {
      const { result, method, params } = JSON.parse(text);
      if (result) result.trades.forEach(take);
      else if (method === "trades.update") take(params);
      if (trades.length > 0 && trades.at(-1)[0] >= until) done();
    });
  });
  const told = { extensions: socket.extensions, bytes: socket._socket.bytesRead, trades };
  process.stdout.write(`${JSON.stringify(told)}\n`);
  socket.terminate();
}
