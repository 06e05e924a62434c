// Numbers and times as text. Prices stay texts of decimal digits: floats are for drawing only.
export const count = n => n.toLocaleString("en-US");
export const perSecond = rate => rate >= 10 ? count(Math.round(rate)) : rate.toFixed(1);
export const few = list => list.length > 4 ? `${list.slice(0, 4).join(", ")} and ${list.length - 4} more` : list.join(", ");
export const clock = date => date.toLocaleTimeString("en-GB");
export const size = n => n < 1024 ? `${n} B` : n < 1048576 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / 1048576).toFixed(1)} MiB`;
export function span(s) {  // seconds, in the two largest units
  if (!Number.isFinite(s)) return "";
  const [m, h, d] = [60, 3600, 86400].map(unit => Math.floor(s / unit));
  return d ? `${d} d ${h % 24} h` : h ? `${h} h ${m % 60} min` : m ? `${m} min ${Math.floor(s % 60)} s` : `${Math.max(0, Math.floor(s))} s`;
}
export function lagOf(s) {  // seconds; less than 0: the clock of the source is ahead
  if (s === null || s === undefined) return "–";
  const size = Math.abs(s);
  return `${s < 0 ? "−" : ""}${size < 1 ? `${Math.round(1000 * size)} ms` : size < 60 ? `${size.toFixed(1)} s` : span(size)}`;
}
export function program(agent) {  // of a browser the one word that tells it from others: all begin and end alike
  if (!agent.startsWith("Mozilla/")) return agent;
  const words = agent.replace(/\([^)]*\)/g, "").match(/\S+/g).filter(word => !/^(Mozilla|AppleWebKit|Gecko|Version|Mobile)\//.test(word));
  return words.findLast(word => !word.startsWith("Safari/")) ?? words[0] ?? agent;
}
export const about = s => span(s).replace(/ 0 \w+$/, "");  // a whole number of minutes is told as such
export function plain(text) {  // "5.892E-4" -> "0.0005892": the same digits, the point moved in the text
  const [match, sign, whole, fraction = "", exponent] = /^(-?)(\d+)(?:\.(\d+))?[eE]([+-]?\d+)$/.exec(text) ?? [];
  if (!match || Math.abs(exponent) > 30) return text;
  const lead = Math.max(0, 1 - whole.length - exponent), at = lead + whole.length + Number(exponent);
  const digits = ("0".repeat(lead) + whole + fraction).padEnd(at, "0");
  return sign + digits.slice(0, at).replace(/^0+(?=\d)/, "") + (digits.length > at ? "." + digits.slice(at) : "");
}
export const places = (from, to) => to === null ? `place ${from}, nobody knows how many` : to > from ? `places ${from} to ${to}` : `place ${from}`;
