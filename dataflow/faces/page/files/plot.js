// Small time series, drawn exactly: each sample is a point of the line, a sample that is missing is a hole in it.
//
// Rules of this file. The scale goes from 0 to the highest value shown, and both are written at the axis. Plots of one group
// share their cursor: the pointer over one, or the arrow keys, show the values of all at that time. For a screen reader a plot
// is a slider along its time: it says the value where the arrow keys lead, and nothing while time passes.
import { el, put } from "./dom.js";
import { about, clock } from "./words.js";

const SVG = "http://www.w3.org/2000/svg", WIDTH = 1000, HEIGHT = 100;

function draw(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
// The line of `values` (null: missing) at the right end of a field for `room` of them.
export function line(values, highest, room) {
  const x = i => (WIDTH * (room - values.length + i) / (room - 1)).toFixed(1), y = value => (HEIGHT * (1 - value / (highest || 1))).toFixed(1);
  return values.map((value, i) => value === null ? "" : (values[i - 1] ?? null) === null ? `M${x(i)} ${y(value)}h0` : `L${x(i)} ${y(value)}`).join("");
}

export function plots(room, kinds) {  // kinds: {key: [title, words of a value]}
  const made = Object.entries(kinds).map(([key, [title, words]]) => ({ key, title, words, ...figure(title) }));
  let told = null, cursor = null;  // the index of a sample, counted from the newest
  for (const { node, field, value } of made) {
    room.append(node);
    field.addEventListener("pointermove", event => {
      const { left, width } = field.getBoundingClientRect();
      if (told) point(Math.round((1 - (event.clientX - left) / width) * (told.room - 1)));
    });
    field.addEventListener("pointerleave", () => point(null));
    field.addEventListener("blur", () => point(null));
    field.addEventListener("keydown", event => {
      const at = cursor ?? 0, first = told && Math.max(0, ...made.map(({ key }) => (told.values[key]?.length ?? 0) - 1));
      const to = { ArrowLeft: at + 1, ArrowRight: at - 1, PageUp: at + 10, PageDown: at - 10, Home: first, End: 0 }[event.key];
      if (!told || to === undefined) return;
      event.preventDefault();
      point(Math.min(first, Math.max(0, to)));
      field.setAttribute("aria-valuenow", -cursor);
      field.setAttribute("aria-valuetext", value.textContent);
    });
  }
  function point(index) {
    cursor = index;
    for (const each of made) read(each);
  }
  function read({ key, words, value, mark }) {
    const values = told?.values[key], at = cursor ?? 0, sample = values?.at(-1 - at) ?? null;
    mark.setAttribute("visibility", cursor === null ? "hidden" : "visible");
    const x = told ? WIDTH * (1 - at / (told.room - 1)) : 0;
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
    const when = cursor === null || !told ? "" : ` at ${clock(new Date(told.end - 1000 * told.every * at))}`;
    put(value, (sample === null ? "–" : words(sample)) + when);
  }
  // `every`: seconds between two samples; `end`: the time of the newest; `room`: how many have room; values: {key: [number | null]}.
  return { show({ every, end, room: most, values }) {
    told = { every, end: Date.parse(end), room: most, values };
    for (const each of made) {
      const mine = (values[each.key] ?? []).slice(-most), there = mine.filter(value => value !== null), highest = Math.max(0, ...there);
      each.path.setAttribute("d", line(mine, highest, most));
      put(each.scale, there.length ? `0 to ${each.words(highest)}` : "");
      put(each.from, `${about(every * most)} ago`);
      put(each.to, clock(new Date(told.end)));
      const now = mine.at(-1) ?? null;
      each.field.setAttribute("aria-valuemin", 1 - most);
      each.field.setAttribute("aria-label", `${each.title}: ${now === null ? "no value" : `${each.words(now)} now`}${there.length ? `, highest ${each.words(highest)} in ${about(every * most)}` : ""}`);
      read(each);
    }
  } };
}
function figure(title) {
  const node = el("figure", "plot panel"), caption = el("figcaption"), value = el("b", "", "–"), ends = el("div", "ends off");
  const scale = el("div", "scale off"), [from, to] = [el("span"), el("span")];
  const field = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "slider", tabindex: 0, "aria-label": title,
    "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0, "aria-valuetext": "now" });
  const path = draw("path", { class: "line" }), mark = draw("line", { class: "mark", y1: 0, y2: HEIGHT, visibility: "hidden" });
  field.append(path, mark);
  caption.append(el("span", "off", title), value);
  ends.append(from, to);
  node.append(caption, scale, field, ends);
  return { node, field, path, mark, value, scale, from, to };
}
