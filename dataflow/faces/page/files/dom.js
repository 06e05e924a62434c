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
// `make(item)` returns a node, `fill(node, item)` puts its content.
export function rows(room, make, fill) {
  const kept = new Map();
  return items => {
    const seen = new Set();
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
  };
}

// Asks before something is done. Resolves to true only after the button with `yes` was pressed. `details`: nodes or texts.
export function confirmed(title, yes, ...details) {
  const dialog = $("question"), form = el("form"), buttons = el("div", "buttons");
  form.method = "dialog";
  const no = Object.assign(el("button", "", "Cancel"), { value: "" }), go = Object.assign(el("button", "bad", yes), { value: "yes" });
  buttons.append(no, go);
  form.append(el("h2", "", title), ...details.map(each => typeof each === "string" ? el("p", "", each) : each), buttons);
  dialog.replaceChildren(form);
  dialog.returnValue = "";
  dialog.showModal();
  no.focus();
  return new Promise(resolve => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
