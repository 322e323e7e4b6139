// The frame of a page: tiles, the button that turns it dark, contents, cards side by side.

function split(text) {
  const [number, ...unit] = text.split(" ");
  return [number, unit.length ? el("span", { class: "unit" }, `\u2009${unit.join(" ")}`) : null];
}

function tile(label, big, ...rest) {
  return el("div", { class: "tile" }, el("dt", {}, label), el("dd", {}, el("div", { class: "big" }, big), rest));
}

function gauge(fraction, marks, fill) {
  const bar = el("i", { style: { width: percent(Math.min(1, Math.max(0, fraction)), 2), background: fill || null } });
  return el("div", { class: "gauge", "aria-hidden": "true" }, bar,
    (marks || []).map((x) => el("i", { class: "mark", style: { left: percent(Math.min(1, x), 2) } })));
}

function themeButton() {
  const order = ["auto", "light", "dark"];
  let theme = "auto";
  try { theme = localStorage.getItem("enos-theme") || "auto"; } catch { /* a page from a file may have no storage */ }
  const button = el("button", { class: "theme", type: "button" });
  const show = () => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    theme = order[(order.indexOf(theme) + 1) % order.length];
    try { localStorage.setItem("enos-theme", theme); } catch { /* as above */ }
    show();
  });
  show();
  return button;
}

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
