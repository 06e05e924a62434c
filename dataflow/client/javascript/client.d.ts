/**
 * The client of dataflow for browsers and Node.js: one ES module without dependencies.
 *
 * It follows topics through any outage, also through crashes of the daemon. Each place of a stream comes once
 * and in order, as a trade or as a gap. Prices and quantities are texts with all their digits, as the daemon
 * writes them (`"61686.00000000"`, `"5.892E-4"`): a number of JavaScript would lose some.
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
/**
 * Places without a trade. `to` is null when nobody knows how many are missing. From place 0: the count begins
 * anew, and what came before is no part of what follows. `skipped`: trades that were left out for a slow client.
 */
export interface Gap {
  type: "gap"; symbol: string; from: number; to: number | null; reason: string; skipped?: number;
}
/** Places of earlier gaps that hold these trades now. */
export interface Filled { type: "filled"; symbol: string; from: number; to: number; trades: Trade[] }
/**
 * What came behind `offset` is no part of the stream any more: a crash of the daemon took it. `dropped`: the
 * trades among it that this subscription was told.
 */
export interface Rewound { type: "rewound"; symbol: string; epoch: number; offset: number; dropped: number }
/** How a symbol fares at one source. */
export interface Quality {
  type: "quality"; symbol: string; source: string; state: string; since: string; reason: string | null;
  missing: number | null; lag: number | null;
}
/** A candle as it is now: a later one of the same `start` has a higher `rev` and replaces it. */
export interface Candle {
  type: "candle"; symbol: string; interval: string; start: string;
  open: string; high: string; low: string; close: string;
  volume: string; quoteVolume: string; buyVolume: string;
  count: number; rev: number; closed: boolean; complete: boolean;
  gaps: { from: number; to: number | null; reason: string }[]; firstOffset: number; lastOffset: number;
}
/**
 * What is told besides the streams, such as `connection.lost` of a source. `client.refused` is this client's
 * own: the daemon refuses for now to go on with a subscription; it is asked again.
 */
export interface Notice { type: "notice"; method: string; params: Record<string, unknown> }
/**
 * What became of the connection to the daemon. `waiting`: it is served in its turn. `refused`: there is no
 * room. `draining`: the daemon is about to stop. `retryIn`: seconds until the next attempt. `code`: of the
 * close, if there was one.
 */
export interface Connection {
  type: "connection";
  state: "connecting" | "connected" | "lost" | "waiting" | "refused" | "draining" | "closed";
  reason: string | null; code: number | null; retryIn: number | null;
}

/**
 * What follows. Iterate (`for await`), or listen with `on`, but not both. While nobody takes the events, at
 * most `room` of them wait. Then the oldest trades are left out, told as one gap `slow_reader` of each symbol,
 * and counted in `dropped`. Of candles and states only the newest wait, each once; the oldest are left out.
 *
 * A subscription that the daemon refuses ends with a `CallError`: the iteration throws it, or `failed` gets it.
 * Without `failed` it is an uncaught error.
 */
export interface Subscription<E> extends AsyncIterable<E> {
  on(listener: (event: E) => void, failed?: ((error: CallError) => void) | null): this;
  close(): void;
  readonly dropped: number;
  /** By symbol: where a later `since` goes on, behind the event that was taken last. Of trades only. */
  readonly positions: Record<string, Since>;
}
/**
 * `snapshot`: how many of the newest trades come first, 0 to 1000. `since`: of one symbol, or by symbol; what
 * `positions` told before.
 */
export interface TradesOptions { snapshot?: number; since?: Since | Record<string, Since>; room?: number }
/** A part of what is kept. `rewound`: what the asked position has behind this place is no part of the stream. */
export interface Page {
  symbol: string; epoch: number; trades: Trade[]; gaps: Gap[]; next: Position | null; rewound?: Position;
}

export interface Feed {
  /**
   * The trades of a symbol, of several, or of all (`"*"`). The same symbol may be followed several times: each
   * subscription gets its own snapshot. Throws an `Error` for `since` of a symbol that is followed already.
   */
  trades(symbols: string | string[], options?: TradesOptions): Subscription<Trade | Gap | Filled | Rewound>;
  /** `snapshot`: how many of the newest candles come first, now and after each outage. */
  candles(
    symbols: string | string[], interval: string, options?: { snapshot?: number; room?: number },
  ): Subscription<Candle>;
  quality(symbols: string | string[], options?: { room?: number }): Subscription<Quality>;
  /** Connections and notices. A listener is told the present state of the connection at once. */
  events(): Subscription<Connection | Notice>;
  /** The newest trades, the newest first. */
  recent(symbol: string, count?: number): Promise<Trade[]>;
  /**
   * All that is kept, page after page, in the order of the stream. `from` (inclusive) and `to` (exclusive) are
   * times. `limit`: trades and gaps in a page. A lost connection is waited for.
   */
  history(
    symbol: string, options?: { after?: Position; from?: string; to?: string; limit?: number },
  ): AsyncIterable<Page>;
  /**
   * Any method of the protocol but `subscribe` and `unsubscribe`. Decimals in the answer are texts. While there
   * is no connection the call waits for the next attempt. Rejects with a `CallError`.
   */
  call(method: string, params?: Record<string, unknown>): Promise<any>;
  readonly connection: Connection;
  close(): void;
}

/** `code` is the daemon's; 0: there was no answer, since the connection was lost, or the feed is closed. */
export class CallError extends Error { readonly code: number; readonly data: any }

/**
 * `url`: `ws://` or `wss://`, or the `http` address of the daemon, below which `/ws` is. Connects at once, again
 * and again: after `retryFirst` seconds (0.25) at first, then twice as long each time, at most `retryMost` (30),
 * with some chance in it. `WebSocket`: a class to use instead of the global one.
 */
export function connect(
  url: string | URL, options?: { WebSocket?: unknown; retryFirst?: number; retryMost?: number },
): Feed;
