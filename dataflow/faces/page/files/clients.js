// The view `clients`: who is connected, what waits for them, and why the last ones left.
//
// Rules of this file. The daemon tells clients in pages, the oldest first. What fits into one answer is sorted as a whole; of
// more clients each page is sorted by itself, and the view says so. Rates are differences between two answers.
import { every } from "./daemon.js";
import { confirmed, el, hide, paint, put, rows, toldWhileSought } from "./dom.js";
import { doorway, inside, refusal } from "./inside.js";
import { group } from "./operate.js";
import { settled, steady, waiting } from "./steady.js";
import { clock, count, few, perSecond, program, size, span } from "./words.js";

export const title = "Clients";

const PAGE = 50, MOST = 200, EVERY = 1, LATE = 5;  // LATE: seconds that a message may wait before it is worth a colour
const BEHIND = { all: 0, "waiting for 1 s": 1, "waiting for 5 s": 5, "waiting for 30 s": 30 };
const none = "–";
const topic = ({ channel, symbol, variant }) => [channel === "trades" ? "" : channel, symbol, variant].filter(Boolean).join(" ");
const follows = client => client.follows.length ? few(client.follows.map(topic)) : "nothing";
// By column: title, class of the cells, text, and what it is sorted by.
const COLUMNS = [
  ["Client", "num", c => c.id, c => c.id],
  ["Protocol", "wide", c => c.protocol, c => c.protocol],
  ["Address", "mono", c => c.address, c => c.address],
  ["Program", "agent wide", c => c.userAgent ? program(c.userAgent) : none, c => c.userAgent ?? ""],
  ["Follows", "follows wide", follows, c => c.follows.length],
  ["For", "num wide", c => span(c.age), c => c.age],
  ["Sent/s", "num", c => c.rate === null ? none : perSecond(c.rate), c => c.rate ?? -1],
  ["Outbox", "num", c => c.outbox.messages ? `${count(c.outbox.messages)} · ${size(c.outbox.bytes)}` : none, c => c.outbox.bytes],
  ["Oldest", "num", c => c.outbox.age === null ? none : span(c.outbox.age), c => c.outbox.age ?? -1],
  ["Dropped", "num", c => c.dropped ? count(c.dropped) : none, c => c.dropped],
];
const LEFT = [
  ["Client", "num", c => c.id],
  ["Left", "", c => clock(new Date(c.leftAt))],
  ["Why", "why", c => c.reason || none],
  ["Code", "num wide", c => c.code ?? none],
  ["Stayed", "num", c => span(c.age)],
  ["Protocol", "wide", c => c.protocol],
  ["Address", "mono wide", c => c.address],
  ["Program", "agent wide", c => c.userAgent ? program(c.userAgent) : none],
  ["Sent", "num wide", c => count(c.sent)],
  ["Dropped", "num", c => c.dropped ? count(c.dropped) : none],
];
const DETAILS = ["Protocol", "Address", "Program", "Since", "Last heard of", "Sent", "Dropped", "Outbox", "Follows"];

export function open(room, where) {
  const content = room.appendChild(el("div", "content")), ends = [doorway(content)];
  const list = new List(content), details = new Details(content), left = group(content, "The last that left", "left");
  const showLeft = table(left.body, LEFT, "The last clients that left");
  let chosen = Number(where.rest[0]) || null, gone = [];
  list.choose(chosen);

  const ask = async () => {
    const question = list.question, answer = await inside(`api/v1/clients?${question}`);
    if (!answer || question !== list.question) return;  // another page is wanted meanwhile
    put(list.state, answer.code === 200 ? "" : refusal(answer));
    if (answer.code !== 200) return;
    if (!list.take(answer.body)) return ask();
    put(left.state, answer.body.left ? answer.body.left.length ? "" : "nobody left yet" : "not told by this daemon");
    gone = answer.body.left ?? [];
    showLeft(gone.map(client => [client.id, client]));
  };
  const one = async () => {
    const id = chosen, answer = id === null ? null : await inside(`api/v1/clients?limit=1&after=${id - 1}`);
    if (!answer || id !== chosen) return;
    const client = answer.body.clients?.find(each => each.id === id) ?? null;
    if (client || answer.code !== 200) details.show(id, client, refusal(answer));
    else details.left(id, gone.find(each => each.id === id));
  };
  list.again = ask;
  details.show(chosen, null, "asking");
  ends.push(every(EVERY, ask), every(EVERY, one), () => list.close());
  return {
    moved({ rest }) {
      chosen = Number(rest[0]) || null;
      list.choose(chosen);
      details.show(chosen, null, "asking");
      one().catch(() => {});
    },
    close() { for (const end of ends) end(); },
  };
}

