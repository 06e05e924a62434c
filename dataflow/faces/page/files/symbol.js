// One symbol: candles, tape, its sources side by side. The interval of the candles stands in the address: `?interval=5m`.
import * as chart from "./chart.js";
import * as fills from "./fills.js";
import * as tape from "./tape.js";
import * as venues from "./venues.js";
import { digits, padded, percent, short, tone } from "./decimal.js";
import { ask, feed, on } from "./daemon.js";
import { el, heading, paint, put } from "./dom.js";
import { Extremes } from "./extremes.js";
import { intervals, list, market, symbols } from "./markets.js";
import { Pace } from "./pace.js";
import { best, details, KINDS } from "./quality.js";
import { clock, lagOf, perSecond, span } from "./words.js";

const SNAPSHOT = 200, DRAW_EVERY = 0.2, USUAL = "1m";  // seconds

export function open(room, where) {
  const name = where.rest[0], address = `#/market/${encodeURIComponent(name)}`;
  const top = el("div", "bar top"), back = Object.assign(el("a", "back", "‹ Market"), { href: "#/market" }), price = el("span", "price"), change = el("span"), numbers = el("span", "off numbers"), state = el("span", "state off");
  const choice = el("nav", "intervals"), [left, below, right] = ["candles", "sources", "trades"].map(kind => room.appendChild(el("section", `panel ${kind}`)));
  const picture = el("div", "picture");
  choice.setAttribute("aria-label", "Interval of the candles");
  top.append(back, heading("h1", "", name), price, change, state, numbers);
  room.prepend(top);
  left.append(choice, picture);

  const strip = tape.open(right), sides = venues.open(below, name), pace = new Pace(), extremes = new Extremes(), follows = [];
  let drawing = null, interval = null, newest = null, most = 0, day = null, old = 0, closed = false, refused = null, timer = null, away = null, place = where;

  // ---- the beginning: as soon as there is such a symbol

  async function begin() {
    if (!symbols.has(name)) await list();
    refused = symbols.has(name) ? null : `No source has a symbol ${name} now.`;
    const all = await intervals();
    const { body: now } = refused ? {} : await ask(`api/v1/symbols/${encodeURIComponent(name)}`);
    if (closed || refused || follows.length) return;
    old = now.offset ?? 0;
    if (now.lastAge != null) pace.age = now.lastAge;
    follows.push(feed.trades(name, { snapshot: SNAPSHOT }).on(heard, failed), feed.quality(name).on(sides.told, failed), sides.follow());
    for (const each of all) choice.append(Object.assign(el("a", "", each), { href: `${address}?interval=${each}` }));
    if (all.includes("1d")) follows.push(feed.candles(name, "1d", { snapshot: 1 }).on(candle => { if (!day || candle.start >= day.start) day = candle; }, failed));
    await moved(place);
  }
  const failed = error => { refused = error.message; };

  // ---- the chart

  async function moved(to) {
    place = to;
    const all = market.intervals, wanted = to.params.get("interval") ?? (all?.includes(USUAL) ? USUAL : all?.[0]);
    if (!follows.length || !all || wanted === interval) return;
    interval = wanted;
    for (const link of choice.children) mark(link);
    const last = drawing;
    drawing = null;  // it is closed once, however often the interval changes until it is there
    (await last?.catch(() => null))?.close();
    if (closed || interval !== wanted) return;
    picture.replaceChildren();
    if (all.includes(wanted)) drawing = chart.open(picture, name, wanted);
    else picture.append(el("p", "legend", wanted ? `There are no candles of ${wanted} here.` : "No candles are made here."));
  }
  function mark(link) {
    if (link.textContent === interval) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }

  // ---- what comes. Places up to `old` were there before; they say nothing about the pace of now

  function heard(event) {
    strip.heard(event);
    if (event.type === "trade") {
      newest = event.price;
      extremes.traded(event);
      most = Math.max(most, digits(event.price));
      const isNew = event.offset > old;
      if (isNew) { old = 0; pace.came(); }
      sides.traded(event, isNew);
    } else if (event.type === "filled") {
      fills.remember(event);
      drawing?.then(each => each.filled());
    } else if (event.type === "rewound") {
      old = 0;
      extremes.forget();
    }
  }
  function draw() {
    timer = setTimeout(draw, 1000 * DRAW_EVERY);
    if (document.hidden) return;
    const range = day && extremes.of(day), move = day && percent(day.open, day.close), quality = best(sides.sources), lag = [...sides.sources.values()].map(({ lag }) => lag).filter(lag => lag != null);
    if (newest !== null) put(price, padded(newest, most));
    put(change, move ?? "");
    paint(change, tone(move));
    put(state, quality);
    paint(state, `state ${KINDS[quality] ?? "off"}`);
    state.title = details(sides.sources);
    const told = [day && `turnover ${short(day.quoteVolume)}`, day && `high ${padded(range.high, most)}`, day && `low ${padded(range.low, most)}`, `${perSecond(pace.rate)} trades/s`,
      Number.isFinite(pace.age) && `newest ${span(pace.age)} ago`, lag.length && `lag ${lagOf(Math.min(...lag))}`];
    put(numbers, refused ?? (newest !== null || day ? told.filter(Boolean).join(" · ") : follows.length ? "no trade yet" : "waiting for the first answer"));
    numbers.title = day ? `Of the UTC day ${day.start.slice(0, 10)}: turnover ${padded(day.quoteVolume, 0)}, volume ${padded(day.volume, 0)}` : "";
  }
  const AFFAIRS = {  // of the source: in the tape, where they happened
    "connection.lost": ({ source, reason, symbols: those }) => those.includes(name) && ["bad", `Source ${source} lost: ${reason}.`],
    "connection.restored": ({ source, symbols: those }) => those.includes(name) && ["good", `Source ${source} restored.`],
    "stream.switched": ({ symbol, from, to, reason }) => symbol === name && ["warn", `From ${to} now, no more from ${from}: ${reason}.`],
  };
  const ends = [
    on("heard", ({ method, params }) => {
      if (method === "symbols.changed" && params.added.includes(name)) begin().catch(() => {});
      const told = AFFAIRS[method]?.(params);
      if (told) strip.tell(...told);
    }),
    on("link", ({ state: word, since, reason }) => {
      if (word === "connected") {
        if (away) strip.tell("good", `Connected to dataflow again, away since ${clock(away)}.`);
        away = null;
        begin().catch(() => {});  // it is lost again: then once more
      } else if (since && !away) {
        away = since;
        strip.tell("bad", `Connection to dataflow lost: ${reason ?? "no reason given"}.`);
      }
    }),
  ];
  if (feed.connection.state === "connected") begin().catch(() => {});
  draw();
  return {
    moved,
    close() {
      closed = true;
      clearTimeout(timer);
      for (const end of ends) end();
      for (const each of follows) each.close();
      strip.close();
      sides.close();
      drawing?.then(each => each.close());
    },
  };
}
