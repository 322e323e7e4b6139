// How near each layer comes to what its core and the memories allow: log over log.

const ROOF = { left: 58, right: 14, top: 14, bottom: 46, height: 380 };

function rooflinePoints() {
  return report.layers.filter((row) => row.macs && row.latency_ns).map((row) => {
    const found = sections.roofline.layers[row.name];
    const memory = found && sections.roofline.memories[found.memory];
    if (!memory || !found.bytes) return null;
    const bandwidth = memory.bytes_per_ns;
    return { row, ...found, x: row.macs / found.bytes, y: row.macs / row.latency_ns, bandwidth };
  }).filter(Boolean);
}

/** The speed that a layer's core and its slowest memory allow, MACs per ns. */
const attainable = (p) => Math.min(p.peak_macs_per_ns ?? Infinity, p.bandwidth * p.x);

/** Roofs to draw: each bandwidth once, each core's highest peak. */
function roofs(points) {
  const slopes = new Map();
  for (const [name, memory] of Object.entries(sections.roofline.memories)) {
    if (!points.some((p) => p.memory === name)) continue;
    slopes.set(memory.bytes_per_ns, [...(slopes.get(memory.bytes_per_ns) || []), name]);
  }
  const peaks = new Map();
  for (const p of points) {
    if (p.peak_macs_per_ns) peaks.set(p.row.core, Math.max(peaks.get(p.row.core) || 0, p.peak_macs_per_ns));
  }
  return { slopes: [...slopes], peaks: [...peaks] };
}

function pointTip(p) {
  const limit = attainable(p);
  return [p.row.name, {
    "on": `${p.row.core}, ${p.row.operator} ${bitsText(p.row.bits)}`,
    "speed": `${count(p.y)} MACs/ns`,
    "of what is possible": Number.isFinite(limit) ? percent(p.y / limit, 0) : "\u2013",
    "MACs per byte": count(p.x),
    "slowest memory": p.memory,
  }];
}

function drawRoofline(points, width) {
  const { slopes, peaks } = roofs(points);
  const xs = points.map((p) => p.x);
  const ys = [...points.map((p) => p.y), ...peaks.map(([, peak]) => peak)];
  const xRange = [Math.min(...xs) / 2, Math.max(...xs) * 2];
  const yRange = [Math.min(...ys) / 2, Math.max(...ys) * 1.7];
  const inner = { w: width - ROOF.left - ROOF.right, h: ROOF.height - ROOF.top - ROOF.bottom };
  const scale = (range, from, to) => (v) => from + ((Math.log(v) - Math.log(range[0])) / (Math.log(range[1]) - Math.log(range[0]))) * (to - from);
  const x = scale(xRange, ROOF.left, ROOF.left + inner.w);
  const y = scale(yRange, ROOF.top + inner.h, ROOF.top);
  const right = ROOF.left + inner.w;
  const bottom = ROOF.top + inner.h;
  const inside = (range) => (t) => t >= range[0] && t <= range[1];
  const grid = [
    ...decades(...xRange).filter(inside(xRange)).map((t) => [svg("line", { class: "gridline", x1: x(t), x2: x(t), y1: ROOF.top, y2: bottom }), svg("text", { class: "soft", x: x(t), y: bottom + 17, "text-anchor": "middle" }, count(t))]),
    ...decades(...yRange).filter(inside(yRange)).map((t) => [svg("line", { class: "gridline", x1: ROOF.left, x2: right, y1: y(t), y2: y(t) }), svg("text", { class: "soft", x: ROOF.left - 8, y: y(t) + 4, "text-anchor": "end" }, count(t))]),
    svg("text", { class: "soft", x: ROOF.left + inner.w / 2, y: ROOF.height - 6, "text-anchor": "middle" }, "MACs per byte moved at the slowest memory"),
    svg("text", { class: "soft", x: 0, y: 0, transform: `translate(8 ${ROOF.top + inner.h / 2}) rotate(-90)`, "text-anchor": "middle" }, "MACs per ns"),
  ];
  const lines = peaks.map(([core, peak]) => [
    svg("line", { x1: ROOF.left, x2: right, y1: y(peak), y2: y(peak), style: { stroke: coreColour(core, 0), "stroke-width": 2 } }),
    svg("text", { class: "halo", x: right - 4, y: y(peak) - 6, "text-anchor": "end", style: { fill: coreColour(core, 0) } }, `${core} ${count(peak)} MACs/ns`),
  ]);
  const sloped = slopes.map(([rate, names]) => {
    const from = Math.max(xRange[0], yRange[0] / rate);
    const to = Math.min(xRange[1], yRange[1] / rate);
    if (from >= to) return [];
    const text = `${names.join(", ")} ${count(rate)} GB/s`;
    const slope = (Math.atan2(y(to * rate) - y(from * rate), x(to) - x(from)) * 180) / Math.PI;
    return [svg("line", { x1: x(from), y1: y(from * rate), x2: x(to), y2: y(to * rate), style: { stroke: "var(--f3-1)", "stroke-width": 2 } }),
      svg("text", { transform: `translate(${x(from)} ${y(from * rate)}) rotate(${slope.toFixed(2)})`, dx: 12, dy: -7, class: "halo", style: { fill: "var(--f3-0)" } }, text)];
  });
  const most = Math.max(...points.map((p) => p.row.energy_pj)) || 1;
  const dots = [...points].sort((a, b) => b.row.energy_pj - a.row.energy_pj).map((p) => tip(svg("circle", {
    class: "slot", cx: x(p.x), cy: y(p.y), r: 4 + 8 * Math.sqrt(p.row.energy_pj / most), tabindex: 0, role: "button", "aria-label": `${p.row.name}, ${count(p.y)} MACs per ns`,
    style: { fill: coreColour(p.row.core), "fill-opacity": 0.8, stroke: "var(--card)", cursor: "pointer" }, click: () => openSheet(p.row.name),
    keydown: (event) => { if (event.key === "Enter") openSheet(p.row.name); },
  }), () => pointTip(p)));
  return svg("svg", { height: ROOF.height, viewBox: `0 0 ${width} ${ROOF.height}` }, grid, lines.map(([line]) => line), sloped.map(([line]) => line || []), dots, lines.map(([, text]) => text), sloped.map(([, text]) => text || []));
}

function rooflineSection() {
  if (!sections.roofline) return null;
  const points = rooflinePoints();
  if (!points.length) return null;
  const used = [...new Set(points.map((p) => p.row.core))];
  const silent = used.filter((core) => !points.some((p) => p.row.core === core && p.peak_macs_per_ns));
  const frame = el("div", {});
  const legend = el("div", { class: "legend" }, used.map((core) => el("span", { class: "key" }, swatch(coreColour(core)), core)),
    silent.length ? el("span", {}, `no peak is stated for ${silent.join(", ")}`) : null);
  const node = card("roofline", "How near the roof",
    "A dot is a layer, its area its energy. Under the slope memory is the limit, under the flat line the core.", null, legend, frame);
  onWidth(frame, (width) => frame.replaceChildren(drawRoofline(points, width)));
  return node;
}
