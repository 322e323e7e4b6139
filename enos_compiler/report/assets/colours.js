// One hue per owner (core, memory, unit), one shade per component: a colour says where energy goes.

const DIGITAL_HUES = [0, 2];
const CROSSBAR_HUES = [1, 2];
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
  const placed = Object.keys((sections["map-cim"] || {}).layers || {}).filter((name) => rowOf.has(name));
  const crossbars = new Set(placed.map((name) => rowOf.get(name).core));
  const hues = new Map();
  const taken = [0, 0];
  for (const core of cores) {
    const choices = crossbars.has(core) ? CROSSBAR_HUES : DIGITAL_HUES;
    hues.set(core, choices[taken[Number(crossbars.has(core))]++ % choices.length]);
  }
  let others = 0;
  const memories = Object.keys((sections.roofline || {}).memories || {});
  for (const owner of [...memories, ...families.keys()]) {
    if (!hues.has(owner)) hues.set(owner, OTHER_HUES[others++ % OTHER_HUES.length]);
  }
  return hues;
})();

/** A hue for each of a set of names, and shades of one hue for numbers: what a map may show. */
const OPERATOR_HUES = [0, 1, 2, 3, 4, 5, 6];
const operators = [...new Set(report.layers.map((row) => row.operator))].sort();
const weightWidths = [...new Set(report.layers.map((row) => row.bits.weight))].sort((a, b) => b - a);
const mostEnergy = Math.max(...report.layers.map((row) => row.energy_pj), Number.MIN_VALUE);

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

/** Ways to colour a layer: what its colour is, what its legend says, which ink reads on it. */
const COLOURINGS = {
  core: {
    title: "Core", fill: (row) => coreColour(row.core), pale: () => false,
    legend: () => cores.filter((core) => report.layers.some((row) => row.core === core)).map((core) => [coreColour(core), `layer on ${core}`]),
  },
  operator: {
    title: "Operator", fill: (row) => colour(OPERATOR_HUES[operators.indexOf(row.operator) % OPERATOR_HUES.length], 1), pale: () => false,
    legend: () => operators.map((name, i) => [colour(OPERATOR_HUES[i % OPERATOR_HUES.length], 1), name]),
  },
  bits: {
    title: "Weight bits", fill: (row) => colour(2, bitsShade(row)), pale: (row) => bitsShade(row) > 1,
    legend: () => weightWidths.map((bits) => [colour(2, bitsShade({ bits: { weight: bits } })), `${bits} bits`]),
  },
  energy: {
    title: "Energy", fill: (row) => colour(1, energyShade(row)), pale: (row) => energyShade(row) > 1,
    legend: () => [[colour(1, 0), `${energy(mostEnergy / 2)} to ${energy(mostEnergy)}`], [colour(1, 2), "in between"], [colour(1, 4), `below ${energy(mostEnergy / 16)}`]],
  },
};
const bitsShade = (row) => Math.min(LAST_SHADE, weightWidths.indexOf(row.bits.weight));
const energyShade = (row) => Math.min(LAST_SHADE, Math.floor(Math.log2(mostEnergy / Math.max(row.energy_pj, Number.MIN_VALUE))));

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
