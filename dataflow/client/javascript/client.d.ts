/**
 * The client of dataflow for browsers and Node.js: one ES module without dependencies.
 *
 * It follows topics through any outage, also through crashes of the daemon. Each place of a stream comes once and in order, as
 * a trade or as a gap. Prices and quantities are texts with all their digits: a number of JavaScript would lose some.
 */

/** A place in the stream of a symbol. */
export interface Position { epoch: number; offset: number }

/** Where to go on: a position, and the gaps up to it that may still be filled. */
export interface Since extends Position { gaps?: [number, number][] }

/** A trade at its place. `side` is the taker's; null: the source tells no side, or no id. */
export interface Trade {
  type: "trade"; symbol: string; offset: number; timestamp: string; side: "buy" | "sell" | null;
  price: string; qty: string; tradeId: string | null; source: string;
}
/** Places without a trade. `to` is null when nobody knows how many are missing. From place 0: the count begins anew. */
export interface Gap { type: "gap"; symbol: string; from: number; to: number | null; reason: string; skipped?: number }
/** Places of earlier gaps that hold these trades now. */
export interface Filled { type: "filled"; symbol: string; from: number; to: number; trades: Trade[] }
/** What came behind `offset` is no part of the stream any more: a crash of the daemon took it. `dropped`: trades that were held. */
export interface Rewound { type: "rewound"; symbol: string; epoch: number; offset: number; dropped: number }
/** How a symbol fares at one source. */
export interface Quality {
  type: "quality"; symbol: string; source: string; state: string; since: string; reason: string | null; missing: number | null; lag: number | null;
}
/** A candle as it is now: a later one of the same `start` has a higher `rev` and replaces it. */
export interface Candle {
  type: "candle"; symbol: string; interval: string; start: string; open: string; high: string; low: string; close: string;
  volume: string; quoteVolume: string; buyVolume: string; count: number; rev: number; closed: boolean; complete: boolean;
  gaps: { from: number; to: number | null; reason: string }[]; firstOffset: number; lastOffset: number;
}
/** What is told besides the streams, such as `connection.lost` of a source. */
export interface Notice { type: "notice"; method: string; params: Record<string, unknown> }
/** What became of the connection to the daemon. `retryIn`: seconds until the next attempt. `code`: of the close, if there was one. */
export interface Connection {
  type: "connection"; state: "connecting" | "connected" | "lost" | "waiting" | "refused" | "draining" | "closed";
  reason: string | null; code: number | null; retryIn: number | null;
}

/**
 * What follows. Iterate (`for await`), or listen with `on`, but not both. While nobody takes the events, at most `room` of them
 * wait; then the subscription leaves out the oldest trades, tells them as one gap `slow_reader`, and counts them in `dropped`.
 */
export interface Subscription<E> extends AsyncIterable<E> {
  on(listener: (event: E) => void): this;
  close(): void;
  readonly dropped: number;
  /** By symbol: where a later `since` goes on. */
  readonly positions: Record<string, Since>;
}
export interface TradesOptions { snapshot?: number; since?: Since | Record<string, Since>; room?: number }
export interface Page { symbol: string; epoch: number; trades: Trade[]; gaps: Gap[]; next: Position | null; rewound?: Position }

export interface Feed {
  /** The trades of a symbol, of several, or of all (`"*"`). */
  trades(symbols: string | string[], options?: TradesOptions): Subscription<Trade | Gap | Filled | Rewound>;
  candles(symbols: string | string[], interval: string, options?: { snapshot?: number; room?: number }): Subscription<Candle>;
  quality(symbols: string | string[], options?: { room?: number }): Subscription<Quality>;
  /** Connections and notices. A listener is told the present state of the connection at once. */
  events(): Subscription<Connection | Notice>;
  /** The newest trades, the newest first. */
  recent(symbol: string, count?: number): Promise<Trade[]>;
  /** All that is kept, page after page, in the order of the stream. */
  history(symbol: string, options?: { after?: Position; from?: string; to?: string; limit?: number }): AsyncIterable<Page>;
  /** Any method of the protocol. Decimals in the answer are texts. Rejects with a `CallError`, also when the connection is lost. */
  call(method: string, params?: Record<string, unknown>): Promise<any>;
  readonly connection: Connection;
  close(): void;
}
export class CallError extends Error { readonly code: number; readonly data: unknown }

/** `url`: `ws://` or `wss://`, or the `http` address of the daemon, below which `/ws` is. Connects at once, again and again. */
export function connect(url: string | URL, options?: { WebSocket?: unknown; retryFirst?: number; retryMost?: number }): Feed;
