/**
 * The client of dataflow for browsers and Node.js: one module, no dependencies. Its contract: `client.d.ts`.
 *
 * Rules of this file. Each place of a stream comes once and in order, as a trade or as a gap. Anything else
 * is a fault of the server: nothing of it is taken, the connection is closed, and the next one goes on at the
 * last right place. The words and decisions are those of the Python core (`../client.py`, `../stream.py`); a
 * test compares both, event by event. A stream knows what the server told; a seat knows what a reader took of
 * it. Digits are never numbers here. All that waits has a bound: events (`room`), calls (`MOST_CALLS`), gaps
 * (`MOST_GAPS`).
 */

const TRADES = "trades", CANDLES = "candles", QUALITY = "quality", EVERY = "*";
const FROM_NOTHING = 0; // no entry has this place; a gap from here says that a new count begins
const MOST_GAPS = 1_000; // open gaps of a stream that are remembered, the newest: each `since` names them
const MOST_CANDLES = 1_000; // of a symbol and interval, whose revisions are remembered
const MOST_CALLS = 1_000; // that wait for their answers; further ones are refused
const CALLS_AT_ONCE = 100, BYTES_AT_ONCE = 60_000; // of a batch: the server takes no more
const POSITIONS_AT_ONCE = 59_000; // bytes of them in one call
const MOST_GAPS_OF_ALL = 20_000; // in the positions of one subscription: the server takes no more
const SILENCE = 20; // seconds without a word: then the server is asked for one, and as long again waited for
const PATIENCE = 15; // seconds for a connection to open
const PAUSE_MOST = 600; // seconds: the longest wish of the server that is obeyed; a timer of 25 days would fire at once
const STEADY = 10; // seconds: after a connection that lasted so long the next attempt comes soon
const ROOM = 10_000, ROOM_OF_EVENTS = 1_000;
const LOST = 0; // the code of a `CallError` that is not the server's
const [UNAVAILABLE, RATE_LIMITED, INTERNAL] = [-32000, -32002, -32603];

/** A call that failed: refused by the server, or without an answer (`code` 0). */
export class CallError extends Error {
  constructor(code, message, data = null) {
    super(message);
    this.name = "CallError";
    this.code = code;
    this.data = data;
  }
}

class ServerFault extends Error {}

/** A feed, which connects at once. See `client.d.ts`. */
export function connect(url, options = {}) {
  return new Feed(address(url), options);
}

