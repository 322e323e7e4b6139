// Numbers as a person reads them: the same three digits and units as the terminal.

const ENERGY = [[1e12, "J"], [1e9, "mJ"], [1e6, "\u00b5J"], [1e3, "nJ"], [1, "pJ"]];
const TIME = [[1e9, "s"], [1e6, "ms"], [1e3, "\u00b5s"], [1, "ns"]];
const COUNT = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];

/** Returns [number, unit]; rounds first, so that 999.96 nJ reads 1.00 uJ. */
function scaled(value, units) {
  const size = Number(Math.abs(value).toPrecision(3));
  const [factor, unit] = units.find(([f]) => size >= f) || units[units.length - 1];
  const x = value / factor;
  const digits = Math.abs(x) < 9.995 ? 2 : Math.abs(x) < 99.95 ? 1 : 0;
  return [x.toFixed(digits), unit];
}

const energy = (pj) => scaled(pj, ENERGY).join(" ");
const time = (ns) => scaled(ns, TIME).join(" ");
const whole = (n) => n.toLocaleString("en-US");
const percent = (x, digits = 1) => `${(100 * x).toFixed(digits)}%`;

/** Returns a count in three digits: 2.36 M. */
function count(n) {
  if (Number.isInteger(n) && Math.abs(n) < 1000) return String(n);
  return scaled(n, COUNT).join(" ").trim();
}

/** Returns a change against a yardstick with its sign: -47.3%. */
function change(here, there) {
  if (!there) return null;
  const x = here / there - 1;
  return `${x < 0 ? "\u2212" : "+"}${Math.abs(100 * x).toFixed(1)}%`;
}

/** Returns a number of the report as an element that keeps it exactly: <data value>. */
function exact(value, text, attributes) {
  return el("data", { ...attributes, value: String(value) }, text);
}

/** Returns a plain number in so many digits; far below one with its power of ten: 1.09e-6. */
const plain = (x, digits) => (x && Math.abs(x) < 1e-3 ? x.toExponential(digits - 1) : x.toPrecision(digits));

const bitsText = (bits) => `${bits.input}/${bits.weight}/${bits.output}`;

/** Returns round steps that cut [low, high] into about `n` parts. */
function niceTicks(low, high, n) {
  const raw = (high - low) / Math.max(1, n);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step / 1e6; t += step) ticks.push(t);
  return ticks;
}

/** Returns the powers of ten around [low, high]. */
function decades(low, high) {
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) ticks.push(10 ** e);
  return ticks;
}
