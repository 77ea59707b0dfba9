"use strict";
// Lines and points in SVG. A figure is what figures.py describes; it is drawn anew where its width changes.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 4", "1 2"];
const SHAPES = ["circle", "cross", "diamond", "triangle", "square", "circle"];

function svg(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return found.map((value) => ({ value, label: figureOf(value, step) }));
}

function figureOf(value, step) {
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return (Math.abs(value) < step / 2 ? 0 : value).toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", "−");
}

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
function decades(low, high, count) {
  const first = Math.ceil(low - 1e-9), last = Math.floor(high + 1e-9), step = Math.max(1, Math.ceil((last - first) / count));
  if (last - first < 1) {
    return [1, 2, 5, 10, 20, 50].map((n) => n * 10 ** Math.floor(low))
      .filter((n) => Math.log10(n) >= low && Math.log10(n) <= high).map((n) => ({ value: Math.log10(n), label: figure3(n) }));
  }
  const found = [];
  for (let n = first; n <= last; n += step) {
    const label = n >= -3 && n <= 3 ? String(Number((10 ** n).toPrecision(1))) : "10" + [...String(n)].map((c) => SUPERSCRIPT[c]).join("");
    found.push({ value: n, label });
  }
  return found;
}

// What lies beyond every number, so that an axis holds all of them.
function extent(values, given, padding) {
  const numbers = values.filter((value) => value !== null && Number.isFinite(value));
  let low = Math.min(...numbers), high = Math.max(...numbers);
  if (!numbers.length) [low, high] = [0, 1];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const room = (high - low) * padding;
  return [given[0] ?? low - room, given[1] ?? high + room];
}

function shape(kind, x, y, size, attributes) {
  const d = {
    cross: `M${x - size},${y - size}L${x + size},${y + size}M${x - size},${y + size}L${x + size},${y - size}`,
    diamond: `M${x},${y - size * 1.3}L${x + size * 1.3},${y}L${x},${y + size * 1.3}L${x - size * 1.3},${y}Z`,
    triangle: `M${x},${y - size * 1.2}L${x + size * 1.1},${y + size}L${x - size * 1.1},${y + size}Z`,
    square: `M${x - size},${y - size}h${2 * size}v${2 * size}h${-2 * size}Z`,
  }[kind];
  return d ? svg("path", { d, ...attributes }) : svg("circle", { cx: x, cy: y, r: size, ...attributes });
}

const ink = (series, index) => `var(--c${(series.colour ?? index) % 6 + 1})`;

const shapeOf = (series, index) => series.shape ?? SHAPES[index % 6];

function paint(series, index) {
  const stroke = ink(series, index);
  return shapeOf(series, index) === "cross" ? { stroke, fill: "none", "stroke-width": 1.8 } : { fill: series.hollow ? "var(--panel)" : stroke, stroke, "stroke-width": series.hollow ? 1.8 : 0 };
}

