// Faults on purpose, where the configuration allows them.
import { el, put, rows } from "./dom.js";
import { inside, refusal } from "./inside.js";
import { span } from "./words.js";

const KINDS = { crash: false, hang: true, delay: true, drop: false, disconnect: false };  // whether it lasts for some seconds

export class Faults {
  #form; #answer; #why; #show; #table; #paths; #asked = 0;

  constructor(room) {
    const form = el("form", "bar"), path = el("input", "mono"), kind = el("select"), seconds = el("input", "short"), go = el("button", "bad", "Inject");
    this.#paths = Object.assign(el("datalist"), { id: "paths" });
    this.#why = el("p", "off hint", "asking");
    this.#answer = el("p", "answer");
    this.#answer.setAttribute("role", "status");
    Object.assign(path, { name: "path", required: true, placeholder: "path of an actor" });
    path.setAttribute("list", "paths");
    kind.name = "kind";
    kind.append(...Object.keys(KINDS).map(each => Object.assign(el("option", "", each), { value: each })));
    Object.assign(seconds, { name: "seconds", type: "number", min: 0, max: 3600, step: "any", disabled: true });
    kind.onchange = () => { seconds.disabled = !KINDS[kind.value]; };
    for (const [title, input] of [["Actor", path], ["Fault", kind], ["Seconds", seconds]]) {
      const label = el("label", "", `${title} `);
      label.append(input);
      form.append(label);
    }
    form.append(go, this.#answer, this.#paths);
    form.onsubmit = event => { event.preventDefault(); this.#inject({ path: path.value, kind: kind.value, seconds: seconds.disabled || !seconds.value ? null : Number(seconds.value) }); };
    this.#form = form;
    this.#table = el("table");
    const head = this.#table.createTHead().insertRow();
    for (const title of ["Actor", "Fault", "At", "Lasts", "Struck", ""]) head.append(title ? Object.assign(el("th", "", title), { scope: "col" }) : el("td"));
    this.#show = rows(this.#table.createTBody(), () => this.#make(), (row, fault) => this.#fill(row, fault), go);
    room.append(this.#why, form, this.#table);
    this.#allow(false);
  }
  choose(path, all) {
    if (path) this.#form.elements.path.value = path;
    this.#paths.replaceChildren(...all.slice(0, 200).map(each => Object.assign(el("option"), { value: each })));
  }
  async ask() {
    const number = this.#asked += 1, answer = await inside("faults");
    if (!answer || number !== this.#asked) return;  // what was asked before a change says nothing after it
    this.#allow(answer.code === 200);
    if (answer.code === 200) {
      this.#show(answer.body.map(fault => [fault.id, fault]));
      this.#table.hidden = !answer.body.length;
    } else put(this.#why, refusal(answer));
  }
  #allow(yes) {
    this.#form.hidden = !yes;
    if (!yes) this.#table.hidden = true;
    this.#why.hidden = yes;
  }
  async #inject({ path, kind, seconds }) {
    await this.#say(inside("faults", { method: "POST", body: { path, kind, ...(seconds === null ? {} : { seconds }) } }), ({ kind, path, point }) => `In force: ${kind} of ${path} at its next ${point}.`);
  }
  async #say(asked, words) {
    let kind = "bad", text = "";
    try {
      const answer = await asked;
      if (!answer) return;
      [kind, text] = answer.code < 300 ? ["good", words(answer.body)] : ["bad", refusal(answer)];
    } catch (error) {
      text = `No answer: ${error.message}`;
    }
    this.#answer.className = `answer ${kind}`;
    put(this.#answer, text);
    await this.ask().catch(() => {});
  }
  #make() {
    const row = el("tr"), last = el("td"), button = el("button", "", "withdraw");
    last.append(button);
    row.append(Object.assign(el("th", "mono"), { scope: "row" }), ...["", "", "", "num"].map(name => el("td", name)), last);
    return row;
  }
  #fill(row, { id, path, kind, point, seconds, struck, times }) {
    const lasts = seconds === null ? KINDS[kind] ? "until withdrawn" : "" : seconds < 10 ? `${seconds} s` : span(seconds);
    for (const [i, text] of [path, kind, point, lasts, `${struck} of ${times}`].entries()) put(row.cells[i], text);
    const button = row.cells[5].firstChild;
    button.setAttribute("aria-label", `withdraw fault ${id}: ${kind} of ${path}`);
    button.onclick = () => this.#say(inside(`faults/${id}`, { method: "DELETE" }), () => `Fault ${id} is withdrawn.`);
  }
}
