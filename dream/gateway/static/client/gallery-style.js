// The look of `<dream-gallery>`. The colours are those of the theme.

import { sheet } from "./theme.js";

export const galleryStyle = sheet(`
:host { position: relative; container: gallery / inline-size; }
.bar { display: flex; align-items: center; gap: .35rem; padding: .5rem 0; background: var(--dream-back, Canvas); }
.bar p { margin: 0 auto 0 0; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.bar small { margin-left: .75em; font-size: .85rem; }
.bar[data-selecting] { position: sticky; top: var(--dream-bar-top, 0); z-index: 3; }
.bar[data-selecting] p { color: var(--text); font-weight: 600; }
.choice { display: inline-flex; background: var(--well); border-radius: var(--radius); padding: 2px; }
.choice button { border: 0; min-height: 2.2rem; border-radius: calc(var(--radius) - 2px); color: var(--soft); }
.choice button[aria-pressed="true"] { background: var(--card); color: var(--text); box-shadow: 0 1px 3px #0003; }
.grid { position: relative; user-select: none; -webkit-user-select: none; overflow-anchor: none; }
.tile { position: absolute; inset: 0 auto auto 0; overflow: hidden; border-radius: min(var(--radius), .5rem); background: var(--well);
  cursor: pointer; animation: arrive .3s; -webkit-touch-callout: none; scroll-margin: 5rem; contain: strict;
  container: tile / size; }
.grid[data-moving] .tile { transition: transform .28s cubic-bezier(.2, .8, .2, 1); }
@keyframes arrive { from { opacity: 0; } }
.tile img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; opacity: 0; transition: opacity .25s; }
.tile img[data-loaded] { opacity: 1; }
.tile::after { content: ""; position: absolute; inset: 0; border-radius: inherit; box-shadow: inset 0 0 0 1px #8882;
  pointer-events: none; }
.tile:focus-visible { outline: none; }
.tile:focus-visible::after { box-shadow: inset 0 0 0 3px var(--accent), inset 0 0 0 5px var(--card); }
.tile[aria-selected="true"] { background-color: var(--well); }
.tile[aria-selected="true"]::after { box-shadow: inset 0 0 0 4px var(--accent), inset 0 0 0 6px var(--card); }
.tile[data-lifted] { opacity: .35; }
.tick { position: absolute; top: .4rem; left: .4rem; width: 1.6rem; height: 1.6rem; display: grid; place-items: center;
  border-radius: 50%; color: transparent; background: #0005; border: 2px solid #fff; opacity: 0; transition: opacity .15s; }
.tick svg { width: 1rem; height: 1rem; stroke-width: 3; }
.grid[data-selecting] .tick, .tile:hover .tick, .tile:focus-visible .tick { opacity: 1; }
@media (hover: none) { .grid:not([data-selecting]) .tick { display: none; } }
.tile[aria-selected="true"] .tick { background: var(--accent); color: var(--on-accent); }
.state { position: absolute; inset: 0; display: flex; flex-direction: column; align-items: center; justify-content: center;
  gap: .2rem; padding: .5rem; text-align: center; font-size: .8rem; line-height: 1.3; color: var(--soft); }
.state strong { color: var(--text); font-weight: 600; }
.name { flex: none; max-width: 100%; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.reason { overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; }
.reason:empty { display: none; }
.tile[data-preview] .state { background: color-mix(in srgb, var(--card) 78%, transparent); color: var(--text); }
.tile[data-state="failed"] strong { color: var(--bad); }
.ring { width: 2.2rem; height: 2.2rem; flex: none; margin-bottom: .2rem; border-radius: 50%;
  background: conic-gradient(var(--accent) var(--share), color-mix(in srgb, var(--soft) 30%, transparent) 0);
  mask: radial-gradient(closest-side, transparent 72%, #000 75%); }
.ring:not([aria-valuenow]) { animation: turn 1.2s linear infinite; }
@keyframes turn { to { rotate: 1turn; } }
.acts { display: flex; gap: .3rem; margin-top: .2rem; }
.acts button { min-height: 1.9rem; padding: 0 .6rem; font-size: .8rem; background: var(--card); color: var(--text); }
.acts:empty { display: none; }
.marker { position: absolute; inset: 0 auto auto -2px; width: 4px; border-radius: 2px; background: var(--accent); z-index: 2; }
.ghost { position: fixed; inset: 0 auto auto 0; z-index: 9; width: 7rem; height: 7rem; margin: -3.5rem; pointer-events: none;
  border-radius: var(--radius); background: var(--well) center / cover; box-shadow: var(--shade); rotate: -3deg; }
.ghost b { position: absolute; top: -.6rem; right: -.6rem; min-width: 1.7rem; padding: 0 .4rem; line-height: 1.7rem;
  text-align: center; border-radius: 1rem; background: var(--accent); color: var(--on-accent); }
.more { height: 3rem; display: grid; place-items: center; }
.more::before { content: ""; width: 1.6rem; height: 1.6rem; border-radius: 50%; border: 3px solid var(--line);
  border-top-color: var(--accent); animation: turn 1s linear infinite; }
.trouble { margin: 1rem 0; color: var(--bad); }
.notices { position: fixed; inset: auto 0 max(1rem, env(safe-area-inset-bottom)); z-index: 50; display: grid; gap: .5rem;
  justify-items: center; padding: 0 1rem; pointer-events: none; }
.notice { display: flex; align-items: center; gap: .8rem; max-width: 36rem; padding: .4rem .4rem .4rem 1rem; pointer-events: auto;
  color: var(--back); background: var(--text); border-radius: var(--radius); box-shadow: var(--shade); animation: arrive .2s; }
.notice.bad { color: #fff; background: #a3221a; }
.notice button { border: 0; font-weight: 700; color: inherit; }
.notice button:hover { background: #8886; }
@container tile (max-height: 9rem) {
  .acts { display: none; }
  .reason { -webkit-line-clamp: 2; }
  .ring { width: 1.5rem; height: 1.5rem; }
  .state { font-size: .75rem; padding: .3rem; }
}
@container gallery (max-width: 30rem) {
  .bar button { padding: .3rem .6rem; font-size: .85rem; }
  .bar p { font-size: .9rem; }
  .bar small { display: none; }
  .bar button:has(svg) { width: 2.5rem; padding: 0; }
  .bar button svg + span { display: none; }
  .tick { width: 1.4rem; height: 1.4rem; }
}
`);