// The picture at one width, and what the pointer and the keys need to find a value in it.
function drawn(spec, width) {
  const place = { left: 54, right: width - 14, top: 26, bottom: 0 };
  const inner = place.right - place.left;
  place.bottom = place.top + (spec.equal ? Math.min(inner, 400) : Math.max(190, Math.min(270, inner * 0.55)));
  const toX = (v) => (spec.log_x ? (v > 0 ? Math.log10(v) : null) : v);
  const toY = (v) => (v === null ? null : spec.log_y ? (v > 0 ? Math.log10(v) : null) : v);
  const xs = [...spec.series.flatMap((s) => s.x.map(toX)), ...spec.marks.map((m) => toX(m.x))];
  const bars = spec.series.filter((s) => s.bars);
  let [x0, x1] = bars.length ? [Math.min(...xs) - 0.6, Math.max(...xs) + 0.6] : extent(xs, spec.x_range.map(toX), spec.kind === "lines" ? 0 : 0.05);
  let [y0, y1] = extent([...spec.series.flatMap((s) => s.y.map(toY)), ...(bars.length ? [0] : [])], spec.y_range.map(toY), 0.06);
  if (spec.circle) [x0, x1, y0, y1] = [Math.min(x0, -1.1), Math.max(x1, 1.1), Math.min(y0, -1.1), Math.max(y1, 1.1)];
  if (spec.equal) {
    const scale = Math.max((x1 - x0) / inner, (y1 - y0) / (place.bottom - place.top));
    const [mx, my] = [(x0 + x1) / 2, (y0 + y1) / 2], [hx, hy] = [scale * inner / 2, scale * (place.bottom - place.top) / 2];
    [x0, x1, y0, y1] = [mx - hx, mx + hx, my - hy, my + hy];
  }
  const X = (v) => place.left + (toX(v) - x0) / (x1 - x0) * inner;
  const Y = (v) => place.bottom - (toY(v) - y0) / (y1 - y0) * (place.bottom - place.top);
  const height = place.bottom + 40;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img", "aria-label": `${spec.title}. Arrow keys read values.` });
  for (const { value, label } of (spec.log_y ? decades : ticks)(y0, y1, 6)) {
    const y = place.bottom - (value - y0) / (y1 - y0) * (place.bottom - place.top);
    root.append(svg("line", { class: "grid", x1: place.left, x2: place.right, y1: y, y2: y }), svg("text", { x: place.left - 7, y: y + 4, "text-anchor": "end" }, label));
  }
  // Names that would run into one another stand in several rows.
  const rows = Math.min(3, Math.ceil((spec.x_names ?? []).reduce((sum, name) => sum + 6.5 * name.length + 8, 0) / inner));
  const named = spec.x_names?.map((label, value) => ({ label, value, row: value % rows }));
  for (const { value, label, row = 0 } of named ?? (spec.log_x ? decades : ticks)(x0, x1, Math.max(3, Math.round(inner / 90)))) {
    const x = place.left + (value - x0) / (x1 - x0) * inner;
    root.append(svg("line", { class: "axis", x1: x, x2: x, y1: place.bottom, y2: place.bottom + 4 }), svg("text", { x, y: place.bottom + 17 + 11 * row, "text-anchor": !named && x > place.right - 12 ? "end" : "middle" }, label));
  }
  root.append(svg("line", { class: "axis", x1: place.left, x2: place.right, y1: place.bottom, y2: place.bottom }));
  root.append(svg("text", { x: place.right, y: place.bottom + 34, "text-anchor": "end" }, spec.x_label), svg("text", { x: 2, y: 10 }, spec.y_label));
  if (spec.circle) root.append(svg("circle", { class: "ring", cx: X(0), cy: Y(0), r: X(1) - X(0) }));
  if (bars.length) root.append(svg("line", { class: "axis", x1: place.left, x2: place.right, y1: Y(0), y2: Y(0) }));
  const clip = `clip-${spec.id}`;
  const area = svg("clipPath", { id: clip });
  area.append(svg("rect", { x: place.left - 5, y: place.top - 5, width: inner + 10, height: place.bottom - place.top + 10 }));
  const group = svg("g", { "clip-path": `url(#${clip})` });
  root.append(area, group);
  spec.series.forEach((series, index) => drawSeries(group, series, index, spec, X, Y));
  for (const { x, label } of spec.marks) {
    const left = X(x) + 10 + 6.4 * label.length > place.right;
    root.append(svg("line", { class: "mark", x1: X(x), x2: X(x), y1: place.top, y2: place.bottom }), svg("text", { x: X(x) + (left ? -6 : 6), y: place.top + 9, "text-anchor": left ? "end" : "start" }, label));
  }
  return { root, X, Y, place, height };
}

function drawSeries(group, series, index, spec, X, Y) {
  const seen = (i) => series.y[i] !== null && !(spec.log_y && series.y[i] <= 0) && !(spec.log_x && series.x[i] <= 0);
  if (series.bars) {
    const beside = spec.series.filter((other) => other.bars), width = (X(1) - X(0)) * 0.76 / beside.length;
    series.x.forEach((x, i) => {
      if (!seen(i)) return;
      const left = X(x) + (beside.indexOf(series) - beside.length / 2) * width, top = Math.min(Y(0), Y(series.y[i]));
      group.append(svg("rect", { x: left + 0.5, y: top, width: Math.max(1, width - 1), height: Math.max(1, Math.abs(Y(0) - Y(series.y[i]))), fill: ink(series, index) }));
    });
  }
  if (series.line) {
    let d = "", pen = "M";
    series.x.forEach((x, i) => {
      if (seen(i)) [d, pen] = [d + `${pen}${X(x).toFixed(1)},${Y(series.y[i]).toFixed(1)}`, "L"];
      else pen = "M";
    });
    group.append(svg("path", { class: "line", d, stroke: ink(series, index), "stroke-dasharray": DASHES[series.dash ?? index % 6], "stroke-opacity": series.faint ? 0.4 : 1, "stroke-width": series.faint ? 1.2 : 2 }));
  }
  if (series.points) {
    const size = series.size ?? (series.x.length > 60 ? 2.6 : 4);
    series.x.forEach((x, i) => {
      if (seen(i)) group.append(shape(shapeOf(series, index), X(x), Y(series.y[i]), size, { ...paint(series, index), "fill-opacity": series.x.length > 60 ? 0.65 : 1 }));
    });
  }
}

