// What candles say about time: how wide a window is, and what the gaps of several candles span. Pure.
import { count } from "./words.js";

const UNITS = { s: 1, m: 60, h: 3600, d: 86400 };

// Seconds of a window; null: a number of trades, or a volume.
export const width = interval => UNITS[interval.at(-1)] ? Number.parseInt(interval, 10) * UNITS[interval.at(-1)] : null;

// What gaps span, from the candles that name them, oldest first: `{ from, to, text }`, times of candles. An open one reaches the end.
export function bands(candles) {
  const found = new Map();
  for (const candle of candles) for (const { from, to, reason } of candle.gaps) {
    const key = `${from} ${reason}`, band = found.get(key) ?? found.set(key, { from: candle.time }).get(key);
    Object.assign(band, { to: candle.time, text: gapText(from, to, reason), open: to === null && reason === "source_gap" && candle === candles.at(-1) });
  }
  const joined = [];
  for (const band of found.values()) {  // those of one span have one name
    const last = joined.at(-1);
    if (last?.from === band.from && last.to === band.to) Object.assign(last, { more: (last.more ?? 0) + 1, open: last.open || band.open });
    else joined.push(band);
  }
  return joined.map(({ from, to, text, more, open }) => ({ from, to, open, text: more ? `${text} and ${more} more` : text }));
}
export const gapText = (from, to, reason) => from === 0 ? `not known (${reason})` : `${to === null ? "missing, nobody knows how many" : `${count(to - from + 1)} missing`} (${reason})`;
