// The view `operate`: the supervision tree, one actor of it, what happened, figures, faults.
//
// Rules of this file. The address says which actor is shown. Something is restarted only after a question that names it and
// what goes with it. Nothing moves when something happens: the actor's facts have their lines also while they are empty.
import { every } from "./daemon.js";
import { confirmed, el, heading, hide, paint, put } from "./dom.js";
import { Events } from "./events.js";
import { Faults } from "./faults.js";
import { doorway, inside, refusal } from "./inside.js";
import { plots } from "./plot.js";
import { Tree, balance, colourOf, everybody, states, timeOf } from "./tree.js";
import { clock, count, few, perSecond, size, span } from "./words.js";

export const title = "Operate";

const WINDOWS = { "1 min": 60, "5 min": 300, "15 min": 900 };
const FIGURES = {
  trades: ["Trades in a second", perSecond],
  sent: ["Sent in a second", perSecond],
  cpu: ["CPU, one core", value => `${(100 * value).toFixed(1)} %`],
  loopLag: ["Event loop lag", value => `${(1000 * value).toFixed(1)} ms`],
  memory: ["Memory", size],
  sessions: ["Clients", count],
};
const TREE_EVERY = 1, LOAD_EVERY = 2, EVENTS_EVERY = 1, FAULTS_EVERY = 3;  // seconds
const PER_ACTOR = 0.001;  // seconds: a tree of thousands costs the daemon something, and is asked for less often

export function open(room, where) {
  const content = room.appendChild(el("div", "content")), ends = [doorway(content)];
  const figures = group(content, "Figures", "figures"), windows = choice(figures.bar, "Time shown");
  const tree = group(content, "Actors", "actors"), actor = new Actor(content), events = group(content, "Events", "happened"), faults = group(content, "Faults", "faults");
  const parts = { tree: new Tree(tree.body, tree.bar), events: new Events(events.body, events.bar), faults: new Faults(faults.body) };
  const drawn = plots(figures.body, FIGURES);
  let root = null, due = 0, path = where.rest.join("/"), seconds = 300;

  const asked = async (address, part, show) => {
    const answer = await inside(address);
    if (answer) put(part.state, answer.code === 200 ? "" : answer.code === 404 ? "not told by this daemon" : refusal(answer));
    if (answer?.code === 200) show(answer.body);
  };
  const load = () => asked(`api/v1/load?last=${seconds}`, figures, ({ every, end, ...values }) => drawn.show({ every, end, room: seconds, values }));
  const choose = () => {
    parts.tree.choose(path);
    parts.faults.choose(path, root ? [...everybody(root)].map(each => each.path).filter(Boolean) : []);
    show();
  };
  const show = () => actor.show(path, root);
  windows.fill(WINDOWS, seconds, picked => {
    seconds = picked;
    parts.events.window = picked;
    load().catch(() => {});
  });
  ends.push(
    every(TREE_EVERY, async () => {
      if (performance.now() < due) return;
      await asked("actors", tree, body => {
        const first = root === null, pause = PER_ACTOR * [...everybody(body)].length;
        due = performance.now() + 1000 * pause;
        root = body;
        parts.tree.show(root);
        if (first) choose();
        show();
        if (pause > 2) put(tree.state, `asked for every ${span(pause)}`);
      });
    }),
    every(LOAD_EVERY, load),
    every(EVENTS_EVERY, () => {
      const { after } = parts.events;
      return asked(`api/v1/events?limit=1000${after === null ? "" : `&after=${after}`}`, events, body => parts.events.take(body));
    }),
    every(FAULTS_EVERY, () => parts.faults.ask()),
    () => parts.tree.close(), () => parts.events.close(),
  );
  parts.tree.choose(path);
  return {
    moved({ rest }) { path = rest.join("/"); choose(); },
    close() { for (const end of ends) end(); },
  };
}

// A panel with a title, and a line for what could not be had.
export function group(room, title, name) {
  const section = el("section", `panel ${name}`), bar = el("div", "bar"), head = heading("h2", "", title), body = el("div", "body scroll"), state = el("span", "off note");
  head.id = `title-${name}`;
  section.setAttribute("aria-labelledby", head.id);
  bar.append(head, state);
  section.append(bar, body);
  room.append(section);
  return { section, bar, body, state, heading: head };
}
function choice(bar, label) {
  const box = el("div", "choice");
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", label);
  bar.append(box);
  return { fill(options, chosen, picked) {
    for (const [text, value] of Object.entries(options)) {
      const button = el("button", "", text);
      button.setAttribute("aria-pressed", value === chosen);
      button.onclick = () => {
        for (const other of box.children) other.setAttribute("aria-pressed", other === button);
        picked(value);
      };
      box.append(button);
    }
  } };
}

