// The view `market`.
import { el } from "./dom.js";

export const title = "Market";

export function open(room) {
  room.append(el("p", "off", "waiting for the first answer"));
  return { close() {} };
}
