// A user of the client library in TypeScript, and the library beside its declarations: both must compile.
import { type Candle, CallError, connect, type Feed, type Since } from "./client.js";
import type * as declared from "./client.js";
import * as written from "./untyped.js"; // the same file, without its declarations

export const functions: typeof declared.connect = written.connect;
export const errors: CallError = new written.CallError(0, "");

export async function follow(url: string, known: Record<string, Since>): Promise<string[]> {
  const feed: Feed = connect(url, { retryMost: 5 }), seen: string[] = [];
  const trades = feed.trades(["BTC-USDT", "ETH-USDT"], { since: known, room: 100 });
  try {
    for await (const event of trades) {
      switch (event.type) {
        case "trade": seen.push(event.price, event.side ?? "unknown"); break;
        case "gap": seen.push(`${event.from} ${event.to ?? "?"} ${event.reason}`); break;
        case "filled": seen.push(...event.trades.map(trade => trade.qty)); break;
        case "rewound": seen.push(`${event.epoch} ${event.offset} ${event.dropped}`); break;
        default: { const none: never = event; throw none; }
      }
      known = trades.positions;
    }
  } catch (error) {
    if (error instanceof CallError) seen.push(`${error.code}`);
  }
  const candles = new Map<string, Candle>();
  feed.candles("BTC-USDT", "1m", { snapshot: 10 }).on(candle => candles.set(candle.start, candle), error => seen.push(error.message));
  feed.quality("*").on(({ symbol, state }) => seen.push(symbol, state)).close();
  feed.events().on(event => seen.push(event.type === "notice" ? event.method : event.state));
  for (const trade of await feed.recent("BTC-USDT")) seen.push(trade.price);
  for await (const page of feed.history("BTC-USDT", { from: "2026-01-01T00:00:00Z" })) seen.push(`${page.trades.length} ${page.next?.offset}`);
  await feed.call("ping");
  feed.close();
  return seen;
}
