// Trades that came after all, as far as this page has heard of them while it lives. The daemon does not keep what was once a
// gap: a page that is loaded anew knows no fill of before.
const MOST = 10_000;  // trades of all symbols; the oldest are forgotten

const told = [];  // { symbol, time }: seconds since the epoch

export function remember({ symbol, trades }) {
  for (const { timestamp } of trades) told.push({ symbol, time: Date.parse(timestamp) / 1000 });
  told.splice(0, Math.max(0, told.length - MOST));
}
export const times = name => told.filter(({ symbol }) => symbol === name).map(({ time }) => time);
