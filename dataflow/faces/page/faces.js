// The script of the page at `/faces`. It knows no protocol: what to show and what to say comes from `api/v1/faces`.
"use strict";
const LOG_LINES = 60, LINE_CHARACTERS = 4000, COLUMN_PIXELS = 440;
const BASE = new URL(".", location.href).href.slice(0, -1);  // nobody knows where the daemon is mounted
const $ = id => document.getElementById(id);
const stamp = (id, ...parts) => {
  const node = $(id).content.firstElementChild.cloneNode(true);
  return [node, ...parts.map(part => node.querySelector(part))];
};
const element = (tag, kind, text) => Object.assign(document.createElement(tag), { className: kind, textContent: text });
const filled = text => {
  const symbol = $("symbol").value.trim();
  const words = { http: BASE, ws: BASE.replace(/^http/, "ws"), host: location.hostname, symbol, compact: symbol.replaceAll("-", "") };
  return text.replace(/\{(http|ws|host|symbol|compact)\}/g, (_, word) => words[word]);
};
const visible = text => text.replace(/[\x00-\x09\x0b-\x1f\x7f]/g, c => c === "\x7f" ? "␡" : String.fromCharCode(0x2400 + c.charCodeAt(0)));
const mark = (node, text) => node.replaceChildren(...text.split("`").map((part, i) => i % 2 ? element("code", "", part) : part));
const samples = [], sections = [];

