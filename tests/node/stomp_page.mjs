// Runs in a page: window.meet(url, transport, room) follows market data and a room, says GO and then ten signals
// there, and resolves with all that came.
import { Client } from "@stomp/stompjs";
import SockJS from "sockjs-client/dist/sockjs.js";

window.meet = (url, transport, room) =>
  new Promise((resolve, reject) => {
    const prices = [];
    const signals = [];
    let version;
    const client = new Client({
      webSocketFactory: () => new SockJS(url, null, { transports: [transport] }),
      reconnectDelay: 0,
    });
    const finish = async () => {
      if (prices.length < 2 || signals.length < 11) return;
      await client.deactivate();
      resolve({ prices, signals, version });
    };
    const say = signal => client.publish({ destination: `/app/signal/${room}`, body: JSON.stringify(signal) });
    client.onConnect = frame => {
      version = frame.headers.version;
      client.subscribe("/topic/market-data/BTCUSDT", message => {
        prices.push(JSON.parse(message.body).close);
        finish();
      });
      client.subscribe(`/topic/signaling/${room}`, message => {
        signals.push(JSON.parse(message.body));
        finish();
      });
      say({ type: "GO" });
      for (let number = 0; number < 10; number++) say({ type: "ICE", candidate: `é ${number}` });
    };
    client.onStompError = frame => reject(new Error(frame.headers.message));
    client.onWebSocketClose = event => prices.length < 2 && reject(new Error(`closed: ${event.code} ${event.reason}`));
    client.activate();
  });
