// The view `sources`: how each upstream is connected, what it delivers, and how its symbols fare.
//
// Rules of this file. All of it is public but the problems, which quote what an upstream said. What a daemon does not tell is
// a dash. Of a failure of the past the time is told.
import { daemon, every, feed, on } from "./daemon.js";
import { el, paint, put, rows, toldWhileSought } from "./dom.js";
import { doorway, inside, refusal } from "./inside.js";
import { group } from "./operate.js";
import { KINDS, take } from "./quality.js";
import { settled, steady, waiting } from "./steady.js";
import { about, clock, count, few, lagOf, perSecond, size, span } from "./words.js";

export const title = "Sources";

const none = "–", SYMBOLS_EVERY = 10, DRAW_EVERY = 1, PROBLEMS_EVERY = 3, SYMBOLS_SHOWN = 200;
const WELL = 85;  // a score below it is worth a colour
const CONNECTION = { connected: "good", listening: "good", connecting: "info" };
const WORST = ["lost", "stalled", "rejected", "gapped", "refilling", "quiet", "live", "standby", "idle"];
const PARTS = { connection: 30, quality: 30, lag: 20, errors: 20 };  // the most that each part of a score can earn
const LACK = { connection: "it is not connected", quality: "the symbol is not live", lag: "trades come more than a second late", errors: "unusable messages came in the last minute" };
const ago = seconds => seconds === null || seconds === undefined ? none : `${span(seconds)} ago`;
const people = n => `${count(n)} producer${n === 1 ? "" : "s"}`;
const sum = counts => Object.values(counts).reduce((all, n) => all + n, 0);
const byReason = counts => Object.entries(counts).map(([reason, n]) => `${count(n)} ${reason.replaceAll("_", " ")}`).join(", ");

const COLUMNS = [
  ["Source", "", s => s.name],
  ["Connection", "connection", s => s.producers === null || s.producers === undefined ? s.state : `${s.state}, ${people(s.producers)}`],
  ["Trades/s", "num", s => s.delivered.rate === undefined ? none : perSecond(s.delivered.rate)],
  ["Newest", "num wide", s => ago(s.delivered.age)],
  ["Lag", "num wide", s => lagOf(s.quality.lag)],
  ["Symbols", "", s => Object.keys(s.quality.states).length ? byReason(s.quality.states) : count(s.symbols.length)],
  ["Missing", "num wide", s => s.quality.missing ? count(s.quality.missing) : none],
  ["Health", "num", s => s.score ? String(s.score.score) : none],
  ["Problems", "num wide", s => sum(s.problems) ? count(sum(s.problems)) : none],
  ["Why", "why wide", s => s.reason ? `${s.reasonAt ? `${clock(new Date(s.reasonAt))} ` : ""}${s.reason}` : ""],
];

