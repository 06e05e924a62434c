// The frame around all views: which one is shown, the state of the daemon, notices.
//
// Rules of this file. The address behind `#` says what is shown, so that a link can be shared: `#/VIEW[/NAME][?KEY=VALUE]`.
// A view is a module with `title` and `open(room, where)`; that returns the view: `close()` ends all it began, `moved(where)`,
// if it has one, takes another address of the same view without a new start. Each place has one `h1`; it gets the focus where
// the link that was followed is gone. Nothing here moves when something happens: the strip has room of its own (where that is
// scarce it lies over the footer), and notices lie in a drawer. The strip alone is told aloud, and at most once in a while.
import * as market from "./market.js";
import * as operate from "./operate.js";
import * as clients from "./clients.js";
import * as sources from "./sources.js";
import { daemon, on } from "./daemon.js";
import { el, heading, put, paint, $ } from "./dom.js";
import { clock, count } from "./words.js";

const VIEWS = { market, operate, clients, sources };
const HOME = "market";

// ---- where we are

const shown = { name: null, view: null };

function where() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decoded);
  return { ...Object.hasOwn(VIEWS, name) ? { name, rest } : { name: HOME, rest: [] }, params: new URLSearchParams(query) };
}
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;  // somebody typed a `%`
  }
}
function show() {
  const place = where();
  for (const link of $("views").children) {
    if (link.dataset.name === place.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${[...place.rest, VIEWS[place.name].title].join(" · ")} · dataflow`;
  const focused = $("view").contains(document.activeElement);
  if (shown.name === place.name && shown.view?.moved) shown.view.moved(place);
  else {
    shown.view?.close();
    $("view").replaceChildren(heading("h1", "unseen", VIEWS[place.name].title));
    $("view").className = place.name;
    $("view").scrollTop = 0;
    Object.assign(shown, { name: place.name, view: VIEWS[place.name].open($("view"), place) });
  }
  if (focused && !$("view").contains(document.activeElement)) $("view").querySelector("h1").focus({ preventScroll: true });
}
for (const [name, { title }] of Object.entries(VIEWS)) {
  const link = Object.assign(el("a", "", title), { href: `#/${name}` });
  link.dataset.name = name;
  $("views").append(link);
}
addEventListener("hashchange", show);
document.querySelector(".skip").onclick = event => {  // the address says which view is shown, and stays
  event.preventDefault();
  $("view").focus();
};

// ---- notices: the newest one in the strip, all of them in the drawer. Equal ones of a short time are one line with all names

const NOTICES = 200, NAMES = 100, TOGETHER = 10_000, NEWS = 60_000, PAUSE = 1000;  // lines, names in a line, ms
const notices = { lines: [], unread: 0 };

function told({ kind, text, item }) {
  const now = performance.now();
  let line = notices.lines.findLast(each => each.text === text && each.kind === kind && now - each.at < TOGETHER);
  if (!line) {
    line = { kind, text, at: now, times: 0, items: new Map(), node: el("li", kind), words: el("span") };
    line.node.append(el("time", "off", clock(new Date())), " ", line.words);
    $("notices-list").prepend(line.node);
    notices.lines.push(line);
    if (notices.lines.length > NOTICES) notices.lines.shift().node.remove();
    if ($("notices").hidden) notices.unread += 1;
  }
  line.times += 1;
  if (item !== null) line.items.set(item, true);
  put(line.words, wording(line, NAMES));
  $("notices-count").hidden = !notices.unread;
  put($("notices-count"), count(notices.unread));
  if (daemon.link.state === "connected") saying ??= setTimeout(() => { saying = null; sayNewest(); }, now - said < PAUSE ? PAUSE : 0);
}
let saying = null, said = -Infinity;
function sayNewest() {  // thousands of notices are not read out one by one
  const line = notices.lines.at(-1);
  said = performance.now();
  if (daemon.link.state === "connected") say(line.kind, wording(line, 4), line.node.firstChild.textContent);
}
function wording({ text, items, times }, most) {
  const names = [...items.keys()], more = names.length - most;
  if (names.length) return `${text}: ${names.slice(0, most).join(", ")}${more > 0 ? ` and ${count(more)} more` : ""}.`;
  return times > 1 ? `${text} ${count(times)} times.` : text;
}
let fading = null;
function say(kind, text, at = "") {
  clearTimeout(fading);
  if (at) fading = setTimeout(say, NEWS, "", "");
  put($("strip"), at ? `${at}  ${text}` : text);
  paint($("strip"), `strip ${kind}`);
  $("strip").title = text;
}
function drawer(open) {
  $("notices").hidden = !open;
  $("notices-button").setAttribute("aria-expanded", open);
  if (open) notices.unread = 0;
  $("notices-count").hidden = true;
  (open ? $("notices-close") : $("notices-button")).focus();
}
$("notices-button").onclick = () => drawer($("notices").hidden);
$("notices-close").onclick = () => drawer(false);
addEventListener("keydown", event => {
  if (event.key === "Escape" && !$("notices").hidden) drawer(false);
});

// ---- the daemon

const WORDS = { connected: ["good", "connected"], connecting: ["off", "connecting"], lost: ["bad", "away"], waiting: ["warn", "waiting"],
  refused: ["bad", "no room"], draining: ["warn", "is stopping"], closed: ["off", "closed"] };

on("link", link => {
  const [kind, word] = WORDS[link.state] ?? ["off", link.state], away = link.state !== "connected" && link.since !== null;
  put($("link"), word);
  paint($("link"), `state ${kind}`);
  document.body.classList.toggle("away", away);
  if (away) put($("ready"), "");
  if (away) say("bad", `No connection to dataflow since ${clock(link.since)}${link.reason ? ` (${link.reason})` : ""}: what you see is of that time.`);
  else if (link.state === "connected") say("", "");
});
on("ready", ({ word, kind, why }) => {
  const text = why.length ? `${word}: ${why.join(", ")}` : word;
  if ($("ready").textContent !== text) $("ready").replaceChildren(word, el("span", "cause", text.slice(word.length)));
  $("ready").title = why.join("\n");
  paint($("ready"), `state ${kind}`);
});
on("status", ({ version }) => put($("version"), `dataflow ${version}`));
on("notice", told);
show();
