// Tables that sort: the layers, what was refused, the prices.

/** Returns a table; a column is {name, value(row), cell(row), number}. Sorting is stable. */
function sortable(rows, columns, label, kind) {
  const body = el("tbody", {});
  const headers = columns.map((column, i) => {
    const press = () => {
      const descending = header.getAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : column.number;
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      fill(sorted(i, descending));
    };
    const header = el("th", { scope: "col", class: column.number ? "num" : null }, el("button", { type: "button", click: press }, column.name));
    return header;
  });
  const sorted = (i, descending) => {
    const sign = descending ? -1 : 1;
    const value = columns[i].value;
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    return [...rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * compare(x, y);
    });
  };
  const fill = (list) => body.replaceChildren(...list.map((row) => el("tr", {}, columns.map((column) =>
    el("td", { class: [column.number && "num", column.wide && "wide"].filter(Boolean).join(" ") || null }, column.cell ? column.cell(row) : String(column.value(row)))))));
  fill(rows);
  const table = el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, headers)), body);
  return el("div", { class: `table ${rows.length > 20 ? "tall" : ""} ${kind || ""}`, tabindex: 0, role: "region", "aria-label": label }, table);
}

function layersSection() {
  const total = totals.energy_pj || 1;
  const columns = [
    { name: "Layer", value: (r) => r.name, cell: (r) => el("button", { class: "asLink", type: "button", title: r.name, click: () => openSheet(r.name) }, r.name) },
    { name: "Kind", value: (r) => r.kind },
    { name: "Operator", value: (r) => r.operator },
    { name: "Core", value: (r) => r.core, cell: (r) => [swatch(coreColour(r.core)), ` ${r.core}`] },
    { name: "Bits in/w/out", value: (r) => r.bits.weight, cell: (r) => bitsText(r.bits), number: true },
    { name: "MACs", value: (r) => r.macs, cell: (r) => exact(r.macs, count(r.macs)), number: true },
    { name: "Energy", value: (r) => r.energy_pj, cell: (r) => exact(r.energy_pj, energy(r.energy_pj)), number: true },
    { name: "Share", value: (r) => r.energy_pj, cell: (r) => percent(r.energy_pj / total), number: true },
    { name: "Latency", value: (r) => r.latency_ns, cell: (r) => exact(r.latency_ns, time(r.latency_ns)), number: true },
    { name: "pJ per MAC", value: (r) => (r.macs ? r.energy_pj / r.macs : null), cell: (r) => (r.macs ? (r.energy_pj / r.macs).toPrecision(3) : "\u2013"), number: true },
    { name: "Score", value: (r) => r.score, cell: (r) => (r.score === null ? "\u2013" : exact(r.score, plain(r.score, 3))), number: true },
  ];
  const node = card("layers", "Layers", "Sort by any column; a layer's name opens its events and prices. The score is the expected loss of accuracy.", null,
    sortable(report.layers, columns, "layers", "layers"));
  node.classList.add("long");
  return node;
}

/** Groups refusals that say the same but for the layer. */
function refusalGroups() {
  const groups = new Map();
  for (const r of report.refusals) {
    const key = JSON.stringify([r.operator, r.core, r.reason]);
    groups.set(key, { ...r, layers: [...(groups.get(key)?.layers || []), r.layer] });
  }
  return [...groups.values()].sort((a, b) => b.layers.length - a.layers.length);
}

function refusalsSection() {
  const groups = refusalGroups();
  const hosted = report.host.map((row) => `${row.name} (${row.op})`);
  const notes = Object.entries(sections).flatMap(([pass, section]) => (Array.isArray(section.notes) ? section.notes : []).map((note) => [pass, String(note)]));
  if (!groups.length && !hosted.length && !notes.length) return null;
  const item = (head, ...content) => el("div", { class: "reason" }, el("b", {}, head), el("div", {}, content));
  const items = [
    ...(hosted.length ? [item("on the host", el("div", {}, hosted.join(", ")))] : []),
    ...notes.map(([pass, note]) => item(`note of ${pass}`, el("div", {}, note))),
    ...groups.map((g) => item(`${g.operator} on ${g.core}`, el("div", {}, g.reason),
      el("div", { class: "soft" }, g.layers.length === report.layers.length ? "every layer" : g.layers.length > 6 ? `${g.layers.slice(0, 5).join(", ")} and ${g.layers.length - 5} more` : g.layers.join(", ")))),
  ];
  return card("refusals", "What was refused or fell back", "Choices that a core did not offer, with its reason, and what runs elsewhere than on a core.", null, el("div", { class: "reasons" }, items));
}

function pricesTable() {
  const used = new Map();
  for (const row of report.layers) for (const [action, n] of Object.entries(row.events)) used.set(action, (used.get(action) || 0) + n);
  const rows = Object.entries(sections.pricing.prices).map(([action, price]) => ({ action, n: used.get(action) || 0, ...price }));
  const columns = [
    { name: "Action", value: (r) => r.action, cell: (r) => el("code", {}, r.action) },
    { name: "pJ each", value: (r) => r.energy_pj, cell: (r) => exact(r.energy_pj, r.energy_pj.toPrecision(4)), number: true },
    { name: "In layers", value: (r) => r.n, cell: (r) => exact(r.n, whole(r.n)), number: true },
    { name: "Source", value: (r) => r.source, wide: true },
  ];
  return sortable(rows, columns, "prices");
}

function inputsSection() {
  const fact = (name, ...value) => [el("dt", {}, name), el("dd", {}, value)];
  const facts = el("dl", { class: "facts" },
    fact("Chip", `${report.target}, file hash `, el("code", {}, report.spec_sha256)),
    fact("Passes", el("ol", { class: "steps" }, report.passes.map((name) => el("li", {}, name)))),
    fact("Seed", String(report.seed)),
    fact("Weights programmed", `once per ${whole(sections.pricing.inferences_per_programming)} inferences: ${energy(sections.pricing.set_up.energy_pj)} in ${time(sections.pricing.set_up.latency_ns)}`),
    fact("Leakage", Object.entries(sections.pricing.leakage_mw).map(([owner, mw]) => `${owner} ${mw.toPrecision(3)} mW`).join(", ")),
    fact("Versions", Object.entries(report.versions).map(([name, v]) => `${name} ${v}`).join(", ")));
  const prices = el("details", { open: true }, el("summary", {}, "Prices and their sources ", el("span", { class: "soft" }, `${Object.keys(sections.pricing.prices).length} actions`)), pricesTable());
  const raw = Object.entries(sections).filter(([name]) => !["pricing", "timeline", "graph", "roofline"].includes(name)).map(([name, section]) =>
    el("details", {}, el("summary", {}, `What ${name} reports`), el("pre", { tabindex: 0 }, JSON.stringify(section, null, 1))));
  const node = card("inputs", "What made the numbers", "The same inputs give the same report.", null, facts, prices, raw);
  node.classList.add("long");
  return node;
}
