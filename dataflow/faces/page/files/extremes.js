// The highest and the lowest price of a UTC day. The day's candle comes at most once a second: a trade that this page shows is
// ahead of it, and a price above the "high" looks wrong. Such a trade is a fact of its own day, so it counts. Pure.
//
// Floats compare here, and are not shown: texts that make the same float are the same to the eye.

export class Extremes {
  day = ""; high = null; low = null;  // of the trades of the newest day
  traded({ timestamp, price }) {
    const day = timestamp.slice(0, 10);
    if (day < this.day) return;
    if (day > this.day) Object.assign(this, { day, high: price, low: price });
    if (Number(price) > Number(this.high)) this.high = price;
    if (Number(price) < Number(this.low)) this.low = price;
  }
  forget() {
    this.day = "";
  }
  // Of the day of this candle.
  of({ start, high, low }) {
    if (start.slice(0, 10) !== this.day) return { high, low };
    return { high: Number(this.high) > Number(high) ? this.high : high, low: Number(this.low) < Number(low) ? this.low : low };
  }
}
