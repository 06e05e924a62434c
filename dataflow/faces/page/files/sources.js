// The view `sources`.
import { el } from "./dom.js";

export const title = "Sources";

export function open(room) {
  room.append(el("p", "off", "waiting for the first answer"));
  return { close() {} };
}
