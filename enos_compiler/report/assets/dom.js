// Making elements. Text of the user's enters as text nodes and attribute values only, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);

/** Sets attributes; functions become listeners, `style` is an object of properties. */
function dress(node, attributes) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

/** Returns an HTML element; strings among the children become text. */
function el(tag, attributes, ...children) {
  const node = dress(document.createElement(tag), attributes);
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

/** Returns an SVG element. */
function svg(tag, attributes, ...children) {
  const node = dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes);
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));
  return node;
}

/** Returns a card with a heading, a line that says how to read it, and controls. */
function card(id, title, text, controls, ...content) {
  const head = el("header", {}, el("div", {}, el("h2", { id: `${id}-title` }, title), text && el("p", {}, text)));
  if (controls) head.append(el("div", { class: "controls" }, controls));
  return el("section", { id, class: "card", "aria-labelledby": `${id}-title` }, head, ...content);
}

/** Returns buttons of which one is pressed; `choose` gets its key. */
function segments(label, options, chosen, choose) {
  const group = el("div", { class: "seg", role: "group", "aria-label": label });
  for (const [key, text] of Object.entries(options)) {
    const press = () => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      choose(key);
    };
    const button = el("button", { type: "button", "aria-pressed": String(key === chosen), click: press }, text);
    group.append(button);
  }
  return group;
}

/** Calls `draw(width)` now that the node is on the page, and whenever its width changes. */
function onWidth(node, draw) {
  let last = 0;
  const redraw = () => {
    const width = Math.floor(node.clientWidth);
    if (width && width !== last) {
      last = width;
      draw(width);
    }
  };
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe(node);
}

/** Returns the end of a text, about `width` pixels of an 11-pixel font: names differ at their ends. */
function ending(text, width) {
  const most = Math.floor(width / 6.4);
  if (text.length <= most) return text;
  return most < 4 ? "" : `\u2026${text.slice(text.length - most + 1)}`;
}

/** Returns text cut to about `width` pixels of a 12-pixel font, its middle left out. */
function fitted(text, width) {
  const most = Math.floor(width / 6.6);
  if (text.length <= most) return text;
  if (most < 3) return "";
  const head = Math.ceil((most - 1) / 2);
  return `${text.slice(0, head)}\u2026${text.slice(text.length - (most - 1 - head))}`;
}
