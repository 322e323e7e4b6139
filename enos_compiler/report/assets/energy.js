// Where the energy goes: a bar per layer, stacked by component.

const FEW_BARS = 28;

function totalBar() {
  const byCore = cores.map((core) => {
    const pj = report.layers.filter((row) => row.core === core).reduce((sum, row) => sum + row.energy_pj, 0);
    return [`layers on ${core}`, pj, coreColour(core)];
  });
  const parts = [...byCore, ...OTHER_PARTS.map(([key, name, fill]) => [name, totals[key], fill])].filter(([, pj]) => pj > 0);
  const bar = el("div", { class: "total", role: "img", "aria-label": parts.map(([n, pj]) => `${n} ${energy(pj)}`).join(", ") });
  const keys = el("div", { class: "legend" });
  for (const [name, pj, fill] of parts) {
    const share = totals.energy_pj ? pj / totals.energy_pj : 0;
    const say = () => [name, { energy: energy(pj), "of the total": percent(share, 2) }];
    bar.append(tip(el("span", { style: { flex: `${pj} 1 0`, background: fill } }), say));
    keys.append(el("span", { class: "key" }, swatch(fill), `${name} `, el("b", {}, energy(pj)), ` ${percent(share)}`));
  }
  return [bar, keys];
}

function barOf(name, value, share, spans, open, how) {
  const content = [el("span", { class: "name", title: name }, name, how ? el("span", { class: "soft" }, how) : null), el("span", { class: "stack" }, spans),
    exact(value, energy(value), { "data-row": name }), el("span", { class: "share" }, percent(share))];
  const label = `${name}, ${energy(value)}`;
  return open ? el("button", { class: "bar", type: "button", click: open, "aria-label": label }, content)
    : el("div", { class: "bar rest" }, content);
}

function layerBar(row, scale) {
  const total = totals.energy_pj || 1;
  const spans = componentOrder.filter((name) => row.components[name]).map((name) => {
    const pj = row.components[name];
    return tip(el("span", { "data-part": name, style: { width: percent(pj / scale, 3), background: componentColour(name) } }),
      () => [row.name, { [name]: energy(pj), "of the layer": percent(row.energy_pj ? pj / row.energy_pj : 0) },
        `${row.operator} ${bitsText(row.bits)} on ${row.core}`]);
  });
  return barOf(row.name, row.energy_pj, row.energy_pj / total, spans, () => openSheet(row.name), `${row.operator} ${bitsText(row.bits)}`);
}

function componentLegend(bars) {
  const light = (name) => {
    bars.classList.toggle("dim", Boolean(name));
    for (const span of bars.querySelectorAll(".lit")) span.classList.remove("lit");
    if (name) for (const span of bars.querySelectorAll(`[data-part="${CSS.escape(name)}"]`)) span.classList.add("lit");
  };
  return el("div", { class: "legend" }, [...families].map(([owner, parts]) => el("div", { class: "family" }, el("b", {}, owner),
    parts.map((name) => tip(el("button", {
      class: "key", type: "button", pointerenter: () => light(name), pointerleave: () => light(null),
      focus: () => light(name), blur: () => light(null),
    }, swatch(componentColour(name)), name.slice(owner.length + 1) || name),
    () => [name, { "over all layers": energy(componentTotals.get(name)) }])))));
}

function energySection() {
  const bars = el("div", { class: "bars" });
  const others = OTHER_PARTS.filter(([key]) => totals[key] > 0);
  const top = Math.max(...report.layers.map((row) => row.energy_pj), ...others.map(([key]) => totals[key]), Number.MIN_VALUE);
  const view = { order: "flow", scale: "pj", all: false };
  const more = el("button", { class: "tool more", type: "button", click: () => { view.all = !view.all; draw(); } });
  const draw = () => {
    let rows = [...report.layers];
    const many = rows.length > FEW_BARS;
    const largest = [...rows].sort((a, b) => b.energy_pj - a.energy_pj);
    if (view.order === "size") rows = largest;
    if (many && !view.all) {
      const kept = new Set(largest.slice(0, FEW_BARS));
      rows = rows.filter((row) => kept.has(row));
    }
    more.hidden = !many;
    more.textContent = view.all ? `Show the ${FEW_BARS} largest` : `Show all ${report.layers.length} layers`;
    bars.replaceChildren(...rows.map((row) => layerBar(row, view.scale === "pj" ? top : row.energy_pj || 1)));
    const shown = new Set(rows);
    const left = report.layers.filter((row) => !shown.has(row));
    if (left.length) {
      const pj = left.reduce((sum, row) => sum + row.energy_pj, 0);
      bars.append(barOf(`${left.length} smaller layers`, pj, pj / (totals.energy_pj || 1), [], null, "together, not to scale"));
    }
    if (others.length) bars.append(el("div", { class: "rule" }));
    for (const [key, name, fill] of others) {
      const width = view.scale === "pj" ? totals[key] / top : 1;
      bars.append(barOf(name, totals[key], totals[key] / (totals.energy_pj || 1),
        [el("span", { style: { width: percent(width, 3), background: fill } })], null));
    }
  };
  draw();
  addEventListener("beforeprint", () => { view.all = true; draw(); });
  const controls = [
    segments("Order", { flow: "As it runs", size: "Largest first" }, "flow", (key) => { view.order = key; draw(); }),
    segments("Scale", { pj: "Energy", share: "Make-up" }, "pj", (key) => { view.scale = key; draw(); }),
  ];
  const node = card("energy", "Where the energy goes",
    "Every bar is events times price; a colour is a core or memory, its shade a component. Choose a layer for its events.",
    controls, totalBar(), componentLegend(bars), bars, more);
  node.classList.add("long");
  return node;
}
