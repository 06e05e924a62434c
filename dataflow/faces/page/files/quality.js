// How good the data of a symbol is: states of its sources, the best of which counts. The words are those of the channel `quality`.
import { count, few } from "./words.js";

export const STATES = ["live", "quiet", "refilling", "gapped", "stalled", "idle", "lost", "rejected", "standby"];  // the best first
export const KINDS = { live: "good", quiet: "off", refilling: "warn", gapped: "warn", stalled: "bad", idle: "off", lost: "bad", rejected: "bad", standby: "off" };
const GONE = "removed from the configuration";

// `sources` is a Map of name to state; `told` an event of the channel.
export function take(sources, { source, state, since, reason, missing, lag }) {
  if (reason === GONE) sources.delete(source);
  else sources.set(source, { state, since, reason, missing, lag });
}
export function best(sources) {
  const told = new Set([...sources.values()].map(({ state }) => state));
  return STATES.find(each => told.has(each)) ?? "unknown";
}
export const details = sources => [...sources].map(([source, { state, since, reason, missing, lag }]) =>
  `${source}: ${state} since ${since}${reason ? `, ${reason}` : ""}${missing ? `, ${count(missing)} places missing` : ""}${lag == null ? "" : `, ${lag} s late`}`).join("\n");
export const names = sources => few([...sources.keys()]);