function keyOf(spec) {
  const key = element("div", { className: "key" });
  spec.series.forEach((series, index) => {
    if (!series.name || spec.series.length === 1) return;
    const sample = svg("svg", { viewBox: "0 0 30 12", "aria-hidden": "true" });
    if (series.line) sample.append(svg("line", { x1: 1, x2: 29, y1: 6, y2: 6, stroke: ink(series, index), "stroke-width": 2, "stroke-dasharray": DASHES[series.dash ?? index % 6] }));
    if (series.bars) sample.append(svg("rect", { x: 9, y: 1, width: 10, height: 10, fill: ink(series, index) }));
    if (series.points) sample.append(shape(shapeOf(series, index), 15, 6, 4, paint(series, index)));
    key.append(element("span", {}, sample, series.name));
  });
  return key;
}

function tableOf(spec) {
  const table = element("table");
  for (const series of spec.series) {
    table.append(element("tr", {}, element("th", { textContent: spec.x_label }), element("th", { textContent: series.name || spec.y_label })));
    series.x.forEach((x, i) => table.append(element("tr", {}, element("td", { textContent: spec.x_names?.[x] ?? figure3(x) }), element("td", { textContent: figure3(series.y[i]) }))));
  }
  return table;
}

function chart(spec) {
  const plot = element("div", { className: "plot" }), tip = element("div", { className: "tip", hidden: true });
  const details = element("details", {}, element("summary", { textContent: "Values" }));
  details.addEventListener("toggle", () => details.open && details.childElementCount === 1 && details.append(element("div", {}, tableOf(spec))));
  const made = element("figure", { id: spec.id }, element("h3", { textContent: spec.title }), keyOf(spec), plot, element("figcaption", { textContent: spec.meaning }), details);
  const dots = spec.series.flatMap((series, s) => series.x.map((x, i) => ({ s, i, x, y: series.y[i], series }))).filter((dot) => dot.y !== null && !dot.series.silent);
  let view = null, at = -1;

  function show(index) {
    at = index;
    view.root.querySelectorAll(".cross").forEach((old) => old.remove());
    tip.hidden = index < 0;
    if (index < 0) return;
    const dot = dots[index], x = view.X(dot.x), y = view.Y(dot.y);
    view.root.append(shape("circle", x, y, 6, { class: "cross", fill: "none", "stroke-width": 1.6 }));
    if (spec.kind === "lines") view.root.append(svg("line", { class: "cross", x1: x, x2: x, y1: view.place.top, y2: view.place.bottom, "stroke-opacity": 0.4 }));
    // In a chart of lines every line has its say at this x.
    const where = spec.x_names?.[dot.x] ?? `${spec.x_label} ${figure3(dot.x)}`;
    const said = spec.kind === "lines" ? dots.filter((other) => other.x === dot.x) : [dot];
    tip.replaceChildren(element("div", { textContent: spec.kind === "lines" ? where : `${figure3(dot.x)}, ${figure3(dot.y)}` }));
    for (const { series, i, y: value } of said) {
      const note = series.notes?.[i];
      tip.append(element("div", {}, series.name ? `${series.name} ` : "", element("b", { textContent: spec.kind === "lines" ? figure3(value) : "" }), note ? ` ${note}` : ""));
    }
    const scale = view.root.getBoundingClientRect().width / view.width;
    tip.style.left = `${Math.max(0, Math.min(x * scale + 12, plot.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, y * scale - tip.offsetHeight - 12)}px`;
  }

  function nearest(event) {
    const box = view.root.getBoundingClientRect(), scale = view.width / box.width;
    const [px, py] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const weight = spec.kind === "lines" ? 0.05 : 1;
    let best = -1, least = Infinity;
    dots.forEach((dot, index) => {
      const distance = (view.X(dot.x) - px) ** 2 + weight * (view.Y(dot.y) - py) ** 2;
      if (distance < least) [best, least] = [index, distance];
    });
    show(best);
  }

  function draw() {
    const width = Math.max(280, Math.round(plot.clientWidth));
    if (view?.width === width) return;
    view = { ...drawn(spec, width), width };
    plot.replaceChildren(view.root, tip);
    tip.hidden = true;
    view.root.addEventListener("pointermove", nearest);
    view.root.addEventListener("pointerdown", nearest);
    view.root.addEventListener("pointerleave", () => show(-1));
    view.root.addEventListener("blur", () => show(-1));
    view.root.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.shiftKey || !dots.length) return;
      show((at + step + dots.length) % dots.length);
      event.preventDefault();
      event.stopPropagation();
    });
  }

  new ResizeObserver(draw).observe(plot);
  return made;
}
