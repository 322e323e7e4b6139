// The head: what was compiled, and the figures that one asks for first.

const totals = report.totals;

/** A chip with a change; less is better. */
function changeChip(here, there) {
  const text = change(here, there);
  return text && el("span", { class: `chip ${here <= there ? "good" : "bad"}` }, text);
}

function costTile(label, key, text) {
  const here = totals[key];
  const there = report.baseline[key];
  const most = Math.max(here, there) || 1;
  return tile(label, [exact(here, split(text(here)), { "data-total": key }), changeChip(here, there)],
    gauge(here / most, [there / most]),
    el("p", { class: "note" }, `against ${text(there)} of ${report.baseline.name}`));
}

function accuracyTile() {
  const found = report.accuracy;
  if (!found) {
    const noise = sections["output-noise"];
    if (!noise || typeof noise.snr_db !== "number") return null;
    return tile("Output signal to noise", [exact(noise.snr_db, split(`${noise.snr_db.toFixed(1)} dB`))],
      el("p", { class: "note" }, `against the float network on ${whole(noise.inputs)} example input${noise.inputs === 1 ? "" : "s"}; no test data was given`));
  }
  const points = 100 * (found.compiled - found.reference);
  const sign = Math.abs(points) < 0.005 ? "\u00b1" : points < 0 ? "\u2212" : "+";
  return tile("Accuracy",
    [exact(found.compiled, percent(found.compiled, 2), { "data-total": "accuracy" }),
      el("span", { class: `chip ${points >= 0.005 ? "good" : ""}` }, `${sign}${Math.abs(points).toFixed(2)} points`)],
    gauge(found.compiled, [found.reference], "var(--good)"),
    el("p", { class: "note" }, `${percent(found.reference, 2)} as a float network; ${whole(found.images)} images`));
}

function budgetTile() {
  const budget = report.budget;
  if (!budget) return null;
  const spent = budget.energy_pj - budget.slack_pj;
  const used = spent / budget.energy_pj;
  const digits = used > 0.999 && used < 1 ? 2 : 1;
  return tile("Budget used", [exact(used, split(`${(100 * used).toFixed(digits)} %`))],
    gauge(used, [budget.floor_pj / budget.energy_pj]),
    el("p", { class: "note" }, `${budget.spec} = ${energy(budget.energy_pj)}; cheapest network ${energy(budget.floor_pj)}`));
}

function checksTile() {
  const checks = report.checks;
  const line = (verdict, text) => el("li", {},
    el("span", { class: verdict === null ? "open" : verdict ? "yes" : "no", "aria-hidden": "true" },
      verdict === null ? "\u25cb" : verdict ? "\u2713" : "\u2717"), text);
  const steps = (n, what) => line(n === null ? null : n === 0,
    n === null ? `${what}: not run` : n === 0 ? `${what}: equal in every bit` : `${what}: off by up to ${n} steps`);
  const equal = checks.events_equal;
  return el("div", { class: "tile broad" }, el("dt", {}, `Checks (${checks.level})`), el("dd", {}, el("ul", { class: "ticks" },
    steps(checks.onnx_max_steps, "ONNX Runtime"),
    steps(checks.simulator_max_steps, "Replay"),
    line(equal, equal === null ? "Events replayed: not run" : equal ? "Events replayed: as reported" : "Events replayed: not those reported"))));
}

function lede() {
  const used = cores.map((core) => [core, report.layers.filter((row) => row.core === core).length]).filter(([, n]) => n);
  const layers = report.layers.length;
  const where = used.map(([core, n]) => `${n} on ${core}`).join(", ");
  const operators = [...new Set(report.layers.map((row) => row.operator))].join(", ");
  const batch = report.batch === 1 ? "one input" : `a batch of ${report.batch}`;
  return el("p", { class: "lede" }, "One inference of ", el("b", {}, batch), ": ",
    el("b", {}, `${layers} layer${layers === 1 ? "" : "s"}`), ` (${where}), `,
    el("b", {}, `${count(totals.macs)} multiply-accumulates`), `, operators ${operators}.`,
    totals.area_um2 ? ` The chip takes ${(totals.area_um2 / 1e6).toFixed(2)}\u00a0mm\u00b2.` : "");
}

function pageHead() {
  const tiles = el("dl", { class: "tiles" }, costTile("Energy an inference", "energy_pj", energy),
    costTile("Latency", "latency_ns", time), accuracyTile(), budgetTile(), checksTile());
  return el("header", { class: "top" },
    el("div", { class: "brand" }, el("span", {}, "enos-compiler report"), themeButton()),
    el("h1", {}, report.model, el("span", { class: "on" }, " on "), report.target),
    lede(), tiles);
}
