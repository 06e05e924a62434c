// The supervision tree as rows: folded where it is wide, bounded, found by text.
//
// Rules of this file. A row is one line of fixed height: what happens to its actor moves no other row. Rows come and go as
// `steady` allows; a fold, a filter or a choice of the person is obeyed at once. Where messages conflate, the one that waits
// stands for all: such a mailbox is never full.
import { el, put, paint, rows, toldWhileSought } from "./dom.js";
import { settled, steady, waiting } from "./steady.js";
import { clock, count, few, span } from "./words.js";

const OPEN_UP_TO = 12, CHILDREN_SHOWN = 100, ROWS_SHOWN = 400, FRESH = 60;  // seconds in which a lost message is news
const COLOURS = { idle: "off", starting: "info", running: "good", backoff: "warn", stopping: "info", done: "off" };
const COLUMNS = [["Actor", ""], ["State", ""], ["For", "num wide"], ["Mailbox", ""], ["Restarts", "num"], ["Last error", "wide"]];

export const nameOf = path => path.split("/").pop() || "root";
export const addressOf = path => `#/operate${path && "/"}${path.split("/").map(encodeURIComponent).join("/")}`;
export const timeOf = text => text ? clock(new Date(text)) : "";
export const colourOf = state => COLOURS[state] ?? "off";
export function* everybody(node) {
  yield node;
  for (const child of node.children) yield* everybody(child);
}
// What became of the messages, in words.
export function balance({ size, overflow, accepted, handled, queued, dropped, lost_in_flight: lost }) {
  if (!accepted) return "nothing came yet";
  const { conflated = 0, ...reasons } = dropped, room = overflow === "conflate" ? "the newest stands for all" : `room for ${count(size)}`;
  return [`${count(accepted)} came: ${count(handled)} handled`, `${count(queued)} waiting (${room})`, ...(conflated ? [`${count(conflated)} joined with others`] : []),
    ...Object.entries(reasons).map(([reason, n]) => `${count(n)} dropped (${reason})`), ...(lost ? [`${count(lost)} lost in flight`] : [])].join(", ");
}
export function states(nodes) {
  const sums = {};
  for (const { state } of nodes) sums[state] = (sums[state] ?? 0) + 1;
  return Object.entries(sums).map(([state, n]) => `${count(n)} ${state}`).join(", ");
}

export class Tree {
  #root = null; #folds = new Map(); #filter = ""; #chosen = ""; #current = ""; #before = []; #hold; #show; #note; #body;

