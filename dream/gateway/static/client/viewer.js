// The viewer: one picture of the gallery as large as the screen, with its neighbours beside it.

import { icon, make, sheet } from "./theme.js";
import { canRetry, isShown, placeholderOf, showWith } from "./tile.js";
import { language, reasonText, say, sentence, sizeText, stateText } from "./words.js";

const MOST_ZOOM = 8;
const DOUBLE_ZOOM = 2.5;
const SWIPE_PX = 60;
const AHEAD = 3; // the next page is read when so few pictures are left

const ICONS = {
  close: "M6 6l12 12M18 6L6 18",
  before: "M14.5 5l-7 7 7 7",
  next: "M9.5 5l7 7-7 7",
  facts: "M12 11v6M12 7.5v.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18",
  download: "M12 4v11m-4.5-4.5L12 15l4.5-4.5M5 19.5h14",
  delete: "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l1 13h9l1-13",
  focus: "M12 3v4M12 17v4M3 12h4M17 12h4M12 14a2 2 0 1 0 0-4 2 2 0 0 0 0 4",
};

const style = sheet(`
.viewer { position: fixed; inset: 0; width: 100%; height: 100%; max-width: none; max-height: none;
  margin: 0; padding: 0; border: 0;
  color: #f2f3f5; background: #0d0e10; overflow: hidden; overscroll-behavior: contain; animation: arrive .18s;
  --accent: #a9b1ff; --soft: #b4b9c4; --well: #2a2c31; --line: #44474f; color-scheme: dark; }
.viewer:focus { outline: none; }
.viewer::backdrop { background: #0d0e10; }
.stage { position: absolute; inset: 0; overflow: hidden; touch-action: none; user-select: none; -webkit-user-select: none;
  container-type: size; cursor: zoom-in; }
.stage[data-zoomed] { cursor: grab; }
.stage[data-focus] { cursor: crosshair; }
.slide { position: absolute; inset: 0; margin: 0; display: grid; place-items: center;
  transition: transform .25s cubic-bezier(.2, .8, .2, 1); }
.stage[data-held] .slide, .slide[data-jump] { transition: none; }
.slide img { display: block; max-width: 100cqw; max-height: 100cqh; object-fit: contain; }
.slide .said { max-width: 30rem; padding: 1rem; text-align: center; overflow-wrap: anywhere; }
.slide .said strong { display: block; font-size: 1.2rem; }
.slide .said p { margin: .3rem 0 1rem; color: var(--soft); }
.head { position: absolute; inset: 0 0 auto; display: flex; align-items: center; gap: .25rem;
  padding: .5rem max(.5rem, env(safe-area-inset-right)) 1.5rem;
  background: linear-gradient(#0d0e10d9, #0d0e1000); pointer-events: none; }
.head > * { pointer-events: auto; }
.head h2 { flex: 1; min-width: 0; margin: 0 0 0 .5rem; font: inherit; font-weight: 600;
  overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.head small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); font-variant-numeric: tabular-nums; }
.viewer .round { border-color: transparent; }
.viewer .round[aria-pressed="true"] { background: var(--well); }
.turn { position: absolute; top: 50%; translate: 0 -50%; background: #0d0e1099; }
.turn.before { left: .75rem; }
.turn.next { right: .75rem; }
@media (hover: none) { .turn { display: none; } }
.facts { position: absolute; inset: auto 0 0; max-height: 50%; overflow: auto; padding: .75rem 1.25rem 1.25rem; background: #1a1c20; }
.facts dl { display: grid; grid-template-columns: auto 1fr; gap: .3rem 1rem; margin: 0; overflow-wrap: anywhere; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; }
.facts button { margin-top: .75rem; }
@media (min-width: 45rem) {
  .facts { inset: 0 0 0 auto; width: 20rem; max-height: none; padding-top: 4.5rem; }
  .viewer[data-facts] :is(.stage, .head) { right: 20rem; }
  .viewer[data-facts] .turn.next { right: 20.75rem; }
}
`);

