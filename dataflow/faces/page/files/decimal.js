// Prices and quantities: texts of decimal digits, as they came. No digit is lost; floats are for drawing only.
import { plain } from "./words.js";

const parts = text => { const [whole, fraction = ""] = plain(text).split("."); return [whole, fraction]; };
const trimmed = fraction => fraction.replace(/0+$/, "");

// Digits behind the point, without zeros at the end: an exchange that writes `61685.90000000` says no more than `61685.9`.
export const digits = text => trimmed(parts(text)[1]).length;

// [before the point, behind it], with so many digits behind it, or more where the number has more.
export function split(text, most) {
  const [whole, fraction] = parts(text);
  return [whole, trimmed(fraction).padEnd(most, "0")];
}
export function padded(text, most) {
  const [whole, fraction] = split(text, most);
  return fraction ? `${whole}.${fraction}` : whole;
}
// Digits behind the point, at most `most`, of the float that draws this price: it has 15 for sure, and one less is drawn.
export const drawable = (text, most) => Math.max(0, Math.min(most, 14 - parts(text)[0].length));
export function minus(a, b) {  // exact
  const places = Math.max(parts(a)[1].length, parts(b)[1].length);
  const scaled = text => { const [whole, fraction] = parts(text); return BigInt(whole + fraction.padEnd(places, "0")); };
  const difference = scaled(a) - scaled(b), size = String(difference < 0n ? -difference : difference).padStart(places + 1, "0");
  const at = size.length - places, text = places ? `${size.slice(0, at)}.${size.slice(at)}` : size;
  return difference < 0n ? `-${text}` : text;
}
// -- rounded, for the eye; a title beside them has all digits

const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]];
export function short(text) {
  const value = Number(text), [unit, name] = UNITS.find(([unit]) => Math.abs(value) >= unit) ?? [1, ""], shown = value / unit;
  if (shown !== 0 && Math.abs(shown) < 0.001) return Math.abs(shown) < 1e-9 ? shown.toExponential(2) : plain(shown.toExponential(2));
  return `${shown.toFixed(Math.abs(shown) >= 100 ? 1 : Math.abs(shown) >= 1 || name ? 2 : 4)}${name && ` ${name}`}`;
}
export function percent(from, to) {  // a text with its sign; null where nothing can be said
  const share = 100 * (Number(to) / Number(from) - 1);
  if (!Number.isFinite(share)) return null;
  const text = Math.abs(share).toFixed(2);
  return text === "0.00" ? "0.00 %" : `${share > 0 ? "+" : "−"}${text} %`;
}
export const tone = text => text?.startsWith("+") ? "good" : text?.startsWith("−") ? "bad" : "off";
