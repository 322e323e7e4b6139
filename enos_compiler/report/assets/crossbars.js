// How full the crossbars are: every array to scale, with the rectangle that holds weights.

const MOST_ARRAYS = 240;
const MOST_GROUPS = 24;
const MOST_SQUARES = 600;
/** Layers from which on the card takes the page's whole width. */
const MANY_LAYERS = 8;
/** Length of an array's longer side in pixels, where no layer has more than so many arrays. */
const SIDES = [[12, 46], [60, 36], [Infinity, 26]];

/** Layers in crossbars: size of their arrays, and rectangles in use, equal ones together. */
function placements() {
  const layers = (sections["map-cim"] || {}).layers || {};
  const found = [];
  for (const [name, placed] of Object.entries(layers)) {
    if (!rowOf.has(name) || !placed || !Array.isArray(placed.matrices)) continue;
    const tiles = placed.matrices.flatMap((matrix) => {
      const count = (matrix.tiles || []).reduce((sum, tile) => sum + tile.count, 0);
      const each = (placed.copies || 1) * (count ? matrix.arrays / count : 1);
      return (matrix.tiles || []).map((tile) => ({ ...tile, count: Math.round(tile.count * each), form: matrix.form }));
    });
    found.push({ name, core: rowOf.get(name).core, tiles, ...placed, arrays: tiles.reduce((sum, tile) => sum + tile.count, 0) });
  }
  return found;
}

/** One array: the used rectangle is tinted, the cells of its groups, on the diagonal, are full. */
function drawArray(placed, tile, scale) {
  const width = placed.columns * scale;
  const height = placed.rows * scale;
  const fill = coreColour(placed.core);
  const groups = Math.max(1, tile.groups || 1);
  const used = { x: tile.columns * scale, y: tile.rows * scale };
  const unit = (tile.unit_columns || 0) * scale;
  const shown = Math.min(groups, MOST_GROUPS);
  const blocks = Array.from({ length: shown }, (_, i) => svg("rect", {
    x: (i * (used.x - unit)) / shown, y: (i * used.y) / shown, width: Math.max(0.4, (used.x - unit) / shown), height: Math.max(0.4, used.y / shown), style: { fill },
  }));
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("rect", { width, height, rx: 1.5, style: { fill: "var(--grid)" } }),
    svg("rect", { width: used.x, height: used.y, style: { fill, opacity: 0.3 } }), blocks);
}

function arrayGrid(placed, side) {
  const scale = side / Math.max(placed.rows, placed.columns);
  const say = (tile) => () => [placed.name, {
    "lines in use": `${tile.rows} of ${placed.rows} rows, ${tile.columns} of ${placed.columns} columns`,
    weights: String(tile.form), ...(tile.groups > 1 ? { groups: whole(tile.groups) } : {}), "arrays like this": whole(tile.count),
  }];
  let room = MOST_ARRAYS;
  const drawn = placed.tiles.flatMap((tile) => {
    const n = Math.min(room, tile.count);
    room -= n;
    return Array.from({ length: n }, () => tip(drawArray(placed, tile, scale), say(tile)));
  });
  return el("div", { class: "arrays", role: "img", "aria-label": `${placed.arrays} arrays, ${percent(placed.utilisation)} of the cells in use` }, drawn);
}

function crossbarFacts(p) {
  const more = p.arrays > MOST_ARRAYS ? `, ${MOST_ARRAYS} drawn` : "";
  const turns = p.rounds > 1 ? `, in ${p.rounds} turns` : "";
  const converted = ((sections.converters || {}).layers || []).find((c) => c.layer === p.name && c.conversions);
  const clipped = converted ? `, ${converted.saturated ? percent(converted.saturated / converted.conversions, 2) : "none"} clipped` : "";
  return `${whole(p.arrays)} at ${percent(p.utilisation, 0)}${more}${turns}${p.resident === false ? ", rewritten" : ""}${clipped}`;
}

/** The arrays of one size on the chip: a square each, filled as far as weights stay in it. */
function poolGrid(pool) {
  const squares = [];
  for (const alike of pool.arrays) {
    for (let i = 0; i < alike.count && squares.length < MOST_SQUARES; i++) {
      squares.push(tip(el("i", { style: { background: `linear-gradient(to top, ${coreColour(pool.core)} ${percent(alike.utilisation)}, var(--grid) 0)` } }),
        () => [`array of ${pool.rows} x ${pool.columns}`, { "cells in tiles": percent(alike.utilisation), "arrays like this": whole(alike.count) }, alike.layers.join(", ")]));
    }
  }
  const free = Math.max(0, Math.min(pool.count, MOST_SQUARES) - squares.length);
  for (let i = 0; i < free; i++) squares.push(el("i", {}));
  return el("div", { class: "pool", role: "img", "aria-label": `${pool.used} of ${pool.count} arrays hold weights` }, squares);
}

function poolHead(pool, size, members) {
  if (!pool) {
    const arrays = members.reduce((sum, p) => sum + p.arrays, 0);
    return [el("h3", {}, `${whole(arrays)} array${arrays === 1 ? "" : "s"} of ${size}`, el("span", { class: "soft" }, ", rewritten in every inference"))];
  }
  return [el("h3", {}, `${whole(pool.used)} of ${whole(pool.count)} arrays of ${size}`, el("span", { class: "soft" }, ` hold weights of ${pool.core}, ${percent(pool.utilisation)} of their cells`)), poolGrid(pool)];
}

function crossbarSection() {
  const placed = placements();
  if (!placed.length) return null;
  const pools = new Map(((sections["map-cim"] || {}).crossbars || []).map((pool) => [`${pool.core} ${pool.rows} x ${pool.columns}`, pool]));
  const bySize = new Map();
  for (const p of placed) {
    const key = `${p.core} ${p.rows} x ${p.columns}`;
    bySize.set(key, [...(bySize.get(key) || []), p]);
  }
  const most = Math.max(...placed.map((p) => p.arrays));
  const [, side] = SIDES.find(([n]) => most <= n);
  const blocks = [...bySize].map(([key, members]) => [
    poolHead(pools.get(key), key.slice(key.indexOf(" ") + 1), members),
    el("div", { class: "placed" }, members.map((p) => [
      el("button", { class: "asLink", type: "button", title: p.name, click: () => openSheet(p.name) }, p.name), el("span", { class: "soft" }, crossbarFacts(p)), arrayGrid(p, side)])),
  ]);
  const drawn = card("crossbars", "How full the crossbars are", "The chip's arrays, one square each; below, each layer's arrays to scale, rows down, columns across, full where cells hold weights.", null, blocks);
  drawn.classList.toggle("broad", placed.length >= MANY_LAYERS);
  return drawn;
}
