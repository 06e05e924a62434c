// How often something comes, and when it came last, by the clock of this page alone: others may be wrong.
const SECONDS = 10;
const second = () => Math.floor(performance.now() / 1000);

export class Pace {
  #last = -Infinity; #counts = new Float64Array(SECONDS + 1); #seconds = new Float64Array(SECONDS + 1).fill(-Infinity);

  came() {
    const now = performance.now(), number = Math.floor(now / 1000), at = number % this.#counts.length;
    if (this.#seconds[at] !== number) [this.#seconds[at], this.#counts[at]] = [number, 0];
    this.#counts[at] += 1;
    this.#last = now;
  }
  get age() {  // seconds; Infinity: nothing came
    return (performance.now() - this.#last) / 1000;
  }
  set age(seconds) {
    this.#last = performance.now() - 1000 * seconds;
  }
  get rate() {  // a second, mean of the last 10 whole seconds: it fades to 0
    const now = second();
    let sum = 0;
    for (let i = 0; i < this.#counts.length; i += 1) if (this.#seconds[i] < now && this.#seconds[i] >= now - SECONDS) sum += this.#counts[i];
    return sum / SECONDS;
  }
}
