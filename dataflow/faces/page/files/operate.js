// The view `operate`.
import { el } from "./dom.js";

export const title = "Operate";

export function open(room) {
  room.append(el("p", "off", "waiting for the first answer"));
  return { close() {} };
}
