// What all views know of the daemon: one connection, its state, readiness, status, notices; and questions by HTTP.
//
// Rules of this file. Addresses are relative to the page's: nobody knows where the page is mounted. What is asked again and
// again is asked only while somebody looks, and nothing of which the daemon has said that it will refuse it: a browser writes
// each refusal into its console. A view that closes calls what `on` and `every` returned.
import { CallError, connect } from "../client.js";
import { few } from "./words.js";

const PATIENCE = 8, STATUS_EVERY = 2, READY_EVERY = 1;  // seconds
const AWAY = new Set([0, -32000]);  // codes of calls: the connection is lost; a part of the daemon is just restarting

export const feed = connect(new URL("ws", document.baseURI).href.replace(/^http/, "ws"));
export const daemon = {
  link: { state: "connecting", since: null, reason: null },  // `since`: a Date, when the connection was lost; null before the first one
  status: null,  // the newest answer of getStatus
  ready: null,
};

// ---- listeners: link, status, ready, notice, token, and `heard`: notices of the protocol as they come

const listeners = new Map();
export function on(topic, listener) {
  const those = listeners.get(topic) ?? listeners.set(topic, new Set()).get(topic);
  those.add(listener);
  return () => those.delete(listener);
}
export function tell(topic, value) {
  for (const listener of listeners.get(topic) ?? []) listener(value);
}
// Equal notices of a short time are one line, with the `item` of each: a symbol, as a rule.
export const notice = (kind, text, item = null) => tell("notice", { kind, text, item });

// ---- what is asked again and again, while the page is visible

export function every(seconds, job) {
  let timer = null, ended = false;
  const turn = async () => {
    const began = performance.now();
    try {
      if (!document.hidden) await job();
    } catch (error) {
      if (!(error instanceof NoAnswer) && !(error instanceof CallError && AWAY.has(error.code))) throw error;  // `link` says so
    } finally {
      const took = performance.now() - began;  // what takes long is asked less often
      if (!ended) timer = setTimeout(turn, Math.max(1000 * seconds, 3 * took));
    }
  };
  turn();
  return () => { ended = true; clearTimeout(timer); };
}
export class NoAnswer extends Error {}
// An answer of any status is an answer. Raises NoAnswer when none comes.
export async function ask(path, { method = "GET", body } = {}) {
  const headers = { ...authorization(), ...(body === undefined ? {} : { "Content-Type": "application/json" }) };
  const signal = AbortSignal.timeout(1000 * PATIENCE);
  let answer, text;
  try {  // a TypeError of fetch must not be taken for one of ours, nor the other way round
    answer = await fetch(path, { method, headers, signal, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body) });
    text = await answer.text();
  } catch (error) {
    throw new NoAnswer(error.message);
  }
  const json = /json/.test(answer.headers.get("content-type"));
  if (answer.status === 401) tell("token", { wrong: token() !== null });
  return { code: answer.status, body: json && text ? JSON.parse(text) : { detail: text } };
}

// ---- what is served, and what the daemon would refuse this page: asked once a connection

let asked = null;
export function described() {
  return asked ??= ask("api/v1/faces").then(({ body }) => body).catch(error => { forget(); throw error; });
}
export function forget() {
  asked = null;
}

// ---- the operator's token: the tab keeps it, and nothing else does

const KEY = "dataflow operator";
export const token = () => sessionStorage.getItem(KEY);
export function setToken(text) {
  forget();
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}
function authorization() {  // a header holds bytes: those of UTF-8
  return token() ? { Authorization: `Bearer ${String.fromCharCode(...new TextEncoder().encode(token()))}` } : {};
}

// ---- the connection

let lost = null;
feed.events().on(event => {
  if (event.type === "notice") return noticed(event);
  if (event.state === "connected") {
    if (lost) notice("good", "Connected to dataflow again.");
    lost = null;
  } else if (lost === null && daemon.link.state === "connected") {
    lost = new Date();
    notice("bad", `Connection to dataflow lost: ${event.reason ?? "no reason given"}.`);
  }
  if (event.state !== "connected") forget();
  daemon.link = { state: event.state, since: lost, reason: event.reason, retryIn: event.retryIn };
  tell("link", daemon.link);
});
const NOTICES = {
  "connection.lost": ({ source, reason, symbols }) => ["bad", `Source ${source} lost: ${reason}. Affected: ${few(symbols) || "no subscription"}.`],
  "connection.restored": ({ source, symbols }) => ["good", `Source ${source} restored: ${few(symbols) || "no subscription"}.`],
  "connection.draining": () => ["warn", "dataflow is stopping. This page comes back with it."],
  "stream.switched": ({ symbol, from, to, reason }) => ["warn", `${symbol} comes from ${to} and no more from ${from}: ${reason}.`],
  "symbols.changed": ({ added, removed }) => ["good", `Symbols: ${[added.length && `new are ${few(added)}`, removed.length && `gone are ${few(removed)}`].filter(Boolean).join("; ")}.`],
};
function noticed({ method, params }) {
  tell("heard", { method, params });
  const [kind, text] = NOTICES[method]?.(params) ?? [];
  if (text) notice(kind, text);
}

// ---- readiness and status

const KINDS = { ready: "good", degraded: "warn", "not ready": "bad" };
function readiness({ status, not_ready: actors, degraded }) {
  daemon.ready = { word: status, kind: KINDS[status], why: [...actors, ...degraded] };
  tell("ready", daemon.ready);
}
every(READY_EVERY, async () => {
  if (daemon.link.state !== "connected" || (await described()).access.admin === false) return;
  const { code, body } = await ask("ready?code=200");
  if (code === 200) readiness(body);
});
every(STATUS_EVERY, async () => {
  if (daemon.link.state !== "connected") return;
  daemon.status = await feed.call("getStatus");
  tell("status", daemon.status);
});
