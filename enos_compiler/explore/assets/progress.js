// How the search went: the hypervolume after each generation.

const CURVE = { height: 230, left: 62, right: 18, top: 12, bottom: 44 };

function drawProgress(values, width) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = 0.08 * (high - low || Math.abs(high) || 1);
  const [y0, y1] = [low - pad, high + pad];
  const right = width - CURVE.right;
  const bottom = CURVE.height - CURVE.bottom;
  const last = Math.max(1, values.length - 1);
  const x = (i) => CURVE.left + (i / last) * (right - CURVE.left);
  const y = (v) => bottom - ((v - y0) / (y1 - y0)) * (bottom - CURVE.top);
  return svg("svg", { height: CURVE.height, viewBox: `0 0 ${width} ${CURVE.height}`, role: "img", "aria-label": `hypervolume from ${values[0].toFixed(4)} to ${values[values.length - 1].toFixed(4)}` },
    niceTicks(y0, y1, 4).map((t) => [svg("line", { class: "gridline", x1: CURVE.left, x2: right, y1: y(t), y2: y(t) }), svg("text", { class: "soft", x: CURVE.left - 8, y: y(t) + 4, "text-anchor": "end" }, t.toFixed(3))]),
    niceTicks(0, last, Math.max(2, Math.floor(width / 90))).filter(Number.isInteger).map((t) => svg("text", { class: "soft", x: x(t), y: bottom + 17, "text-anchor": "middle" }, String(t))),
    svg("text", { class: "soft", x: right, y: bottom + 36, "text-anchor": "end" }, "generation"),
    svg("polyline", { points: values.map((v, i) => `${x(i)},${y(v)}`).join(" "), style: { fill: "none", stroke: "var(--f0-1)", "stroke-width": 2 } }),
    values.map((v, i) => tip(svg("circle", { cx: x(i), cy: y(v), r: values.length > 80 ? 2.5 : 4, tabindex: 0, "data-generation": i, "data-value": v, style: { fill: "var(--f0-1)" } }),
      () => [`generation ${i}`, { hypervolume: v.toFixed(6) }])));
}

function progressSection() {
  const values = front.hypervolumes;
  if (values.length < 2) return null;
  const frame = el("div", {});
  const node = card("progress", "How the search went", "Hypervolume of all settings seen, as a share of the box that the uniform networks span; generation 0 is what the search started from.", null, frame);
  onWidth(frame, (width) => frame.replaceChildren(drawProgress(values, width)));
  return node;
}
