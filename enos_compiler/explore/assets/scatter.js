// The front: points over two of the objectives, the uniform networks beside them.

const PLOT = { height: 400, left: 92, right: 18, top: 16, bottom: 50 };

function sayPoint(point, title) {
  const rows = Object.fromEntries(known.map((name) => [OBJECTIVES[name][0].toLowerCase(), textOf(point, name)]));
  const tier = tierOf(point);
  const chip = Object.entries(point.chip || {}).map(([path, value]) => [path, String(value)]);
  return [title, { ...rows, ...(tier ? { measured: tier } : {}), from: point.origin, ...Object.fromEntries(chip) }, el("div", {}, "activation/weight bits", bitsList(point))];
}

/** An axis of `count` ticks: noise in decades, where it can be; `place` maps a value to 0..1. */
function axisOf(name, count) {
  const values = [...points, ...front.uniform].map((p) => p.objectives[name]);
  const logarithmic = name === "noise" && Math.min(...values) > 0;
  const of = logarithmic ? Math.log10 : (v) => v;
  const [low, high] = [of(Math.min(...values)), of(Math.max(...values))];
  const pad = 0.06 * (high - low || Math.abs(high) || 1);
  const ticks = logarithmic ? decades(10 ** (low - pad), 10 ** (high + pad)) : niceTicks(low - pad, high + pad, count);
  const place = (v) => (of(v) - low + pad) / (high - low + 2 * pad);
  return { place, ticks: ticks.filter((t) => place(t) >= 0 && place(t) <= 1) };
}

function drawScatter(axes, width) {
  const right = width - PLOT.right;
  const bottom = PLOT.height - PLOT.bottom;
  const across = axisOf(axes.x, Math.max(2, Math.floor(width / 130)));
  const up = axisOf(axes.y, 6);
  const x = (v) => PLOT.left + across.place(v) * (right - PLOT.left);
  const y = (v) => bottom - up.place(v) * (bottom - PLOT.top);
  const text = (name) => OBJECTIVES[name][1];
  const grid = [
    across.ticks.map((t) => [svg("line", { class: "gridline", x1: x(t), x2: x(t), y1: PLOT.top, y2: bottom }), svg("text", { class: "soft", x: x(t), y: bottom + 17, "text-anchor": "middle" }, text(axes.x)(t))]),
    up.ticks.map((t) => [svg("line", { class: "gridline", x1: PLOT.left, x2: right, y1: y(t), y2: y(t) }), svg("text", { class: "soft", x: PLOT.left - 8, y: y(t) + 4, "text-anchor": "end" }, text(axes.y)(t))]),
    svg("text", { class: "soft", x: right, y: bottom + 38, "text-anchor": "end" }, OBJECTIVES[axes.x][0]),
  ];
  const at = (p) => ({ cx: x(p.objectives[axes.x]), cy: y(p.objectives[axes.y]) });
  const ordered = [...points].sort((a, b) => a.objectives[axes.x] - b.objectives[axes.x]);
  const line = svg("polyline", { points: ordered.map((p) => `${at(p).cx},${at(p).cy}`).join(" "), style: { fill: "none", stroke: "var(--f0-3)", "stroke-width": 1.5 } });
  const uniform = front.uniform.map((p) => tip(svg("circle", { ...at(p), r: 5, tabindex: 0, style: { fill: "var(--card)", stroke: "var(--f1-1)", "stroke-width": 2 } }),
    () => sayPoint(p, `every layer at ${Object.values(p.bits)[0].join("/")} bits`)));
  const dots = points.map((p, i) => tip(svg("circle", {
    ...at(p), r: i === chosen.number ? 8 : 5, tabindex: 0, class: "dot", "data-point": i, "aria-label": `point ${i}`,
    click: () => choose(i), keydown: (event) => { if (event.key === "Enter") choose(i); },
    style: { fill: i === chosen.number ? "var(--accent)" : "var(--f0-1)", stroke: "var(--card)", "stroke-width": 1.5 },
  }), () => sayPoint(p, `point ${i}`)));
  return svg("svg", { height: PLOT.height, viewBox: `0 0 ${width} ${PLOT.height}`, role: "group", "aria-label": `${OBJECTIVES[axes.y][0]} over ${OBJECTIVES[axes.x][0]}` }, grid, line, uniform, dots);
}

function axisMenu(label, name, change) {
  return el("label", { class: "axis" }, label, el("select", { change: (event) => change(event.target.value) },
    known.map((key) => el("option", { value: key, selected: key === name }, OBJECTIVES[key][0]))));
}

function frontSection() {
  const [first, second] = front.objectives;
  const axes = { x: second, y: first };
  const frame = el("div", {});
  let width = 0;
  const draw = () => { if (width) frame.replaceChildren(drawScatter(axes, width)); };
  const key = (fill, ring, text) => el("span", { class: "key" }, el("span", { class: "swatch round", style: { background: fill, "border-color": ring } }), text);
  const legend = el("div", { class: "legend" }, key("var(--f0-1)", "var(--f0-1)", "on the front"), key("var(--accent)", "var(--accent)", "chosen"), key("transparent", "var(--f1-1)", "one width everywhere"));
  const controls = [axisMenu("Up", axes.y, (name) => { axes.y = name; draw(); }), axisMenu("Right", axes.x, (name) => { axes.x = name; draw(); })];
  const node = card("front", "The front", "Settings that no other beats in every objective. Choose one: the figures below are its own.", controls, legend, frame, commandLine());
  onWidth(frame, (now) => { width = now; draw(); });
  onChoice(draw);
  return node;
}

/** How the chosen point is compiled. */
function commandLine() {
  const line = el("code", {});
  onChoice((i) => line.replaceChildren(`enosc MODEL --target ${points[i].target} --bits front.json#${i}`));
  return el("p", { class: "command" }, "Compile point: ", line);
}
