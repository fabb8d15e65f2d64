// Gestures on the tiles of a gallery: a long press selects; in the own order pictures are dragged, or moved by keys.

import { beside } from "./layout.js";
import { make } from "./theme.js";
import { say } from "./words.js";

const HOLD_MS = 450;
const NEAR_PX = 8;
const EDGE_PX = 90; // near the edge of the screen a drag scrolls

export class Moving {
  /** Ids of the pictures that are being moved. */
  lifted = new Set();
  #press = null;
  #gap = null;
  #marker = make("div", { class: "marker", hidden: true });
  #ghost = make("div", { class: "ghost", hidden: true }, make("b"));
  #point = { x: 0, y: 0 };
  #isGesture = false; // the click at its end is no click

  constructor(gallery) {
    this.gallery = gallery;
    const { grid, shadowRoot } = gallery;
    grid.append(this.#marker);
    shadowRoot.append(this.#ghost);
    grid.addEventListener("pointerdown", (event) => this.#down(event));
    grid.addEventListener("pointermove", (event) => this.#move(event));
    grid.addEventListener("pointerup", () => this.#up());
    grid.addEventListener("pointercancel", () => this.#up(true));
    grid.addEventListener("touchmove", (event) => this.#press?.isHeld && event.preventDefault(), { passive: false });
    grid.addEventListener("contextmenu", (event) => this.#press?.isTouch && event.preventDefault());
    grid.addEventListener("click", (event) => {
      if (this.#isGesture) event.stopImmediatePropagation();
      this.#isGesture = false;
    }, { capture: true });
  }

  #down(event) {
    const id = this.gallery.idAt(event.target);
    this.#isGesture = false;
    if (this.lifted.size) return;
    this.#endPress(); // a second finger ends a long press
    if (!id || !event.isPrimary || event.button || event.target.closest("button")) return;
    const { clientX: x, clientY: y, pointerId, pointerType } = event;
    const isTouch = pointerType !== "mouse";
    const timer = isTouch ? setTimeout(() => this.#hold(), HOLD_MS) : 0;
    this.#press = { id, x, y, pointerId, isTouch, isHeld: false, timer };
  }

  #hold() {
    this.#press.isHeld = this.#isGesture = true;
    navigator.vibrate?.(10);
    this.gallery.select([this.#press.id]);
  }

  #move({ clientX: x, clientY: y, buttons }) {
    const press = this.#press;
    if (!press) return;
    if (!buttons && !this.lifted.size) return this.#endPress(); // it was released elsewhere
    this.#point = { x, y };
    if (this.lifted.size) return this.#dragTo();
    if (Math.hypot(x - press.x, y - press.y) < NEAR_PX) return;
    if (this.gallery.canMove && (!press.isTouch || press.isHeld)) this.#drag(press);
    else if (!press.isHeld) this.#endPress(); // a scroll
  }

  #drag({ id, pointerId }) {
    this.#isGesture = true;
    this.gallery.grid.setPointerCapture(pointerId);
    this.#lift(id);
    this.#ghost.style.backgroundImage = `url("${this.gallery.imageOf(id)}")`;
    this.#ghost.firstChild.textContent = this.lifted.size;
    this.#ghost.firstChild.hidden = this.lifted.size === 1;
    this.#ghost.hidden = false;
    this.#dragTo();
    this.#scroll();
  }

  #dragTo() {
    const { x, y } = this.#point;
    this.#ghost.style.transform = `translate(${x}px, ${y}px)`;
    this.#mark(this.gallery.gapAt(x, y));
  }

  #scroll() {
    if (this.#ghost.hidden) return;
    const { y } = this.#point;
    const by = Math.max(0, y - innerHeight + EDGE_PX) - Math.max(0, EDGE_PX - y);
    if (by) {
      scrollBy(0, by / 4);
      this.#dragTo();
    }
    requestAnimationFrame(() => this.#scroll());
  }

  /** Put back what is being moved. */
  stop() {
    this.#up(true);
    if (this.lifted.size) this.#end(false);
  }

  #up(isCancelled = false) {
    this.#endPress();
    if (!this.#ghost.hidden) this.#end(!isCancelled);
  }

  #endPress() {
    clearTimeout(this.#press?.timer);
    this.#press = null;
  }

  // --- by keys: m picks up, arrows move, Enter drops, Escape puts back

  pickUp(id) {
    const { gallery } = this;
    if (!gallery.canMove) return gallery.hear(say("gallery.move_first"));
    this.#lift(id);
    this.#mark(gallery.gapBefore(gallery.placeOf(id)));
    gallery.hear(say("gallery.lifted"));
  }

  key(key) {
    const { gallery } = this;
    const last = gallery.list.length;
    const before = Math.min(this.#gap.before, last); // pictures may have gone meanwhile
    const down = () => (before === last ? last : beside(gallery.layout, before, 1));
    const up = () => beside(gallery.layout, Math.min(before, last - 1), -1);
    const rows = { ArrowUp: up, ArrowDown: down, Home: () => 0, End: () => last };
    const steps = { ArrowLeft: () => before - 1, ArrowRight: () => before + 1, ...rows };
    if (key in steps) {
      this.#mark(gallery.gapBefore(Math.max(0, Math.min(last, steps[key]()))));
      this.#marker.scrollIntoView({ block: "nearest" });
      gallery.hear(say("gallery.gap", { n: this.#gap.before + 1, of: last + 1 }));
    } else if (key === "Enter" || key === " " || key === "m") this.#end(true);
    else if (key === "Escape") this.#end(false);
  }

  #lift(id) {
    const { selected } = this.gallery;
    this.lifted = new Set(selected.has(id) ? selected : [id]);
    this.gallery.repaint();
  }

  #mark(gap) {
    this.#gap = gap;
    this.#marker.hidden = false;
    Object.assign(this.#marker.style, { height: `${gap.height}px`, transform: `translate(${gap.x}px, ${gap.y}px)` });
  }

  async #end(isDropped) {
    const { lifted, gallery } = this;
    const { before } = this.#gap;
    this.#marker.hidden = this.#ghost.hidden = true;
    this.lifted = new Set();
    gallery.repaint();
    if (isDropped) await gallery.move(lifted, before);
    gallery.hear(say(isDropped ? "gallery.dropped" : "gallery.put_back"));
  }
}
