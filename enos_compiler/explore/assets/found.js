// What the search found, the point that is chosen, and numbers of objectives as one reads them.

const front = data.front;
const points = front.points;
const layers = points.length ? Object.keys(points[0].bits) : [];
const widest = front.uniform.length ? front.uniform[front.uniform.length - 1] : null;

const kib = (bits) => `${(bits / 8192).toFixed(1)} KiB`;
const EDP = [[1e12, "mJ \u00b5s"], [1e9, "\u00b5J \u00b5s"], [1e6, "nJ \u00b5s"], [1e3, "pJ \u00b5s"], [1, "pJ ns"]];
/** What each is called, and how its number reads. */
const OBJECTIVES = {
  accuracy: ["Accuracy", (v) => percent(v, 2)],
  noise: ["Noise to signal", (v) => v.toPrecision(3)],
  energy: ["Energy", energy],
  latency: ["Latency", time],
  edp: ["Energy x latency", (v) => scaled(v, EDP).join(" ")],
  memory: ["Weights", kib],
};
const known = Object.keys(OBJECTIVES).filter((name) => points.every((p) => typeof p.objectives[name] === "number"));
const textOf = (point, name) => OBJECTIVES[name][1](point.objectives[name]);
const tierOf = (point) => (point.tier ? point.tier + (point.epochs ? `:${point.epochs}` : "") : null);

/** The chosen point; whoever draws it listens. */
const chosen = { number: 0, listeners: [] };
function choose(number) {
  chosen.number = number;
  for (const listen of chosen.listeners) listen(number);
}
function onChoice(listen) {
  chosen.listeners.push(listen);
  listen(chosen.number);
}

/** One hue from pale to strong: 2 to 8 bits. */
const LEAST_BITS = 2;
const MOST_BITS = 8;
const bitsFill = (bits) => `color-mix(in srgb, var(--f0-0) ${Math.round((100 * (bits - LEAST_BITS)) / (MOST_BITS - LEAST_BITS))}%, var(--f0-4))`;
const bitsInk = (bits) => (bits > 5 ? "var(--card)" : "var(--ink)");

const ROWS_OF_A_TIP = 18;
/** The bits of every layer in columns, for a tip. */
function bitsList(point) {
  const columns = Math.ceil(layers.length / ROWS_OF_A_TIP);
  const room = columns > 1 ? 74 : 190;
  return el("div", { class: "bitlist", style: { "grid-template-columns": `repeat(${columns}, auto)`, "grid-template-rows": `repeat(${Math.ceil(layers.length / columns)}, auto)` } },
    layers.map((name) => el("span", {}, el("i", {}, ending(name, room)), ` ${point.bits[name].join("/")}`)));
}
