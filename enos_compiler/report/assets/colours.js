// One hue per owner (core, memory, unit), one shade per component: a colour says where energy goes.

const CORE_HUES = [0, 1, 2];
const OTHER_HUES = [3, 5, 4, 6];
const LAST_SHADE = 4;

const cores = Object.keys(sections.offers);
const rowOf = new Map(report.layers.map((row) => [row.name, row]));
const operationOf = new Map([...report.vector, ...report.host].map((row) => [row.name, row]));

const componentTotals = new Map();
for (const row of report.layers) {
  for (const [name, pj] of Object.entries(row.components)) {
    componentTotals.set(name, (componentTotals.get(name) || 0) + pj);
  }
}
const ownerOf = (component) => component.split(".")[0];

/** Components by owner, the dearest first; owners: cores in the chip's order, then the others. */
const families = (() => {
  const byOwner = new Map(cores.map((core) => [core, []]));
  for (const name of [...componentTotals.keys()].sort((a, b) => componentTotals.get(b) - componentTotals.get(a))) {
    const owner = ownerOf(name);
    if (!byOwner.has(owner)) byOwner.set(owner, []);
    byOwner.get(owner).push(name);
  }
  return new Map([...byOwner].filter(([, parts]) => parts.length));
})();

const hueOf = (() => {
  const hues = new Map(cores.map((core, i) => [core, CORE_HUES[i % CORE_HUES.length]]));
  let others = 0;
  for (const owner of families.keys()) {
    if (!hues.has(owner)) hues.set(owner, OTHER_HUES[others++ % OTHER_HUES.length]);
  }
  return hues;
})();

const colour = (hue, shade) => `var(--f${hue}-${shade})`;
const coreColour = (core, shade = 1) => colour(hueOf.has(core) ? hueOf.get(core) : 4, shade);

/** Shades go from strong to pale in the order of cost; what is beyond the last shares it. */
const componentColour = (() => {
  const found = new Map();
  for (const [owner, parts] of families) {
    parts.forEach((name, i) => found.set(name, colour(hueOf.get(owner), Math.min(LAST_SHADE, [1, 0, 2, 3, 4][i] ?? 4))));
  }
  return (name) => found.get(name) || colour(6, 2);
})();

/** The stacking order of components: by family, then by cost. */
const componentOrder = [...families.values()].flat();
const swatch = (fill) => el("span", { class: "swatch", style: { background: fill } });

const OTHER_PARTS = [
  ["vector_pj", "vector operations", colour(4, 1)],
  ["edges_pj", "edges", colour(6, 0)],
  ["host_pj", "host operations", colour(5, 1)],
  ["programming_pj", "programming weights", colour(6, 1)],
  ["leakage_pj", "leakage", colour(6, 2)],
];
