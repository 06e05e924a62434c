// What happened: a time line, and a list of the same events with the stacks of crashes.
//
// Rules of this file. The daemon keeps a bounded number of events, and so does the page. A filter says which kinds are shown,
// here and in the time line. New events come on top, as `steady` allows.
import { el, put, rows } from "./dom.js";
import { settled, steady, waiting } from "./steady.js";
import { addressOf, nameOf } from "./tree.js";
import { clock, count } from "./words.js";

const MOST = 1000, SHOWN = 200;
const COLOURS = { crashed: "bad", given_up: "bad", lost: "bad", backoff: "warn", stalled: "warn", renumbered: "warn", switched: "warn", fault: "warn",
  restarted: "info", reload: "info", stopped: "off", restored: "good", recovered: "good" };
const wordOf = kind => kind.replaceAll("_", " ");

export class Events {
  #events = []; #off = new Set(); #kinds = new Map(); #before = []; #hold; #show; #note; #choice; #strip; #window = 300;

  constructor(room, bar) {
    const list = el("ol", "events");
    this.#note = el("span", "off note");
    this.#choice = el("div", "choice");
    this.#choice.setAttribute("role", "group");
    this.#choice.setAttribute("aria-label", "Kinds of events");
    this.#strip = el("div", "strip-of-time");
    this.#strip.setAttribute("aria-hidden", "true");  // the list below says the same
    bar.append(this.#note);
    bar.after(this.#strip, this.#choice);
    room.append(list);
    this.#show = rows(list, item => this.#make(item), (node, item) => this.#fill(node, item));
    this.#hold = steady(room, () => this.draw());
  }
  close() { this.#hold.close(); }
  set window(seconds) { this.#window = seconds; this.draw(); }
  of(path) { return this.#events.filter(event => event.path === path); }
  // Where to ask on. The newest event may have happened again since.
  get after() { return this.#events.at(-2)?.id ?? null; }
  // An answer of /api/v1/events.
  take({ events }) {
    const newer = new Set(events.map(({ id }) => id));
    this.#events = [...this.#events.filter(({ id }) => !newer.has(id)), ...events.map(event => ({ ...event, time: Date.parse(event.at) }))].slice(-MOST);
    this.draw();
  }
  tell(text) { put(this.#note, text); }

  draw() {
    const sums = {};
    for (const { kind } of this.#events) sums[kind] = (sums[kind] ?? 0) + 1;
    for (const [kind, n] of Object.entries(sums)) put((this.#kinds.get(kind) ?? this.#button(kind)).lastChild, count(n));
    const wanted = this.#events.filter(({ kind }) => !this.#off.has(kind));
    const { items, late } = settled(this.#hold, this.#before, wanted.slice(-SHOWN).reverse().map(event => [event.id, event]));
    this.#before = items;
    this.#show(items);
    this.tell(late ? waiting(late) : this.#events.length ? `${wanted.length < this.#events.length ? `${count(wanted.length)} of ` : ""}${count(this.#events.length)} ${this.#events.length === 1 ? "event" : "events"}${wanted.length > SHOWN ? `, the newest ${SHOWN} shown` : ""}` : "nothing happened yet");
    this.#drawStrip(wanted);
  }
  #button(kind) {
    const button = el("button", COLOURS[kind] ?? "off");
    button.append(el("span", "", `${wordOf(kind)} `), el("span", "count"));
    button.setAttribute("aria-pressed", "true");
    button.onclick = () => {
      const on = this.#off.delete(kind);
      if (!on) this.#off.add(kind);
      button.setAttribute("aria-pressed", on);
      this.draw();
    };
    this.#kinds.set(kind, button);
    this.#choice.append(button);
    return button;
  }
  #drawStrip(events) {
    const now = Date.now(), since = now - 1000 * this.#window;
    this.#strip.replaceChildren(...events.filter(({ time }) => time >= since).map(({ kind, time, at, path, text }) => {
      const mark = el("i", COLOURS[kind] ?? "off");
      mark.style.left = `${Math.min(100, 100 * (time - since) / (now - since))}%`;
      mark.title = `${clock(new Date(at))} ${wordOf(kind)} ${path}: ${text}`;
      return mark;
    }));
  }
  #make({ at, kind, path, text, stack }) {
    const node = el("li"), line = el(stack ? "summary" : "div", "line"), time = el("time", "off", clock(new Date(at))), words = el("span", "text");
    words.append(el("span", "", text), el("span", "off times"));
    const link = Object.assign(el("a", "mono path", path || "dataflow"), { href: addressOf(path ?? ""), title: path });
    time.dateTime = at;
    line.append(time, el("span", `kind ${COLOURS[kind] ?? "off"}`, wordOf(kind)), path ? link : el("span", "mono path", nameOf("")), words);
    if (!stack) node.append(line);
    else {
      const details = el("details");
      details.append(line, el("pre", "mono stack scroll", stack));
      node.append(details);
    }
    return node;
  }
  #fill(node, item) {
    node.classList.toggle("gone", item === null);
    if (item) put(node.querySelector(".times"), item.times > 1 ? ` ${count(item.times)} times` : "");
  }
}
