// What runs where: the network as a drawing that reads like text, line by line.

const LANE = 50;
const BOX = { width: 118, height: 38, small: 24 };
const STEP = 138;
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
function lines(layout, columns, step) {
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
    return { line, x: MARGIN + (r % columns) * step + BOX.width / 2, y: tops[line] + lane * LANE };
  };
  return { at, rank, height: y, right: MARGIN + (columns - 1) * step + BOX.width + 14 };
}

const curve = (a, b) => `M${a.x} ${a.y}C${(a.x + b.x) / 2} ${a.y} ${(a.x + b.x) / 2} ${b.y} ${b.x} ${b.y}`;

/** The path of an edge: points within a line join; where it wraps it leaves stubs at both margins. */
function edgePath(edge, place) {
  const first = place.rank.get(edge.from);
  const last = first + edge.lanes.length - 1;
  const half = BOX.width / 2;
  let path = "";
  for (let r = first; r < last; r++) {
    const a = place.at(r, edge.lanes[r - first]);
    const b = place.at(r + 1, edge.lanes[r + 1 - first]);
    const from = { x: a.x + half, y: a.y };
    const to = { x: b.x - half, y: b.y };
    if (r > first) path += `M${a.x - half} ${a.y}H${a.x + half}`;
    if (a.line === b.line) path += curve(from, to);
    else path += `M${from.x} ${from.y}H${place.right}M2 ${to.y}H${to.x}`;
  }
  return path;
}

function drawNode(name, position, light, colouring) {
  const info = nodeInfo(name);
  const big = info.kind === "layer";
  const height = big ? BOX.height : BOX.small;
  const fill = big ? colouring.fill(info.row) : "var(--raised)";
  const box = svg("rect", {
    x: position.x - BOX.width / 2, y: position.y - height / 2, width: BOX.width, height, rx: big ? 7 : 12,
    style: { fill, stroke: big ? null : "var(--line)" },
  });
  const ink = !big ? null : colouring.pale(info.row) ? "light-dark(#14171f, #fff)" : "light-dark(#fff, #10131a)";
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

function mapLegend(layout, colouring) {
  const many = layout.hidden !== 1;
  const hidden = layout.hidden ? el("span", {}, `${layout.hidden} operation${many ? "s" : ""} that cost${many ? "" : "s"} nothing ${many ? "are" : "is"} not drawn`) : null;
  const keys = colouring.legend().map(([fill, text]) => el("span", { class: "key" }, swatch(fill), text));
  const other = el("span", { class: "swatch", style: { background: "var(--raised)", border: "1px solid var(--f6-3)" } });
  return [keys, el("span", { class: "key" }, other, "vector or host operation"), hidden];
}

function mapSection() {
  const layout = data.layout;
  if (!layout || !sections.graph) return null;
  const frame = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "network graph" });
  const legend = el("div", { class: "legend" });
  const view = { colouring: COLOURINGS.core, width: 0 };
  const more = el("button", { class: "tool more", type: "button", click: () => { frame.classList.toggle("whole"); fold(); } });
  const fold = () => {
    if (frame.scrollHeight <= frame.clientHeight + 2 * LANE) frame.classList.add("whole", "slight");
    const folded = !frame.classList.contains("whole");
    more.hidden = frame.classList.contains("slight");
    more.textContent = folded ? "Show the whole network" : "Show less";
  };
  const draw = () => {
    if (!view.width) return;
    const columns = Math.max(1, Math.floor((view.width - 2 * MARGIN - BOX.width) / STEP) + 1);
    const step = columns > 1 ? Math.min(1.25 * STEP, (view.width - 2 * MARGIN - BOX.width) / (columns - 1)) : STEP;
    const place = lines(layout, columns, step);
    const paths = layout.edges.map((edge) => [edge, svg("path", { class: "link", d: edgePath(edge, place) })]);
    const light = (name) => paths.forEach(([edge, path]) => path.classList.toggle("lit", Boolean(name) && (edge.from === name || edge.to === name)));
    const boxes = layout.nodes.map((n) => drawNode(n.name, place.at(n.rank, n.lane), light, view.colouring));
    legend.replaceChildren(...mapLegend(layout, view.colouring).flat().filter(Boolean));
    if (frame.classList.contains("slight")) frame.classList.remove("whole", "slight");
    frame.replaceChildren(svg("svg", { height: place.height, viewBox: `0 0 ${view.width} ${place.height}` }, paths.map(([, path]) => path), boxes));
    fold();
  };
  const titles = Object.fromEntries(Object.entries(COLOURINGS).map(([key, { title }]) => [key, title]));
  const controls = segments("Colour", titles, "core", (key) => { view.colouring = COLOURINGS[key]; draw(); });
  const node = card("map", "What runs where",
    "The network in the order of its data, line by line; a box is a layer with operator and bits (input/weight/output).", controls, legend, frame, more);
  onWidth(frame, (width) => { view.width = width; draw(); });
  return node;
}
