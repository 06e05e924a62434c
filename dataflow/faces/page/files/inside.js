// What the operator alone may see and do: the door, and questions that are asked only while it is open.
//
// Rules of this file. A daemon with a token opens the door to who gives it. The page asks for it once, in the view that needs
// it, and asks nothing of the daemon while the door is shut. A wrong token is forgotten. Where the operator has a listener of
// its own, the door is elsewhere. What is forbidden or not there is not asked for again on the same connection.
import { ask, on, setToken, token } from "./daemon.js";
import { el, put } from "./dom.js";

const door = { state: "open", wrong: false, tries: 0 };  // open, shut, elsewhere
const doorways = new Set(), refused = new Map();  // by address, without its query: the answer
on("link", ({ state }) => { if (state !== "connected") refused.clear(); });

function set(state, wrong = false) {
  Object.assign(door, { state, wrong });
  for (const show of doorways) show();
}

// The answer, or null while the door is shut. Raises when none comes.
export async function inside(path, options) {
  if (door.state !== "open") return null;
  const [address] = path.split("?"), known = options ? null : refused.get(address);
  if (known) return known;
  const { tries } = door, answer = await ask(path, options);
  const isElsewhere = answer.code === 404 && answer.body.detail?.includes("[operator] port");
  if (!options && (answer.code === 403 || answer.code === 404)) refused.set(address, answer);
  if (answer.code !== 401 && !isElsewhere) return answer;
  if (door.state === "open" && tries === door.tries) {  // the first refusal of several counts
    const wrong = answer.code === 401 && token() !== null;
    if (wrong) setToken(null);
    set(isElsewhere ? "elsewhere" : "shut", wrong);
  }
  return null;
}
// The words of a refusal.
export const refusal = ({ code, body }) => body.detail || body.title || `status ${code}`;

// Shows the door in `room` in place of `content` while it is shut. Returns what ends that.
export function doorway(room, content) {
  const form = el("form", "door panel"), words = el("p"), label = el("label", "", "Token "), input = el("input"), enter = el("button", "", "Enter");
  Object.assign(input, { type: "password", autocomplete: "off", required: true });
  words.setAttribute("role", "status");
  label.append(input);
  form.append(el("h2", "", "For the operator"), words, label, enter);
  form.onsubmit = event => {
    event.preventDefault();
    setToken(input.value);
    input.value = "";
    door.tries += 1;
    refused.clear();
    set("open");
  };
  const show = () => {
    form.hidden = door.state === "open";
    content.hidden = !form.hidden;
    label.hidden = enter.hidden = door.state !== "shut";
    put(words, door.state === "elsewhere" ? "The operator of this daemon has an address of its own, and this is not it: [operator] port in its configuration."
      : door.wrong ? "This token is not right." : "This daemon shows its inside to its operator alone. The token is [operator] token of its configuration; this tab keeps it, and nothing else does.");
  };
  room.prepend(form);
  doorways.add(show);
  show();
  return () => doorways.delete(show);
}
