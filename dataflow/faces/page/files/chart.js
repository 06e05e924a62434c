// Candles of one symbol with their volume, drawn by lightweight-charts.
//
// Rules of this file. A candle with missing trades is hollow; what its gaps span is shaded and named; a candle that is whole
// again, or has a trade that came after all, is marked. No candle is invented: a window without trades stays empty. Of a
// candle the highest `rev` is valid. Floats are for drawing only: the line above the chart has the digits. For a screen reader
// the chart is a slider along its candles: it says the one where the arrow keys lead, and nothing while the market goes on.
import { digits, drawable, padded, percent, short, tone } from "./decimal.js";
import { feed, on } from "./daemon.js";
import { el, paint, put } from "./dom.js";
import * as fills from "./fills.js";
import { bands, gapText, width } from "./spans.js";
import { count } from "./words.js";

const LIBRARY = "./vendor/lightweight-charts.standalone.production.mjs";
const PAGE = 500, MOST = 20_000, EMPTY = 500, DRAW_EVERY = 0.25;  // candles: a page, at most, empty windows shown in a row; seconds
const DARK = matchMedia("(prefers-color-scheme: dark)"), STILL = matchMedia("(prefers-reduced-motion: reduce)");

export async function open(room, name, interval) {
  const legend = el("p", "legend"), said = legend.appendChild(el("span", "off")), box = el("div", "chart"), key = el("p", "key off");
  box.tabIndex = 0;
  const is = attributes => { for (const [key, value] of Object.entries(attributes)) box.setAttribute(`aria-${key}`, value); };
  box.setAttribute("role", "slider");
  is({ label: `Candles of ${name}, ${interval}. Arrow keys lead from one to the next, Page Up and Page Down scroll, plus and minus zoom.`,
    valuemin: 0, valuemax: 0, valuenow: 0, valuetext: "the newest candle" });
  key.append("UTC · ", el("span", "hollow"), " trades are missing · ", el("span", "shade"), " gap · ", el("span", "dot"), " filled later · chart: ",
    Object.assign(el("a", "", "TradingView Lightweight Charts"), { href: "https://www.tradingview.com/", rel: "noopener", target: "_blank" }), " © 2026 TradingView, Inc.");
  room.append(legend, box, key);

  const state = { closed: false, candles: new Map(), filled: new Set(), sorted: [], most: 0, dirty: false, whole: true, loading: false, first: false, pointed: null, led: false, news: true };
  const { createChart, createSeriesMarkers, CandlestickSeries, HistogramSeries } = await import(LIBRARY);
  const view = { close() { state.closed = true; }, filled() {} };
  if (!box.isConnected) return view;
  const seconds = width(interval);
  const chart = createChart(box, { autoSize: true, layout: { attributionLogo: false }, timeScale: { timeVisible: seconds === null || seconds < 86400, secondsVisible: seconds === null || seconds < 60, rightOffset: 4 },
    rightPriceScale: { scaleMargins: { top: 0.08, bottom: 0.24 } }, localization: { locale: "en-GB", dateFormat: "yyyy-MM-dd" }, crosshair: { mode: 0 }, kineticScroll: { touch: !STILL.matches } });
  const series = chart.addSeries(CandlestickSeries), volumes = chart.addSeries(HistogramSeries, { priceScaleId: "", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
  volumes.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
  const marks = createSeriesMarkers(series, []);
  const shade = shading(chart, state, seconds);
  series.attachPrimitive(shade);

  // ---- what is known

  const keyOf = ({ start, firstOffset }) => seconds === null ? `${start} ${firstOffset}` : start;
  function take(candle) {
    const known = state.candles.get(keyOf(candle));
    if (known && known.rev > candle.rev) return;
    if (known && !known.complete && (candle.complete || candle.gaps.length < known.gaps.length)) state.filled.add(keyOf(candle));
    state.candles.set(keyOf(candle), candle);
    for (const price of [candle.open, candle.high, candle.low, candle.close]) state.most = Math.max(state.most, digits(price));
    const newest = state.sorted.at(-1);
    if (!newest || candle.start > newest.start || keyOf(newest) === keyOf(candle)) state.dirty = true;
    else state.dirty = state.whole = true;
  }
  async function load(to) {  // a page that ends before `to`, or the newest one
    if (state.loading || state.closed) return;
    state.loading = true;
    try {
      const { candles } = await feed.call("getCandles", { symbol: name, interval, limit: PAGE, ...(to ? { to } : {}) });
      if (to) state.first = candles.length === 0 || state.candles.size > MOST;
      for (const candle of candles) take(candle);
      state.whole = state.dirty = state.news = true;
    } catch { /* the connection was lost, or the disk does not answer: the next turn asks again */ } finally {
      state.loading = false;
    }
    draw();
  }

  // ---- drawing

  const colours = {};
  function look() {
    const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue(`--${name}`).trim();
    Object.assign(colours, { up: of("good"), down: of("bad"), info: of("info"), warn: of("warn"), off: of("off") });
    chart.applyOptions({ layout: { background: { color: "transparent" }, textColor: colours.off, fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { vertLines: { color: of("line") }, horzLines: { color: of("line") } }, timeScale: { borderColor: of("line") }, rightPriceScale: { borderColor: of("line") } });
    series.applyOptions({ upColor: colours.up, downColor: colours.down, borderUpColor: colours.up, borderDownColor: colours.down, wickUpColor: colours.up, wickDownColor: colours.down });
    shade.colour = colours.warn;
    state.whole = state.dirty = true;
  }
  function bar(candle) {
    const [open, high, low, close] = [candle.open, candle.high, candle.low, candle.close].map(Number), colour = close >= open ? colours.up : colours.down;
    return { time: candle.time, open, high, low, close, ...(candle.complete ? {} : { color: `${colour}00`, borderColor: colour, wickColor: colour }) };
  }
  const volume = candle => ({ time: candle.time, value: Number(candle.volume), color: `${Number(candle.close) >= Number(candle.open) ? colours.up : colours.down}66` });
  function sort() {
    let last = -Infinity;
    state.sorted = [...state.candles.values()].sort((a, b) => a.start < b.start ? -1 : a.start > b.start ? 1 : a.firstOffset - b.firstOffset);
    for (const candle of state.sorted) last = candle.time = Math.max(Date.parse(candle.start) / 1000, last + 0.001);  // bars of trades may begin together
  }
  function markFills() {
    state.news = false;
    for (const at of fills.times(name)) {
      const of = state.sorted.findLast(candle => candle.time <= at);
      if (of && (seconds === null || at < of.time + seconds)) state.filled.add(keyOf(of));
    }
  }
  function* empty(from, to) {  // the windows between two candles, if they are not too many
    if (seconds !== null && (to - from) / seconds <= EMPTY) for (let time = from + seconds; time < to; time += seconds) yield { time };
  }
  function draw() {
    if (!state.dirty || state.closed) return;
    const drawn = state.sorted.at(-1), whole = state.whole;
    sort();
    if (state.news) markFills();
    const newest = state.sorted.at(-1);
    Object.assign(state, { dirty: false, whole: false });
    if (!newest) return put(said, "No candle yet.");
    const most = drawable(newest.close, state.most), format = { type: "custom", minMove: 10 ** -most, formatter: price => price.toFixed(most) };
    if (series.options().priceFormat.minMove !== format.minMove) series.applyOptions({ priceFormat: format });
    if (whole || !drawn) {
      const data = [];
      for (const candle of state.sorted) {
        if (data.length) data.push(...empty(data.at(-1).time, candle.time));
        data.push(bar(candle));
      }
      series.setData(data);
      volumes.setData(state.sorted.map(volume));
    } else for (const candle of state.sorted.slice(state.sorted.findLastIndex(each => each.start <= drawn.start))) {
      const last = series.data().at(-1).time;
      if (candle.time > last) for (const none of empty(last, candle.time)) series.update(none);
      series.update(bar(candle));
      volumes.update(volume(candle));
    }
    state.bands = bands(state.sorted);
    marks.setMarkers(state.sorted.filter(candle => state.filled.has(keyOf(candle))).map(({ time }) => ({ time, position: "belowBar", shape: "circle", color: colours.info, size: 0.6 })));
    shade.requestUpdate?.();
    if (state.led) aim();
    tell();
  }
  const pointed = () => state.candles.get(keyOf(state.pointed)) ?? state.pointed;  // it may be another object by now
  const aim = () => chart.setCrosshairPosition(Number(pointed().close), state.pointed.time, series);
  function tell() {
    const candle = state.pointed ? pointed() : state.sorted.at(-1);
    if (!candle) return;
    const of = price => padded(price, state.most), move = percent(candle.open, candle.close);
    const missing = candle.complete ? "" : `incomplete: ${candle.gaps.map(({ from, to, reason }) => gapText(from, to, reason)).join(", ")}`;
    const words = [["off", `${candle.start.slice(0, 19).replace("T", " ")} `], ["", `O ${of(candle.open)}  H ${of(candle.high)}  L ${of(candle.low)}  C ${of(candle.close)} `], [tone(move), move ?? ""],
      ["off", ` Vol ${short(candle.volume)} · ${count(candle.count)} trades `], ["warn", missing], ["info", state.filled.has(keyOf(candle)) ? " filled later" : ""]];
    words.forEach(([kind, text], i) => {
      const part = legend.children[i] ?? legend.appendChild(el("span"));
      put(part, text);
      paint(part, kind);
    });
  }

  // ---- what happens

  chart.timeScale().subscribeVisibleLogicalRangeChange(range => {
    if (range && range.from < 30 && !state.first && state.sorted.length) load(state.sorted[0].start);
  });
  chart.subscribeCrosshairMove(({ time, sourceEvent }) => {
    if (state.led && !sourceEvent) return;  // candles move below the cross, which stays with the one where the keys lead
    state.led = false;
    state.pointed = time === undefined ? null : state.sorted.find(candle => candle.time === time) ?? null;
    tell();
  });
  box.onkeydown = event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const scale = chart.timeScale(), scroll = { PageUp: -80, PageDown: 80 }[event.key], zoom = { "+": 1.25, "=": 1.25, "-": 0.8 }[event.key], last = state.sorted.length - 1;
    const at = state.pointed ? state.sorted.findLastIndex(({ time }) => time <= state.pointed.time) : last;  // it may be another object by now
    const to = { ArrowLeft: at - (state.pointed ? 1 : 0), ArrowRight: at + 1, Home: 0, End: last }[event.key];
    if (scroll) scale.scrollToPosition(scale.scrollPosition() + scroll, false);
    else if (zoom) scale.applyOptions({ barSpacing: scale.options().barSpacing * zoom });
    else if (event.key === "Escape") leave();
    else if (to !== undefined && last >= 0) lead(Math.max(0, Math.min(last, to)));
    else return;
    event.preventDefault();
  };
  box.onblur = leave;
  function leave() {
    chart.clearCrosshairPosition();
    Object.assign(state, { pointed: null, led: false });
    tell();
  }
  function lead(index) {
    const candle = state.sorted[index], scale = chart.timeScale();
    const at = scale.timeToIndex(candle.time, true), { from, to } = scale.getVisibleLogicalRange() ?? { from: -Infinity, to: Infinity };  // none before the first frame
    if (at < from + 1 || at > to - 1) scale.scrollToPosition(scale.scrollPosition() + (at < from + 1 ? at - from - 3 : at - to + 3), false);
    Object.assign(state, { pointed: candle, led: true });
    aim();
    tell();
    is({ valuemax: state.sorted.length - 1, valuenow: index, valuetext: legend.textContent.replace(/\s+/g, " ") });
  }
  DARK.addEventListener("change", look);
  const subscription = feed.candles(name, interval, { snapshot: PAGE }).on(take);
  const unlisten = on("link", link => {  // after an outage candles may be others: those of the newest page are asked for
    if (link.state === "connected") { state.candles.clear(); state.first = false; load(); }
  });
  const timer = setInterval(() => { if (!document.hidden) draw(); }, 1000 * DRAW_EVERY);
  look();
  if (feed.connection.state === "connected") load();
  else put(said, "waiting for candles");
  return {
    filled() { state.dirty = state.whole = state.news = true; },  // trades came after all: they are marked at their candles
    close() {
      state.closed = true;
      subscription.close();
      unlisten();
      clearInterval(timer);
      DARK.removeEventListener("change", look);
      chart.remove();
    },
  };
}

// A primitive of the chart: the spans of gaps, behind the candles.
function shading(chart, state, seconds) {
  const primitive = {
    colour: "",
    attached({ requestUpdate }) { primitive.requestUpdate = requestUpdate; },
    paneViews: () => [{ zOrder: () => "bottom", renderer: () => ({ draw }) }],
  };
  function draw(target) {
    const scale = chart.timeScale(), half = scale.options().barSpacing / 2;
    target.useBitmapCoordinateSpace(({ context, bitmapSize, horizontalPixelRatio: x, verticalPixelRatio: y }) => {
      context.font = `${11 * y}px system-ui, sans-serif`;
      let free = -Infinity;
      for (const { from, to, open, text } of state.bands ?? []) {
        const [a, b] = [scale.timeToCoordinate(from), scale.timeToCoordinate(to)];
        if (a === null || b === null) continue;
        const left = (a - half) * x, right = open ? bitmapSize.width : (b + half) * x;
        if (right < 0 || left > bitmapSize.width) continue;
        context.globalAlpha = 0.14;
        context.fillStyle = primitive.colour;
        context.fillRect(left, 0, Math.max(right - left, x), bitmapSize.height);
        context.globalAlpha = 1;
        const length = context.measureText(text).width, room = bitmapSize.width - length - 4 * x;
        const at = Math.max(Math.min(left + 4 * x, room), 4 * x);  // whole, also at the right end
        if (at < free) continue;  // names do not lie upon each other
        context.fillText(text, at, 14 * y);
        free = at + length + 8 * x;
      }
    });
  }
  return primitive;
}
