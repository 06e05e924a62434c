// Small helpers for nodes. A node is changed only where it differs: a text that stays keeps its selection and costs no layout.
export const $ = id => document.getElementById(id);
export const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
export const paint = (node, name) => { if (node.className !== name) node.className = name; };
export function el(tag, name = "", text = "") {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text) node.textContent = text;
  return node;
}

// The rows of a table body (or any other list), by key: rows stay, in the order of `items`, and leave when their item has left.
// `make(item)` returns a node, `fill(node, item)` puts its content. The focus stays where it was, also in a row that moves;
// of a row that leaves the next one takes it, and `heir` where there is none.
export function rows(room, make, fill, heir = null) {
  const kept = new Map();
  return items => {
    const seen = new Set(), focused = room.contains(document.activeElement) ? document.activeElement : null;
    const at = focused && [...room.children].findIndex(node => node.contains(focused));
    let next = room.firstElementChild;
    for (const [key, item] of items) {
      const node = kept.get(key) ?? make(item);
      kept.set(key, node);
      seen.add(key);
      if (node === next) next = next.nextElementSibling;
      else room.insertBefore(node, next);
      fill(node, item);
    }
    for (const [key, node] of kept) if (!seen.has(key)) { node.remove(); kept.delete(key); }
    if (focused && document.activeElement !== focused) (focused.isConnected ? focused : neighbour(room, at) ?? heir ?? room.closest("[tabindex]")).focus({ preventScroll: true });
  };
}
const neighbour = (room, at) => room.children[Math.min(at, room.children.length - 1)]?.querySelector("a, button");

// The title of a view, or of a part of it: it can take the focus of what has left.
export const heading = (tag, name, text) => Object.assign(el(tag, name, text), { tabIndex: -1 });
// Hides what may have the focus, and gives that to `heir`.
export function hide(node, yes, heir) {
  const lost = yes && node.contains(document.activeElement);
  node.hidden = yes;
  if (lost) heir.focus({ preventScroll: true });
}
// A number of things found is told aloud to who is looking for them, and to nobody else: it changes all the time.
export function toldWhileSought(find, note) {
  find.addEventListener("focus", () => note.setAttribute("aria-live", "polite"));
  find.addEventListener("blur", () => note.setAttribute("aria-live", "off"));
}

// Asks before something is done. Resolves to true only after the button with `yes` was pressed. `details`: nodes or texts.
export function confirmed(title, yes, ...details) {
  const dialog = $("question"), form = el("form"), buttons = el("div", "buttons");
  form.method = "dialog";
  const no = Object.assign(el("button", "", "Cancel"), { value: "" }), go = Object.assign(el("button", "bad", yes), { value: "yes" });
  buttons.append(no, go);
  const head = Object.assign(el("h2", "", title), { id: "question-title" });
  dialog.setAttribute("aria-labelledby", head.id);
  form.append(head, ...details.map(each => typeof each === "string" ? el("p", "", each) : each), buttons);
  dialog.replaceChildren(form);
  dialog.returnValue = "";
  dialog.showModal();
  no.focus();
  return new Promise(resolve => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