export class Viewer {
  #gallery;
  #id = 0;
  #index = 0;
  #zoom = { scale: 1, x: 0, y: 0 };
  #pointers = new Map();
  #start = null; // of the gesture: the middle of the pointers, their distance, and the zoom
  #isInHistory = false;
  #left = null; // until the browser has left the entry of the history
  #use = null;

  constructor(gallery) {
    this.#gallery = gallery;
    gallery.shadowRoot.adoptedStyleSheets = [...gallery.shadowRoot.adoptedStyleSheets, style];
    this.slides = [-1, 0, 1].map((offset) => Object.assign(make("figure", { class: "slide" }), { offset }));
    this.stage = make("div", { class: "stage" }, ...this.slides);
    this.title = make("h2");
    this.facts = make("div", { class: "facts", hidden: true, tabindex: 0, role: "region", "aria-label": say("viewer.facts") });
    this.download = make("a", { class: "button round", download: true, ...this.#named("download") }, icon(ICONS.download));
    this.info = this.#button("facts", () => this.#showFacts(this.facts.hidden));
    this.info.setAttribute("aria-pressed", "false");
    const head = make("div", { class: "head" }, this.title, this.info, this.download, this.#button("delete", () => this.#remove()));
    head.append(this.#button("close", () => this.close()));
    const turns = ["before", "next"].map((name, at) => this.#button(name, () => this.step(at ? 1 : -1), `turn ${name}`));
    this.dialog = make("dialog", { class: "viewer", tabindex: -1 }, this.stage, head, ...turns, this.facts);
    gallery.shadowRoot.append(this.dialog);
    this.#listen();
  }

  get isOpen() {
    return this.dialog.open;
  }

  #named(name) {
    const text = say(`viewer.${name}`);
    return { "aria-label": text, title: text };
  }

  #button(name, onclick, look = "") {
    return make("button", { type: "button", class: `round ${look}`, onclick, ...this.#named(name) }, icon(ICONS[name]));
  }

  #listen() {
    const { dialog, stage } = this;
    dialog.addEventListener("cancel", (event) => event.preventDefault() || this.close());
    dialog.addEventListener("close", () => this.#closed());
    dialog.addEventListener("keydown", (event) => this.#key(event));
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("dblclick", (event) => this.#zoomTo(this.#zoom.scale > 1 ? 1 : DOUBLE_ZOOM, event));
    stage.addEventListener("click", (event) => this.#click(event));
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.#up(event));
    new ResizeObserver(() => this.isOpen && this.#zoomTo(1)).observe(stage);
  }

  /** Show a picture. Until it is closed, the browser's Back closes it. */
  async open(id) {
    await this.#left; // or this entry of the history would be left
    const { client, notices, heard } = this.#gallery;
    if (!client) return;
    this.#id = id;
    if (this.isOpen) return this.refresh();
    this.dialog.showModal();
    this.dialog.append(notices.element, heard); // everything outside the dialog is inert
    history.pushState({ ...history.state, dreamViewer: id }, "");
    this.#isInHistory = true;
    this.#use = new AbortController();
    const { signal } = this.#use;
    client.addEventListener("pictures", () => this.refresh(), { signal });
    addEventListener("popstate", () => this.#back(), { signal });
    this.refresh();
    this.dialog.focus();
  }

  close() {
    this.dialog.close();
  }

  #back() {
    this.#isInHistory = false;
    this.close();
  }

  #closed() {
    const gallery = this.#gallery;
    this.#use.abort();
    this.#pointers.clear();
    gallery.shadowRoot.append(gallery.notices.element, gallery.heard);
    if (this.#isInHistory && history.state?.dreamViewer) {
      this.#left = new Promise((done) => addEventListener("popstate", done, { once: true }));
      history.back();
    }
    this.#isInHistory = false;
    this.#showFacts(false);
    this.dialog.removeAttribute("aria-label");
    gallery.focusOn(this.#id);
  }

  /** Show the picture as the list has it now; its neighbour if it is gone. */
  refresh() {
    const list = this.#gallery.shown();
    const at = list.findIndex(({ id }) => id === this.#id);
    if (!list.length) return this.close();
    this.#index = at < 0 ? Math.min(this.#index, list.length - 1) : at;
    const picture = list[this.#index];
    const isOther = this.#id !== picture.id || !this.dialog.hasAttribute("aria-label");
    this.#id = picture.id;
    for (const slide of this.slides) this.#fill(slide, list[this.#index + slide.offset]);
    this.dialog.setAttribute("aria-label", picture.filename);
    const place = `${this.#index + 1} / ${list.length}${this.#gallery.client.hasMore ? "+" : ""}`;
    this.title.replaceChildren(picture.filename, make("small", { text: place }));
    this.download.hidden = !isShown(picture);
    if (isShown(picture)) {
      const address = new URL(picture.signed_url ?? picture.url);
      address.searchParams.set("download", "");
      this.download.href = address.href;
    }
    if (isOther) this.#zoomTo(1);
    if (!this.facts.hidden) this.#fillFacts(picture);
    const { client } = this.#gallery;
    if (client.hasMore && list.length - this.#index <= AHEAD) client.loadMore().catch(() => undefined);
    this.#keepFocus();
  }

  /** Keys reach the dialog from any element in it, but not when the one with the focus has gone. */
  #keepFocus() {
    const at = this.#gallery.shadowRoot.activeElement;
    if (!this.dialog.contains(at) || at.closest("[inert]")) this.dialog.focus();
  }

  /** Go to the picture before (-1) or behind (1). */
  step(by) {
    const next = this.#gallery.shown()[this.#index + by];
    if (!next) return this.#place();
    this.#zoomTo(1);
    for (const slide of this.slides) {
      slide.offset -= by;
      slide.toggleAttribute("data-jump", Math.abs(slide.offset) > 1);
      if (Math.abs(slide.offset) > 1) slide.offset = by;
    }
    this.#id = next.id;
    this.refresh();
    this.#place();
    this.#gallery.hear(`${next.filename}, ${this.#index + 1}`);
  }

  // --- the slides

  #fill(slide, picture) {
    slide.inert = slide.offset !== 0;
    if (!picture) {
      slide.key = "";
      return slide.replaceChildren();
    }
    const key = isShown(picture) ? `${picture.id} ${picture.url}` : `${picture.id} ${stateText(picture)} ${picture.error}`;
    if (slide.key === key) return;
    slide.key = key;
    slide.replaceChildren(isShown(picture) ? this.#image(picture) : this.#said(picture));
    this.#place();
  }

  #image(picture) {
    const { width_px: width, height_px: height } = picture;
    const image = make("img", { draggable: "false", width: width ?? false, height: height ?? false });
    const thumbnail = this.#gallery.imageOf(picture.id);
    const isOpaque = placeholderOf(picture);
    if (isOpaque) image.style.background = thumbnail ? `url("${thumbnail}") center / cover no-repeat` : isOpaque;
    if (width) {
      image.style.aspectRatio = `${width} / ${height}`;
      image.style.width = `min(100cqw, 100cqh * ${width / height}, ${width}px)`;
      image.style.height = "auto";
    }
    const needed = width ? Math.ceil(Math.min(innerWidth, (innerHeight * width) / height, width)) : innerWidth;
    showWith(image, picture, needed, (each) => this.#gallery.renew(each));
    return image;
  }

  #said(picture) {
    const said = make("div", { class: "said" }, make("strong", { text: sentence(stateText(picture)) }));
    said.append(make("p", { text: picture.error ? sentence(reasonText(picture)) : picture.filename }));
    if (canRetry(picture)) {
      const onclick = () => this.#gallery.again(picture.id);
      said.append(make("button", { type: "button", class: "main", text: say("again"), onclick }));
    }
    return said;
  }

  /** Put the slides where the gesture and the zoom want them. */
  #place(dx = 0, dy = 0) {
    const { scale, x, y } = this.#zoom;
    this.stage.toggleAttribute("data-zoomed", scale > 1);
    this.stage.toggleAttribute("data-held", dx !== 0 || dy !== 0);
    for (const slide of this.slides) {
      slide.style.transform = `translate(calc(${100 * slide.offset}% + ${dx + 24 * slide.offset}px), ${slide.offset ? 0 : dy}px)`;
      const image = slide.querySelector("img");
      if (image) image.style.transform = slide.offset || scale === 1 ? "" : `translate(${x}px, ${y}px) scale(${scale})`;
    }
  }

  // --- zoom and gestures

  get #current() {
    return this.slides.find(({ offset }) => offset === 0).querySelector("img");
  }

  /** The place of a point, from the middle of the stage. */
  #fromMiddle({ clientX, clientY }) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return { x: clientX - left - width / 2, y: clientY - top - height / 2 };
  }

  /** Zoom so that a point of the picture stays where it is; without one, the middle. */
  #zoomTo(wanted, point = null) {
    const image = this.#current;
    const scale = image ? Math.min(MOST_ZOOM, Math.max(1, wanted)) : 1;
    const at = point ? this.#fromMiddle(point) : { x: 0, y: 0 };
    const by = scale / this.#zoom.scale;
    this.#panTo({ scale, x: at.x - (at.x - this.#zoom.x) * by, y: at.y - (at.y - this.#zoom.y) * by });
    const needed = image ? Math.ceil(image.offsetWidth * scale) : 0;
    if (image && needed > parseFloat(image.sizes)) image.sizes = `${needed}px`;
  }

  #panTo({ scale, x, y }) {
    const image = this.#current;
    const within = (value, size, room) => {
      const most = Math.max(0, size * scale - room) / 2;
      return Math.max(-most, Math.min(most, value));
    };
    const { clientWidth, clientHeight } = this.stage;
    this.#zoom = image
      ? { scale, x: within(x, image.offsetWidth, clientWidth), y: within(y, image.offsetHeight, clientHeight) }
      : { scale: 1, x: 0, y: 0 };
    this.#place();
  }

  #wheel(event) {
    event.preventDefault();
    this.#zoomTo(this.#zoom.scale * Math.exp(-event.deltaY / 300), event);
  }

  #down(event) {
    if (event.button || event.target.closest("button")) return;
    this.stage.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, event);
    this.#begin();
  }

  #begin() {
    this.#start = this.#pointers.size ? { ...this.#middle(), zoom: this.#zoom, at: performance.now() } : null;
  }

  #middle() {
    const all = [...this.#pointers.values()];
    const mean = (name) => all.reduce((sum, each) => sum + each[name], 0) / all.length;
    const [one, other] = all;
    const spread = other ? Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) : 0;
    return { clientX: mean("clientX"), clientY: mean("clientY"), spread };
  }

