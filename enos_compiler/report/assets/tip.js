// One tip for the whole page: what is under the pointer, or focused, says its numbers.

const tips = new WeakMap();
const tipBox = el("div", { id: "tip", role: "status", hidden: true });

/** Gives a node a tip: `say` returns [title, {name: value}, footnote]. */
function tip(node, say) {
  tips.set(node, say);
  return node;
}

function showTip(node, x, y) {
  const [title, rows, note] = tips.get(node)();
  const list = Object.entries(rows || {}).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]);
  tipBox.replaceChildren(el("b", {}, title), ...(list.length ? [el("dl", {}, list)] : []), ...(note ? [note] : []));
  tipBox.hidden = false;
  const box = tipBox.getBoundingClientRect();
  const left = x + 14 + box.width > innerWidth ? Math.max(6, x - box.width - 14) : x + 14;
  const top = y + 16 + box.height > innerHeight ? Math.max(6, y - box.height - 12) : y + 16;
  tipBox.style.left = `${left}px`;
  tipBox.style.top = `${top}px`;
}

function tipped(target) {
  for (let node = target; node && node !== document; node = node.parentNode) if (tips.has(node)) return node;
  return null;
}

function startTips() {
  document.body.append(tipBox);
  const follow = (event) => {
    const node = tipped(event.target);
    if (node) showTip(node, event.clientX, event.clientY);
    else tipBox.hidden = true;
  };
  document.addEventListener("pointermove", follow);
  document.addEventListener("pointerdown", follow);
  document.addEventListener("pointerleave", () => { tipBox.hidden = true; });
  document.addEventListener("scroll", () => { tipBox.hidden = true; }, { passive: true, capture: true });
  document.addEventListener("focusin", (event) => {
    const node = event.target.matches(":focus-visible") ? tipped(event.target) : null;
    if (!node) { tipBox.hidden = true; return; }
    const box = node.getBoundingClientRect();
    showTip(node, box.left + Math.min(box.width, 160) / 2, box.bottom - 8);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tipBox.hidden = true; });
}