  constructor(room, bar) {
    const table = el("table", "tree"), head = table.createTHead().insertRow(), find = el("input");
    this.#note = el("span", "off note");
    Object.assign(find, { type: "search", placeholder: "filter by name, state or error" });
    find.setAttribute("aria-label", "Filter the actors");
    find.oninput = () => { this.#filter = find.value.trim().toLowerCase(); this.#draw(true); };
    toldWhileSought(find, this.#note);
    bar.append(find, this.#note);
    for (const [title, name] of COLUMNS) head.append(Object.assign(el("th", name, title), { scope: "col" }));
    table.setAttribute("role", "treegrid");
    table.setAttribute("aria-label", "Actors");
    table.onkeydown = event => this.#key(event);
    this.#body = table.createTBody();
    this.#show = rows(this.#body, item => this.#make(item), (row, item) => this.#fill(row, item));
    room.append(table);
    this.#hold = steady(room, () => this.#draw());
  }
  close() { this.#hold.close(); }

  show(root) {
    this.#root = root;
    this.#draw();
  }
  choose(path) {
    this.#chosen = path;
    if (!this.#body.contains(document.activeElement)) this.#current = path;  // keys go on where the focus is
    for (let at = path; at.includes("/");) this.#folds.set(at = at.slice(0, at.lastIndexOf("/")), true);
    if (!this.#root) return;
    this.#draw(true);
    if (path) this.#body.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
  }

  #open = ({ path, children }) => this.#folds.get(path) ?? children.length <= OPEN_UP_TO;
  #matches = ({ path, state, last_error: error }) => `${path || "root"} ${state} ${error ?? ""}`.toLowerCase().includes(this.#filter);

  #visible() {
    const found = [];
    let more = 0;
    const add = (node, depth) => found.length < ROWS_SHOWN ? found.push([node.path, { node, depth }]) : more += 1;
    const walk = (node, depth) => {
      add(node, depth);
      if (!this.#open(node)) return;
      let shown = node.children.slice(0, CHILDREN_SHOWN);
      if (this.#chosen.startsWith(node.path && `${node.path}/`)) shown = [...new Set([...shown, ...node.children.filter(({ path }) => path === this.#chosen)])];
      for (const child of shown) walk(child, depth + 1);
      if (shown.length < node.children.length) found.push([`${node.path}/…`, { rest: node.children.length - shown.length, depth: depth + 1 }]);
    };
    const search = (node, depth) => {
      const at = found.length;
      add(node, depth);
      let any = this.#matches(node);
      for (const child of node.children) any = search(child, depth + 1) || any;
      if (!any && found[at]?.[0] === node.path) found.splice(at);
      else if (!any) more -= 1;
      return any;
    };
    if (this.#filter) search(this.#root, 0);
    else walk(this.#root, 0);
    return { found, more };
  }
  #draw(asked = false) {
    if (!this.#root) return;
    const { found, more } = this.#visible(), { items, late } = settled({ held: this.#hold.held && !asked }, this.#before, found);
    this.#before = items;
    if (!items.some(([path]) => path === this.#current)) this.#current = "";
    this.#show(items);
    const all = [...everybody(this.#root)], upset = all.filter(({ state }) => !["running", "done", "idle"].includes(state)).length;
    put(this.#note, [`${count(all.length)} actors`, upset && `${count(upset)} not running`, this.#filter && `${count(found.length)} rows found`, more && `${count(more)} more: filter to see them`,
      waiting(late)].filter(Boolean).join(" · "));
  }

  #make(item) {
    const row = el("tr");
    if (item?.rest) {
      const cell = el("td", "off");
      cell.colSpan = COLUMNS.length;
      row.append(cell);
      return row;
    }
    const name = Object.assign(el("th"), { scope: "row" }), fold = el("button", "fold"), link = el("a", "mono name");
    const [state, age, box, restarts, error] = ["", "num off wide", "mailbox", "num", "error wide"].map(each => el("td", each));
    Object.assign(fold, { type: "button", tabIndex: -1 });
    name.append(fold, link, el("span", "off hint"));
    state.append(el("span"));
    const fill = el("span", "fill");
    fill.append(el("i"));
    box.append(fill, el("span", "queued"), el("span", "lost"));
    row.append(name, state, age, box, restarts, error);
    return row;
  }
  #fill(row, item) {
    row.classList.toggle("gone", item === null);
    if (item === null) return put(row.querySelector(".state") ?? row.cells[0], "gone");
    if (item.rest) return put(row.cells[0], `${count(item.rest)} more: filter to see them`);
    const { node, depth } = item, { path, state, children, restarts, last_error: error } = node;
    const [name, condition, age, box, times, said] = row.cells, [fold, link, hint] = name.children;
    const isWide = children.length > 0, isOpen = isWide && (this.#filter ? true : this.#open(node));
    row.setAttribute("aria-level", depth + 1);
    if (isWide) row.setAttribute("aria-expanded", isOpen);
    else row.removeAttribute("aria-expanded");
    row.classList.toggle("chosen", path === this.#chosen);
    name.style.setProperty("--depth", depth);
    paint(fold, `fold ${isWide ? isOpen ? "open" : "closed" : "none"}`);
    fold.setAttribute("aria-label", `${isOpen ? "fold" : "unfold"} ${path || "root"}`);
    fold.onclick = () => this.#turn(path, !isOpen);
    put(link, nameOf(path));
    link.href = addressOf(path);
    link.title = path || "root";
    link.tabIndex = path === this.#current ? 0 : -1;
    link.onfocus = () => { this.#current = path; };
    if (path === this.#chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    put(hint, isWide && !isOpen ? states(children) : children.length > CHILDREN_SHOWN ? count(children.length) : "");
    put(condition.firstChild, state);
    paint(condition.firstChild, `state ${colourOf(state)}`);
    put(age, span(node.age).split(" ").slice(0, 2).join(" "));
    put(times, restarts ? count(restarts) : "");
    put(said, error ? `${timeOf(node.last_error_at)} ${error}` : "");
    said.title = error ?? "";
    said.classList.toggle("bad", state === "backoff");
    this.#fillBox(box, node);
  }
  #fillBox(cell, { mailbox: box }) {
    const [fill, queued, lost] = cell.children, isQueue = box?.accepted > 0 && box.overflow !== "conflate", used = isQueue ? box.queued / box.size : 0;
    const isFresh = box?.lost_at && Date.now() - Date.parse(box.lost_at) < 1000 * FRESH;
    fill.hidden = !isQueue;
    fill.firstChild.style.width = `${100 * used}%`;
    paint(fill, `fill ${used > 0.9 ? "bad" : used > 0.5 ? "warn" : "good"}`);
    put(queued, isQueue ? count(box.queued) : "");
    put(lost, isFresh ? `−${count(box.lost_in_flight)} at ${timeOf(box.lost_at)}` : "");
    paint(lost, `lost ${isFresh ? "warn" : ""}`);
    cell.title = box ? balance(box) : "";
  }

  #turn(path, open) {
    this.#folds.set(path, open);
    this.#draw(true);
  }
  #key(event) {
    const row = event.target.closest("tbody tr"), links = [...this.#body.querySelectorAll("a.name")], at = links.indexOf(row?.querySelector("a.name"));
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const path = this.#current, isOpen = row.getAttribute("aria-expanded"), level = Number(row.getAttribute("aria-level"));
    const above = () => links.slice(0, at).reverse().find(link => link.closest("tr").getAttribute("aria-level") < level);
    const to = { ArrowDown: () => links[at + 1], ArrowUp: () => links[at - 1], Home: () => links[0], End: () => links.at(-1),
      ArrowRight: () => isOpen === "false" ? this.#turn(path, true) : isOpen && links[at + 1],
      ArrowLeft: () => isOpen === "true" && !this.#filter ? this.#turn(path, false) : above() }[event.key];
    if (!to) return;
    event.preventDefault();
    const link = to();
    if (!link) return;
    links[at].tabIndex = -1;
    link.tabIndex = 0;
    link.focus();
  }
}
