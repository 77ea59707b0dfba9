"use strict";
// The text: coloured by surprise or by a unit; what was expected at a token, and which tokens that came from.

function bytesOf(packed, Type) {
  const raw = atob(packed), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

const text = data.text;
const tokens = text.tokens, bits = text.bits, count = tokens.length;
const guesses = bytesOf(text.guesses, Uint32Array), chances = bytesOf(text.chances, Uint16Array), guessed = text.guessed;
const lags = text.lags, pastPeaks = text.past_peaks, past = bytesOf(text.past, Uint8Array);
const units = data.units, activity = units.tracks.map((track) => bytesOf(track.values, Int8Array));
const MOST_BITS = 8;

const page = $("#text"), box = $("#tokens"), card = $("#card"), strip = $("#strip");
const spans = tokens.map((token, index) => {
  const span = element("span");
  span.dataset.t = index;
  if (token === "\n") span.append(element("i", { textContent: "↵" }), "\n");
  else span.textContent = token;
  return span;
});
box.append(...spans);

// Which unit is in which place, in either order.
const all = units.tracks.flatMap((track, t) => track.units.map((number, row) => ({ track: t, row, number, scale: track.scales[row], full: track.fulls[row], follows: track.follows[row] })));
const orders = {
  number: all.map((_, index) => index),
  follows: all.map((_, index) => index).sort((a, b) => rank(all[a]) - rank(all[b])),
};
function rank({ follows }) {
  return follows ? follows[0] - Math.abs(follows[1]) : 1e6;
}

const state = { mode: "surprise", unit: orders.follows[0] ?? -1, order: "follows", here: -1, pinned: false };

function valueAt(index) {
  const { track, row, scale } = all[state.unit];
  return activity[track][row * count + index] / 127 * scale;
}

// How strongly a token is coloured, -1 to 1.
function level(index) {
  if (state.mode === "surprise") return bits[index] === null ? 0 : Math.min(bits[index] / MOST_BITS, 1);
  return Math.max(-1, Math.min(1, valueAt(index) / all[state.unit].full));
}

function colourText() {
  for (let i = 0; i < count; i++) {
    const value = level(i);
    spans[i].style.setProperty("--v", `${Math.abs(value * 100).toFixed(0)}%`);
    spans[i].classList.toggle("n", value < 0);
  }
  const unit = all[state.unit], ofUnit = state.mode === "unit";
  page.classList.toggle("of-unit", ofUnit);
  $("#surprise").ariaPressed = String(!ofUnit);
  $("#unit").ariaPressed = String(ofUnit);
  $("#least").textContent = ofUnit ? figure3(-unit.full) : "0 bits";
  $("#most").textContent = ofUnit ? figure3(unit.full) : `${MOST_BITS} bits and more`;
  $("#which").replaceChildren(...(unit ? nameOf(unit) : ["no unit"]));
  document.querySelectorAll("#follow button").forEach((chip) => { chip.ariaPressed = String(ofUnit && chip.dataset.unit === String(state.unit)); });
  drawStrip();
  showToken();
}

function nameOf(unit) {
  const track = units.tracks[unit.track];
  const names = [element("b", { textContent: `${track.name} ${unit.number}` })];
  if (unit.follows) names.push(element("br"), element("small", { textContent: `${unit.follows[1] < 0 ? "against " : ""}${units.features[unit.follows[0]].name}` }));
  return names;
}

function drawStrip() {
  const width = strip.clientWidth, height = 44, ratio = devicePixelRatio || 1;
  if (!width) return;
  strip.width = width * ratio;
  strip.height = height * ratio;
  const pen = strip.getContext("2d"), warm = colour("--warm"), cool = colour("--cool");
  pen.scale(ratio, ratio);
  const signed = state.mode === "unit", base = signed ? height / 2 : height - 2, room = signed ? height / 2 - 2 : height - 6;
  for (let x = 0; x < width; x++) {
    const first = Math.floor(x * count / width), stop = Math.max(first + 1, Math.floor((x + 1) * count / width));
    let sum = 0;
    for (let i = first; i < stop; i++) sum += level(i);
    const mean = sum / (stop - first);
    pen.fillStyle = mean < 0 ? cool : warm;
    pen.fillRect(x, Math.min(base, base - mean * room), 1, Math.max(0.5, Math.abs(mean * room)));
  }
  if (state.here >= 0) {
    pen.fillStyle = colour("--ink");
    pen.fillRect(Math.round(state.here * width / count), 0, 1.5, height);
  }
}

function setMode(mode) {
  state.mode = mode === "unit" && !all.length ? "surprise" : mode;
  colourText();
}

function setUnit(unit) {
  state.unit = unit;
  setMode("unit");
}

// The first arrow shows the unit that is named already.
function flip(step) {
  const order = orders[state.order];
  if (!order.length) return;
  if (state.mode !== "unit") return setMode("unit");
  setUnit(order[(order.indexOf(state.unit) + step + order.length) % order.length]);
}

let shaded = [];
function moveTo(index) {
  if (state.here >= 0) spans[state.here].classList.remove("here");
  for (const span of shaded) span.classList.remove("past");
  shaded = [];
  state.here = index;
  if (index >= 0) {
    spans[index].classList.add("here");
    for (let k = 1; k <= Math.min(lags, index); k++) {
      const share = pastAt(index, k);
      if (share < 0.02) continue;
      const span = spans[index - k];
      span.style.setProperty("--k", share.toFixed(2));
      span.classList.add("past");
      shaded.push(span);
    }
  }
  drawStrip();
  showToken();
}

// How much of the largest dependence lies k tokens back, 0 to 1.
const pastAt = (index, k) => (index < pastPeaks.length ? past[index * lags + k - 1] / 255 : 0);

function visible(token) {
  return token === "\n" ? "↵" : token === " " ? "␣" : token.replace(/^ /, "␣");
}

function showToken() {
  const index = state.here;
  card.hidden = index < 0;
  if (index < 0) return;
  const known = bits[index] !== null, head = element("div", { className: "head" });
  head.append(element("b", { textContent: visible(tokens[index]) }), known ? `${bits[index].toFixed(2)} bits` : "nothing predicts it", element("span", { textContent: `token ${whole(index + 1)}` }));
  card.replaceChildren(head);
  if (known) card.append(guessesAt(index));
  if (state.mode === "unit") {
    const unit = all[state.unit];
    card.append(element("div", {}, `${units.tracks[unit.track].name} ${unit.number} after it: `, element("b", { textContent: figure3(valueAt(index)) })));
  }
  if (known && index < pastPeaks.length && pastPeaks[index] > 0) card.append(...lagsAt(index));
  place();
}

function guessesAt(index) {
  const table = element("table"), row = (name, chance, hit) => {
    const bar = element("i");
    bar.style.width = `${Math.max(1, chance * 100)}%`;
    table.append(element("tr", { className: hit ? "hit" : "" }, element("td", { textContent: `${hit ? "● " : "  "}${visible(name)}` }), element("td", {}, bar), element("td", { textContent: percent(chance) })));
  };
  let met = false;
  for (let k = 0; k < text.guesses_each; k++) {
    const at = index * text.guesses_each + k, hit = guesses[at] === text.ids[index];
    met ||= hit;
    row(guessed[guesses[at]], chances[at] / 65535, hit);
  }
  if (!met) row(tokens[index], 2 ** -bits[index], true);
  return table;
}

function lagsAt(index) {
  const bars = element("div", { className: "lags" });
  let sum = 0, reach = 0, running = 0;
  for (let k = 1; k <= lags; k++) sum += pastAt(index, k);
  for (let k = lags; k >= 1; k--) {
    const bar = element("i");
    bar.style.height = `${pastAt(index, k) * 100}%`;
    bars.append(bar);
  }
  while (running < 0.9 * sum && reach < lags) running += pastAt(index, ++reach);
  return [bars, element("small", { textContent: `What it depends on, ${lags} tokens back to the last; 90 % within ${reach}.` })];
}

// Under the token; above it where there is no room; at the bottom of a narrow screen (by the style sheet).
function place() {
  if (innerWidth <= 860) { card.style.left = card.style.top = ""; return; }
  const at = spans[state.here].getClientRects()[0], frame = box.getBoundingClientRect();
  if (!at || at.bottom < frame.top || at.top > frame.bottom) { card.hidden = true; return; }
  const below = at.bottom + 8 + card.offsetHeight < innerHeight;
  card.style.top = `${below ? at.bottom + 8 : Math.max(4, at.top - card.offsetHeight - 8)}px`;
  card.style.left = `${Math.max(4, Math.min(at.left - 20, innerWidth - card.offsetWidth - 12))}px`;
}

function reveal(index) {
  moveTo(index);
  const at = spans[index].offsetTop - box.offsetTop;
  if (at < box.scrollTop + 20 || at > box.scrollTop + box.clientHeight - 40) box.scrollTop = at - box.clientHeight / 3;
  place();
}

// The token of the line above or below that stands nearest.
function lineFrom(index, step) {
  const from = spans[index].getClientRects()[0];
  let best = index, line = null, least = Infinity;
  for (let i = index + step; i >= 0 && i < count; i += step) {
    const at = spans[i].getClientRects()[0];
    if (!at || Math.abs(at.top - from.top) < 4) continue;
    line ??= at.top;
    if (Math.abs(at.top - line) > 4) break;
    if (Math.abs(at.left - from.left) < least) [best, least] = [i, Math.abs(at.left - from.left)];
  }
  return best;
}

function listFeatures() {
  const list = $("#follow");
  for (const feature of units.features) {
    list.append(element("h4", {}, feature.name, element("small", { textContent: `chance ${feature.chance.toFixed(2)}` })));
    const chips = element("div", { className: "chips" });
    for (const [unit, r] of feature.best) {
      const { track, number } = all[unit];
      const chip = element("button", { type: "button", className: r < 0 ? "n" : "" }, `${units.tracks[track].short} ${number} `, element("small", { textContent: r.toFixed(2).replace("-", "−") }));
      chip.dataset.unit = unit;
      chip.style.setProperty("--r", `${Math.abs(r) * 100}%`);
      chip.addEventListener("click", () => setUnit(unit));
      chips.append(chip);
    }
    list.append(feature.best.length ? chips : element("p", { className: "none", textContent: "no unit above chance" }));
  }
  if (!units.features.length) list.append(element("p", { className: "none", textContent: "The text is too short to compare its halves." }));
}

const tokenOf = (event) => Number(event.target.closest?.("span[data-t]")?.dataset.t ?? -1);
box.addEventListener("pointermove", (event) => { const t = tokenOf(event); if (t >= 0 && !state.pinned && t !== state.here) moveTo(t); });
box.addEventListener("pointerleave", () => { if (!state.pinned && document.activeElement !== box) moveTo(-1); });
box.addEventListener("click", (event) => {
  const t = tokenOf(event);
  if (t < 0) return;
  state.pinned = !(state.pinned && t === state.here);
  moveTo(state.pinned ? t : -1);
});
box.addEventListener("blur", () => { if (!state.pinned) moveTo(-1); });
box.addEventListener("scroll", place, { passive: true });
addEventListener("scroll", () => state.here >= 0 && place(), { passive: true });
addEventListener("resize", () => { drawStrip(); if (state.here >= 0) place(); });
strip.addEventListener("click", (event) => {
  state.pinned = true;
  reveal(Math.min(count - 1, Math.floor(event.offsetX / strip.clientWidth * count)));
});
$("#surprise").addEventListener("click", () => setMode("surprise"));
$("#unit").addEventListener("click", () => setMode("unit"));
$("#before").addEventListener("click", () => flip(-1));
$("#after").addEventListener("click", () => flip(1));
$("#order").addEventListener("change", (event) => { state.order = event.target.value; });
document.addEventListener("theme", drawStrip);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input")) return;
  if (act(event)) event.preventDefault();
});

function act({ key, shiftKey }) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
  if (step && shiftKey) {
    const from = state.here, along = key === "ArrowLeft" || key === "ArrowRight";
    box.focus({ preventScroll: true });
    reveal(from < 0 ? 0 : along ? Math.min(count - 1, Math.max(0, from + step)) : lineFrom(from, step));
    return true;
  }
  const done = {
    ArrowLeft: () => flip(-1), ArrowRight: () => flip(1),
    s: () => setMode("surprise"), u: () => setMode("unit"), t: otherTheme,
    Escape: () => { state.pinned = false; moveTo(-1); },
  }[key.length === 1 ? key.toLowerCase() : key];
  if (key === "Enter" && document.activeElement === box && state.here >= 0) state.pinned = !state.pinned;
  if (done) done();
  return Boolean(done);
}
