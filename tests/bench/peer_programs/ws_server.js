// Node with the library ws: one Buffer an update and one `send` a client, as in its documentation.
"use strict";
const { WebSocketServer } = require("ws");

const options = {};
for (let i = 2; i + 1 < process.argv.length; i += 2) options[process.argv[i].slice(2)] = process.argv[i + 1];
const parts = options.update.split(/(@[NS])/);

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, path: "/ws", backlog: 4096, perMessageDeflate: false });
let rate = 0, made = 0, due = 0n, busyUntil = 0n, timer = null;

server.on("connection", (client) => client.on("message", () => {}).on("error", () => {}));
server.on("listening", () => console.log(JSON.stringify({ port: server.address().port })));

function broadcast(late) {
  made += 1;
  const now = process.hrtime.bigint() + epoch; // ns since 1970
  const stamp = String(now - late), number = String(made);
  const update = Buffer.from(parts.map((part) => (part === "@N" ? number : part === "@S" ? stamp : part)).join(""));
  for (const client of server.clients) client.send(update, { binary: false });
  busyUntil = process.hrtime.bigint();
}

// The monotonic clock has ns, the clock of the day only ms. So their distance is taken at a tick of the second one.
function distance() {
  let at = Date.now();
  const last = at;
  while (at === last) at = Date.now();
  return BigInt(at) * 1000000n - process.hrtime.bigint();
}
const epoch = distance();

function turn() { // the same as Orders.updates in orders.py
  timer = null;
  if (rate === 0) return;
  if (rate < 0) {
    broadcast(0n);
  } else {
    const now = process.hrtime.bigint();
    if (now >= due) {
      broadcast(due < busyUntil ? now - due : 0n);
      due += BigInt(Math.round(1e9 / rate));
    }
  }
  next();
}

function next() {
  const wait = rate < 0 ? 0n : due - process.hrtime.bigint();
  timer = wait <= 0n ? setImmediate(turn) : setTimeout(turn, Number(wait) / 1e6);
}

process.stdin.on("data", (data) => {
  const [word, value] = data.toString().trim().split(" ");
  rate = word === "flood" ? -1 : word === "idle" ? 0 : Number(value);
  due = process.hrtime.bigint();
  if (timer === null && rate !== 0) next();
  console.log(JSON.stringify({ made }));
});
process.stdin.on("end", () => process.exit(0));
process.on("SIGTERM", () => process.exit(0));
