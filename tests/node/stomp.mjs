// A client of @stomp/stompjs: node stomp.mjs URL [transport of sockjs-client]
// Orders: {subscribe: destination, id}, {unsubscribe: id}, {publish: destination, body}, {deactivate: true}.
// Events: {connected}, {message, headers}, {error}, {receipt}, {closed}.
import { createInterface } from "node:readline";
import { Client } from "@stomp/stompjs";
import SockJS from "sockjs-client";
import WebSocket from "ws";

const [url, transport] = process.argv.slice(2);
const tell = event => process.stdout.write(JSON.stringify(event) + "\n");

Object.assign(globalThis, { WebSocket });
const way = transport
  ? { webSocketFactory: () => new SockJS(url, null, { transports: [transport] }) }
  : { brokerURL: url };
const client = new Client({ ...way, reconnectDelay: 0, heartbeatIncoming: 1000, heartbeatOutgoing: 1000 });
client.onConnect = frame => tell({ connected: frame.headers });
client.onStompError = frame => tell({ error: frame.headers });
client.onWebSocketClose = event => tell({ closed: event.code, reason: event.reason });
client.activate();

const subscriptions = {};
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.subscribe) {
    client.watchForReceipt(order.id, () => tell({ receipt: order.id }));
    subscriptions[order.id] = client.subscribe(
      order.subscribe,
      message => tell({ message: JSON.parse(message.body), headers: message.headers }),
      { id: order.id, receipt: order.id },
    );
  } else if (order.unsubscribe) {
    client.watchForReceipt("left", () => tell({ receipt: "left" }));
    subscriptions[order.unsubscribe].unsubscribe({ receipt: "left" });
  } else if (order.publish) {
    client.publish({ destination: order.publish, body: order.body });
  } else {
    await client.deactivate();
  }
}
process.exit(0);
