// The look that the page, /ops and the elements share. A page changes it by the custom properties --dream-….

const theme = new CSSStyleSheet();
theme.replaceSync(`
:root, :host {
  --back: var(--dream-back, light-dark(#f6f6f3, #131417));
  --card: var(--dream-card, light-dark(#fff, #1d1f24));
  --well: var(--dream-well, light-dark(#eaeae5, #292c33));
  --text: var(--dream-text, light-dark(#1b1c1f, #eceef2));
  --soft: var(--dream-soft, light-dark(#5c606a, #a7adb9));
  --line: var(--dream-line, light-dark(#dcdcd5, #363a43));
  --accent: var(--dream-accent, light-dark(#4646c8, #a9b1ff));
  --on-accent: var(--dream-on-accent, light-dark(#fff, #15172b));
  --good: var(--dream-good, light-dark(#1b7346, #63d39a));
  --bad: var(--dream-bad, light-dark(#b3261e, #ff948b));
  --shade: var(--dream-shade, 0 .5rem 2rem light-dark(#1b1c1f26, #0009));
  --radius: var(--dream-radius, .6rem);
  color: var(--text);
  font: var(--dream-font, 1rem/1.45 system-ui, "PingFang SC", "Noto Sans CJK SC", sans-serif);
}
:host { display: block; }
:host([hidden]), [hidden] { display: none !important; }
*, ::before, ::after { box-sizing: border-box; }
button, .button {
  display: inline-flex; align-items: center; justify-content: center; gap: .45em; min-height: 2.5rem; padding: .3rem .9rem;
  font: inherit; font-weight: 550; color: inherit; background: none; border: 1px solid var(--line);
  border-radius: var(--radius); cursor: pointer; -webkit-tap-highlight-color: transparent;
}
button:hover, .button:hover { background: var(--well); }
button.main, .button.main { color: var(--on-accent); background: var(--accent); border-color: transparent; }
button.main:hover, .button.main:hover { filter: brightness(1.08); }
button.bare { border-color: transparent; }
button.bad { color: var(--bad); }
button.round { width: 2.5rem; padding: 0; border-radius: 50%; }
button:disabled { opacity: .5; cursor: default; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
svg.icon { width: 1.25em; height: 1.25em; flex: none; fill: none; stroke: currentColor; stroke-width: 1.8;
  stroke-linecap: round; stroke-linejoin: round; }
.only-heard { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (prefers-reduced-motion: reduce) { *, ::before, ::after { animation: none !important; transition: none !important; } }
`);

export { theme };

/** A style sheet for a shadow root. */
export function sheet(text) {
  const made = new CSSStyleSheet();
  made.replaceSync(text);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: `make("button", { class: "main", text: "Send", "aria-label": "…", onclick }, child, …)`. */
export function make(name, { text, ...given } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** An icon of 24 × 24 units, from the data of its path. */
export function icon(path) {
  const drawn = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "path");
  drawn.setAttribute("viewBox", "0 0 24 24");
  drawn.setAttribute("class", "icon");
  drawn.setAttribute("aria-hidden", "true");
  line.setAttribute("d", path);
  drawn.append(line);
  return drawn;
}