  #move(event) {
    if (!this.#pointers.has(event.pointerId)) return;
    this.#pointers.set(event.pointerId, event);
    const now = this.#middle();
    const { zoom, spread, clientX, clientY } = this.#start;
    const [dx, dy] = [now.clientX - clientX, now.clientY - clientY];
    if (spread) {
      this.#zoom = zoom;
      this.#zoomTo((zoom.scale * now.spread) / spread, now);
    } else if (zoom.scale > 1) this.#panTo({ scale: zoom.scale, x: zoom.x + dx, y: zoom.y + dy });
    else if (Math.abs(dx) > Math.abs(dy)) this.#place(dx);
    else this.#place(0, Math.max(0, dy));
  }

  #up(event) {
    if (!this.#pointers.has(event.pointerId)) return;
    const { clientX, clientY, zoom, spread, at } = this.#start;
    const [dx, dy] = [event.clientX - clientX, event.clientY - clientY];
    this.#pointers.delete(event.pointerId);
    this.#begin();
    this.wasMoved = Math.hypot(dx, dy) > 8 || spread > 0;
    if (spread || zoom.scale > 1 || event.type === "pointercancel") return this.#place();
    const isFast = performance.now() - at < 250;
    if (Math.abs(dx) > Math.abs(dy) && Math.abs(dx) > (isFast ? SWIPE_PX / 2 : SWIPE_PX)) this.step(dx < 0 ? 1 : -1);
    else if (dy > 2 * SWIPE_PX && dy > Math.abs(dx)) this.close();
    else this.#place();
  }

