// Clients of graphql-ws, ordered about by lines of JSON: {do, client, id, ...}. What comes is told, each event as a line.
import { createInterface } from "node:readline";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const url = process.argv[2];
const clients = new Map();
const stops = new Map();
const tell = (event) => console.log(JSON.stringify(event));

function clientOf(name) {
  if (!clients.has(name)) {
    const client = createClient({ url, webSocketImpl: WebSocket, retryAttempts: 5, retryWait: async () => {} });
    client.on("connected", () => tell({ client: name, event: "connected" }));
    client.on("closed", ({ code, reason }) => tell({ client: name, event: "closed", code, reason }));
    client.on("ping", (received, payload) => received || tell({ client: name, event: "ping", payload }));
    client.on("pong", (received, payload) => received && tell({ client: name, event: "pong", payload }));
    clients.set(name, client);
  }
  return clients.get(name);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, client = "", id, query, variables, operationName } = JSON.parse(line);
  if (what === "subscribe") {
    const sink = {
      next: (result) => tell({ client, id, next: result }),
      error: (error) =>
        tell({ client, id, error: Array.isArray(error) ? error : { code: error.code, reason: error.reason } }),
      complete: () => tell({ client, id, complete: true }),
    };
    stops.set(id, clientOf(client).subscribe({ query, variables, operationName }, sink));
  } else if (what === "stop") {
    stops.get(id)();
  } else if (what === "dispose") {
    await clientOf(client).dispose();
  }
}
