// Follow a symbol, also through restarts of this program: no trade is missed, and none comes twice.
//
//   node resume.mjs http://127.0.0.1:8080 BTC-USDT position.json
import { readFileSync, renameSync, writeFileSync } from "node:fs";

import { connect } from "../javascript/client.js"; // elsewhere: the file that the daemon serves at /client.js

const [url, symbol, file] = process.argv.slice(2);
if (!file) {
  console.error("node resume.mjs http://127.0.0.1:8080 BTC-USDT position.json");
  process.exit(1);
}

function load() {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    if (error.code === "ENOENT") return undefined; // the first start
    throw error;
  }
}

function keep(position) {
  writeFileSync(`${file}.new`, JSON.stringify(position));
  renameSync(`${file}.new`, file); // a crash leaves the old one or the new one, never a half
}

const feed = connect(url);
feed.events().on(event => {
  if (event.type === "connection") console.error(event.state, event.reason ?? "");
});
const trades = feed.trades(symbol, { since: load(), snapshot: 5 });
for await (const event of trades) {
  switch (event.type) {
    case "trade":
      console.log(event.offset, event.side, event.qty, "at", event.price);
      break;
    case "gap":
      console.log(event.from, event.from === 0 ? "the count begins anew:" : `to ${event.to ?? "?"} is missing:`, event.reason);
      break;
    case "filled":
      for (const each of event.trades) console.log(each.offset, each.side, each.qty, "at", each.price, "(late)");
      break;
    case "rewound":
      console.log(event.offset, "is the last one that counts: forget", event.dropped, "trades behind it");
  }
  keep(trades.positions[symbol]); // where much is traded: once a second, and behind a crash some come again
}
