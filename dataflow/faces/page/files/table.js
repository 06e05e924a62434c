// All symbols in one table: search, sort, filter.
//
// Rules of this file. Only rows that can be seen are nodes; so thousands of symbols cost what fifty cost. The order is made
// anew at most every two seconds. While somebody points at the table or has the focus in it, only the person changes the order:
// new symbols come at its end, and rows of symbols that have left stay. The rows are one stop of the Tab key; arrow keys lead
// from one to the next, through all of them. What is chosen stands in the address: `?search=&sort=&quality=`, with `-` before
// a key for the largest first.
import { padded, percent, short, split, tone } from "./decimal.js";
import { el, heading, paint, put, rows } from "./dom.js";
import { changed, follow, market, symbols, today } from "./markets.js";
import { best, details, KINDS, names, STATES } from "./quality.js";
import { steady, waiting } from "./steady.js";
import { count, perSecond, span } from "./words.js";

const DRAW_EVERY = 0.25, SORT_EVERY = 2, MARGIN = 6;  // seconds; rows beyond the edge
const TROUBLE = ["refilling", "gapped", "stalled", "lost", "rejected"];
const number = text => text == null ? null : Number(text);
const moveOf = symbol => { const day = today(symbol); return day && Number(day.close) / Number(day.open) - 1; };
const COLUMNS = [  // key, head, class, what it means, by what it is sorted
  ["symbol", "symbol", "", "", ({ name }) => name],
  ["price", "last price", "num", "All digits, at the decimal point; as many for each symbol as were seen there", ({ price }) => number(price)],
  ["change", "change", "num", "Of the UTC day, since its first trade; at most once a second", moveOf],
  ["volume", "volume", "num wide", "Turnover of the UTC day in the quoted currency; at most once a second", symbol => number(today(symbol)?.quoteVolume)],
  ["rate", "trades/s", "num", "Mean of the last 10 seconds", ({ pace }) => pace.rate],
  ["age", "newest", "num wide", "Since the newest trade came", ({ pace }) => pace.age],
  ["quality", "quality", "", "The best of its sources", ({ sources }) => STATES.indexOf(best(sources))],
  ["source", "source", "wide", "Where it comes from", ({ sources }) => names(sources)],
];

