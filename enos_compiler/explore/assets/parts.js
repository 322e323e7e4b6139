// Energy by memory and unit: the network at its widest beside the chosen point.

function partRow(name, before, after, top) {
  const bar = (value, fill) => el("span", { class: "beside", style: { width: percent(top ? value / top : 0, 3), background: fill } });
  const text = before ? change(after, before) : null;
  return tip(el("div", { class: "bar" }, el("span", { class: "name", title: name }, name), el("span", { class: "stack two" }, bar(before, "var(--f6-2)"), bar(after, "var(--f0-1)")),
    exact(after, energy(after), { "data-part": name, "data-before": String(before) }), el("span", { class: `share ${after <= before ? "" : "worse"}` }, text || "")),
  () => [name, { [`at ${Object.values(widest.bits)[0].join("/")}`]: energy(before), [`point ${chosen.number}`]: energy(after) }]);
}

function partsSection() {
  if (!widest || !Object.keys(widest.parts_pj).length || !points.length) return null;
  const bars = el("div", { class: "bars" });
  const total = (parts) => Object.values(parts).reduce((a, b) => a + b, 0);
  onChoice((i) => {
    const after = points[i].parts_pj;
    const names = [...new Set([...Object.keys(widest.parts_pj), ...Object.keys(after)])].sort((a, b) => (widest.parts_pj[b] || 0) - (widest.parts_pj[a] || 0));
    const top = Math.max(...names.map((n) => Math.max(widest.parts_pj[n] || 0, after[n] || 0)));
    const rows = names.map((n) => partRow(n, widest.parts_pj[n] || 0, after[n] || 0, top));
    const all = partRow("all", total(widest.parts_pj), total(after), total(widest.parts_pj));
    bars.replaceChildren(all, el("div", { class: "rule" }), ...rows);
  });
  const bits = Object.values(widest.bits)[0].join("/");
  const legend = el("div", { class: "legend" }, el("span", { class: "key" }, el("span", { class: "swatch", style: { background: "var(--f6-2)" } }), `every layer at ${bits} bits`), el("span", { class: "key" }, el("span", { class: "swatch", style: { background: "var(--f0-1)" } }), "chosen point"));
  const varied = points.some((p) => p.chip) ? " The first is on the first chip that was tried." : "";
  return card("parts", "Energy by memory and unit", `Of one inference, before it is scheduled.${varied}`, null, legend, bars);
}