export function open(main, where) {
  const room = el("div", "content");
  main.append(room);
  const all = group(room, "Sources", "sources-list"), one = new Source(room), failover = new Failover(room);
  const table = el("table"), head = table.createTHead().insertRow();
  table.setAttribute("aria-label", "Sources");
  for (const [name, kind] of COLUMNS) head.append(Object.assign(el("th", kind, name), { scope: "col" }));
  all.body.append(table);
  const list = rows(table.createTBody(), () => {
    const row = el("tr");
    row.append(...COLUMNS.map(([, kind], i) => i ? el("td", kind) : Object.assign(el("th", kind), { scope: "row" })));
    row.cells[0].append(el("a"));
    row.cells[1].append(el("span"), el("span", "off wide"));
    return row;
  }, (row, source) => {
    put(row.cells[1].lastChild, ` for ${span(source.age)}`);
    row.cells[0].firstChild.href = `#/sources/${encodeURIComponent(source.name)}`;
    row.classList.toggle("chosen", source.name === chosen());
    for (const [i, [, , text]] of COLUMNS.entries()) put(i < 2 ? row.cells[i].firstChild : row.cells[i], text(source));
    paint(row.cells[1].firstChild, `state ${CONNECTION[source.state] ?? "bad"}`);
    paint(row.cells[7], `num ${source.score && source.score.score < WELL ? source.score.score < WELL / 2 ? "bad" : "warn" : ""}`);
    row.cells[0].title = source.name;
    row.cells[9].title = source.reason ?? "";
  });
  let asked = where.rest[0] ?? null;
  const chosen = () => asked ?? Object.keys(daemon.status?.sources ?? {})[0] ?? null;
  const show = status => {
    list(Object.entries(status.sources).map(([name, source]) => [name, { name, ...source }]));
    put(all.state, Object.keys(status.sources).length ? "" : "none is configured");
    one.show(chosen(), status.sources[chosen()] ?? null);
    failover.show(status.failover ?? {});
  };
  put(all.state, "asking");
  const problems = async () => {
    const name = chosen(), answer = daemon.status?.sources[name] && await inside(`api/v1/sources/${encodeURIComponent(name)}/problems`);
    if (answer && name === chosen()) one.showProblems(answer);
  };
  const fares = new Map();  // by symbol: how it fares at each of its sources
  const symbols = async () => {
    if (daemon.link.state !== "connected") return;
    const listed = await feed.call("getSymbols");
    fares.clear();
    for (const { symbol, quality } of listed) fares.set(symbol, new Map(Object.entries(quality?.sources ?? {})));
    draw();
  };
  const draw = () => one.showSymbols(chosen(), fares);
  const changes = feed.quality("*").on(event => {
    if (!fares.has(event.symbol)) fares.set(event.symbol, new Map());
    take(fares.get(event.symbol), event);
  });
  const ends = [on("status", show), every(PROBLEMS_EVERY, problems), every(SYMBOLS_EVERY, symbols), every(DRAW_EVERY, draw), () => changes.close(), () => one.close()];
  if (daemon.status) show(daemon.status);
  return {
    moved({ rest }) {
      asked = rest[0] ?? null;
      if (daemon.status) show(daemon.status);
      draw();
      problems().catch(() => {});
    },
    close() { for (const end of ends) end(); },
  };
}

// A bar with its words: how much of a whole is there.
function meter(label, share, words, kind, why = "") {
  const node = el("div", "meter"), track = el("span", `fill ${kind}`), bar = el("i");
  bar.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  track.append(bar);
  node.append(el("span", "", label), track, el("span", "num", words));
  if (why) node.append(el("span", "why off", why));
  return node;
}
function part(room, title) {
  const section = el("section", "part"), body = el("div");
  section.append(el("h3", "", title), body);
  room.append(section);
  return body;
}
const told = (room, nodes, otherwise) => room.replaceChildren(...(nodes.length ? nodes : [el("p", "off", otherwise)]));

class Source {
  #name = null; #symbols = []; #filter = ""; #state = ""; #before = [];