export function open(room, where) {
  const bar = el("div", "bar tools"), box = el("div", "list"), node = el("table", "symbols"), note = el("span", "off note", "waiting for the first answer"), seen = el("span", "unseen");
  const search = Object.assign(el("input"), { type: "search", placeholder: "search  /", ariaLabel: "Search a symbol", autocomplete: "off", spellcheck: false });
  const quality = Object.assign(el("select"), { ariaLabel: "Filter by quality" });
  const [before, body, after] = ["space", "rows", "space"].map(name => el("tbody", name));
  for (const [value, text] of [["", "any quality"], ["trouble", "in trouble"], ...STATES.map(state => [state, state])]) quality.append(new Option(text, value));
  bar.append(heading("h1", "", "Market"), search, quality, note, seen);
  Object.assign(box, { tabIndex: -1 });
  node.append(head(), before, body, after);
  node.setAttribute("aria-label", "Symbols");
  seen.setAttribute("role", "status");
  for (const each of [before, after]) each.append(el("tr")), each.firstChild.append(el("td")), each.setAttribute("aria-hidden", "true");
  const nothing = el("p", "nothing off");
  box.append(node, nothing);
  room.append(bar, box);

  const chosen = { search: "", sort: "symbol", quality: "" }, hold = steady(box, () => arrange());
  let order = [], height = 32, sorted = 0, late = 0, drawn = null, focused = null, stop = null, width = "";

  // ---- the address

  function read({ params }) {
    for (const key of Object.keys(chosen)) chosen[key] = params.get(key) ?? "";
    if (!COLUMNS.some(([key]) => key === chosen.sort.replace(/^-/, ""))) chosen.sort = "symbol";
    search.value = chosen.search;
    quality.value = chosen.quality;
    arrange(true);
  }
  function choose(change) {
    Object.assign(chosen, change);
    const params = new URLSearchParams(Object.entries(chosen).filter(([key, value]) => value && !(key === "sort" && value === "symbol")));
    history.replaceState(null, "", `#/market${params.size ? `?${params}` : ""}`);
    box.scrollTop = 0;
    arrange(true);
    put(seen, order.length === 1 ? "1 symbol found" : `${count(order.length)} symbols found`);
  }

  // ---- which rows, in which order

  function arrange(asked) {
    const words = chosen.search.toUpperCase().split(/\s+/).filter(Boolean), { quality: wanted } = chosen;
    const down = chosen.sort.startsWith("-"), [, , , , by] = COLUMNS.find(([key]) => key === chosen.sort.replace(/^-/, ""));
    const keyed = [];
    for (const symbol of symbols.values()) {
      if (!words.every(word => symbol.name.includes(word))) continue;
      const state = wanted && best(symbol.sources);
      if (wanted && state !== wanted && !(wanted === "trouble" && TROUBLE.includes(state))) continue;
      keyed.push([by(symbol), symbol]);
    }
    const nameFirst = ([, a], [, b]) => a.name < b.name ? -1 : 1;
    keyed.sort((a, b) => {  // what has no value comes last, either way
      if (a[0] === b[0] || (a[0] == null && b[0] == null)) return nameFirst(a, b);
      if (a[0] == null || b[0] == null) return a[0] == null ? 1 : -1;
      return (a[0] < b[0] ? -1 : 1) * (down ? -1 : 1);
    });
    const matches = keyed.map(([, symbol]) => symbol);
    order = asked || !isHeld() ? matches : grown(matches);
    late = order.length - matches.length;
    sorted = performance.now();
    for (const cell of node.tHead.rows[0].cells) {
      const own = cell.dataset.key === chosen.sort.replace(/^-/, "");
      if (own) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    node.setAttribute("aria-rowcount", order.length + 1);
    put(nothing, order.length || !market.listed ? "" : symbols.size ? "No symbol is like that." : "No source has a symbol yet.");
    draw(true);
  }
  function grown(matches) {
    const shown = new Set(order.map(({ name }) => name));
    return [...order.map(symbol => symbols.get(symbol.name) ?? symbol), ...matches.filter(({ name }) => !shown.has(name))];
  }
  const isHeld = () => hold.held || box.contains(document.activeElement);

  // ---- drawing

  const fill = rows(body, make, show);
  function draw(all) {
    const first = Math.max(0, Math.floor(box.scrollTop / height) - MARGIN);
    const last = Math.min(order.length, Math.ceil((box.scrollTop + box.clientHeight) / height) + MARGIN);
    const window = order.slice(first, last), range = `${first} ${last}`;
    let most = 0, whole = 0;
    for (const symbol of order) {
      most = Math.max(most, symbol.digits);
      whole = Math.max(whole, symbol.whole);
    }
    if (`${whole} ${most}` !== width) {
      width = `${whole} ${most}`;
      node.style.setProperty("--whole", whole);
      node.style.setProperty("--digits", most);
    }
    if (all || range !== drawn) {
      const held = document.activeElement?.closest(".symbols tr") !== null && body.contains(document.activeElement);
      before.firstChild.firstChild.style.height = `${first * height}px`;
      after.firstChild.firstChild.style.height = `${(order.length - last) * height}px`;
      before.hidden = first === 0;
      after.hidden = last === order.length;
      drawn = range;
      fill(window.map((symbol, i) => [symbol.name, { symbol, index: first + i }]));
      if (held && !body.contains(document.activeElement)) box.focus({ preventScroll: true });  // its row went out of sight
      measure();
    } else for (const symbol of window) if (changed.has(symbol)) show(symbol.row, { symbol });
    changed.clear();
    reach(window.find(({ name }) => name === focused) ?? window.find((_, i) => (first + i) * height >= box.scrollTop));
  }
  function reach(symbol) {  // by Tab
    const link = symbol?.row.querySelector("a");
    if (link === stop) return;
    if (stop) stop.tabIndex = -1;
    if (link) link.tabIndex = 0;
    stop = link;
  }
  function measure() {
    const real = body.rows[0]?.offsetHeight;
    if (real && real !== height) { height = real; drawn = null; }
  }
  function make({ symbol }) {
    const row = el("tr"), link = el("a", "", symbol.name), name = el("th");
    name.scope = "row";
    link.href = `#/market/${encodeURIComponent(symbol.name)}`;
    link.tabIndex = -1;
    name.append(link);
    row.append(name, ...COLUMNS.slice(1).map(([key, , kind]) => el("td", `${key} ${kind}`)));
    const price = row.cells[1];
    price.append(el("span"), el("span", "fraction"));
    row.cells[6].append(el("span", "state"));
    return row;
  }
  function show(row, { symbol, index }) {
    const [, price, change, volume, , , quality, source] = row.cells, day = today(symbol), state = best(symbol.sources);
    symbol.row = row;
    if (index !== undefined) row.setAttribute("aria-rowindex", index + 2);
    if (symbol.price === null) put(price.firstChild, "–");
    else {
      const [whole, fraction] = split(symbol.price, symbol.digits);
      put(price.firstChild, whole);
      put(price.lastChild, fraction && `.${fraction}`);
    }
    const move = day && percent(day.open, day.close);
    put(change, move ?? "–");
    paint(change, `change num ${tone(move)}`);
    put(volume, day ? short(day.quoteVolume) : "–");
    show.ages(symbol);
    put(quality.firstChild, symbol.sources.size ? state : "–");
    paint(quality.firstChild, `state ${KINDS[state] ?? "off"}`);
    put(source, names(symbol.sources));
  }
  show.ages = symbol => {  // what changes without an event
    const [, , , , rate, age] = symbol.row.cells;
    put(rate, perSecond(symbol.pace.rate));
    put(age, span(symbol.pace.age) || "–");
  };
  // Details are made when somebody asks for them: with a pointer, or with the focus. The link covers its row.
  function explain({ target }) {
    const row = target.closest?.("tbody.rows tr"), symbol = row && symbols.get(row.cells[0].textContent), day = symbol && today(symbol);
    if (!symbol) return;
    const prices = ["open", "high", "low", "close"].map(key => day && `${key} ${padded(day[key], symbol.digits)}`);
    const told = day && `UTC day ${day.start.slice(0, 10)}: ${prices.join(", ")}, volume ${padded(day.volume, 0)}, turnover ${padded(day.quoteVolume, 0)}, ${count(day.count)} trades${day.complete ? "" : "; incomplete: trades are missing"}`;
    row.cells[0].firstChild.title = [symbol.name, details(symbol.sources), told].filter(Boolean).join("\n");
  }
  function tick() {
    const states = {};
    let rate = 0;
    for (const symbol of symbols.values()) {
      const state = best(symbol.sources);
      states[state] = (states[state] ?? 0) + 1;
      rate += symbol.pace.rate;
    }
    for (const row of body.rows) { const symbol = symbols.get(row.cells[0].textContent); if (symbol) show.ages(symbol); }
    const told = STATES.filter(state => states[state]).map(state => `${count(states[state])} ${state}`);
    const found = order.length - late, all = `${count(symbols.size)} symbols`;
    if (market.listed) put(note, [found === symbols.size ? all : `${count(found)} of ${all}`, ...told, `${perSecond(rate)} trades/s`, waiting(late)].filter(Boolean).join(" · "));
  }
  let timer = null, ticked = 0;
  function turn() {
    timer = setTimeout(turn, 1000 * DRAW_EVERY);
    if (document.hidden) return;
    const now = performance.now(), isGrown = symbols.size !== turn.size, isFirst = market.listed && !turn.listed;
    Object.assign(turn, { size: symbols.size, listed: market.listed });
    if (isFirst) arrange(true);  // until now there was nothing to sort by
    else if (isGrown || (now - sorted > 1000 * SORT_EVERY && (chosen.sort !== "symbol" || chosen.quality) && !isHeld())) arrange();
    else draw(false);
    if (now - ticked > 1000) { ticked = now; tick(); }
  }

  // ---- keys and pointer

  function keyed(event) {
    const at = order.findIndex(({ name }) => name === focused), page = Math.max(1, Math.floor(box.clientHeight / height) - 2);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: order.length - 1 };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey || !order.length) return;
    event.preventDefault();
    if (steps[event.key] < 0 && event.key === "ArrowUp") return search.focus();
    goTo(Math.max(0, Math.min(order.length - 1, steps[event.key])));
  }
  function goTo(index) {
    const top = index * height, room = box.clientHeight - node.tHead.offsetHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height > box.scrollTop + room) box.scrollTop = top + height - room;
    focused = order[index].name;
    draw(false);
    order[index].row.querySelector("a").focus({ preventScroll: true });
  }
  function slash(event) {
    if (event.key !== "/" || event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, textarea, select, dialog")) return;
    event.preventDefault();
    search.focus();
    search.select();
  }
  search.oninput = () => choose({ search: search.value.trim() });
  search.onkeydown = event => {
    if (event.key === "ArrowDown" && order.length) { event.preventDefault(); goTo(Math.max(0, Math.floor(box.scrollTop / height))); }
    if (event.key === "Escape" && search.value) { event.preventDefault(); search.value = ""; choose({ search: "" }); }
    if (event.key === "Enter" && order.length) location.hash = `#/market/${encodeURIComponent(order[0].name)}`;
  };
  quality.onchange = () => choose({ quality: quality.value });
  node.tHead.onclick = ({ target }) => {
    const key = target.closest("th")?.dataset.key, first = ["symbol", "source", "quality", "age"].includes(key) ? key : `-${key}`;
    if (key) choose({ sort: chosen.sort === first ? (first === key ? `-${key}` : key) : first });
  };
  box.onkeydown = keyed;
  box.addEventListener("focusin", event => { focused = event.target.closest("tbody tr")?.cells[0].textContent ?? focused; explain(event); });
  box.onpointerover = explain;
  box.onscroll = () => draw(false);
  addEventListener("keydown", slash);
  const resized = new ResizeObserver(() => { drawn = null; draw(false); });
  resized.observe(box);
  const end = follow();
  read(where);
  turn();
  return {
    moved: read,
    close() {
      clearTimeout(timer);
      hold.close();
      removeEventListener("keydown", slash);
      resized.disconnect();
      end();
    },
  };
}
function head() {
  const row = el("tr"), part = el("thead");
  for (const [key, text, kind, title] of COLUMNS) {
    const cell = el("th", `${key} ${kind}`), button = Object.assign(el("button", "sort", text), { title });
    cell.scope = "col";
    cell.dataset.key = key;
    cell.append(button);
    row.append(cell);
  }
  part.append(row);
  return part;
}
