// Lists in which nothing moves under the pointer.
//
// Rule of this file: while a mouse is over a list, its rows neither come nor go nor change their places; their contents do
// change. Who lets the mouse lie gets the truth after a while all the same.
const PATIENCE = 60;  // seconds without a move

// `released()` is called when rows may move again.
export function steady(room, released) {
  const hold = { held: false };
  let timer = null;
  const end = () => {
    clearTimeout(timer);
    if (!hold.held) return;
    hold.held = false;
    released();
  };
  const begin = ({ pointerType }) => {
    if (pointerType !== "mouse") return;  // a finger leaves no pointer behind
    hold.held = true;
    clearTimeout(timer);
    timer = setTimeout(end, 1000 * PATIENCE);
  };
  room.addEventListener("pointerenter", begin);
  room.addEventListener("pointermove", begin);
  room.addEventListener("pointerleave", end);
  return Object.assign(hold, { close: () => clearTimeout(timer) });
}

// The items to show: `[[key, item]]` as it is or, while the list is held, with the keys of before: an item that has left is
// null. `late` tells how many rows wait to come or go.
export function settled(hold, before, items) {
  if (!hold.held || !before.length) return { items, late: 0 };
  const now = new Map(items);
  const kept = before.map(([key]) => [key, now.get(key) ?? null]);
  const gone = kept.filter(([, item]) => item === null).length;
  return { items: kept, late: gone + items.length - (kept.length - gone) };
}
export const waiting = late => late ? `${late} ${late === 1 ? "change waits" : "changes wait"} until the pointer leaves` : "";
