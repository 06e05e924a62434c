// The view Market: `#/market` is the table of all symbols, `#/market/SYMBOL` one of them.
import * as symbol from "./symbol.js";
import * as table from "./table.js";

export const title = "Market";

export function open(room, where) {
  const kind = place => place.rest[0] ? symbol : table;
  let shown = null, view = null;
  function moved(place) {
    const next = kind(place), name = place.rest[0];
    if (shown?.kind === next && shown.name === name) return view.moved(place);
    view?.close();
    room.replaceChildren();  // the title, too: each kind has one of its own
    room.classList.toggle("whole", next === table);  // its table scrolls, the room does not
    shown = { kind: next, name };
    view = next.open(room, place);
  }
  moved(where);
  return { moved, close() { room.classList.remove("whole"); view.close(); } };
}
