// How full the crossbars are: a square per array, filled as far as its cells hold weights.

const MOST_SQUARES = 400;

/** Layers in crossbars with the arrays that they hold. */
function placements() {
  const layers = (sections["map-cim"] || {}).layers || {};
  return Object.entries(layers).filter(([name, p]) => rowOf.has(name) && p && Number.isInteger(p.arrays) && typeof p.utilisation === "number")
    .map(([name, p]) => ({ name, core: rowOf.get(name).core, rows: p.rows, columns: p.columns, arrays: p.arrays, filled: p.utilisation }));
}

function waffle(placed) {
  const shown = Math.min(placed.arrays, MOST_SQUARES);
  const say = () => [placed.name, { arrays: whole(placed.arrays), of: `${placed.rows} x ${placed.columns} cells`, "cells in use": percent(placed.filled) }];
  const squares = Array.from({ length: shown }, () => el("span", {}, el("i", { style: { height: percent(placed.filled, 0), background: coreColour(placed.core) } })));
  return tip(el("div", { class: "waffle", role: "img", "aria-label": `${placed.arrays} arrays, ${percent(placed.filled)} of the cells in use` }, squares), say);
}

function crossbarSection() {
  const placed = placements();
  if (!placed.length) return null;
  const bySize = new Map();
  for (const p of placed) {
    const key = `${p.rows} x ${p.columns}`;
    bySize.set(key, [...(bySize.get(key) || []), p]);
  }
  const blocks = [...bySize].map(([size, members]) => {
    const arrays = members.reduce((sum, p) => sum + p.arrays, 0);
    const filled = members.reduce((sum, p) => sum + p.arrays * p.filled, 0) / arrays;
    return [el("h3", {}, `${whole(arrays)} arrays of ${size}`, el("span", { class: "soft" }, ` \u2013 ${percent(filled)} of their cells in use`)),
      el("div", { class: "placed" }, members.map((p) => [el("span", { class: "name", title: p.name }, p.name), waffle(p),
        el("span", { class: "soft" }, `${whole(p.arrays)} at ${percent(p.filled, 0)}${p.arrays > MOST_SQUARES ? `, ${MOST_SQUARES} drawn` : ""}`)]))];
  });
  return card("crossbars", "How full the crossbars are", "A square is an array, filled as far as its cells hold weights.", null, blocks);
}