function address(url) {
  const told = new URL(url, globalThis.document?.baseURI);
  if (told.protocol === "http:" || told.protocol === "https:") {
    told.protocol = told.protocol.replace("http", "ws");
    told.pathname = told.pathname.replace(/\/*$/, "/ws");
  }
  return told.href;
}

// ---- values

const DECIMAL_NAMES = "price|qty|lastPrice|open|high|low|close|volume|quoteVolume|buyVolume";
// In JSON an unescaped quote always begins or ends a string, so text inside a string does not match.
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/.source;
const DECIMALS = new RegExp(`(?<!\\\\)("(?:${DECIMAL_NAMES})"\\s*:\\s*)(${NUMBER})`, "g");
const parseExactly = text => JSON.parse(text.replace(DECIMALS, '$1"$2"'));

const isPlace = value => Number.isSafeInteger(value) && value >= 0;
const isText = value => typeof value === "string";
const isTextOrNull = value => value === null || isText(value);
const WHOLE = new RegExp(`^${NUMBER}$`);
const isDecimal = value => isText(value) && WHOLE.test(value);
const isPositive = value => isDecimal(value) && !value.startsWith("-") && /[1-9]/.test(value.split(/e/i)[0]);
const isSide = value => value === null || value === "buy" || value === "sell";
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;
const isTime = value => isText(value) && TIME.test(value);

function trade(told, symbol = told?.symbol) {
  const { offset, timestamp, side, price, qty, tradeId, source } = told ?? {};
  const isRight = isPlace(offset) && isText(symbol) && isDecimal(price) && isPositive(qty) && isTime(timestamp)
    && isSide(side) && isTextOrNull(tradeId) && isText(source) && (told.symbol ?? symbol) === symbol;
  if (!isRight) throw new ServerFault(`no trade: ${excerpt(told)}`);
  return { type: "trade", symbol, offset, timestamp, side, price, qty, tradeId, source };
}

function gap(told, symbol = told?.symbol) {
  const { from, to, reason, skipped } = told ?? {};
  const isRight = isPlace(from) && (to === null || isPlace(to)) && isText(reason) && isText(symbol);
  if (!isRight) throw new ServerFault(`no gap: ${excerpt(told)}`);
  const made = { type: "gap", symbol, from, to, reason };
  return skipped == null ? made : { ...made, skipped };
}

function position(told) {
  if (!isPlace(told?.epoch) || !isPlace(told.offset)) throw new ServerFault(`no position: ${excerpt(told)}`);
  return told;
}

const excerpt = told => (JSON.stringify(told) ?? "nothing").slice(0, 200);
const firstOf = entry => entry.type === "trade" ? entry.offset : entry.from;
const lastOf = entry => entry.type === "trade" ? entry.offset : entry.to ?? entry.from;

function entriesOf(answer) {
  const trades = (answer.trades ?? []).map(each => trade(each, answer.symbol));
  const gaps = (answer.gaps ?? []).map(each => gap(each, answer.symbol));
  return gaps.length ? [...trades, ...gaps].sort((one, other) => firstOf(one) - firstOf(other)) : trades;
}

// ---- places

/** What somebody was told of a stream: position, and gaps up to it. `begin`: the place before the first. */
class Places {
  epoch = null;
  offset = null;
  begin = 0;
  gaps = []; // [from, to], in order: those that may still be filled
  unknown = []; // places that stand for an unknown number of trades

  get since() {
    if (this.epoch === null || this.offset === null) return null;
    const since = { epoch: this.epoch, offset: this.offset };
    return this.gaps.length ? { ...since, gaps: this.gaps.map(each => [...each]) } : since;
  }

  start({ epoch, offset, gaps = [] }) {
    this.epoch = epoch;
    this.offset = this.begin = offset;
    this.gaps = gaps.slice(-MOST_GAPS).map(each => [...each]);
    this.unknown = [];
  }

  go(entry) {
    this.offset = lastOf(entry);
    if (entry.type !== "gap") return;
    const { from, to } = entry, kept = to === null ? this.unknown : this.gaps;
    kept.push(to === null ? from : [from, to]);
    if (kept.length > MOST_GAPS) kept.shift();
  }

  /** Somebody else knows more of what came before. */
  goBack({ begin, gaps, unknown }) {
    const older = gaps.flatMap(([from, to]) => from > this.begin ? [] : [[from, Math.min(to, this.begin)]]);
    this.gaps = [...older, ...this.gaps].slice(-MOST_GAPS);
    this.unknown = [...unknown.filter(place => place <= this.begin), ...this.unknown].slice(-MOST_GAPS);
    this.begin = begin;
  }

  /** Close the open gaps among these places. Returns them. */
  close(first, last) {
    const closed = [];
    this.gaps = this.gaps.flatMap(each => {
      const [from, to] = each;
      if (to < first || from > last) return [each];
      closed.push([Math.max(from, first), Math.min(to, last)]);
      return [[from, first - 1], [last + 1, to]].filter(([low, high]) => low <= high);
    });
    return closed;
  }

  /** Forget all behind a place. Returns the number of trades among it. */
  cut({ epoch, offset }) {
    const low = Math.max(offset, this.begin), places = Math.max(0, (this.offset ?? 0) - low);
    const missing = this.gaps.reduce((sum, [from, to]) => sum + Math.max(0, to - Math.max(from - 1, low)), 0);
    const trades = places - missing - this.unknown.filter(place => place > low).length;
    this.epoch = epoch;
    if (this.offset !== null) this.offset = Math.min(this.offset, offset);
    this.begin = Math.min(this.begin, offset);
    this.gaps = this.gaps.flatMap(([from, to]) => from > offset ? [] : [[from, Math.min(to, offset)]]);
    this.unknown = this.unknown.filter(place => place <= offset);
    return Math.max(0, trades);
  }
}

const parts = (filled, ranges) => ranges.map(([from, to]) =>
  ({ ...filled, from, to, trades: filled.trades.slice(from - filled.from, to - filled.from + 1) }));

// ---- streams

/** The trades of a symbol as the server tells them. */
class Stream extends Places {
  live = false; // subscribed on the present connection
  seats = new Set();

  constructor(symbol) {
    super();
    this.symbol = symbol;
  }

  /** The answer to the subscription that begins, or goes on. */
  answered(answer) {
    const entries = entriesOf(answer), { epoch, offset } = position(answer);
    this.live = true;
    if (answer.rewound != null && this.offset !== null) {
      if (answer.rewound.epoch !== epoch) throw new ServerFault(`${this.symbol}: a rewind to another epoch`);
      this.rewind(answer.rewound);
    }
    const goesOn = this.#goesOn(entries, answer);
    if (goesOn && epoch < this.epoch) {
      throw new ServerFault(`${this.symbol}: epoch ${epoch} goes on with epoch ${this.epoch}`);
    }
    this.epoch = epoch;
    if (goesOn) {
      this.#tell({ type: "at", symbol: this.symbol, epoch, offset: null });
      for (const each of answer.filled ?? []) this.fill(each);
    } else {
      this.#begin(entries, epoch, offset);
    }
    for (const entry of entries) if (firstOf(entry) !== FROM_NOTHING) this.take(entry);
    if (this.offset !== offset) throw this.#wrong(offset + 1, "the answer has a hole at its end");
  }

  /** The answer to a further subscription, while the first one is live. `seat`: of the new reader. */
  joined(answer, seat) {
    const entries = entriesOf(answer), { epoch, offset } = position(answer);
    if (epoch !== this.epoch) throw new ServerFault(`${this.symbol}: a new epoch, and no word of it`);
    if (seat !== null && !seat.on) {
      const begin = Math.min(entries.length ? firstOf(entries[0]) - 1 : offset, this.offset);
      const told = new Places();
      told.start({ epoch, offset: begin });
      seat.on = true;
      seat.push({ type: "at", symbol: this.symbol, epoch, offset: begin });
      for (const entry of entries) {
        if (firstOf(entry) > this.offset) break;
        told.go(entry);
        seat.push(entry);
      }
      if (begin < this.begin) this.goBack(told); // fills of gaps there are news now
    }
    for (const each of answer.filled ?? []) this.fill(each);
    for (const entry of entries) if (firstOf(entry) > this.offset) this.take(entry);
    if (this.offset !== offset) throw this.#wrong(offset + 1, "the answer has a hole at its end");
  }

  /** The next trade, or the next gap. */
  take(entry) {
    const first = firstOf(entry), last = lastOf(entry), next = (this.offset ?? 0) + 1;
    if (!this.live) throw new ServerFault(`${this.symbol}: place ${first} came without a subscription`);
    if (first > next) throw this.#wrong(first, "a hole");
    if (first < next) throw this.#wrong(first, "told twice, or out of order");
    if (last < first) throw new ServerFault(`${this.symbol}: a gap from ${first} to ${last}`);
    this.go(entry);
    this.#tell(entry);
  }

  /** Places of gaps hold trades now. Those that were open here are news. */
  fill(told) {
    const { symbol } = this, { from, to } = told;
    const trades = (told.trades ?? []).map(each => trade(each, symbol));
    const filled = { type: "filled", symbol, from, to, trades };
    const fits = trades.length === to - from + 1 && trades.every((each, at) => each.offset === from + at);
    if (!isPlace(from) || !isPlace(to) || to < from || !fits) {
      throw new ServerFault(`${this.symbol}: a fill of ${from} to ${to} that does not fit`);
    }
    if (!(to <= this.offset)) throw this.#wrong(to, "a fill of a place that has not come");
    const known = this.unknown.find(place => from <= place && place <= to);
    if (known) throw new ServerFault(`${this.symbol}: a fill of place ${known}, which stands for many`);
    for (const part of parts(filled, this.close(from, to))) this.#tell(part);
  }

  /** What came behind this place is no part of the stream; a later epoch goes on from there. */
  rewind(told) {
    const { epoch, offset } = position(told);
    if (epoch <= this.epoch || offset >= this.offset) {
      const here = `${this.offset} of ${this.epoch}`;
      throw new ServerFault(`${this.symbol}: place ${offset} of epoch ${epoch} is not before ${here}`);
    }
    this.cut({ epoch, offset });
    this.#tell({ type: "rewound", symbol: this.symbol, epoch, offset });
  }

  #goesOn(entries, { recovered, rewound }) {
    if (this.offset === null || (entries.length && firstOf(entries[0]) === FROM_NOTHING)) return false;
    const follows = entries.length > 0 && firstOf(entries[0]) === this.offset + 1;
    return recovered === true || rewound != null || follows;
  }

  /** The count begins: for the first time, or anew behind a hole with a name. */
  #begin(entries, epoch, offset) {
    const anew = this.offset !== null;
    const told = entries.length && firstOf(entries[0]) === FROM_NOTHING ? entries[0] : null;
    const first = entries.find(each => firstOf(each) !== FROM_NOTHING);
    this.start({ epoch, offset: first ? firstOf(first) - 1 : offset });
    this.#tell({ type: "at", symbol: this.symbol, epoch, offset: this.offset });
    if (!anew && told === null) return;
    const reason = told?.type === "gap" ? told.reason : "overrun";
    this.#tell({ type: "gap", symbol: this.symbol, from: FROM_NOTHING, to: null, reason });
  }

  /** Whether what is told belongs to the stream as it is. */
  of({ epoch }) {
    if (epoch === this.epoch) return this;
    throw new ServerFault(`${this.symbol}: told of epoch ${excerpt(epoch)} in epoch ${this.epoch}`);
  }

  #tell(event) {
    for (const seat of this.seats) if (seat.on) seat.push(event);
  }

  #wrong(came, problem) {
    const next = (this.offset ?? 0) + 1;
    return new ServerFault(`${this.symbol}: ${problem}: place ${came} came, ${next} was next`);
  }
}

