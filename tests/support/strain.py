"""A strain for pages in browsers: what a busy machine delays comes late, at random.

`pytest --strain SEED` puts every visit under it. Without the option nothing is late, and no page gets a script. Use it to find
tests, and views, that rely on luck: `for seed in 1 2 3; do pytest --strain $seed tests/system/test_market_page.py; done`.

Rules:

1. Late are: moves in the history, scrolling and new sizes; questions by `fetch`, their answers and bodies; what WebSockets
   and EventSources tell; animation frames and timers. Each by up to MOST ms, and half of them not at all.
2. What one place tells stays in its order: the messages of a socket, the events of the window, the sizes of an observer. It
   tells nothing more once it is closed.
3. A seed gives a test the same delays again, in the order in which its page asks for them. That order is the machine's own.
4. Delays go by the machine's clock, also where a visit installs a clock of its own for the page.
"""

from __future__ import annotations

import os
from zlib import crc32

MOST = 300  # ms
seed: int | None = None  # what the option says


def script() -> str:
    """What a page under the strain runs before its own scripts, in the test that is running. Needs `seed`."""
    test = os.environ["PYTEST_CURRENT_TEST"]
    return f"({_SCRIPT})({crc32(f'{seed} {test}'.encode())}, {MOST})"


_SCRIPT = """(seed, most) => {
  const { setTimeout, requestAnimationFrame, cancelAnimationFrame, fetch } = window;
  const { addEventListener } = EventTarget.prototype;
  const random = () => {  // mulberry32
    let a = seed = seed + 0x6D2B79F5 | 0;
    a = Math.imul(a ^ a >>> 15, a | 1);
    a ^= a + Math.imul(a ^ a >>> 7, a | 61);
    return ((a ^ a >>> 14) >>> 0) / 2 ** 32;
  };
  const delay = () => random() < 0.5 ? 0 : most * random();
  const pause = () => new Promise(done => setTimeout(done, delay()));

  // Jobs of one place, in their order: each timer does the first that waits.
  const inOrder = () => {
    const waiting = [];
    return job => { waiting.push(job); setTimeout(() => waiting.shift()(), delay()); };
  };
  // Stops events of these types before anybody else hears them, and tells them later, unless `over(event)` by then. Returns
  // what holds further types.
  const hold = (target, types, over = () => false) => {
    const later = inOrder(), told = new WeakSet(), held = new Set();
    const hear = event => {
      if (told.has(event)) return;
      event.stopImmediatePropagation();
      const again = new event.constructor(event.type, event), { target } = event;
      told.add(again);
      later(() => over(again) || target.dispatchEvent(again));
    };
    const more = type => {
      if (!held.has(type)) addEventListener.call(target, type, hear, true);
      held.add(type);
    };
    types.forEach(more);
    return more;
  };

  hold(window, ["hashchange", "popstate", "resize", "scroll"]);
  window.WebSocket = class extends WebSocket {
    #over = false;
    constructor(...args) {
      super(...args);
      hold(this, ["open", "message", "error", "close"], ({ type }) => this.#over && type === "message");
    }
    close(...args) {
      this.#over = true;
      super.close(...args);
    }
  };
  window.EventSource = class extends EventSource {
    #over = false;
    #hold;
    constructor(...args) {
      super(...args);
      this.#hold = hold(this, ["open", "message", "error"], () => this.#over);
    }
    close() {
      this.#over = true;
      super.close();
    }
    addEventListener(type, ...args) {
      this.#hold(type);
      super.addEventListener(type, ...args);
    }
  };
  window.ResizeObserver = class extends ResizeObserver {
    #ends = 0;
    constructor(told) {
      const later = inOrder();
      super((...args) => {
        const ends = this.#ends;
        later(() => ends === this.#ends && told(...args));
      });
    }
    disconnect() {
      this.#ends += 1;
      super.disconnect();
    }
  };
  window.fetch = async (...args) => {
    await pause();
    const answer = await fetch(...args);
    await pause();
    return answer;
  };
  for (const body of ["text", "json"]) {
    const read = Response.prototype[body];
    Response.prototype[body] = async function () {
      const value = await read.call(this);
      await pause();
      return value;
    };
  }
  const dead = new Set();
  window.requestAnimationFrame = job => {
    const id = requestAnimationFrame(now => setTimeout(() => dead.has(id) || job(now), delay()));
    return id;
  };
  window.cancelAnimationFrame = id => {
    dead.add(id);
    cancelAnimationFrame(id);
  };
  for (const timer of ["setTimeout", "setInterval"]) {
    const begin = window[timer];
    window[timer] = (job, ms, ...args) => begin(job, Number(ms ?? 0) + delay(), ...args);
  }
}"""
