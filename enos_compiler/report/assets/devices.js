// Accuracy on crossbars with everything that is wrong with them: a dot per sampled device.

const DEVICES = { height: 128, side: 26, top: 40, dot: 5 };

/** The section of an evaluation on devices, if it is whole. */
function deviceStudy() {
  const found = sections.devices;
  const numbers = found && ["accuracy", "low", "high", "ideal", "confidence", "images"].every((key) => typeof found[key] === "number");
  return numbers && Array.isArray(found.devices) ? found : null;
}

/** Lifts dots that would touch into rows, each in the lowest that is free. */
function stacked(xs) {
  const ends = [];
  return [...xs].sort((a, b) => a - b).map((x) => {
    let row = ends.findIndex((end) => x - end >= 2 * DEVICES.dot);
    if (row < 0) row = ends.push(0) - 1;
    ends[row] = x;
    return { x, row };
  });
}

function drawDevices(study, width) {
  const values = [...study.devices, study.ideal, study.low, study.high, ...(report.accuracy ? [report.accuracy.reference] : [])];
  const pad = 0.06 * (Math.max(...values) - Math.min(...values) || 0.01);
  const [low, high] = [Math.min(...values) - pad, Math.max(...values) + pad];
  const x = (v) => DEVICES.side + ((v - low) / (high - low)) * (width - 2 * DEVICES.side);
  const dots = stacked(study.devices.map(x));
  const base = DEVICES.top + 2 * DEVICES.dot * Math.max(3, ...dots.map((d) => d.row + 1));
  const mark = (v, fill, text) => tip(svg("g", {}, svg("line", { x1: x(v), x2: x(v), y1: 22, y2: base, style: { stroke: fill, "stroke-width": 2 } }),
    svg("text", { class: "halo", x: x(v), y: 14, "text-anchor": x(v) > width / 2 ? "end" : "start", style: { fill } }, `${text} ${percent(v, 2)}`)),
  () => [text, { accuracy: percent(v, 2) }]);
  return svg("svg", { height: base + 26, viewBox: `0 0 ${width} ${base + 26}`, role: "img", "aria-label": `accuracy ${percent(study.accuracy, 2)}, between ${percent(study.low, 2)} and ${percent(study.high, 2)}` },
    tip(svg("rect", { x: x(study.low), y: 22, width: Math.max(1, x(study.high) - x(study.low)), height: base - 22, style: { fill: colour(1, 3), opacity: 0.45 } }),
      () => ["new devices and new images", { mean: percent(study.accuracy, 2), from: percent(study.low, 2), to: percent(study.high, 2) }, `${percent(study.confidence, 0)} confidence`]),
    niceTicks(low, high, Math.max(2, Math.floor(width / 90))).map((t) => svg("text", { class: "soft", x: x(t), y: base + 18, "text-anchor": "middle" }, percent(t, high - low < 0.02 ? 2 : 1))),
    svg("line", { class: "gridline", x1: DEVICES.side, x2: width - DEVICES.side, y1: base, y2: base }),
    mark(study.ideal, "var(--f0-1)", "nothing wrong"),
    dots.map((d) => svg("circle", { class: "device", cx: d.x, cy: base - DEVICES.dot - 2 * DEVICES.dot * d.row, r: DEVICES.dot - 0.5, style: { fill: colour(4, 1), "fill-opacity": 0.85 } })));
}

function devicesSection() {
  const study = deviceStudy();
  if (!study) return null;
  const frame = el("div", {});
  const n = study.devices.length;
  const node = card("devices", "On devices as they are",
    `${percent(study.accuracy, 2)} on average; between ${percent(study.low, 2)} and ${percent(study.high, 2)} with ${percent(study.confidence, 0)} confidence. ${whole(n)} sampled device${n === 1 ? "" : "s"}, ${whole(study.images)} images.`, null, frame);
  onWidth(frame, (width) => frame.replaceChildren(drawDevices(study, width)));
  return node;
}
