// The sources of one symbol side by side: last price, what lies between them, lag, quality, rate.
import { digits, minus, padded, percent } from "./decimal.js";
import { ask, every } from "./daemon.js";
import { el, paint, put, rows } from "./dom.js";
import { Pace } from "./pace.js";
import { KINDS, take } from "./quality.js";
import { count, lagOf, perSecond, span } from "./words.js";

const ASK_EVERY = 3, DRAW_EVERY = 0.5;  // seconds
const HEAD = [["source", ""], ["last price", "num"], ["difference", "num"], ["lag", "num"], ["trades/s", "num wide"], ["newest", "num wide"], ["quality", ""], ["missing", "num wide"]];

export function open(room, name) {
  const bar = el("div", "bar"), note = el("span", "off"), box = el("div", "scroll"), table = el("table", "venues"), head = el("tr"), body = el("tbody"), part = el("thead");
  for (const [text, kind] of HEAD) head.append(Object.assign(el("th", kind, text), { scope: "col" }));
  head.cells[2].title = "From the lowest last price";
  head.cells[3].title = "Seconds from a trade to dataflow, the middle one of late";
  part.append(head);
  table.append(part, body);
  table.setAttribute("aria-label", "Sources");
  bar.append(el("h2", "", "Sources"), note);
  box.append(table);
  box.tabIndex = 0;
  room.append(bar, box);

  const sources = new Map();  // name: { state, since, reason, missing, lag }
  const venues = new Map();  // name: { price, pace }
  let most = 0, active = null;
  const venue = source => venues.get(source) ?? venues.set(source, { price: null, pace: new Pace() }).get(source);

  async function refresh() {
    const { code, body: told } = await ask(`api/v1/symbols/${encodeURIComponent(name)}`);
    if (code !== 200) return;
    for (const [source, state] of Object.entries(told.quality.sources)) sources.set(source, state);
    for (const source of sources.keys()) if (!(source in told.quality.sources)) sources.delete(source);
    active = told.failover?.active ?? null;
  }
  const show = rows(body, () => {
    const row = el("tr"), source = el("th");
    source.scope = "row";
    row.append(source, ...HEAD.slice(1).map(([, kind]) => el("td", kind)));
    row.cells[6].append(el("span", "state"), el("span", "off cause"));
    return row;
  }, ({ cells }, { source, price, pace, lowest }) => {
    const { state = "unknown", reason, since, lag, missing } = sources.get(source) ?? {};
    put(cells[0], source === active ? `${source} · active` : source);
    cells[0].title = source;
    put(cells[1], price === null ? "–" : padded(price, most));
    put(cells[2], price === null || venues.size < 2 ? "" : padded(minus(price, lowest), most));
    put(cells[3], lagOf(lag));
    put(cells[4], perSecond(pace.rate));
    put(cells[5], span(pace.age) || "–");
    put(cells[6].firstChild, state);
    paint(cells[6].firstChild, `state ${KINDS[state] ?? "off"}`);
    put(cells[6].lastChild, reason ? ` ${reason}` : "");
    cells[6].title = since ? `since ${since}${reason ? `: ${reason}` : ""}` : "";
    put(cells[7], missing ? count(missing) : "");
  });
  let timer = null;
  function draw() {
    timer = setTimeout(draw, 1000 * DRAW_EVERY);
    if (document.hidden) return;
    const names = [...new Set([...sources.keys(), ...venues.keys()])].sort(), prices = [...venues.values()].map(({ price }) => price).filter(price => price !== null);
    const by = (a, b) => minus(a, b).startsWith("-") ? -1 : 1, ordered = prices.sort(by), lowest = ordered[0];
    const spread = prices.length > 1 ? minus(ordered.at(-1), lowest) : null;
    put(note, spread === null ? "" : `spread ${padded(spread, most)} (${percent(lowest, ordered.at(-1)).replace(/^\+/, "")})`);
    show(names.map(source => [source, { source, ...venue(source), lowest }]));
  }
  draw();
  return {
    sources,
    traded({ source, price }, isNew) {
      const own = venue(source);
      own.price = price;
      if (isNew) own.pace.came();
      most = Math.max(most, digits(price));
    },
    told: event => take(sources, event),
    follow: () => ({ close: every(ASK_EVERY, refresh) }),  // there is such a symbol
    close() { clearTimeout(timer); },
  };
}
