// The page: head, contents, sections.

const SECTIONS = [
  ["energy", "Energy", energySection], ["map", "Assignment", mapSection], ["schedule", "Schedule", ganttSection],
  ["roofline", "Roofline", rooflineSection], ["crossbars", "Crossbars", crossbarSection], ["front", "Front", frontSection], ["devices", "Devices", devicesSection],
  ["layers", "Layers", layersSection], ["refusals", "Refusals", refusalsSection], ["inputs", "Inputs", inputsSection],
];

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
  pair([...main.querySelectorAll("#roofline, #crossbars:not(.broad), #front, #devices")]);
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
