// Clients of a SignalR hub, by @microsoft/signalr. Orders and events: one JSON object a line.
// {do: "start", name, url, transport, protocol, reconnect} {do: "invoke"|"send", name, text} {do: "stop", name}
import { createInterface } from "node:readline";
import { HttpTransportType, HubConnectionBuilder, LogLevel } from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";

const hubs = new Map();
const tell = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

const orders = {
  async start({ name, url, transport, protocol, reconnect, skip, timeout, method }) {
    const options = { transport: HttpTransportType[transport], skipNegotiation: Boolean(skip) };
    let builder = new HubConnectionBuilder().withUrl(url, options).configureLogging(LogLevel.None);
    if (protocol === "messagepack") builder = builder.withHubProtocol(new MessagePackHubProtocol());
    if (reconnect) builder = builder.withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 50 });
    if (timeout) builder = builder.withServerTimeout(timeout);
    const hub = builder.build();
    hubs.set(name, hub);
    hub.on("ReceiveMessage", (...arguments_) => tell({ name, received: arguments_ }));
    hub.onclose((error) => tell({ name, closed: error?.message ?? null }));
    hub.onreconnecting((error) => tell({ name, reconnecting: error?.message ?? null }));
    hub.onreconnected((id) => tell({ name, reconnected: typeof id }));
    await hub.start();
    tell({ name, started: typeof hub.connectionId });
  },
  async invoke({ name, target, text, texts }) {
    const result = await hubs.get(name).invoke(target ?? "SendMessage", ...(texts ?? [text]));
    tell({ name, result });
  },
  async send({ name, text }) {
    await hubs.get(name).send("SendMessage", text);
    tell({ name, sent: true });
  },
  async stop({ name }) {
    await hubs.get(name).stop();
    tell({ name, stopped: true });
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  orders[order.do](order).catch((error) => tell({ name: order.name, failed: error.message }));
}
