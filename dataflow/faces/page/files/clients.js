// The view `clients`.
import { el } from "./dom.js";

export const title = "Clients";

export function open(room) {
  room.append(el("p", "off", "waiting for the first answer"));
  return { close() {} };
}
