// A user of the client library: node client.mjs URL. Orders, each a line: {do, name, ...}. Told, each a line: {name, event} and the like.
import { createInterface } from "node:readline";

import { connect } from "../../dataflow/client/javascript/client.js";

const tell = told => process.stdout.write(`${JSON.stringify(told)}\n`);
const feed = connect(process.argv[2], { retryFirst: 0.05, retryMost: 0.5 });
const followed = new Map();
feed.events().on(event => tell({ name: "feed", event }));

const deeds = {
  trades({ name, symbols, options = {} }) {
    const failed = error => tell({ name, failed: { code: error.code, message: error.message, data: error.data } });
    followed.set(name, feed.trades(symbols, options).on(event => tell({ name, event }), failed));
  },
  candles({ name, symbols, interval, options }) {
    followed.set(name, feed.candles(symbols, interval, options).on(event => tell({ name, event })));
  },
  quality({ name, symbols }) {
    followed.set(name, feed.quality(symbols).on(event => tell({ name, event })));
  },
  positions({ name }) {
    tell({ name, positions: followed.get(name).positions });
  },
  close({ name }) {
    followed.get(name).close();
    tell({ name, closed: true });
  },
  async call({ name, method, params }) {
    await feed.call(method, params).then(
      result => tell({ name, result }),
      ({ code, message, data }) => tell({ name, failed: { code, message, data } }),
    );
  },
  async history({ name, symbol, options }) {
    for await (const page of feed.history(symbol, options)) tell({ name, page });
    tell({ name, done: true });
  },
  async recent({ name, symbol, count }) {
    tell({ name, trades: await feed.recent(symbol, count) });
  },
  end() {
    feed.close();
    process.stdin.destroy();
  },
};
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  deeds[order.do](order);
}