  constructor(room) {
    Object.assign(this, group(room, "", "source"));
    this.actor = el("a", "", "its actors");
    this.bar.append(this.actor);
    const parts = el("div", "parts");
    this.body.append(parts);
    this.connection = part(parts, "Connection");
    this.health = part(parts, "Health");
    this.bounds = part(parts, "Used of its bounds");
    this.refill = part(parts, "Refills");
    const symbols = group(room, "Symbols of the source", "fares"), find = Object.assign(el("input"), { type: "search", placeholder: "filter by symbol or reason" });
    this.choice = el("select");
    this.choice.setAttribute("aria-label", "Which state");
    this.choice.append(Object.assign(el("option", "", "all states"), { value: "" }), ...WORST.map(state => Object.assign(el("option", "", state), { value: state })));
    this.choice.onchange = () => { this.#state = this.choice.value; this.#draw(true); };
    find.setAttribute("aria-label", "Filter the symbols");
    find.oninput = () => { this.#filter = find.value.trim().toLowerCase(); this.#draw(true); };
    this.note = el("span", "off note");
    toldWhileSought(find, this.note);
    symbols.bar.append(find, this.choice, this.note);
    const table = el("table"), head = table.createTHead().insertRow();
    table.setAttribute("aria-label", "Symbols of the source");
    for (const [name, kind] of [["Symbol", ""], ["Quality", ""], ["Since", ""], ["Lag", "num"], ["Missing", "num"], ["Why", "why"]]) head.append(Object.assign(el("th", kind, name), { scope: "col" }));
    symbols.body.append(table);
    this.fill = rows(table.createTBody(), () => {
      const row = el("tr"), state = el("td");
      state.append(el("span"));
      row.append(Object.assign(el("th"), { scope: "row" }), state, el("td"), el("td", "num"), el("td", "num"), el("td", "why"));
      row.cells[0].append(el("a"));
      return row;
    }, (row, symbol) => this.#fillSymbol(row, symbol));
    this.hold = steady(symbols.body, () => this.#draw());
    const problems = group(room, "Unusable messages", "problems"), content = el("div");
    problems.body.append(content);
    problems.body.tabIndex = 0;  // it has nothing else to scroll it by keyboard
    this.shut = doorway(content);
    this.problems = problems;
    const log = el("ol", "events");
    content.append(log);
    this.fillProblems = rows(log, ({ at, kind, text, times }) => {
      const line = el("li", "line");
      line.append(el("time", "off", clock(new Date(at))), el("span", "kind warn", kind.replaceAll("_", " ")), el("span", "mono text", times > 1 ? `${text} (${count(times)} of this kind in a second)` : text));
      return line;
    }, () => {});
  }
  close() {
    this.hold.close();
    this.shut();
  }
  show(name, source) {
    if (name !== this.#name) {
      this.#symbols = [];
      this.fillProblems([]);
      put(this.problems.state, source ? "asking" : "");
    }
    this.#name = name;
    put(this.heading, name ?? "no source");
    put(this.state, source ? source.connector : name ? "there is no such source" : "");
    this.actor.href = `#/operate/sources/${encodeURIComponent(name)}`;
    this.actor.hidden = !source;
    if (source) this.#fillIn(source);
  }
  #fillIn(source) {
    const { delivered, refill, lines, score, bounds } = source;
    const state = el("span", `state ${CONNECTION[source.state] ?? "bad"}`, source.state), list = el("dl", "facts");
    const add = (name, ...value) => { const dd = el("dd"); dd.append(...value); list.append(el("dt", "off", name), dd); };
    add("State", state, ` for ${span(source.age)}, since ${clock(new Date(source.since))}`);
    add("Why", source.reason ? `${source.reasonAt ? `${clock(new Date(source.reasonAt))} ` : ""}${source.reason}` : none);
    if (source.producers !== null && source.producers !== undefined) add("Producers", source.producers ? `${count(source.producers)} are there` : "none is there");
    add("Completeness", source.completeness ?? none);
    add("Circuit", source.circuit.replace("_", " "));
    add("Delivered", `${count(delivered.trades)} trades, ${size(delivered.bytes)}, the newest ${ago(delivered.age)}`);
    add("Rejected", Object.keys(source.rejected).length ? few(Object.entries(source.rejected).map(([symbol, why]) => `${symbol} (${why})`)) : none);
    for (const each of lines) add(`Line ${each.number}`, el("span", `state ${CONNECTION[each.state] ?? "bad"}`, each.state),
      ` for ${span(each.age)}, ${count(each.symbols)} symbols${each.replaces === null ? "" : `, to replace line ${each.replaces}`}${each.reason ? `: ${each.reason}` : ""}`);
    told(this.connection, [list]);
    told(this.health, score ? [el("p", "", `${score.score} of 100${score.symbol ? `, where it fares worst: ${score.symbol} (${score.state})` : ""}`),
      ...Object.entries(PARTS).map(([name, most]) => {
        const got = score.parts[name] ?? 0;
        return meter(name, got / most, `${got} of ${most}`, got < most / 2 ? "bad" : got < most ? "warn" : "good", got < most ? LACK[name] : "");
      })] : [], score === undefined ? "not told by this daemon" : "nothing is subscribed there");
    told(this.bounds, (bounds ?? []).map(({ name, used, limit, per }) => meter(name, limit ? used / limit : 0, `${count(used)} of ${count(limit)}${per ? ` in ${about(per)}` : ""}`,
      used > 0.9 * limit ? "bad" : used > 0.6 * limit ? "warn" : "good")), bounds === undefined ? "not told by this daemon" : "it has none");
    told(this.refill, refill ? [this.#refills(refill)] : [], "this source cannot be asked for missing trades");
  }
  #refills({ missing, questions, asked, filled, told: announced, givenUp, refused, failed, circuit }) {
    const list = el("dl", "facts"), facts = { "Asked for now": missing ? `${count(missing)} trades in ${count(questions)} questions` : "nothing", Requests: count(asked), "Came after all": `${count(filled)} trades`,
      "Gaps told": count(announced), "Given up": count(givenUp), "Not believed": sum(refused) ? byReason(refused) : none, "No answer": sum(failed) ? byReason(failed) : none, Circuit: circuit.replace("_", " ") };
    for (const [name, value] of Object.entries(facts)) list.append(el("dt", "off", name), el("dd", "", value));
    return list;
  }

  showProblems(answer) {
    const list = answer.code === 200 ? answer.body.problems : [];
    put(this.problems.state, answer.code !== 200 ? answer.code === 404 ? "not told by this daemon" : refusal(answer) : list.length ? `the newest ${list.length}` : "none");
    this.fillProblems(list.map(each => [`${each.at} ${each.kind} ${each.times} ${each.text}`, each]));
  }
  showSymbols(name, fares) {
    if (name !== this.#name) return;
    const rank = ({ state }) => WORST.indexOf(state);
    this.#symbols = [...fares].flatMap(([symbol, sources]) => sources.has(name) ? [{ symbol, ...sources.get(name) }] : []).sort((a, b) => rank(a) - rank(b) || (a.symbol < b.symbol ? -1 : 1));
    this.#draw();
  }
  #draw(asked = false) {
    const found = this.#symbols.filter(each => (!this.#state || each.state === this.#state) && `${each.symbol} ${each.reason ?? ""}`.toLowerCase().includes(this.#filter));
    const { items, late } = settled({ held: this.hold.held && !asked }, this.#before, found.slice(0, SYMBOLS_SHOWN).map(each => [each.symbol, each]));
    this.#before = items;
    this.fill(items);
    put(this.note, [`${count(found.length)} of ${count(this.#symbols.length)}`, found.length > SYMBOLS_SHOWN && `the first ${SYMBOLS_SHOWN} shown`, "the worst first", waiting(late)].filter(Boolean).join(" · "));
  }
  #fillSymbol(row, symbol) {
    row.classList.toggle("gone", symbol === null);
    if (symbol === null) return;
    const link = row.cells[0].firstChild, state = row.cells[1].firstChild;
    put(link, symbol.symbol);
    link.href = `#/market/${encodeURIComponent(symbol.symbol)}`;
    put(state, symbol.state);
    paint(state, `state ${KINDS[symbol.state] ?? "off"}`);
    put(row.cells[2], clock(new Date(symbol.since)));
    put(row.cells[3], lagOf(symbol.lag));
    put(row.cells[4], symbol.missing ? count(symbol.missing) : none);
    put(row.cells[5], symbol.reason ?? "");
    row.cells[5].title = symbol.reason ?? "";
  }
}

// Symbols with one source at a time.
class Failover {
  constructor(room) {
    Object.assign(this, group(room, "One source at a time", "failover"));
    const table = el("table"), head = table.createTHead().insertRow();
    table.setAttribute("aria-label", "Symbols with one source at a time");
    for (const name of ["Symbol", "Comes from", "For", "Switches", "Scores"]) head.append(Object.assign(el("th", "", name), { scope: "col" }));
    this.body.append(table);
    this.fill = rows(table.createTBody(), () => {
      const row = el("tr");
      row.append(Object.assign(el("th"), { scope: "row" }), ...["", "", "", "why"].map(name => el("td", name)));
      row.cells[0].append(el("a"));
      return row;
    }, (row, [symbol, { active, age, switches, sources }]) => {
      const link = row.cells[0].firstChild, [first] = Object.keys(sources);
      put(link, symbol);
      link.href = `#/market/${encodeURIComponent(symbol)}`;
      put(row.cells[1], active === first ? active : `${active}, not the preferred ${first}`);
      paint(row.cells[1], active === first ? "" : "warn");
      put(row.cells[2], span(age));
      put(row.cells[3], count(switches));
      put(row.cells[4], Object.entries(sources).map(([name, { score, state }]) => `${name} ${score} (${state})`).join(", "));
      row.cells[4].title = Object.entries(sources).map(([name, { parts }]) => `${name}: ${Object.entries(parts).map(([part, n]) => `${part} ${n}`).join(", ")}`).join("\n");
    });
  }
  show(symbols) {
    const list = Object.entries(symbols);
    this.section.hidden = !list.length;
    this.fill(list.map(each => [each[0], each]));
  }
}
