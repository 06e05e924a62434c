// The client library with a pretended WebSocket and pretended timers: node agreement.mjs
// Each line of input is a case: {symbol, room, snapshot, since, small, steps}. With `room` the user takes events when a step says
// so, else he listens. With `small`, few positions fit into a call. Each line of output: what he was told, and what was said.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { connect } from "../../dataflow/client/javascript/client.js";

const source = readFileSync(new URL("../../dataflow/client/javascript/client.js", import.meta.url), "utf8");
const smaller = source.replace("POSITIONS_AT_ONCE = 59_000", "POSITIONS_AT_ONCE = 100")
  .replace("MOST_GAPS_OF_ALL = 20_000", "MOST_GAPS_OF_ALL = 4");
const { connect: connectSmall } = await import(`data:text/javascript,${encodeURIComponent(smaller)}`);

const SYMBOL = "BTC-USD";
let sockets = [];
let timers = new Map();
let serial = 0;
const later = job => timers.set(++serial, job).size && serial;
const never = id => timers.delete(id);
const tick = () => new Promise(done => setImmediate(done));
Object.assign(globalThis, { setTimeout: later, clearTimeout: never, setInterval: () => 0, clearInterval: () => {} });

class Pretended {
  isOpen = false;
  isCut = false;
  calls = [];
  constructor() {
    sockets.push(this);
  }
  send(text) {
    this.calls.push(...[JSON.parse(text)].flat());
  }
  close() {
    this.isCut = true;
  }
}

/** Answers name the calls of the reference: they get the ids of ours. */
const ours = (text, calls) =>
  text.replace(/"id": ?"([^"]*)"/g, (_all, topic) => {
    const asked = call => call.method === "subscribe" && !call.isAnswered && `trades:${call.params.symbol}` === topic;
    const made = calls.find(asked);
    if (made) made.isAnswered = true;
    return `"id":${made?.id ?? JSON.stringify(topic)}`;
  });

async function run({ symbol = SYMBOL, room, snapshot, since, small = false, steps }) {
  sockets = [];
  timers = new Map();
  const told = [], toldLater = [], taking = [];
  const feed = (small ? connectSmall : connect)("ws://pretended/ws", { WebSocket: Pretended });
  const options = { ...(snapshot === null ? {} : { snapshot }), ...(since ? { since } : {}), ...(room ? { room } : {}) };
  const view = feed.trades(symbol, options);
  const reader = room ? view[Symbol.asyncIterator]() : null;
  if (!room) view.on(event => told.push(event));
  const calls = [], faults = [], positions = [];
  const socket = () => sockets.at(-1);
  for (const [deed, what] of steps) {
    if (deed === "connect") {
      if (socket().isOpen || socket().isCut) {
        if (!socket().isCut) socket().onclose({ code: 1006, reason: "" });
        const [retry] = [...timers.values()].slice(-1);
        timers.clear();
        retry();
      }
      socket().isOpen = true;
      socket().onopen();
      await tick();
      calls.push(socket().calls.filter(call => call.method === "subscribe").map(call => call.params));
    } else if (deed === "again") {
      const { length } = socket().calls, [[id, job]] = [...timers].slice(-1);
      timers.delete(id);
      job();
      await tick();
      calls.push(socket().calls.slice(length).map(call => call.params));
    } else if (deed === "say") {
      if (!socket().isCut) socket().onmessage({ data: ours(what, socket().calls) });
      faults.push(socket().isCut);
    } else if (deed === "take") {
      for (let n = 0; n < what; n++) taking.push(reader.next().then(({ value, done }) => done || told.push(value)));
      await tick();
      positions.push([told.length, view.positions]);
    } else if (deed === "follow") {
      feed.trades(SYMBOL, { snapshot: what }).on(event => toldLater.push(event));
      await tick();
    }
  }
  await tick();
  const outcome = { told, toldLater, calls, faults, positions: view.positions, dropped: view.dropped, taken: positions };
  feed.close();
  await Promise.all(taking);
  return outcome;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await run(JSON.parse(line)))}\n`);
}
