// When each resource works: a lane per resource, zoom and pan, only what is in view is drawn.

const GANTT = { lane: 46, bar: 24, label: 17, axis: 24, least: 1.2 };
const OP_SHADES = { compute: 1, load: 2, store: 3, transfer: 1, vector: 1, host: 1 };

function slotColour(owner, op) {
  const shade = OP_SHADES[op] ?? 2;
  if (owner.kind === "layer" && rowOf.has(owner.name)) return coreColour(rowOf.get(owner.name).core, shade);
  if (owner.kind === "edge") return colour(6, 0);
  return colour(owner.kind === "host" ? 5 : 4, shade);
}

/** Ink that reads on a slot: dark on pale shades, and the other way round in the dark. */
const slotInk = (op) => ((OP_SHADES[op] ?? 2) < 2 ? "light-dark(#fff, #10131a)" : "light-dark(#14171f, #fff)");

/** Slots by resource as objects, in the order of their start. */
function lanesOf(timeline) {
  const lanes = timeline.resources.map((name) => ({ name, slots: [], busy: 0 }));
  for (const [resource, owner, op, start, end, busy, n] of timeline.slots) {
    const lane = lanes[resource];
    lane.slots.push({ owner: timeline.owners[owner], op: timeline.ops[op], start, end, busy, n });
    lane.busy += busy;
  }
  return lanes;
}

/** The first slot that ends behind `t`: slots of a lane do not overlap. */
function firstAt(slots, t) {
  let low = 0;
  let high = slots.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (slots[mid].end <= t) low = mid + 1;
    else high = mid;
  }
  return low;
}

/** Returns what to draw of a lane: slots in view, those below a pixel joined. */
function visible(slots, from, to, nsPerPixel) {
  const found = [];
  for (let i = firstAt(slots, from); i < slots.length && slots[i].start < to; i++) {
    const last = found[found.length - 1];
    const slot = slots[i];
    const thin = slot.end - slot.start < GANTT.least * nsPerPixel;
    if (last && last.thin && thin && slot.start - last.end < GANTT.least * nsPerPixel) {
      last.end = slot.end;
      last.count += 1;
    } else found.push({ slot, start: slot.start, end: slot.end, count: 1, thin });
  }
  return found;
}

const busyText = (share) => (share > 0 && share < 0.005 ? "<1%" : percent(share, 0));

function slotTip(lane, shown) {
  const slot = shown.slot;
  if (shown.count > 1) return [`${shown.count} slots on ${lane.name}`, { from: time(shown.start), to: time(shown.end) }, "zoom in to tell them apart"];
  const rows = { what: slot.op, from: time(slot.start), to: time(slot.end), busy: time(slot.busy) };
  if (slot.n > 1) rows.instructions = whole(slot.n);
  return [slot.owner.name, rows, slot.owner.kind === "layer" ? "" : slot.owner.kind];
}

function drawLane(lane, i, view, width) {
  const top = i * GANTT.lane;
  const perPixel = (view.to - view.from) / width;
  const x = (t) => (t - view.from) / perPixel;
  const label = `${lane.name}  `;
  const parts = [
    svg("text", { x: 0, y: top + 12, style: { "font-weight": 600 } }, label,
      svg("tspan", { class: "soft", style: { "font-weight": 400 } }, `busy ${busyText(view.span ? lane.busy / view.span : 0)}`)),
    svg("rect", { x: 0, y: top + GANTT.label, width, height: GANTT.bar, rx: 4, style: { fill: "var(--raised)" } }),
  ];
  for (const shown of visible(lane.slots, view.from, view.to, perPixel)) {
    const left = Math.max(0, x(shown.start));
    const wide = Math.max(1, Math.min(width, x(shown.end)) - left - (shown.thin ? 0 : 1));
    const fill = slotColour(shown.slot.owner, shown.slot.op);
    const open = shown.slot.owner.kind === "layer" && shown.count === 1 ? shown.slot.owner.name : null;
    parts.push(tip(svg("rect", { class: "slot", x: left, y: top + GANTT.label, width: wide, height: GANTT.bar, rx: Math.min(3, wide / 3), "data-owner": open, style: { fill } }), () => slotTip(lane, shown)));
    const text = wide > 46 ? ending(shown.slot.owner.name, wide - 10) : "";
    if (text) parts.push(svg("text", { x: left + 6, y: top + GANTT.label + 16, style: { fill: slotInk(shown.slot.op), "font-size": "11px", "pointer-events": "none" } }, text));
  }
  return parts;
}