// The facts of one actor, and its restart.
const FACTS = ["State", "Kind", "Restarts", "Mailbox", "Lost in flight", "Below it", "Last error"];
class Actor {
  #at = null; #node = null; #root = null;

  constructor(room) {
    Object.assign(this, group(room, "", "actor"));
    this.restart = Object.assign(el("button", "restart", "restart …"), { hidden: true });
    this.answer = el("p", "answer");
    this.answer.setAttribute("role", "status");
    this.link = Object.assign(el("a", "", ""), { hidden: true });
    this.bar.append(this.link, this.restart);
    const list = el("dl", "facts");
    this.facts = Object.fromEntries(FACTS.map(name => {
      const value = el("dd", "", "–");
      list.append(el("dt", "off", name), value);
      return [name, value];
    }));
    this.body.append(list, this.answer);
    this.restart.onclick = () => this.#ask();
  }
  show(path, root) {
    const node = root && [...everybody(root)].find(each => each.path === path);
    if (path !== this.#at) put(this.answer, "");
    this.#at = path;
    this.#node = node ?? null;
    this.#root = root;
    put(this.heading, path || "root");
    const [, kind, id] = /^(sources|gateway\/sessions)\/([^/]+)/.exec(path) ?? [];
    this.link.hidden = !kind;
    if (kind) Object.assign(this.link, { href: `#/${kind === "sources" ? "sources" : "clients"}/${encodeURIComponent(id)}`, textContent: kind === "sources" ? "the source" : "the client" });
    hide(this.restart, !node || !path || path.startsWith("gateway/sessions/"), this.heading);
    this.restart.setAttribute("aria-label", `restart ${path}`);
    const { facts } = this;
    if (!node) {
      for (const value of Object.values(facts)) put(value, "–");
      paint(facts.State, "off");
      return put(facts.State, root ? "there is no such actor (any more)" : "asking");
    }
    const lost = node.mailbox?.lost_in_flight ?? 0, below = [...everybody(node)].slice(1);
    put(facts.State, `${node.state} for ${span(node.age)}, since ${timeOf(node.since)}`);
    paint(facts.State, colourOf(node.state));
    put(facts.Kind, `${node.kind}, incarnation ${count(node.epoch)}`);
    put(facts.Restarts, node.restarts ? `${count(node.restarts)} by its supervisor` : "none");
    put(facts.Mailbox, node.mailbox ? balance(node.mailbox) : "none");
    put(facts["Lost in flight"], lost ? `${count(lost)}, the newest at ${timeOf(node.mailbox.lost_at)}` : "none");
    put(facts["Below it"], below.length ? `${count(below.length)}: ${states(below)}` : "nobody");
    put(facts["Last error"], node.last_error ? `${timeOf(node.last_error_at)} ${node.last_error}` : "none lately");
    paint(facts["Last error"], node.last_error ? node.state === "running" ? "warn" : "bad" : "off");
  }
  async #ask() {
    const path = this.#at, below = [...everybody(this.#node)].slice(1), names = below.map(each => each.path.slice(path.length + 1));
    const with_ = below.length ? `${count(below.length)} ${below.length === 1 ? "actor restarts" : "actors restart"} with it: ${few(names)}.` : "No other actor restarts with it.";
    if (!await confirmed(`Restart ${path}?`, `Restart ${path}`, with_, ...consequences(path))) return;
    const [kind, text] = await this.#demand(path);
    if (path !== this.#at) return;
    paint(this.answer, `answer ${kind}`);
    put(this.answer, `${clock(new Date())} ${text}`);
  }
  async #demand(path) {
    try {
      const answer = await inside(`actors/${path.split("/").map(encodeURIComponent).join("/")}/restart`, { method: "POST" });
      if (!answer) return ["bad", "The daemon asks for the operator's token."];
      return answer.code < 300 ? ["good", `The restart of ${path} is accepted.`] : ["bad", `The restart is refused: ${refusal(answer)}`];
    } catch (error) {
      return ["warn", `No answer (${error.message}). A restart of the gateway also cuts this page off.`];
    }
  }
}
function consequences(path) {
  if (/^gateway(\/sessions)?$/.test(path)) return ["Every client is disconnected, this page too. They may come back at once."];
  if (/^gateway\/http$/.test(path)) return ["Requests under way end without an answer."];
  if (/^sources(\/|$)/.test(path)) return ["A connection to an upstream may be made anew. Trades that come meanwhile are asked for, or told as a gap."];
  return [];
}
