// Accuracy against energy, where a pass reports a front.

/** Points of any section's `front`: [{energy_pj, accuracy}], the form that searches report. */
function frontPoints() {
  for (const [pass, section] of Object.entries(sections)) {
    const points = Array.isArray(section.front) ? section.front : [];
    const good = points.filter((p) => p && typeof p.energy_pj === "number" && typeof p.accuracy === "number");
    if (good.length > 1) return [pass, good];
  }
  return null;
}

function drawFront(points, width) {
  const here = report.accuracy && { energy_pj: totals.energy_pj, accuracy: report.accuracy.compiled };
  const everything = here ? [...points, here] : points;
  const range = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = 0.08 * (high - low || Math.abs(high) || 1);
    return [low - pad, high + pad];
  };
  const [x0, x1] = range(everything.map((p) => p.energy_pj));
  const [y0, y1] = range(everything.map((p) => p.accuracy));
  const right = width - ROOF.right;
  const bottom = ROOF.height - ROOF.bottom;
  const x = (v) => ROOF.left + ((v - x0) / (x1 - x0)) * (right - ROOF.left);
  const y = (v) => bottom - ((v - y0) / (y1 - y0)) * (bottom - ROOF.top);
  const grid = [
    niceTicks(x0, x1, Math.max(2, Math.floor(width / 120))).map((t) => [svg("line", { class: "gridline", x1: x(t), x2: x(t), y1: ROOF.top, y2: bottom }), svg("text", { class: "soft", x: x(t), y: bottom + 17, "text-anchor": "middle" }, energy(t))]),
    niceTicks(y0, y1, 5).map((t) => [svg("line", { class: "gridline", x1: ROOF.left, x2: right, y1: y(t), y2: y(t) }), svg("text", { class: "soft", x: ROOF.left - 8, y: y(t) + 4, "text-anchor": "end" }, percent(t))]),
  ];
  const ordered = [...points].sort((a, b) => a.energy_pj - b.energy_pj);
  const line = svg("polyline", { points: ordered.map((p) => `${x(p.energy_pj)},${y(p.accuracy)}`).join(" "), style: { fill: "none", stroke: "var(--f0-2)", "stroke-width": 2 } });
  const dot = (p, fill, r, title) => tip(svg("circle", { cx: x(p.energy_pj), cy: y(p.accuracy), r, tabindex: 0, style: { fill, stroke: "var(--card)", "stroke-width": 2 } }),
    () => [title, { energy: energy(p.energy_pj), accuracy: percent(p.accuracy, 2) }]);
  return svg("svg", { height: ROOF.height, viewBox: `0 0 ${width} ${ROOF.height}` }, grid, line,
    ordered.map((p) => dot(p, "var(--f0-1)", 5, "on the front")), here ? [dot(here, "var(--f1-1)", 7, "this network")] : []);
}

function frontSection() {
  const found = frontPoints();
  if (!found) return null;
  const frame = el("div", {});
  const node = card("front", "Accuracy against energy", `${found[1].length} networks that ${found[0]} found; the larger dot is this one.`, null, frame);
  onWidth(frame, (width) => frame.replaceChildren(drawFront(found[1], width)));
  return node;
}
