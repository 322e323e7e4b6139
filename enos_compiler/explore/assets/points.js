// Every point with its numbers.

function pointsSection() {
  const chips = [...new Set(points.flatMap((p) => Object.keys(p.chip || {})))];
  const head = el("tr", {}, ["point", ...known.map((name) => OBJECTIVES[name][0]), "measured", "from", ...chips].map((text) => el("th", {}, text)));
  const rows = points.map((p, i) => el("tr", { "data-row": i },
    el("td", {}, el("button", { class: "asLink", type: "button", click: () => choose(i) }, `point ${i}`)),
    known.map((name) => el("td", { class: "num" }, exact(p.objectives[name], textOf(p, name), { "data-objective": name }))),
    el("td", {}, tierOf(p) || "-"), el("td", {}, p.origin), chips.map((path) => el("td", { class: "num" }, String((p.chip || {})[path] ?? "")))));
  onChoice((i) => rows.forEach((row, j) => row.classList.toggle("picked", i === j)));
  return card("points", "Points", "As front.json and front.csv have them.", null, el("div", { class: "table tall" }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows))));
}