async function load() {
  const answer = await fetch("api/v1/faces", { cache: "no-store" });
  if (!answer.ok) throw new Error(`the daemon answers ${answer.status}`);
  const { symbols, faces, sources } = await answer.json();
  $("base").textContent = BASE;
  $("symbol").value = symbols[0] ?? "BTC-USDT";
  $("symbols").append(...symbols.map(name => Object.assign(document.createElement("option"), { value: name })));
  for (const face of [...faces, ...sources]) (face.enabled ? showFace : showDisabled)(face);
  const kinds = new Set(samples.flatMap(({ lines }) => Object.keys(lines)));
  arrange();
  $("kind").append(...[...kinds].map(kind => element("option", "", kind)));
  fill();
}
function showFace({ name, words, samples }) {
  const [section, title, line, room] = stamp("face-part", ".name", ".words", ".samples");
  section.id = `face-${name}`;
  title.textContent = name;
  mark(line, words);
  room.append(...samples.map(showSample));
  sections.push({ section, size: samples.length + 0.4 });
  $("index").append(Object.assign(element("a", "", name), { href: `#${section.id}` }));
}
function arrange() {  // each in its turn into the column that is shortest by now; none moves when a log grows
  const count = Math.max(1, Math.floor($("faces").clientWidth / COLUMN_PIXELS));
  if (count === $("faces").childElementCount) return;
  const columns = Array.from({ length: count }, () => ({ node: element("div", "column", ""), size: 0 }));
  for (const { section, size } of sections) {
    const shortest = columns.reduce((best, column) => column.size < best.size ? column : best);
    shortest.node.append(section);
    shortest.size += size;
  }
  $("faces").replaceChildren(...columns.map(({ node }) => node));
}
function showDisabled({ name, words, key }) {
  const [row, code, line] = stamp("disabled-part", ".key", ".words");
  row.id = `face-${name}`;
  code.textContent = key;
  mark(line, words);
  $("disabled").append(row);
  $("off").hidden = false;
  $("index").append(Object.assign(element("a", "without", name), { href: `#${row.id}`, title: "switched off" }));
}
function showSample(sample) {
  const [node, title, about, address, tabs, line, copy, trial] =
    stamp("sample-part", ".title", ".about", ".address", ".tabs", ".line", ".copy", ".trial");
  const shown = { lines: sample.lines, kind: Object.keys(sample.lines)[0] };
  title.textContent = sample.name;
  title.id = `sample-${samples.length}`;
  for (const button of [copy, trial.querySelector(".go")]) button.setAttribute("aria-describedby", title.id);
  for (const kind of Object.keys(sample.lines)) {
    const tab = element("button", "", kind);
    tab.onclick = () => { shown.kind = kind; shown.fill(); };
    tabs.append(tab);
  }
  shown.fill = () => {
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", tab.textContent === shown.kind);
    mark(about, filled(sample.words));
    address.textContent = filled(sample.address);
    if (/^https?:/.test(address.textContent)) address.href = address.textContent;
    line.textContent = filled(sample.lines[shown.kind] ?? "");
  };
  copy.onclick = () => copied(copy, line);
  if (sample.trial) prepare(trial, sample.trial);
  samples.push(shown);
  return node;
}
function fill() {
  const kind = $("kind").value;
  for (const sample of samples) {
    if (kind in sample.lines) sample.kind = kind;
    sample.fill();
  }
}
async function copied(button, line) {
  try {
    await navigator.clipboard.writeText(line.textContent);
    button.textContent = "copied";
  } catch {  // no clipboard over plain HTTP from elsewhere
    getSelection().selectAllChildren(line);
    button.textContent = "selected";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

// ---- a try

function prepare(room, trial) {
  const [button, state, log] = [".go", ".state", ".log"].map(part => room.querySelector(part));
  let stop = null;
  room.hidden = false;
  const tell = (text, kind = "off") => { state.textContent = text; state.className = `state ${kind}`; };
  const write = (text, kind = "") => {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    log.append(element("span", kind, visible(text.slice(0, LINE_CHARACTERS)) + (text.length > LINE_CHARACTERS ? " …" : "")));
    while (log.childElementCount > LOG_LINES) log.firstElementChild.remove();
    if (atEnd && kind !== "whole") log.scrollTop = log.scrollHeight;
  };
  const over = (text, kind) => {
    stop = null;
    button.textContent = "try it";
    button.setAttribute("aria-pressed", false);
    tell(text, kind);
  };
  button.onclick = () => {
    if (stop) { stop(); over("stopped"); return; }
    log.replaceChildren();
    log.hidden = false;
    button.textContent = "stop";
    button.setAttribute("aria-pressed", true);
    tell("connecting");
    stop = TRIALS[trial.kind](trial, tell, write, over);
  };
}
const TRIALS = {
  get({ url }, _tell, write, over) {
    const ended = new AbortController();
    fetch(filled(url), { cache: "no-store", signal: ended.signal }).then(async answer => {
      write(readable(await answer.text()), "whole");
      over(`${answer.status} ${answer.statusText}`, answer.ok ? "good" : "bad");
    }).catch(error => { if (!ended.signal.aborted) over(error.message, "bad"); });
    return () => ended.abort();
  },
  events({ url }, tell, write, over) {
    const source = new EventSource(filled(url));
    let count = 0;
    const hear = ({ type, data, lastEventId }) => {
      write(`${type} ${lastEventId} ${data}`);
      tell(`${++count} events`, "good");
    };
    for (const type of ["message", "trade", "gap", "filled", "rewind", "candle", "quality", "notice"]) {
      source.addEventListener(type, hear);
    }
    source.onopen = () => tell("open", "good");
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) over("refused", "bad");
      else tell("lost, coming back", "bad");
    };
    return () => source.close();
  },
  socket({ url, say, protocols, beat, every }, tell, write, over) {
    const socket = new WebSocket(filled(url), protocols), left = say.map(filled);
    let count = 0, pulse = 0, done = false;
    const next = () => {
      if (!left.length) return;
      const text = left.shift();
      socket.send(text);
      write(`› ${text}`, "sent");
    };
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      tell("open", "good");
      next();
      if (beat) pulse = setInterval(() => socket.send(beat), 1000 * every);
    };
    socket.onmessage = ({ data }) => {
      write(typeof data === "string" ? data : `${data.byteLength} bytes`);
      tell(`${++count} messages`, "good");
      next();
    };
    socket.onclose = ({ code, reason }) => {
      clearInterval(pulse);
      if (!done) over(`closed: ${code} ${reason}`, "bad");
    };
    return () => { done = true; clearInterval(pulse); socket.close(); };
  },
};
function readable(text) {
  try { return JSON.stringify(JSON.parse(text), null, 1); } catch { return text; }
}

$("symbol").oninput = fill;
addEventListener("resize", arrange);
$("kind").onchange = fill;
$("choice").onsubmit = event => event.preventDefault();
load().catch(error => {
  $("trouble").hidden = false;
  $("trouble").textContent = `No answer from ${BASE}: ${error.message}. Reload the page to ask again.`;
});