class List {
  after = 0; behind = 0; limit = MOST; again = () => {};
  #clients = []; #total = 0; #next = null; #firsts = []; #filter = ""; #by = 0; #down = false; #before = []; #sent = new Map(); #chosen = null; #page = 0;

  constructor(room) {
    Object.assign(this, group(room, "Clients", "clients-list"));
    this.note = el("span", "off note");
    const find = Object.assign(el("input"), { type: "search", placeholder: "filter by address, program, symbol" }), behind = el("select");
    find.setAttribute("aria-label", "Filter the clients");
    find.oninput = () => { this.#filter = find.value.trim().toLowerCase(); this.#page = 0; this.draw(true); };
    toldWhileSought(find, this.note);
    behind.setAttribute("aria-label", "Which clients");
    behind.append(...Object.entries(BEHIND).map(([text, value]) => Object.assign(el("option", "", text), { value })));
    behind.onchange = () => { this.behind = Number(behind.value); this.#start(); };
    [this.back, this.forth] = ["‹ older", "newer ›"].map(text => Object.assign(el("button", "", text), { hidden: true }));
    this.back.onclick = () => this.#turn(-1);
    this.forth.onclick = () => this.#turn(1);
    this.bar.append(find, behind, this.note, this.back, this.forth);
    this.fill = table(this.body, COLUMNS, "Clients", (client, row) => {
      row.classList.toggle("chosen", client.id === this.#chosen);
      paint(row.cells[8], `num ${client.outbox.age > LATE ? "bad" : ""}`);
      paint(row.cells[9], `num ${client.dropped ? "warn" : ""}`);
    });
    this.heads = [...this.body.querySelectorAll("thead th")];
    for (const [i, head] of this.heads.entries()) {
      const button = el("button", "sort", head.textContent);
      button.onclick = () => { this.#down = this.#by === i ? !this.#down : i > 5; this.#by = i; this.draw(true); };
      head.replaceChildren(button);
    }
    this.hold = steady(this.body, () => this.draw());
  }
  close() { this.hold.close(); }
  choose(id) {
    this.#chosen = id;
    this.draw(true);
  }
  get question() { return `limit=${this.limit}&after=${this.after}&behind=${this.behind}`; }
  // An answer of /api/v1/clients. False: there are so many, or so few, that it has to be asked otherwise.
  take({ total, clients, next }) {
    const limit = total > MOST ? PAGE : MOST;
    if (limit !== this.limit) {
      Object.assign(this, { limit, after: 0 });
      this.#firsts = [];
      return false;
    }
    const now = performance.now() / 1000, sent = new Map(clients.map(({ id, sent }) => [id, { sent, at: now }]));
    this.#clients = clients.map(client => {
      const before = this.#sent.get(client.id);
      return { ...client, rate: before ? Math.max(0, client.sent - before.sent) / (now - before.at) : null };
    });
    this.#sent = sent;
    this.#total = total;
    this.#next = next;
    this.draw();
    return true;
  }
  #start() {
    this.after = this.#page = 0;
    this.#firsts = [];
    this.again().then(() => this.draw(true)).catch(() => {});
  }
  get #isWhole() { return this.#next === null && this.after === 0; }
  #turn(step) {
    if (this.#isWhole) this.#page += step;
    else if (step > 0) this.#firsts.push(this.after), this.after = this.#next ?? this.after;
    else this.after = this.#firsts.pop() ?? 0;
    this.again().then(() => this.draw(true)).catch(() => {});
  }
  draw(asked = false) {
    const value = COLUMNS[this.#by][3], order = (a, b) => { const [x, y] = [value(a), value(b)]; return x < y ? -1 : x > y ? 1 : a.id - b.id; };
    const found = this.#clients.filter(c => `${c.id} ${c.protocol} ${c.address} ${c.userAgent} ${c.follows.map(topic).join(" ")}`.toLowerCase().includes(this.#filter)).sort(order);
    if (this.#down) found.reverse();
    this.#page = Math.min(this.#page, Math.max(0, Math.ceil(found.length / PAGE) - 1));
    const page = this.#isWhole ? found.slice(PAGE * this.#page, PAGE * (this.#page + 1)) : found.slice(0, PAGE);
    const { items, late } = settled({ held: this.hold.held && !asked }, this.#before, page.map(client => [client.id, client]));
    this.#before = items;
    this.fill(items);
    for (const [i, head] of this.heads.entries()) {
      if (i === this.#by) head.setAttribute("aria-sort", this.#down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    this.back.hidden = this.forth.hidden = this.#isWhole && found.length <= PAGE;
    this.back.disabled = this.#isWhole ? this.#page === 0 : this.after === 0;
    this.forth.disabled = this.#isWhole ? PAGE * (this.#page + 1) >= found.length : this.#next === null;
    put(this.note, [`${count(this.#total)} connected`, (this.#filter || this.behind) && `${count(found.length)} found${this.#isWhole ? "" : " here"}`, page.length < this.#total && page.length && `clients ${page.length}`,
      !this.#isWhole && "each page is sorted by itself", waiting(late)].filter(Boolean).join(" · "));
  }
}

// One client, and its end.
class Details {
  #id = null;

  constructor(room) {
    Object.assign(this, group(room, "", "client"));
    this.end = el("button", "restart", "disconnect …");
    this.answer = el("p", "answer");
    this.answer.setAttribute("role", "status");
    this.bar.append(this.end);
    const list = this.list = el("dl", "facts");
    this.facts = Object.fromEntries(DETAILS.map(name => {
      const value = el("dd", name === "Follows" ? "long" : "", none);
      list.append(el("dt", "off", name), value);
      return [name, value];
    }));
    this.body.append(list, this.answer);
    this.end.onclick = () => this.#ask();
  }
  show(id, client, why) {
    if (id !== this.#id) put(this.answer, "");
    this.#id = id;
    put(this.heading, id === null ? "No client chosen" : `Client ${id}`);
    put(this.state, id === null ? "choose one in the list" : client ? "" : why);
    hide(this.end, !client, this.heading);
    this.list.hidden = !client;
    this.end.setAttribute("aria-label", `disconnect client ${id}`);
    if (!client) return;
    const { messages, bytes, age } = client.outbox;
    const told = [client.protocol, client.address, client.userAgent ?? "says no name", `${clock(new Date(client.since))}, for ${span(client.age)}`, `${span(client.heard)} ago`, `${count(client.sent)} entries`,
      client.dropped ? `${count(client.dropped)} entries that it will not get` : "nothing", messages ? `${count(messages)} messages, ${size(bytes)}, the oldest for ${span(age)}` : "empty",
      client.follows.length ? client.follows.map(each => `${topic(each)} up to ${each.offset}`).join("\n") : "nothing"];
    for (const [i, name] of DETAILS.entries()) put(this.facts[name], told[i]);
    paint(this.facts.Outbox, age > LATE ? "bad" : "");
  }
  left(id, client) {
    this.show(id, null, client ? `left at ${clock(new Date(client.leftAt))}: ${client.reason}` : "has left, or never came");
    this.list.hidden = !client;
    if (!client) return;
    paint(this.facts.Outbox, "");
    const told = [client.protocol, client.address, client.userAgent ?? "said no name", `${clock(new Date(client.since))}, for ${span(client.age)}`, none, `${count(client.sent)} entries`,
      client.dropped ? `${count(client.dropped)} entries that it did not get` : "nothing", none, none];
    for (const [i, name] of DETAILS.entries()) put(this.facts[name], told[i]);
  }
  async #ask() {
    const id = this.#id, told = ["Protocol", "Address", "Program"].map(name => this.facts[name].textContent).join(", ");
    if (!await confirmed(`Disconnect client ${id}?`, `Disconnect ${id}`, `It is ${told}.`, "It is told so, and may come back at once.")) return;
    let kind = "bad", text = "";
    try {
      const answer = await inside(`api/v1/clients/${id}?reason=${encodeURIComponent("disconnected by the operator")}`, { method: "DELETE" });
      if (answer) [kind, text] = answer.code < 300 ? ["good", `Client ${id} is told to go.`] : ["bad", refusal(answer)];
    } catch (error) {
      [kind, text] = ["warn", `No answer: ${error.message}`];
    }
    if (id !== this.#id) return;
    paint(this.answer, `answer ${kind}`);
    put(this.answer, text);
  }
}

// A table of clients. Returns what fills it; the first cell is a link to the client.
function table(room, columns, label, more = () => {}) {
  const node = el("table"), head = node.createTHead().insertRow();
  node.setAttribute("aria-label", label);
  for (const [name, kind] of columns) head.append(Object.assign(el("th", kind.replace("mono", ""), name), { scope: "col" }));
  room.append(node);
  const make = () => {
    const row = el("tr");
    row.append(...columns.map(([, kind], i) => i ? el("td", kind) : Object.assign(el("th", kind), { scope: "row" })));
    row.cells[0].append(el("a"));
    return row;
  };
  return rows(node.createTBody(), make, (row, client) => {
    row.classList.toggle("gone", client === null);
    if (client === null) return;
    const link = row.cells[0].firstChild;
    link.href = `#/clients/${client.id}`;
    for (const [i, [, , text]] of columns.entries()) {
      put(i ? row.cells[i] : link, String(text(client)));
      if (/agent|follows|why/.test(columns[i][1])) row.cells[i].title = columns[i][0] === "Program" ? client.userAgent ?? "" : text(client);
    }
    more(client, row);
  });
}