  /** A click beside the picture closes; while the focal point is chosen, a click on the picture is the point. */
  async #click(event) {
    const image = this.#current;
    const { x, y, width, height } = image?.getBoundingClientRect() ?? {};
    const [right, down] = [(event.clientX - x) / width, (event.clientY - y) / height];
    const isOn = right >= 0 && right <= 1 && down >= 0 && down <= 1;
    if (this.wasMoved || event.target.closest("button")) return;
    if (!this.stage.hasAttribute("data-focus")) return isOn || !image || this.close();
    if (!isOn) return;
    this.facts.querySelector("button").click();
    try {
      await this.#gallery.client.setFocus(this.#id, [right, down]);
      this.#gallery.hear(say("viewer.focus_set"));
    } catch (error) {
      this.#gallery.notices.fail(say("viewer.not_focused", { error: error.message }));
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || (event.repeat && event.key === "Delete")) return;
    const acts = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      "+": () => this.#zoomTo(this.#zoom.scale * 1.5),
      "=": () => this.#zoomTo(this.#zoom.scale * 1.5),
      "-": () => this.#zoomTo(this.#zoom.scale / 1.5),
      0: () => this.#zoomTo(1),
      d: () => this.download.hidden || this.download.click(),
      i: () => this.#showFacts(this.facts.hidden),
      Delete: () => this.#remove(),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  #remove() {
    this.#gallery.remove([this.#id]);
    this.refresh();
  }

  // --- the facts

  #showFacts(isShown) {
    this.facts.hidden = !isShown;
    this.dialog.toggleAttribute("data-facts", isShown);
    this.info.setAttribute("aria-pressed", isShown);
    this.stage.removeAttribute("data-focus");
    this.facts.replaceChildren();
    this.factsOf = 0;
    if (isShown) this.refresh();
  }

  async #fillFacts(picture) {
    if (this.factsOf === picture.id) return;
    this.factsOf = picture.id;
    this.#writeFacts(picture, {});
    const { facts } = await this.#gallery.client.detail(picture.id).catch(() => ({}));
    if (facts && this.factsOf === picture.id) this.#writeFacts(picture, facts);
  }

  #writeFacts(picture, facts) {
    const number = (value) => new Intl.NumberFormat(language, { maximumFractionDigits: 1 }).format(value);
    const { exposure_s: exposure, f_number: aperture, iso, focal_length_mm: length } = facts;
    const settings = [
      exposure && (exposure < 1 ? `1/${Math.round(1 / exposure)} s` : `${number(exposure)} s`),
      aperture && `f/${number(aperture)}`,
      iso && `ISO ${iso}`,
      length && `${number(length)} mm`,
    ];
    const taken = facts.taken_at && new Date(facts.taken_at.slice(0, 19));
    const place = facts.latitude !== undefined && `${facts.latitude.toFixed(5)}, ${facts.longitude.toFixed(5)}`;
    const shown = {
      name: picture.filename,
      taken: taken && new Intl.DateTimeFormat(language, { dateStyle: "long", timeStyle: "short" }).format(taken),
      pixels: picture.width_px && `${picture.width_px} × ${picture.height_px}`,
      size: picture.size_bytes && sizeText(picture.size_bytes),
      type: picture.content_type?.replace("image/", "").toUpperCase(),
      camera: [facts.make, facts.model].filter(Boolean).join(" "),
      lens: facts.lens,
      settings: settings.filter(Boolean).join(" · "),
      place,
    };
    const rows = Object.entries(shown).filter(([, value]) => value);
    const row = ([name, text]) => [make("dt", { text: say(`viewer.${name}`) }), make("dd", { text })];
    const list = make("dl", {}, ...rows.flatMap(row));
    const asked = () => say(this.stage.hasAttribute("data-focus") ? "viewer.focus_hint" : "viewer.focus");
    const button = make("button", { type: "button" }, icon(ICONS.focus), asked());
    button.addEventListener("click", () => {
      this.stage.toggleAttribute("data-focus");
      button.lastChild.textContent = asked();
      this.#gallery.hear(button.textContent);
    });
    this.facts.replaceChildren(list, ...(isShown(picture) ? [button] : []));
    this.#keepFocus();
  }
}
