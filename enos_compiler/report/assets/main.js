// The page: head, contents, sections.

const SECTIONS = [
  ["energy", "Energy", energySection], ["map", "Assignment", mapSection], ["schedule", "Schedule", ganttSection],
  ["roofline", "Roofline", rooflineSection], ["crossbars", "Crossbars", crossbarSection], ["front", "Front", frontSection], ["devices", "Devices", devicesSection],
  ["layers", "Layers", layersSection], ["refusals", "Refusals", refusalsSection], ["inputs", "Inputs", inputsSection],
];

function contents(shown) {
  const links = shown.map(([id, title]) => [id, el("a", { href: `#${id}` }, title)]);
  const mark = () => {
    const near = shown.filter(([id]) => document.getElementById(id).getBoundingClientRect().top < 140).pop();
    for (const [id, link] of links) link.classList.toggle("here", Boolean(near) && near[0] === id);
  };
  addEventListener("scroll", mark, { passive: true });
  return el("nav", { class: "contents", "aria-label": "contents" }, el("div", { class: "wrap" }, el("ul", {}, links.map(([, link]) => el("li", {}, link)))));
}

/** Puts cards side by side, two by two; a last odd one keeps the whole width. */
function pair(cards) {
  for (let i = 0; i + 1 < cards.length; i += 2) {
    const both = el("div", { class: "pair" });
    cards[i].before(both);
    both.append(cards[i], cards[i + 1]);
  }
}

function start() {
  const shown = [];
  const main = el("main", { class: "wrap", id: "page" });
  document.body.prepend(el("a", { class: "skip", href: "#energy" }, "Skip to the figures"), el("div", { class: "wrap" }, pageHead()), main);
  for (const [id, title, make] of SECTIONS) {
    const node = make();
    if (!node) continue;
    shown.push([id, title, node]);
    main.append(node);
  }
  pair(["roofline", "crossbars", "front", "devices"].map((id) => document.getElementById(id)).filter(Boolean));
  main.before(contents(shown));
  document.body.append(el("footer", { class: "wrap" }, `Made by enos-compiler ${report.versions["enos-compiler"] || ""} from report.json, the one source of every number here.`), sheet);
  addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("#inputs details:first-of-type")) d.open = true; });
  startTips();
}

try {
  start();
} catch (error) {
  document.body.prepend(el("p", { class: "wrap", role: "alert" }, `This page could not be drawn whole: ${error.message}. report.json and layers.csv have every number.`));
  throw error;
}
