// What runs where: the network as a drawing that reads like text, line by line.

const LANE = 50;
const BOX = { width: 118, height: 38, small: 24 };
const STEP = 140;
const MARGIN = 16;

function nodeInfo(name) {
  const row = rowOf.get(name);
  if (row) return { kind: "layer", row, core: row.core, first: name, second: `${row.operator} ${bitsText(row.bits)}` };
  const op = operationOf.get(name);
  const node = (sections.graph.nodes || []).find((n) => n.name === name);
  if (node) return { kind: "operation", row: op, core: node.core, first: node.op.replaceAll("_", " "), second: "" };
  return { kind: "input", row: null, core: null, first: name, second: "" };
}

function nodeTip(name, info) {
  if (info.kind === "layer") {
    return [name, { operator: info.row.operator, core: info.core, bits: bitsText(info.row.bits), energy: energy(info.row.energy_pj), latency: time(info.row.latency_ns) }];
  }
  if (!info.row) return [name, {}, info.kind === "input" ? "network input" : ""];
  return [name, { operation: info.row.op, on: info.core, energy: energy(info.row.energy_pj), latency: time(info.row.latency_ns) }];
}

/** Cuts ranks into lines of `columns`; returns the top of each and where a point lies. */
function lines(layout, columns) {
  const spans = new Map();
  const widen = (rank, lane) => {
    const line = Math.floor(rank / columns);
    const [low, high] = spans.get(line) || [lane, lane];
    spans.set(line, [Math.min(low, lane), Math.max(high, lane)]);
  };
  const rank = new Map(layout.nodes.map((n) => [n.name, n.rank]));
  for (const n of layout.nodes) widen(n.rank, n.lane);
  for (const e of layout.edges) e.lanes.forEach((lane, i) => widen(rank.get(e.from) + i, lane));
  const tops = [];
  let y = MARGIN;
  for (let line = 0; spans.has(line); line++) {
    const [low, high] = spans.get(line);
    tops.push(y - low * LANE + BOX.height / 2);
    y += (high - low) * LANE + BOX.height + 30;
  }
  y -= 30 - MARGIN / 2;
  const at = (r, lane) => {
    const line = Math.floor(r / columns);
    return { line, x: MARGIN + (r % columns) * STEP + BOX.width / 2, y: tops[line] + lane * LANE };
  };
  return { at, rank, height: y };
}

const curve = (a, b) => `M${a.x} ${a.y}C${(a.x + b.x) / 2} ${a.y} ${(a.x + b.x) / 2} ${b.y} ${b.x} ${b.y}`;

/** Paths of an edge: [whole path, whether it wraps]. Points within a line join; a wrap leaves stubs. */
function edgePaths(edge, place, columns) {
  const first = place.rank.get(edge.from);
  const last = first + edge.lanes.length - 1;
  const half = BOX.width / 2;
  const right = MARGIN + columns * STEP - (STEP - BOX.width) + 14;
  let path = "";
  let wrapped = "";
  for (let r = first; r < last; r++) {
    const a = place.at(r, edge.lanes[r - first]);
    const b = place.at(r + 1, edge.lanes[r + 1 - first]);
    const from = { x: a.x + half, y: a.y };
    const to = { x: b.x - half, y: b.y };
    if (r > first) path += `M${a.x - half} ${a.y}H${a.x + half}`;
    if (a.line === b.line) path += curve(from, to);
    else {
      path += `M${from.x} ${from.y}H${right}M${2} ${to.y}H${to.x}`;
      wrapped += `M${right} ${from.y}h1`;
    }
  }
  return [path, wrapped];
}

function drawNode(name, position, light) {
  const info = nodeInfo(name);
  const big = info.kind === "layer";
  const height = big ? BOX.height : BOX.small;
  const fill = big ? coreColour(info.core) : "var(--raised)";
  const box = svg("rect", {
    x: position.x - BOX.width / 2, y: position.y - height / 2, width: BOX.width, height, rx: big ? 7 : 12,
    style: { fill, stroke: big ? null : "var(--line)" },
  });
  const ink = big ? "light-dark(#fff, #10131a)" : null;
  const label = (text, dy, size, opacity) => svg("text", {
    x: position.x, y: position.y + dy, "text-anchor": "middle", style: { fill: ink, "font-size": `${size}px`, "font-weight": big && !opacity ? "600" : null, opacity: opacity || null },
  }, fitted(text, BOX.width - 10));
  const texts = big ? [label(info.first, -3, 11.5), label(info.second, 11, 11, 0.92)] : [label(info.first, 4, 11)];
  const open = big ? () => openSheet(name) : null;
  const node = svg("g", {
    class: "node", tabindex: big ? 0 : null, role: big ? "button" : null, "aria-label": big ? `${name}, ${info.second} on ${info.core}` : null,
    click: open, pointerenter: () => light(name), pointerleave: () => light(null), focus: () => light(name), blur: () => light(null),
    keydown: open && ((event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } }),
  }, box, texts);
  return tip(node, () => nodeTip(name, info));
}

function mapLegend(layout) {
  const used = cores.filter((core) => report.layers.some((row) => row.core === core));
  const hidden = layout.hidden ? el("span", {}, `${layout.hidden} operation${layout.hidden === 1 ? "" : "s"} that cost nothing ${layout.hidden === 1 ? "is" : "are"} not drawn`) : null;
  return el("div", { class: "legend" }, used.map((core) => el("span", { class: "key" }, swatch(coreColour(core)), `layer on ${core}`)),
    el("span", { class: "key" }, el("span", { class: "swatch", style: { background: "var(--raised)", border: "1px solid var(--f6-3)" } }), "vector or host operation"), hidden);
}

function mapSection() {
  const layout = data.layout;
  if (!layout || !sections.graph) return null;
  const frame = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "network graph" });
  const node = card("map", "What runs where",
    "The network in the order of its data, line by line; boxes are layers with operator and bits (input/weight/output), colours are cores.", null,
    mapLegend(layout), frame);
  onWidth(frame, (width) => {
    const columns = Math.max(1, Math.floor((width - 2 * MARGIN + STEP - BOX.width - 14) / STEP));
    const place = lines(layout, columns);
    const paths = [];
    const light = (name) => paths.forEach(([edge, path]) => path.classList.toggle("lit", Boolean(name) && (edge.from === name || edge.to === name)));
    const links = layout.edges.map((edge) => {
      const [whole] = edgePaths(edge, place, columns);
      const path = svg("path", { class: "link", d: whole });
      paths.push([edge, path]);
      return path;
    });
    const boxes = layout.nodes.map((n) => drawNode(n.name, place.at(n.rank, n.lane), light));
    frame.replaceChildren(svg("svg", { height: place.height, viewBox: `0 0 ${width} ${place.height}` }, links, boxes));
  });
  return node;
}
