// A layer in full: its choice, its components, and every event with its price.

const sheet = el("dialog", { "aria-labelledby": "sheet-title" });
sheet.addEventListener("click", (event) => { if (event.target === sheet) sheet.close(); });

function openSheet(name) {
  const row = rowOf.get(name);
  if (!row) return;
  const parts = componentOrder.filter((part) => row.components[part]).sort((a, b) => row.components[b] - row.components[a]);
  const most = Math.max(...parts.map((part) => row.components[part]), Number.MIN_VALUE);
  const bars = parts.map((part) => el("div", { class: "bar" }, el("span", { class: "name" }, part),
    el("span", { class: "stack" }, el("span", { style: { width: percent(row.components[part] / most, 2), background: componentColour(part) } })),
    exact(row.components[part], energy(row.components[part])), el("span", { class: "share" }, percent(row.components[part] / (row.energy_pj || 1)))));
  const prices = sections.pricing.prices;
  const events = Object.entries(row.events).map(([action, n]) => ({ action, n, each: prices[action].energy_pj, source: prices[action].source }));
  events.sort((a, b) => b.n * b.each - a.n * a.each);
  const columns = [
    { name: "Event", value: (e) => e.action, cell: (e) => tip(el("code", {}, e.action), () => [e.action, {}, e.source]) },
    { name: "Count", value: (e) => e.n, cell: (e) => exact(e.n, whole(e.n)), number: true },
    { name: "pJ each", value: (e) => e.each, cell: (e) => exact(e.each, e.each.toPrecision(3)), number: true },
    { name: "Energy", value: (e) => e.n * e.each, cell: (e) => energy(e.n * e.each), number: true },
  ];
  const fact = (k, v) => [el("dt", {}, k), el("dd", {}, v)];
  const options = Object.entries(row.options).map(([k, v]) => `${k} ${v}`).join(", ");
  const point = sections.roofline && sections.roofline.layers[name];
  sheet.replaceChildren(el("div", { class: "inner" },
    el("header", {}, el("div", {}, el("h2", { id: "sheet-title" }, row.name), el("p", { class: "soft" }, `${row.kind}, ${row.operator} ${bitsText(row.bits)} on ${row.core}`)),
      el("button", { class: "tool", type: "button", "aria-label": "close", click: () => sheet.close() }, "\u2715")),
    el("dl", { class: "facts" },
      fact("Energy", exact(row.energy_pj, `${energy(row.energy_pj)}, ${percent(row.energy_pj / (totals.energy_pj || 1))} of the network`)),
      fact("Latency", exact(row.latency_ns, `${time(row.latency_ns)} busy, from ${time(row.start_ns)} to ${time(row.end_ns)}`)),
      fact("Work", `${whole(row.macs)} multiply-accumulates${row.macs ? `, ${(row.energy_pj / row.macs).toPrecision(3)} pJ each` : ""}`),
      point && point.peak_macs_per_ns ? fact("Speed", `${count(row.macs / row.latency_ns)} MACs/ns, ${percent(row.macs / row.latency_ns / point.peak_macs_per_ns, 0)} of the core's peak`) : [],
      options ? fact("Options", options) : [],
      row.score === null ? [] : fact("Score", exact(row.score, plain(row.score, 4)))),
    el("div", {}, el("h3", {}, "Components"), el("div", { class: "bars" }, bars)),
    el("div", {}, el("h3", {}, "Events"), sortable(events, columns, `events of ${row.name}`))));
  if (!sheet.open) sheet.showModal();
  sheet.scrollTop = 0;
  tipBox.hidden = true;
}