/** What a reader was told of a stream. `on`: from its own answer on. */
class Seat extends Places {
  on = false;

  constructor(view) {
    super();
    this.view = view;
  }

  push(event) {
    this.view.push(event, this);
  }

  /** The reader takes an event. Returns what of it is news to the reader. */
  taken(event) {
    switch (event.type) {
      case "at":
        if (event.offset !== null) this.start(event);
        this.epoch = event.epoch;
        return [];
      case "filled":
        return parts(event, this.close(event.from, event.to));
      case "rewound":
        return [{ ...event, dropped: this.cut(event) }];
      default:
        if (firstOf(event) !== FROM_NOTHING) this.go(event);
        return [event];
    }
  }
}

// ---- subscriptions

/** @type {{ done: true, value: undefined }} */
const DONE = { done: true, value: undefined };

/** What a user holds. Subclasses say how events wait (`wait`, `next`) while nobody takes them. */
class Subscription {
  dropped = 0;
  closed = false;
  #listener = null;
  #failed = null;
  #error = null;
  #readers = []; // promises of `next` that wait
  #close;

  constructor(room, close) {
    if (!(room >= 1)) throw new RangeError(`room must be at least 1, not ${room}`);
    this.room = room;
    this.#close = close;
  }

  on(listener, failed = null) {
    if (this.#listener) throw new Error("this subscription has a listener already");
    this.#listener = listener;
    this.#failed = failed;
    this.#hand();
    if (this.#error) this.fail(this.#error);
    return this;
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.clear();
    this.#close(this);
    for (const { resolve } of this.#readers.splice(0)) resolve(DONE);
  }

  /** The server refuses it: this is its end. */
  fail(error) {
    this.#error = error;
    const [reader] = this.#readers.splice(0, 1);
    if (reader) this.#reject(reader);
    else if (this.#listener) this.#complain();
    this.close();
  }

  [Symbol.asyncIterator]() {
    return {
      next: () => new Promise((resolve, reject) => this.#ask({ resolve, reject })),
      return: async () => {
        this.close();
        return DONE;
      },
    };
  }

  /** Something may be waiting. */
  arrived() {
    if (this.#listener || this.#readers.length) this.#hand();
  }

  /** Whether an event need not wait: then `deliver` it. */
  get isIdle() {
    return this.#listener !== null && !this.isFull;
  }

  deliver(event) {
    try {
      this.#listener(event);
    } catch (error) {
      report(error); // the listener's own: the stream is right, and others listen, too
    }
  }

  #hand() {
    while (!this.closed && (this.#listener || this.#readers.length)) {
      const event = this.next();
      if (event === undefined) return;
      if (this.#listener) this.deliver(event);
      else this.#readers.shift().resolve({ done: false, value: event });
    }
  }

  #ask(reader) {
    if (this.#error) this.#reject(reader);
    else if (this.closed) reader.resolve(DONE);
    else {
      this.#readers.push(reader);
      this.#hand();
    }
  }

  #reject(reader) {
    const error = this.#error;
    this.#error = null;
    reader.reject(error);
  }

  #complain() {
    const error = this.#error;
    this.#error = null;
    if (this.#failed) this.#failed(error);
    else report(error);
  }
}

function report(error) {
  queueMicrotask(() => { throw error; });
}

/** Trades of some symbols, or of all. When it is full the oldest trades become one gap of each symbol. */
class TradesView extends Subscription {
  channel = TRADES;
  interval = null;
  seats = new Map(); // by symbol
  answered = false; // of all symbols: from here on new ones are told, too
  #queue = [];
  #head = 0;
  #holes = new Map(); // by symbol: what was left out at the beginning of the queue
  #front = []; // stands before the queue

  constructor(symbols, { snapshot = null, room = ROOM }, close) {
    super(room, close);
    this.symbols = symbols;
    this.snapshot = snapshot;
  }

  get positions() {
    const all = [...this.seats].map(([symbol, { since }]) => [symbol, since]);
    return Object.fromEntries(all.filter(([, since]) => since));
  }

  get isFull() {
    return this.#queue.length > this.#head || this.#holes.size > 0 || this.#front.length > 0;
  }

  seat(symbol) {
    return this.seats.get(symbol) ?? this.seats.set(symbol, new Seat(this)).get(symbol);
  }

  push(event, seat) {
    if (this.closed) return;
    if (this.isIdle) {
      for (const each of seat.taken(event)) this.deliver(each);
      return;
    }
    this.#queue.push(event);
    while (this.#queue.length - this.#head > this.room) this.#leaveOut(this.#shift());
    this.arrived();
  }

  next() {
    for (;;) {
      const event = this.#front.shift() ?? this.#hole() ?? this.#shift();
      if (event === undefined) return undefined;
      const [first, ...more] = this.seats.get(event.symbol).taken(event);
      this.#front.unshift(...more);
      if (first) return first;
    }
  }

  clear() {
    this.#queue = [];
    this.#head = 0;
    this.#holes.clear();
    this.#front = [];
  }

  #shift() {
    if (this.#head === this.#queue.length) return undefined;
    const event = this.#queue[this.#head];
    this.#queue[this.#head++] = undefined;
    if (this.#head > 1_000 && 2 * this.#head > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    return event;
  }

  #hole() {
    for (const [symbol, { rewound, at, anew, gap }] of this.#holes) {
      this.#holes.delete(symbol);
      this.#front = [rewound, at, anew, gap].filter(Boolean);
      return this.#front.shift();
    }
    return undefined;
  }

  /** The oldest event has no room any more: it becomes a part of the hole before all others of its symbol. */
  #leaveOut(event) {
    const { symbol } = event;
    const hole = this.#holes.get(symbol) ?? this.#holes.set(symbol, {}).get(symbol);
    switch (event.type) {
      case "trade":
        this.dropped += 1;
        hole.gap = {
          type: "gap", symbol, from: hole.gap?.from ?? event.offset, to: event.offset,
          reason: "slow_reader", skipped: (hole.gap?.skipped ?? 0) + 1,
        };
        break;
      case "gap":
        if (event.from === FROM_NOTHING) hole.anew = event;
        else hole.gap = hole.gap ? { ...hole.gap, to: lastOf(event) } : event;
        break;
      case "filled": // these places stay a gap
        this.dropped += event.trades.length;
        break;
      case "at":
        if (event.offset === null) hole.at = { ...(hole.at ?? event), epoch: event.epoch };
        else Object.assign(hole, { at: event, rewound: null, anew: null, gap: null });
        break;
      case "rewound":
        this.#rewind(hole, event);
        break;
    }
    if (hole.gap === undefined && !hole.at && !hole.rewound && !hole.anew) this.#holes.delete(symbol);
  }

  #rewind(hole, event) {
    const { epoch, offset } = event;
    if (hole.gap && hole.gap.from > offset) hole.gap = null;
    if (hole.gap) hole.gap = { ...hole.gap, to: Math.min(lastOf(hole.gap), offset) };
    const begin = hole.at?.offset ?? null;
    if (hole.at) hole.at = { ...hole.at, epoch, offset: begin === null ? null : Math.min(begin, offset) };
    const before = hole.gap ? hole.gap.from - 1 : offset;
    hole.rewound = { ...event, offset: Math.min(before, hole.rewound?.offset ?? before) };
  }
}

/** States, of which only the newest counts. When it is full the oldest one is left out. */
class StatesView extends Subscription {
  seats = new Set(); // symbols whose answer came
  #waiting = new Map(); // by what a newer one replaces

  constructor(channel, symbols, interval, { snapshot = null, room = ROOM }, close) {
    super(room, close);
    Object.assign(this, { channel, symbols, interval, snapshot });
  }

  get positions() {
    return {};
  }

  get isFull() {
    return this.#waiting.size > 0;
  }

  follows(symbol) {
    return this.seats.has(symbol) || this.seats.has(EVERY);
  }

  push(event, key) {
    if (this.closed) return;
    if (this.isIdle) return this.deliver(event);
    this.#waiting.delete(key);
    this.#waiting.set(key, event);
    if (this.#waiting.size > this.room) {
      this.next();
      this.dropped += 1;
    }
    this.arrived();
  }

  next() {
    for (const [key, event] of this.#waiting) {
      this.#waiting.delete(key);
      return event;
    }
    return undefined;
  }

  clear() {
    this.#waiting.clear();
  }
}

/** What happens to the connection, and notices. */
class EventsView extends StatesView {
  #serial = 0;

  constructor(close) {
    super(null, [], null, { room: ROOM_OF_EVENTS }, close);
  }

  push(event) {
    super.push(event, this.#serial++);
  }
}

// ---- the connection

/** One WebSocket after the other. `on` has what is called when something happens to it. */
class Link {
  /** @type {any} the declarations have its states */
  connection = { type: "connection", state: "connecting", reason: null, code: null, retryIn: null };
  isOpen = false;
  #socket = null;
  #failures = 0;
  #openedAt = null;
  #retryAfter = null; // seconds, the server's wish
  #timer = null;
  #watch = null;
  #isQuiet = false;

  constructor(url, { WebSocket = globalThis.WebSocket, retryFirst = 0.25, retryMost = 30 }, on) {
    if (!WebSocket) throw new Error("there is no WebSocket here: take Node.js 22, or give one as the option `WebSocket`");
    const shown = new URL(url);
    shown.username = shown.password = shown.search = shown.hash = ""; // a secret may be there
    Object.assign(this, { url, shown: shown.href, WebSocket, retryFirst, retryMost, on });
  }

  open() {
    const socket = this.#socket = new this.WebSocket(this.url);
    const ours = handler => event => { if (socket === this.#socket) handler(event); };
    socket.onopen = ours(() => this.#opened());
    socket.onmessage = ours(({ data }) => {
      this.#isQuiet = false;
      this.on.heard(data);
    });
    socket.onerror = () => {}; // a close follows, which tells more
    socket.onclose = ours(({ code, reason }) =>
      this.#lost(reason || (this.isOpen ? "it was cut off" : `no connection to ${this.shown}`), code));
    const late = `no connection to ${this.shown} within ${PATIENCE} s`;
    this.#timer = setTimeout(() => this.fail(late), 1_000 * PATIENCE);
    this.#tell("connecting");
  }

  send(text) {
    this.#socket.send(text);
  }

  /** What the server says about this connection. */
  told(method, { reason = null, retryAfter }) {
    if (method === "connection.waiting") this.#tell("waiting");
    if (method === "connection.draining") this.#tell("draining", { reason });
    if (method === "connection.refused") {
      this.#retryAfter = Number.isFinite(retryAfter) ? this.bounded(retryAfter) : null;
      this.#tell("refused", { reason, retryIn: this.#retryAfter });
    }
  }

  /** The server has answered. */
  served() {
    if (this.connection.state === "waiting") this.#tell("connected");
  }

  /** End this connection; the next one may do better. */
  fail(reason) {
    const socket = this.#socket;
    this.#lost(reason, null);
    this.#hangUp(socket, 4000, reason);
  }

  close() {
    const socket = this.#socket;
    this.#forget();
    this.#tell("closed");
    if (socket) this.#hangUp(socket, 1000, "");
  }

  /** Seconds to wait after so many failures in a row. */
  pause(failures) {
    const most = Math.min(this.retryMost, this.retryFirst * 2 ** Math.min(failures, 20));
    return most * (0.5 + Math.random() / 2);
  }

  /** What the server wants us to wait: some time, never none. */
  bounded(seconds) {
    return Math.min(Math.max(this.retryFirst, seconds), PAUSE_MOST);
  }

  #opened() {
    clearTimeout(this.#timer);
    this.isOpen = true;
    this.#openedAt = Date.now();
    this.#isQuiet = false;
    this.#watch = setInterval(() => this.#look(), 1_000 * SILENCE);
    this.on.opened(); // before somebody hears of it, and follows more
    this.#tell("connected");
  }

  #look() {
    if (this.#isQuiet) return this.fail(`silent for ${2 * SILENCE} s`);
    this.#isQuiet = true;
    this.on.silent();
  }

  #lost(reason, code) {
    const wasSteady = this.#openedAt !== null && Date.now() - this.#openedAt > 1_000 * STEADY;
    const wasRefused = this.connection.state === "refused";
    this.#failures = wasSteady ? 0 : this.#failures;
    const wish = this.#retryAfter;
    const retryIn = wish === null ? this.pause(this.#failures) : wish * (1 + Math.random() / 4);
    this.#failures += 1;
    this.#forget();
    this.#timer = setTimeout(() => this.open(), 1_000 * retryIn);
    this.on.lost(reason);
    if (wasRefused) this.#tell("refused", { reason: this.connection.reason, code, retryIn });
    else this.#tell("lost", { reason, code, retryIn });
  }

  #forget() {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#socket = this.#openedAt = this.#retryAfter = null;
    this.isOpen = false;
  }

  #hangUp(socket, code, reason) {
    try {
      socket.close(code, reason.slice(0, 30));
    } catch {
      socket.close(); // a library with rules of its own
    }
  }

  #tell(state, { reason = null, code = null, retryIn = null } = {}) {
    this.connection = Object.freeze({ type: "connection", state, reason, code, retryIn });
    this.on.changed(this.connection);
  }
}

// ---- the feed

const keyOf = ({ channel, symbol, interval }) => [channel, symbol, interval].filter(Boolean).join(":");

/** All subscriptions and calls of one user, over one connection. */
class Feed {
  #link;
  #isClosed = false;
  #wishes = new Map(); // by topic: {channel, symbol, interval, views, live}
  #streams = new Map(); // by symbol
  #revisions = new Map(); // by topic of candles: {epoch, revs}
  #events = new Set();
  #asked = new Map(); // by id: what was asked on this connection, or waits for the next one
  #outgoing = []; // calls of this turn of the event loop
  #leaving = new Map(); // by topic: how many `unsubscribe` are on their way
  #again = null; // a timer: some subscriptions are to be asked for again
  #refusals = 0;
  #serial = 0;

  constructor(url, options) {
    this.#link = new Link(url, options, {
      opened: () => this.#opened(),
      heard: data => this.#heard(data),
      lost: reason => this.#lost(reason),
      silent: () => this.#ask("ping", {}, { kind: "ping" }),
      changed: connection => this.#told(connection),
    });
    this.#link.open();
  }

  get connection() {
    return this.#link.connection;
  }

  trades(symbols, options = {}) {
    const names = namesOf(symbols), since = options.since ?? null;
    const known = since === null ? [] : Object.entries(isPlace(since.offset) ? { [names[0]]: since } : since);
    if (since !== null && isPlace(since.offset) && (names.length > 1 || names[0] === EVERY)) {
      throw new TypeError("of several symbols `since` has a position for each, by its name");
    }
    for (const [symbol] of known) {
      if (!this.#streams.has(symbol)) continue;
      throw new Error(`${symbol} is followed already: \`since\` needs a feed of its own`);
    }
    const view = new TradesView(names, options, ended => this.#left(ended));
    return this.#follow(view, known.filter(([symbol]) => names[0] === EVERY || names.includes(symbol)));
  }

  candles(symbols, interval, options = {}) {
    const left = view => this.#left(view);
    return this.#follow(new StatesView(CANDLES, namesOf(symbols), interval, options, left));
  }

  quality(symbols, options = {}) {
    const { room } = options, left = view => this.#left(view);
    return this.#follow(new StatesView(QUALITY, namesOf(symbols), null, { room }, left));
  }

  events() {
    this.#mustBeOpen();
    const view = new EventsView(ended => this.#events.delete(ended));
    this.#events.add(view);
    view.push(this.connection);
    return view;
  }

  async recent(symbol, count = 50) {
    const trades = await this.call("getRecentTrades", { symbol, count });
    return trades.map(each => trade(each));
  }

  async *history(symbol, { after, from, to, limit = 1_000 } = {}) {
    for (;;) {
      const page = await this.#page({ symbol, after, from, to, limit });
      const { epoch, next, rewound } = page;
      const isEnd = next === null || (after && next.epoch === after.epoch && next.offset === after.offset);
      const trades = page.trades.map(each => trade(each)), gaps = page.gaps.map(each => gap(each, symbol));
      const hasNews = trades.length || gaps.length || rewound, told = { symbol, epoch, trades, gaps, next };
      if (hasNews) yield rewound ? { ...told, rewound } : told;
      if (isEnd || (!after && !hasNews)) return;
      after = next;
    }
  }

  call(method, params = {}) {
    if (/^(un)?subscribe$/i.test(method)) {
      return Promise.reject(new CallError(LOST, `${method} is not called: use trades, candles or quality`));
    }
    return new Promise((resolve, reject) => {
      if (this.#isClosed) reject(new CallError(LOST, "the feed is closed"));
      else if (this.#asked.size >= MOST_CALLS) reject(new CallError(RATE_LIMITED, "too many calls wait"));
      else this.#ask(method, params, { kind: "call", resolve, reject });
    });
  }

  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#link.close();
    this.#lost("the feed is closed");
    for (const view of new Set([...this.#views(), ...this.#events])) view.close();
  }

  // What is followed.

  #mustBeOpen() {
    if (this.#isClosed) throw new Error("the feed is closed");
  }

  #views() {
    return [...this.#wishes.values()].flatMap(wish => [...wish.views]);
  }

  #follow(view, known = []) {
    this.#mustBeOpen();
    const { channel, interval } = view;
    for (const [symbol, since] of known) {
      const seat = view.seat(symbol), stream = this.#stream(symbol);
      stream.start(since);
      seat.start(since);
      seat.on = true;
      stream.seats.add(seat);
    }
    view.answered = known.length > 0;
    for (const symbol of view.symbols) {
      const key = keyOf({ channel, symbol, interval });
      const wish = this.#wishes.get(key) ?? { channel, symbol, interval, views: new Set(), live: false };
      this.#wishes.set(key, wish);
      wish.views.add(view);
      if (channel === TRADES && symbol !== EVERY) this.#stream(symbol).seats.add(view.seat(symbol));
      if (known.length) wish.snapshot = view.snapshot;
      if (this.#link.isOpen) this.#subscribe(wish, this.#isOn(wish, view) ? null : view);
    }
    return view;
  }

  #left(view) {
    const { channel, interval } = view;
    for (const symbol of view.symbols) {
      const key = keyOf({ channel, symbol, interval }), wish = this.#wishes.get(key);
      if (!wish?.views.delete(view) || wish.views.size) continue;
      this.#wishes.delete(key);
      this.#revisions.delete(key);
      if (!this.#link.isOpen) continue;
      this.#leaving.set(key, (this.#leaving.get(key) ?? 0) + 1);
      this.#ask("unsubscribe", topicOf(wish), { kind: "leave", key });
    }
    if (channel !== TRADES) return;
    for (const [symbol, seat] of view.seats) {
      this.#streams.get(symbol)?.seats.delete(seat);
      if (!this.#isWished(symbol)) this.#streams.delete(symbol);
    }
  }

  #isWished(symbol) {
    return this.#wishes.has(`${TRADES}:${symbol}`) || this.#wishes.has(`${TRADES}:${EVERY}`);
  }

  #stream(symbol) {
    return this.#streams.get(symbol) ?? this.#streams.set(symbol, new Stream(symbol)).get(symbol);
  }

  /** A stream of all that are followed: it may be new. */
  #streamOfAll(symbol) {
    const stream = this.#stream(symbol);
    for (const view of this.#wishes.get(`${TRADES}:${EVERY}`)?.views ?? []) {
      const seat = view.seat(symbol);
      seat.on ||= view.answered;
      stream.seats.add(seat);
    }
    return stream;
  }

  // What is said.

  /** `view`: the one that begins with this; null: a stream goes on. */
  #subscribe(wish, view) {
    const params = topicOf(wish), parts = view === null ? this.#since(wish) : [], count = parts.length;
    if (wish.channel === TRADES) params.batch = true;
    if (wish.channel !== QUALITY) params.format = "strings";
    const snapshot = view === null ? this.#snapshot(wish) : view.snapshot;
    if (snapshot !== null && wish.channel !== QUALITY) params.snapshot = snapshot;
    const calls = parts.map(since => ({ ...params, since }));
    const last = calls.pop() ?? params;
    calls.forEach((each, at) => this.#ask("subscribe", { ...each, part: [at + 1, count] }, { kind: "part", wish }));
    if (count > 1) last.part = [count, count];
    this.#ask("subscribe", last, { kind: "follow", wish, view });
  }

  /** The positions behind which a topic goes on, as much of them in each part as a call has room for. */
  #since({ channel, symbol }) {
    if (channel !== TRADES) return [];
    if (symbol !== EVERY) return [this.#streams.get(symbol).since].filter(Boolean);
    const quiet = [...this.#streams.values()].filter(({ live }) => !live);
    return partsOf(quiet.map(stream => [stream.symbol, stream.since]).filter(([, since]) => since));
  }

  /** What goes along when a topic goes on. States are told again: the newest ones may have come meanwhile. */
  #snapshot({ channel, views, snapshot = null }) {
    if (channel !== CANDLES) return snapshot;
    const wanted = [...views].map(view => view.snapshot).filter(each => each !== null);
    return wanted.length ? Math.max(...wanted) : null;
  }

  #ask(method, params, asked) {
    const id = ++this.#serial, call = { jsonrpc: "2.0", id, method, params };
    this.#asked.set(id, { ...asked, call });
    if (this.#link.isOpen) this.#say(call);
  }

  #say(call) {
    if (!this.#outgoing.length) queueMicrotask(() => this.#flush());
    this.#outgoing.push(call);
  }

  /** Send the calls of this turn: several as a batch. */
  #flush() {
    const texts = this.#outgoing.splice(0).map(call => JSON.stringify(call));
    while (texts.length && this.#link.isOpen) {
      let count = 1;
      for (let bytes = bytesOf(texts[0]); count < Math.min(texts.length, CALLS_AT_ONCE); count++) {
        bytes += bytesOf(texts[count]) + 1;
        if (bytes > BYTES_AT_ONCE) break;
      }
      const batch = texts.splice(0, count);
      this.#link.send(count === 1 ? batch[0] : `[${batch.join(",")}]`);
    }
  }

  // What happens to the connection.

  #opened() {
    this.#refusals = 0;
    for (const { call } of this.#asked.values()) this.#say(call); // made while there was no connection
    for (const wish of this.#wishes.values()) this.#resume(wish);
    this.#flush();
  }

  #resume(wish) {
    const isKnown = wish.channel !== TRADES ? [...wish.views].some(view => view.seats.has(wish.symbol))
      : wish.symbol === EVERY ? [...wish.views].some(view => view.answered)
      : this.#streams.get(wish.symbol).since !== null;
    if (isKnown) this.#subscribe(wish, null);
    for (const view of wish.views) if (!this.#isOn(wish, view)) this.#subscribe(wish, view);
  }

  #isOn({ channel, symbol }, view) {
    if (channel !== TRADES) return view.seats.has(symbol);
    return symbol === EVERY ? view.answered : view.seats.get(symbol).on;
  }

  #lost(reason) {
    clearTimeout(this.#again);
    this.#again = null;
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    this.#outgoing = [];
    this.#leaving.clear();
    for (const stream of this.#streams.values()) stream.live = false;
    for (const wish of this.#wishes.values()) wish.live = false;
    for (const { reject } of asked) reject?.(new CallError(LOST, `the connection is lost: ${reason}`));
  }

  #told(event) {
    for (const view of this.#events) view.push(event);
  }

  // What is heard.

  #heard(data) {
    try {
      if (typeof data !== "string") throw new ServerFault("a binary message");
      let message = JSON.parse(data);
      if (this.#answersCall(message)) message = parseExactly(data);
      if (!Array.isArray(message)) return this.#take(message);
      if (!message.length) throw new ServerFault("an empty message");
      for (const part of message) {
        this.#take(part);
        if (!this.#link.isOpen) return; // a listener has closed the feed
      }
    } catch (error) {
      this.#link.fail(`a fault of the server: ${error.message}`);
    }
  }

  #answersCall(message) {
    if (!Array.isArray(message)) return this.#asked.get(message?.id)?.kind === "call";
    return message[0]?.id !== undefined && message.some(part => this.#answersCall(part));
  }

  #take(message) {
    const { method, params, id, result, error } = message;
    if (method === "trades.update") this.#live(params).take(trade(params));
    else if (method !== undefined) this.#notified(method, params ?? {});
    else this.#answered(id, result, error);
  }

  /** The stream that is live; nobody's, while what was left still comes. */
  #live({ symbol }) {
    const stream = this.#streams.get(symbol);
    if (stream?.live) return stream;
    if (this.#leaving.has(`${TRADES}:${symbol}`) || this.#leaving.has(`${TRADES}:${EVERY}`)) return NOBODYS;
    throw new ServerFault(`${symbol}: came without a subscription`);
  }

  #notified(method, params) {
    switch (method) {
      case "stream.gap":
        if (params.channel === TRADES) return this.#live(params).of(params).take(gap(params));
        break;
      case "stream.filled":
        if (params.channel === TRADES) return this.#live(params).of(params).fill(params);
        break;
      case "stream.rewind":
        if (params.channel === TRADES) return this.#live(params).rewind(params);
        break;
      case "stream.started":
        this.#started(params);
        break;
      case "quality.update":
        return this.#state(params);
      case "candles.update":
        return this.#candle(params, null);
      case "connection.waiting":
      case "connection.refused":
      case "connection.draining":
        this.#link.told(method, params);
        break;
    }
    this.#told({ type: "notice", method, params });
  }

  #answered(id, result, error) {
    const asked = this.#asked.get(id);
    if (!asked) throw new ServerFault(`an answer to no call: ${excerpt(id ?? error ?? null)}`);
    if (error != null && result != null) throw new ServerFault(`an answer with both result and error: ${excerpt(id)}`);
    this.#asked.delete(id);
    this.#link.served();
    if (asked.kind === "call") {
      if (error) asked.reject(new CallError(error.code, describe(error), error.data));
      else asked.resolve(result);
    } else if (asked.kind === "leave") {
      const count = this.#leaving.get(asked.key) - 1;
      if (count) this.#leaving.set(asked.key, count);
      else this.#leaving.delete(asked.key);
    } else if (asked.kind === "follow" && asked.wish.views.size) {
      if (error) this.#refused(asked, new CallError(error.code, describe(error), error.data));
      else this.#subscribed(asked, Array.isArray(result) ? result : [result]);
    }
  }

  #subscribed({ wish, view }, answers) {
    const isAll = wish.symbol === EVERY;
    wish.live = true;
    wish.snapshot = null; // once begun, it goes on at its place
    for (const answer of answers) {
      const { symbol } = answer ?? {};
      const isRight = isText(symbol) && (isAll || symbol === wish.symbol);
      if (!isRight) throw new ServerFault(`no answer to ${keyOf(wish)}: ${excerpt(answer)}`);
      if (wish.channel !== TRADES) this.#shown(wish, answer, view);
      else this.#begun(isAll ? this.#streamOfAll(symbol) : this.#stream(symbol), answer, view);
    }
    if (view && wish.channel !== TRADES) view.seats.add(wish.symbol);
    else if (view && isAll) view.answered = true; // not before: its seats begin with their snapshots
  }

  #begun(stream, answer, view) {
    const seat = view && !view.closed ? view.seat(stream.symbol) : null;
    if (stream.live) return stream.joined(answer, seat);
    if (seat) seat.on = true;
    stream.answered(answer);
  }

  /** A symbol has come, of all that are followed. It may be back: then its stream goes on if it can. */
  #started(at) {
    if (at.channel !== TRADES) return;
    const all = `${TRADES}:${EVERY}`;
    if (!this.#wishes.has(all)) {
      if (this.#leaving.has(all)) return;
      throw new ServerFault(`${at.symbol}: started, though not all symbols are followed`);
    }
    const stream = this.#streamOfAll(at.symbol);
    stream.answered({ ...at, trades: [], recovered: stream.offset === at.offset });
  }

  #shown(wish, answer, view) {
    const { symbol } = answer;
    if (view) view.seats.add(symbol);
    if (wish.channel === QUALITY) {
      const sources = Object.entries(answer.quality?.sources ?? {});
      for (const [source, state] of sources) this.#state({ symbol, source, ...state });
      return;
    }
    const key = keyOf({ ...wish, symbol });
    const { epoch } = answer;
    if (this.#revisions.get(key)?.epoch !== epoch) this.#revisions.set(key, { epoch, revs: new Map() });
    for (const each of answer.candles ?? []) this.#candle(each, view);
  }

  #state({ symbol, source, state, since, reason = null, missing = null, lag = null }) {
    if (!isText(symbol) || !isText(source) || !isText(state) || !isTime(since)) throw new ServerFault("no state of a source");
    const event = { type: "quality", symbol, source, state, since, reason, missing, lag };
    for (const view of this.#viewsOf(QUALITY, symbol, null)) view.push(event, `${symbol} ${source}`);
  }

  /** `view` has not seen it, even where it is no news to others. */
  #candle(told, view) {
    const { symbol, interval, start, rev, firstOffset = null } = told;
    const { open, high, low, close, volume } = told;
    const isRight = isText(symbol) && isText(interval) && isTime(start) && isPlace(rev)
      && [open, high, low, close, volume].every(isDecimal);
    if (!isRight) throw new ServerFault(`no candle: ${excerpt(told)}`);
    const views = [...this.#viewsOf(CANDLES, symbol, interval)];
    if (!views.length) return; // nobody follows it: nothing of it is remembered
    // Several candles of a number of trades, or a volume, may start in one microsecond.
    const name = firstOffset !== null && /[tv]$/.test(interval) ? firstOffset : start;
    const key = keyOf({ channel: CANDLES, symbol, interval });
    const known = this.#revisions.get(key) ?? { epoch: null, revs: new Map() }, { revs } = known;
    this.#revisions.set(key, known);
    const isNews = !(revs.get(name) >= rev);
    if (isNews) {
      revs.delete(name);
      revs.set(name, rev);
      if (revs.size > MOST_CANDLES) revs.delete(revs.keys().next().value);
    }
    const event = { type: "candle", ...told };
    for (const each of this.#viewsOf(CANDLES, symbol, interval)) {
      if (isNews || each === view) each.push(event, `${key} ${name}`);
    }
  }

  *#viewsOf(channel, symbol, interval) {
    for (const each of [symbol, EVERY]) {
      for (const view of this.#wishes.get(keyOf({ channel, symbol: each, interval }))?.views ?? []) {
        if (view.follows(symbol)) yield view;
      }
    }
  }

  // What is refused.

  #refused(asked, error) {
    const { wish, view } = asked, isFirst = view !== null;
    const isTemporary = error.code === RATE_LIMITED || error.code === INTERNAL
      || (error.code === UNAVAILABLE && !error.data?.rejected);
    if (isFirst && !isTemporary) {
      if (!view.closed) view.fail(error);
      return;
    }
    const { code, message, data } = error;
    const params = { ...topicOf(wish), code, message, data };
    this.#told({ type: "notice", method: "client.refused", params });
    this.#askAgain(Number.isFinite(data?.retryAfter) ? this.#link.bounded(data.retryAfter) : this.#link.pause(this.#refusals));
  }

  /** Ask for all that is not live, in some seconds. */
  #askAgain(seconds) {
    if (this.#again !== null) return;
    this.#refusals += 1;
    this.#again = setTimeout(() => {
      this.#again = null;
      const pending = new Set([...this.#asked.values()].map(({ wish }) => wish));
      for (const wish of this.#wishes.values()) {
        if (!pending.has(wish) && !this.#isLive(wish)) this.#resume(wish);
      }
    }, 1_000 * seconds);
  }

  #isLive(wish) {
    return wish.live && [...wish.views].every(view => this.#isOn(wish, view));
  }

  async #page(params) {
    for (;;) {
      try {
        return await this.call("getTrades", params);
      } catch (error) {
        if (error.code !== LOST || this.#isClosed) throw error; // else the next connection may answer
      }
    }
  }
}

const NOBODYS = { take() {}, fill() {}, rewind() {}, of: () => NOBODYS };

const topicOf = ({ channel, symbol, interval }) =>
  interval === null ? { channel, symbol } : { channel, symbol, interval };

const encoder = new TextEncoder();
const bytesOf = text => encoder.encode(text).length;

/** Positions by symbol, in parts of a bounded size. Of too many open gaps the newest of each stream stay. */
function partsOf(positions) {
  let most = MOST_GAPS, room = 0;
  const gapsOf = ({ gaps = [] }) => gaps.slice(Math.max(0, gaps.length - most));
  while (positions.reduce((sum, [, since]) => sum + gapsOf(since).length, 0) > MOST_GAPS_OF_ALL) most = most >> 1;
  const parts = [];
  for (const [symbol, { epoch, offset, ...since }] of positions) {
    const gaps = gapsOf(since), position = gaps.length ? { epoch, offset, gaps } : { epoch, offset };
    const size = bytesOf(JSON.stringify({ [symbol]: position }));
    if (size > room) {
      parts.push([]);
      room = POSITIONS_AT_ONCE;
    }
    parts.at(-1).push([symbol, position]);
    room -= size;
  }
  return parts.map(Object.fromEntries);
}

function namesOf(symbols) {
  const names = [...new Set(Array.isArray(symbols) ? symbols : [symbols])];
  if (!names.length || !names.every(isText)) throw new TypeError("name a symbol, several, or all (\"*\")");
  if (names.length > 1 && names.includes(EVERY)) throw new TypeError('"*" means all: it stands alone');
  return names;
}

function describe({ message, data }) {
  const problem = data?.problem ?? (data?.limit === undefined ? null : `at most ${data.limit}`);
  const value = isText(data?.value) ? ` ${data.value}` : "";
  const nearest = data?.nearest?.length ? `; nearest: ${data.nearest.join(", ")}` : "";
  return problem === null ? message : `${message}:${value} ${problem}${nearest}`;
}
