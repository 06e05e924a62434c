// The tape of one symbol: trades, gaps, fills and rewinds, each in its place of the stream, the newest first.
//
// Rules of this file. What comes waits until it is drawn, some times a second; while the tape is paused or nobody looks it waits
// longer. `WAIT` events may wait; of more the oldest are left out, and a line says how many. `ROWS` lines are kept.
import { digits, padded } from "./decimal.js";
import { el, put } from "./dom.js";
import { clock, count, places } from "./words.js";

const ROWS = 400, WAIT = 10_000, DRAW_EVERY = 0.15;  // seconds
const SIDES = { buy: "good", sell: "bad" };

// The pure part: lines in the order of the stream. A line is `{ trade, filled }`, `{ gap: { from, to, reason } }` or `{ kind, text }`.
export function take(lines, event) {
  if (event.type === "trade") lines.push({ trade: event });
  else if (event.type === "gap") lines.push({ gap: event });
  else if (event.type === "filled") fill(lines, event);
  else if (event.type === "rewound") rewind(lines, event);
  else lines.push(event);
}
function fill(lines, { from, to, trades }) {
  const at = lines.findLastIndex(({ gap }) => gap?.to != null && gap.from <= from && to <= gap.to);
  if (at < 0) return;  // the gap is above what is kept
  const { gap } = lines[at], rest = (from, to) => from > to ? [] : [{ gap: { ...gap, from, to } }];
  lines.splice(at, 1, ...rest(gap.from, from - 1), ...trades.map(trade => ({ trade, filled: true })), ...rest(to + 1, gap.to));
}
function rewind(lines, { offset, dropped }) {
  const behind = lines.findLastIndex(({ trade, gap }) => (trade?.offset ?? gap?.to ?? gap?.from ?? Infinity) <= offset) + 1;
  const taken = lines.splice(behind), kept = taken.filter(({ text }) => text);  // what else happened stays
  const cut = taken.find(({ gap }) => gap && gap.from <= offset);  // its beginning stays, too
  if (cut) lines.push({ gap: { ...cut.gap, to: offset } });
  const words = `What came behind place ${offset} is no part of the stream any more: a crash of dataflow took it (${count(dropped)} trades shown here).`;
  lines.push(...kept, { kind: "warn", text: words });
}
export function gapWords({ from, to, reason }) {
  if (from === 0) return `Trades are lost here, nobody knows how many: the count begins anew (${reason}).`;
  return to === null ? `Gap at ${places(from, to)} are missing (${reason}).` : `Gap: ${places(from, to)}, ${count(to - from + 1)} missing (${reason}).`;
}

export function open(room) {
  const bar = el("div", "bar"), note = el("span", "off"), pause = el("button", "", "pause"), box = el("div", "scroll"), table = el("table", "tape mono"), body = el("tbody"), head = el("thead");
  pause.setAttribute("aria-pressed", false);
  bar.append(el("h2", "", "Trades"), note, pause);
  const titles = el("tr");
  for (const [text, name] of [["time, UTC", ""], ["side", ""], ["price", "num"], ["quantity", "num"], ["source", "source"], ["place", "num wide"]]) titles.append(Object.assign(el("th", name, text), { scope: "col" }));
  head.append(titles);
  table.append(head, body);
  table.setAttribute("aria-label", "Trades, the newest first");
  box.tabIndex = 0;
  box.append(table);
  room.append(bar, box);

  const lines = [], waiting = [], most = { price: 0, qty: 0 };
  let left = 0, paused = false, since = 0, timer = null;

  function heard(event) {
    waiting.push(event);
    if (waiting.length > WAIT) { waiting.shift(); left += 1; }
    if (event.type === "trade") since += 1;
  }
  const tell = (kind, text) => heard({ kind, text: `${clock(new Date())}  ${text}` });
  function draw() {
    timer = setTimeout(draw, 1000 * DRAW_EVERY);
    put(note, paused ? `paused, ${count(since)} new` : "");
    if (paused || document.hidden || !waiting.length) return;
    if (left) lines.push({ kind: "warn", text: `${count(left)} lines are left out here: the page did not look for too long.` });
    for (const event of waiting) take(lines, event);
    lines.splice(0, Math.max(0, lines.length - ROWS));
    waiting.length = left = since = 0;
    show();
  }
  function show() {
    const before = most.price + most.qty;
    for (const { trade } of lines) if (trade) for (const key of ["price", "qty"]) most[key] = Math.max(most[key], digits(trade[key]));
    if (most.price + most.qty !== before) for (const { row, trade } of lines) if (row && trade) numbers(row, trade);
    const held = box.scrollTop > 0 && [...body.rows].find(row => row.offsetTop >= box.scrollTop), top = held?.offsetTop;
    const keep = new Set();
    let next = body.firstElementChild;
    for (let i = lines.length - 1; i >= 0; i -= 1) {
      const row = lines[i].row ??= make(lines[i]);
      keep.add(row);
      if (row === next) next = next.nextElementSibling;
      else body.insertBefore(row, next);
    }
    for (const row of [...body.rows]) if (!keep.has(row)) row.remove();
    if (held?.isConnected) box.scrollTop += held.offsetTop - top;  // what one reads stays where it is
  }
  function make({ trade, filled, gap, kind, text }) {
    if (!trade) {
      const row = el("tr", `event ${kind ?? (gap ? "warn" : "")}`), cell = el("td");
      cell.colSpan = 6;
      cell.append(el("span", "", text ?? gapWords(gap)));
      row.append(cell);
      return row;
    }
    const row = el("tr", filled ? "filled" : "");
    row.append(el("td", "off", trade.timestamp.slice(11, 23)), el("td", SIDES[trade.side] ?? "off", trade.side ?? "–"), el("td", "num"), el("td", "num"),
      el("td", "source off", `${trade.source}${filled ? " · filled" : ""}`), el("td", "num wide off", String(trade.offset)));
    row.title = `${trade.timestamp}, ${trade.source}, id ${trade.tradeId ?? "unknown"}, place ${trade.offset}${filled ? ": it came after all, and fills a gap" : ""}`;
    numbers(row, trade);
    return row;
  }
  function numbers({ cells }, { price, qty }) {
    put(cells[2], padded(price, most.price));
    put(cells[3], padded(qty, most.qty));
  }
  pause.onclick = () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    put(pause, paused ? "go on" : "pause");
  };
  draw();
  return { heard, tell, close() { clearTimeout(timer); } };
}
