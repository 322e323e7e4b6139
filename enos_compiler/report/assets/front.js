// Accuracy against energy, where a pass reports a front.

/** Points that a section reports under `key`: {energy_pj, validation_accuracy, budget?}. */
function pointsOf(section, key) {
  const points = Array.isArray(section[key]) ? section[key] : [];
  return points.filter((p) => p && typeof p.energy_pj === "number" && typeof p.validation_accuracy === "number")
    .map((p) => ({ energy_pj: p.energy_pj, accuracy: p.validation_accuracy, budget: typeof p.budget === "string" ? p.budget : null }));
}

/** The networks that a search measured: those of a sweep of budgets, and draws of a posterior. */
function frontPoints() {
  for (const [pass, section] of Object.entries(sections)) {
    const front = pointsOf(section, "front");
    const drawn = pointsOf(section, "posterior");
    if (front.length + drawn.length > 1) return { pass, front, drawn };
  }
  return null;
}

function drawFront({ front, drawn }, width) {
  const points = [...front, ...drawn];
  const here = report.accuracy && { budget: null, energy_pj: totals.energy_pj, accuracy: report.accuracy.compiled };
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
  const ordered = [...front].sort((a, b) => a.energy_pj - b.energy_pj);
  const line = svg("polyline", { points: ordered.map((p) => `${x(p.energy_pj)},${y(p.accuracy)}`).join(" "), style: { fill: "none", stroke: "var(--f0-2)", "stroke-width": 2 } });
  const dot = (p, fill, r, title) => tip(svg("circle", { cx: x(p.energy_pj), cy: y(p.accuracy), r, tabindex: 0, style: { fill, stroke: "var(--card)", "stroke-width": 1.5 } }),
    () => [title, { energy: energy(p.energy_pj), accuracy: percent(p.accuracy, 2), ...(p.budget ? { budget: p.budget } : {}) }]);
  return svg("svg", { height: ROOF.height, viewBox: `0 0 ${width} ${ROOF.height}` }, grid, line,
    drawn.map((p) => dot(p, "var(--f6-2)", 4, "drawn from the posterior")),
    ordered.map((p) => dot(p, "var(--f0-1)", 5, "best under its budget")),
    here ? [dot(here, "var(--f1-1)", 7, "this network, on test data")] : []);
}

function frontSection() {
  const found = frontPoints();
  if (!found) return null;
  const frame = el("div", {});
  const key = (fill, text) => el("span", { class: "key" }, swatch(fill), text);
  const legend = el("div", { class: "legend" },
    found.front.length ? key("var(--f0-1)", "best under a budget") : null,
    found.drawn.length ? key("var(--f6-2)", "drawn from the posterior") : null,
    report.accuracy ? key("var(--f1-1)", "this network, on test data") : null);
  const n = found.front.length + found.drawn.length;
  const node = card("front", "Accuracy against energy", `${n} networks that ${found.pass} measured on validation data, before any fine-tuning.`, null, legend, frame);
  onWidth(frame, (width) => frame.replaceChildren(drawFront(found, width)));
  return node;
}
