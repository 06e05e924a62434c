// What the operator alone may see and do: the door, and questions that are asked only while it is open.
//
// Rules of this file. A daemon with a token opens the door to who gives it. The page asks for it once, in the view that needs
// it, and asks nothing of the daemon while the door is shut. A wrong token is forgotten. Where the operator has a listener of
// its own, the door is elsewhere. What the daemon says that it refuses is not asked for.
import { ask, described, forget, setToken, token } from "./daemon.js";
import { el, heading, hide, put } from "./dom.js";

const door = { state: "open", wrong: false, tries: 0 };  // open, shut, elsewhere
const doorways = new Set();

function set(state, wrong = false) {
  Object.assign(door, { state, wrong });
  for (const show of doorways) show();
}

// The answer, or null while the door is shut. Raises when none comes.
export async function inside(path, options) {
  if (door.state !== "open") return null;
  const { tries } = door, { access } = await described(), isElsewhere = access.inside === "elsewhere";
  if (access.inside === "open") {
    const why = refusedWith(path, access), answer = why ? { code: 403, body: { detail: why } } : await ask(path, options);
    if (answer.code !== 401) return answer;
    forget();  // it has another token since
  }
  if (door.state === "open" && tries === door.tries) {  // the first refusal of several counts
    const wrong = !isElsewhere && token() !== null;
    if (wrong) setToken(null);
    set(isElsewhere ? "elsewhere" : "shut", wrong);
  }
  return null;
}
function refusedWith(path, { admin, operator, faults }) {
  if (!admin) return "The configuration switches this off: [faces.admin] enabled = false.";
  if (/^(faults|api\/v1\/clients)\b/.test(path) && operator) return operator;
  return path.startsWith("faults") ? faults : null;
}
// The words of a refusal.
export const refusal = ({ code, body }) => body.detail || body.title || `status ${code}`;

// Shows the door in place of `content`, a node of the page, while it is shut. Returns what ends that.
export function doorway(content) {
  const form = el("form", "door panel"), title = heading("h2", "", "For the operator"), words = el("p"), label = el("label", "", "Token "), input = el("input"), enter = el("button", "", "Enter");
  Object.assign(input, { type: "password", autocomplete: "off", required: true });
  words.setAttribute("role", "status");
  label.append(input);
  form.append(title, words, label, enter);
  form.onsubmit = event => {
    event.preventDefault();
    setToken(input.value);
    input.value = "";
    door.tries += 1;
    set("open");
  };
  const show = () => {
    content.hidden = door.state !== "open";
    hide(form, !content.hidden, content.closest("[tabindex]"));
    hide(label, door.state !== "shut", title);
    hide(enter, label.hidden, title);
    put(words, door.state === "elsewhere" ? "The operator of this daemon has an address of its own, and this is not it: [operator] port in its configuration."
      : door.wrong ? "This token is not right." : "This daemon shows its inside to its operator alone. The token is [operator] token of its configuration; this tab keeps it, and nothing else does.");
  };
  content.before(form);
  doorways.add(show);
  show();
  return () => doorways.delete(show);
}
