// Clients that come back by the means of their libraries: node comeback.mjs http://HOST:PORT
// Each follows AAPL from the beginning, and tells every quantity or volume that it is shown: {who, shown}.
import { HttpTransportType, HubConnectionBuilder, LogLevel } from "@microsoft/signalr";
import { Client } from "@stomp/stompjs";
import { EventSource } from "eventsource";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const base = process.argv[2];
const ws = base.replace("http", "ws");
const SOON = 250; // ms
const tell = (who, shown) => process.stdout.write(`${JSON.stringify({ who, shown: Number(shown) })}\n`);

const hub = new HubConnectionBuilder()
  .withUrl(`${base}/blockchain`, { transport: HttpTransportType.WebSockets })
  .withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => SOON })
  .configureLogging(LogLevel.None)
  .build();
const ask = (id, method, params) =>
  hub.invoke("SendMessage", JSON.stringify({ jsonrpc: "2.0", id, method, params })).catch(() => {});
const follow = async () => {
  await ask("s", "subscribe", { channel: "trades", symbol: "AAPL" });
  await ask("r", "getRecentTrades", { symbol: "AAPL", count: 1 });
};
hub.on("ReceiveMessage", (text) => {
  const { method, params, id, result } = JSON.parse(text);
  if (method === "trades.update") tell("signalr", params.qty);
  if (id === "r") for (const trade of result) tell("signalr", trade.qty);
});
hub.onreconnected(follow);
await hub.start();
follow();

Object.assign(globalThis, { WebSocket });
const stomp = new Client({ brokerURL: `${ws}/ws/websocket`, reconnectDelay: SOON });
stomp.onConnect = () =>
  stomp.subscribe("/topic/market-data/AAPL", (message) => tell("stomp", JSON.parse(message.body).volume));
stomp.activate();

const graphql = createClient({
  url: `${ws}/graphql`,
  webSocketImpl: WebSocket,
  retryAttempts: Infinity,
  shouldRetry: () => true, // by default it gives up when nobody listens at the port
  retryWait: () => new Promise((done) => setTimeout(done, SOON)),
});
graphql.subscribe(
  { query: 'subscription { marketData(symbol: "AAPL") { volume } }' },
  { next: ({ data }) => tell("graphql", data.marketData.volume), error: () => {}, complete: () => {} },
);

const events = new EventSource(`${base}/api/v1/stream/AAPL?since=1-0`);
events.addEventListener("trade", ({ data }) => tell("sse", JSON.parse(data).qty));
