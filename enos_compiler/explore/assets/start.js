// The page: head, contents, sections.

const SECTIONS = [
  ["front", "Front", frontSection], ["bits", "Bits", bitsSection], ["parts", "Energy", partsSection],
  ["progress", "Search", progressSection], ["points", "Points", pointsSection],
];

/** The point of least cost that keeps the first objective where the widest network has it. */
function bestWithoutLoss() {
  const [kept, cost] = front.objectives;
  if (!widest || kept !== "accuracy") return null;
  const good = points.filter((p) => p.objectives.accuracy >= widest.objectives.accuracy && (p.tier === widest.tier && p.epochs === widest.epochs));
  if (!good.length) return null;
  return { cost, point: good.reduce((a, b) => (b.objectives[cost] < a.objectives[cost] ? b : a)) };
}

function frontTiles() {
  const best = bestWithoutLoss();
  const [first] = front.objectives;
  const tiles = [tile("Points on the front", [exact(points.length, String(points.length), { "data-count": "points" })], el("p", { class: "note" }, `of ${whole(front.evaluations)} settings that were tried`))];
  if (points.length) tiles.push(tile(`Best ${OBJECTIVES[first][0].toLowerCase()}`, [exact(points[0].objectives[first], textOf(points[0], first))], el("p", { class: "note" }, widest ? `${textOf(widest, first)} at ${Object.values(widest.bits)[0].join("/")} bits everywhere` : "")));
  if (best) {
    const there = widest.objectives[best.cost];
    tiles.push(tile(`${OBJECTIVES[best.cost][0]} at no loss of accuracy`, [exact(best.point.objectives[best.cost], split(textOf(best.point, best.cost))), el("span", { class: "chip good" }, change(best.point.objectives[best.cost], there))],
      el("p", { class: "note" }, `point ${points.indexOf(best.point)}, against ${OBJECTIVES[best.cost][1](there)}`)));
  }
  return el("dl", { class: "tiles" }, tiles);
}

function frontHead() {
  const bits = front.bits;
  return el("header", { class: "top" },
    el("div", { class: "brand" }, el("span", {}, "enos-compiler search of bits and mappings"), themeButton()),
    el("h1", {}, front.model, el("span", { class: "on" }, " on "), front.target),
    el("p", { class: "lede" }, "Activation and weight bits of ", el("b", {}, `${layers.length} layers`), `, ${bits[0]} to ${bits[bits.length - 1]} bits, weighed by `,
      el("b", {}, front.objectives.map((name) => OBJECTIVES[name][0].toLowerCase()).join(" and ")), ". Every layer runs in its optimal mapping."),
    frontTiles());
}

function start() {
  const main = el("main", { class: "wrap", id: "page" });
  document.body.prepend(el("a", { class: "skip", href: "#front" }, "Skip to the figures"), el("div", { class: "wrap" }, frontHead()), main);
  const shown = [];
  for (const [id, title, make] of points.length ? SECTIONS : []) {
    const node = make();
    if (!node) continue;
    shown.push([id, title, node]);
    main.append(node);
  }
  pair(["parts", "progress"].map((id) => document.getElementById(id)).filter(Boolean));
  main.before(contents(shown));
  document.body.append(el("footer", { class: "wrap" }, `Made by enos-compiler ${front.versions["enos-compiler"] || ""} from front.json, the one source of every number here.`));
  startTips();
}

try {
  start();
} catch (error) {
  document.body.prepend(el("p", { class: "wrap", role: "alert" }, `This page could not be drawn whole: ${error.message}. front.json and front.csv have every number.`));
  throw error;
}
