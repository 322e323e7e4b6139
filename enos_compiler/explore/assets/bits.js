// Heat map: bits of every layer, one column a point of the front.

const HEAT = { row: 17, least: 15, most: 44, label: 190, top: 20 };

function drawBits(which, width) {
  const label = Math.min(HEAT.label, width / 3);
  const side = Math.max(HEAT.least, Math.min(HEAT.most, (width - label) / points.length));
  const whole = label + side * points.length;
  const height = HEAT.top + HEAT.row * layers.length;
  const cells = points.map((point, i) => layers.map((name, j) => {
    const bits = point.bits[name][which];
    const x = label + i * side;
    const y = HEAT.top + j * HEAT.row;
    return tip(svg("g", { class: "cell", "data-cell": `${i} ${j}`, click: () => choose(i) },
      svg("rect", { x, y, width: side - 1, height: HEAT.row - 1, style: { fill: bitsFill(bits) } }),
      svg("text", { x: x + side / 2, y: y + 12, "text-anchor": "middle", style: { fill: bitsInk(bits), "font-size": "10px" } }, String(bits))),
    () => [name, { point: String(i), "activation bits": String(point.bits[name][0]), "weight bits": String(point.bits[name][1]) }]);
  }));
  const names = layers.map((name, j) => svg("text", { x: label - 8, y: HEAT.top + j * HEAT.row + 12, "text-anchor": "end", class: "soft" }, svg("title", {}, name), ending(name, label - 8)));
  const numbers = points.map((_, i) => svg("text", { x: label + (i + 0.5) * side, y: 13, "text-anchor": "middle", class: i === chosen.number ? "" : "soft", style: { "font-size": "10px", "font-weight": i === chosen.number ? 700 : 400 } }, String(i)));
  const frame = svg("rect", { x: label + chosen.number * side - 0.5, y: HEAT.top - 1, width: side, height: height - HEAT.top + 1, style: { fill: "none", stroke: "var(--accent)", "stroke-width": 2 } });
  return svg("svg", { width: whole, height, viewBox: `0 0 ${whole} ${height}`, style: { width: `${whole}px` }, role: "img", "aria-label": "bits of each layer along the front" }, numbers, names, cells, frame);
}

function bitsSection() {
  const view = { which: "1", width: 0 };
  const frame = el("div", { class: "scroll whole" });
  const draw = () => { if (view.width) frame.replaceChildren(drawBits(Number(view.which), view.width)); };
  const controls = segments("Bits of", { 1: "Weights", 0: "Activations" }, view.which, (key) => { view.which = key; draw(); });
  const legend = el("div", { class: "legend" }, Array.from({ length: MOST_BITS - LEAST_BITS + 1 }, (_, i) => LEAST_BITS + i).map((bits) =>
    el("span", { class: "key" }, el("span", { class: "swatch", style: { background: bitsFill(bits) } }), `${bits} bits`)));
  const node = card("bits", "Bits of each layer along the front", `A column a point, from best to worst ${OBJECTIVES[front.objectives[0]][0].toLowerCase()}; a row a layer, as it runs.`, controls, legend, frame);
  onWidth(frame, (width) => { view.width = width; draw(); });
  onChoice(draw);
  return node;
}
