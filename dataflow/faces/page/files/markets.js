// All symbols as they are now: price, day, quality, rate. What is known stays while no view looks, so that one who comes back
// sees it at once; then it is followed again.
//
// Rules of this file. Names come first, then the list, then the streams: thousands of rows shall not wait for thousands of
// answers. One subscription a channel, for all symbols. What changed is in `changed` until a view has drawn it.
import * as fills from "./fills.js";
import { split } from "./decimal.js";
import { described, every, feed, notice, on } from "./daemon.js";
import { Pace } from "./pace.js";
import { take } from "./quality.js";
import { places } from "./words.js";

const LIST_EVERY = 10, PER_SYMBOL = 0.01;  // seconds: a list of thousands costs the daemon something, and is asked for less often

export const symbols = new Map();
export const changed = new Set();
export const market = { day: "", listed: false, intervals: null };  // `day`: the newest UTC day of any candle
const CHANGES = new Set(["symbols.changed", "stream.switched"]);  // what makes the list another one

class Listed {
  price = null; offset = -1; whole = 0; digits = 0; day = null; sources = new Map(); pace = new Pace();
  constructor(name) {
    this.name = name;
  }
  priced(text) {
    this.price = text;
    const [whole, fraction] = split(text, this.digits);
    this.whole = Math.max(this.whole, whole.length);
    this.digits = fraction.length;
  }
}
const known = name => symbols.get(name) ?? symbols.set(name, new Listed(name)).get(name);
function touch(name) {
  const symbol = known(name);
  changed.add(symbol);
  return symbol;
}

// ---- the list

export async function list() {
  const listed = await feed.call("getSymbols"), there = new Set();
  for (const { symbol: name, lastPrice, lastAge, offset, quality } of listed) {
    const symbol = touch(name);
    there.add(name);
    if (lastPrice != null && offset !== symbol.offset) {  // it traded while nobody looked
      symbol.priced(lastPrice);
      symbol.offset = offset;
      symbol.pace.age = lastAge ?? Infinity;
    }
    const before = symbol.sources;
    symbol.sources = new Map(Object.entries(quality.sources));
    for (const [source, { state }] of symbol.sources) stall(name, source, before.get(source)?.state ?? state, state);
  }
  for (const name of symbols.keys()) if (!there.has(name)) symbols.delete(name);
  market.listed = true;
}
export async function intervals() {  // of candles, as configured
  market.intervals ??= (await described()).intervals;
  return market.intervals;
}

// ---- the channels

// Follows everything. Returns what ends it.
export function follow() {
  const ends = new Set(), keep = subscription => ends.add(() => subscription.close());
  let ended = false, begun = false, daily = false, due = 0;
  async function refresh() {
    if (feed.connection.state !== "connected") return;
    if (!market.listed) for (const name of (await described()).symbols) touch(name);
    await list();
    due = performance.now() + 1000 * PER_SYMBOL * symbols.size;
    if (ended) return;
    if (!begun) {
      begun = true;
      keep(feed.trades("*").on(heard));
      keep(feed.quality("*").on(told));
      due = 0;  // what came between the list and the streams
    }
    if (daily || !(await intervals()).includes("1d") || ended) return;
    daily = true;
    keep(feed.candles("*", "1d", { snapshot: 1 }).on(day));
  }
  ends.add(every(LIST_EVERY, async () => { if (performance.now() >= due) await refresh(); }));
  ends.add(on("link", ({ state }) => { if (state === "connected") refresh().catch(() => {}); }));  // it is asked again soon
  ends.add(on("heard", ({ method }) => { if (CHANGES.has(method)) soon(); }));
  return () => {
    ended = true;
    for (const end of ends) end();
  };
}
let asked = null;  // thousands of notices ask once: each answer has all symbols
function soon() {
  asked ??= setTimeout(() => { asked = null; list().catch(() => {}); }, 1000);
}
const spot = ({ symbol, from, to }) => from === 0 ? symbol : to === null ? `${symbol} at place ${from} (nobody knows how many)` : `${symbol} ${places(from, to)}`;
function heard(event) {
  if (event.type === "trade") {
    const symbol = touch(event.symbol);
    symbol.priced(event.price);
    symbol.offset = event.offset;
    symbol.pace.came();
  }
  else if (event.type === "gap") notice("warn", `Trades are missing (${event.reason})`, spot(event));
  else if (event.type === "filled") {
    fills.remember(event);
    notice("good", "Missing trades came after all", spot(event));
  }
  else if (event.type === "rewound") notice("warn", "A crash of dataflow took the newest trades", `${event.symbol} behind place ${event.offset}`);
}
function told(event) {
  const symbol = touch(event.symbol), before = symbol.sources.get(event.source)?.state;
  take(symbol.sources, event);
  stall(event.symbol, event.source, before, event.state);
}
function stall(name, source, before, state) {  // the list may tell it before the stream does
  if (state === "stalled" && before !== "stalled") notice("bad", `${source} has newer trades than it sends`, name);
  else if (before === "stalled" && state !== "stalled") notice("good", `${source} sends again`, name);
}
function day(candle) {
  const symbol = touch(candle.symbol);
  if (symbol.day && candle.start < symbol.day.start) return;
  symbol.day = candle;
  if (candle.start > market.day) market.day = candle.start;
}
export const today = symbol => symbol.day?.start === market.day ? symbol.day : null;