function drawGantt(lanes, view, width) {
  const height = lanes.length * GANTT.lane + GANTT.axis;
  const bottom = lanes.length * GANTT.lane;
  const x = (t) => ((t - view.from) / (view.to - view.from)) * width;
  const grid = niceTicks(view.from, view.to, Math.max(2, Math.floor(width / 110))).map((t) => [
    svg("line", { class: "gridline", x1: x(t), x2: x(t), y1: GANTT.label, y2: bottom }),
    svg("text", { class: "soft", x: Math.min(x(t), width - 2), y: bottom + 14, "text-anchor": x(t) < 24 ? "start" : x(t) > width - 24 ? "end" : "middle" }, t === 0 ? "0" : time(t)),
  ]);
  const bound = view.bound > view.from && view.bound < view.to ? [
    svg("line", { x1: x(view.bound), x2: x(view.bound), y1: GANTT.label, y2: bottom, style: { stroke: "var(--bad)", "stroke-dasharray": "4 3" } }),
  ] : [];
  return svg("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "schedule" }, grid, lanes.map((lane, i) => drawLane(lane, i, view, width)), bound);
}

/** Wheel with ctrl, drag, pinch, double click and keys change the view. */
function steer(frame, view, redraw) {
  const clamp = () => {
    const span = Math.min(view.span, Math.max(view.span / 1e6, view.to - view.from));
    view.from = Math.min(Math.max(0, view.from), view.span - span);
    view.to = view.from + span;
    redraw();
  };
  const zoom = (factor, at = 0.5) => {
    const centre = view.from + at * (view.to - view.from);
    view.from = centre - (centre - view.from) / factor;
    view.to = centre + (view.to - centre) / factor;
    clamp();
  };
  const pan = (share) => {
    const by = share * (view.to - view.from);
    view.from += by;
    view.to += by;
    clamp();
  };
  const fit = () => { view.from = 0; view.to = view.span; redraw(); };
  const share = (event) => (event.clientX - frame.getBoundingClientRect().left) / frame.clientWidth;
  const held = new Map();
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), share(event));
  }, { passive: false });
  frame.addEventListener("dblclick", (event) => zoom(2, share(event)));
  frame.addEventListener("pointerdown", (event) => held.set(event.pointerId, { x: event.clientX, moved: 0 }));
  frame.addEventListener("pointermove", (event) => {
    const own = held.get(event.pointerId);
    if (!own) return;
    const by = event.clientX - own.x;
    if (held.size === 1) {
      own.moved += Math.abs(by);
      if (own.moved < 4) return;
      frame.classList.add("held");
      pan(-by / frame.clientWidth);
    } else {
      const other = [...held.entries()].find(([id]) => id !== event.pointerId)[1];
      const before = Math.abs(own.x - other.x);
      if (before > 8) zoom(Math.abs(event.clientX - other.x) / before, share(event));
    }
    own.x = event.clientX;
  });
  const release = (event) => {
    const own = held.get(event.pointerId);
    held.delete(event.pointerId);
    frame.classList.remove("held");
    const owner = event.type === "pointerup" && own && own.moved < 4 && event.target.closest("[data-owner]");
    if (owner) openSheet(owner.dataset.owner);
  };
  for (const kind of ["pointerup", "pointercancel", "pointerleave"]) frame.addEventListener(kind, release);
  frame.addEventListener("keydown", (event) => {
    const steps = { "+": () => zoom(2), "=": () => zoom(2), "-": () => zoom(0.5), 0: fit, ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), Home: () => pan(-1e9), End: () => pan(1e9) };
    if (!steps[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    steps[event.key]();
  });
  return { zoom, fit };
}

/** A thin picture of the whole, with the part in view marked. */
function drawStrip(lanes, view, width) {
  const shown = lanes.map((lane, i) => visible(lane.slots, 0, view.span, view.span / width).map((s) => svg("rect", {
    x: (s.start / view.span) * width, y: (i * 14) / lanes.length, width: Math.max(0.5, ((s.end - s.start) / view.span) * width),
    height: 14 / lanes.length, style: { fill: slotColour(s.slot.owner, s.slot.op), opacity: 0.55 },
  })));
  const x = (view.from / view.span) * width;
  const wide = ((view.to - view.from) / view.span) * width;
  return svg("svg", { class: "strip", viewBox: `0 0 ${width} 14`, "aria-hidden": "true" }, shown,
    svg("rect", { x, y: 0.5, width: Math.max(2, wide), height: 13, rx: 2, style: { fill: "none", stroke: "var(--ink)" } }));
}

function ganttSection() {
  const timeline = sections.timeline;
  const span = totals.latency_ns;
  if (!timeline || !timeline.slots.length || !span) return null;
  const lanes = lanesOf(timeline);
  const schedule = sections.schedule || {};
  const bound = typeof schedule.lower_bound_ns === "number" ? schedule.lower_bound_ns : 0;
  const view = { from: 0, to: span, span, bound: bound < 0.999 * span ? bound : 0 };
  const frame = el("div", { class: "gantt", tabindex: 0, role: "application", "aria-label": "schedule; plus and minus zoom, arrows move, 0 shows all" });
  const strip = el("div", {});
  let width = 0;
  let due = 0;
  const redraw = () => {
    if (due || !width) return;
    due = requestAnimationFrame(() => {
      due = 0;
      frame.replaceChildren(drawGantt(lanes, view, width));
      strip.replaceChildren(...(view.to - view.from < view.span ? [drawStrip(lanes, view, width)] : []));
    });
  };
  const { zoom, fit } = steer(frame, view, redraw);
  const controls = [
    el("button", { class: "tool", type: "button", "aria-label": "zoom out", click: () => zoom(0.5) }, "\u2212"),
    el("button", { class: "tool", type: "button", "aria-label": "zoom in", click: () => zoom(2) }, "+"),
    el("button", { class: "tool", type: "button", click: fit }, "Fit"),
  ];
  const against = bound ? ` No schedule of this assignment is shorter than ${time(bound)}${bound >= 0.999 * span ? ", which is reached" : " (dashed)"}.` : "";
  const frames = schedule.frames;
  const stream = frames ? ` In a stream of ${whole(frames.frames)} frames one follows every ${time(frames.interval_ns)}; ${frames.limit} allows no less.` : "";
  const node = card("schedule", "Who works when",
    `${whole(timeline.instructions)} instructions in ${time(span)}.${against}${stream} Drag to move, ctrl and wheel or + and \u2212 to zoom.`,
    controls, frame, strip);
  onWidth(frame, (w) => { width = w; redraw(); });
  return node;
}
