// `<dream-gallery>`: a dream's pictures in justified rows, of which only those near the screen are in the document.

import { rearranged } from "./arrange.js";
import { DreamElement } from "./element.js";
import { galleryStyle } from "./gallery-style.js";
import { beside, between, gapAt, gapBefore, justified } from "./layout.js";
import { Moving } from "./moving.js";
import { Notices, Removal } from "./removal.js";
import { icon, make } from "./theme.js";
import { ratioOf, Tile } from "./tile.js";
import { reasonText, say, sentence } from "./words.js";

const MARGIN_PX = 700; // tiles are made this far above and below the screen
const MORE_PX = 2500; // the next page is read this far before its place
const MORE_AGAIN_MS = 5_000;
const NEWS_MS = 800; // changes within this time are told together
const MOVE_MS = 300;
const MOST_POSITIONS = 1000; // of one request
const SELECT = "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M8 12.2l2.8 2.8L16 9.5";
const BIN = "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l1 13h9l1-13";
const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 };

export class DreamGallery extends DreamElement {
  /** The shown pictures, in order. */
  list = [];
  layout = justified([], 1, 1, 0);
  selected = new Set();
  notices = new Notices(() => this.#focusBack());
  #places = new Map(); // picture id → index in the list
  #tiles = new Map(); // picture id → Tile, for those near the screen
  #active = 0; // id of the tile that Tab reaches
  #from = 0; // id of the tile where a range begins
  #isSelecting = false;
  #isRead = false;
  #isStale = false;
  #isReading = false;
  #frame = 0;
  #moved = 0;
  #newest = 0;
  #shownOrder = "";
  #news = null;
  #viewer = null;
  #resizing = new ResizeObserver(() => this.#arrangeSoon());

  constructor() {
    super(galleryStyle);
    const label = say("gallery.label");
    // Rows own their tiles by `aria-owns`, so a tile that changes its row keeps its focus and its picture.
    this.rows = make("div", { role: "grid", "aria-label": label, "aria-multiselectable": "true" });
    this.tiles = make("div", { role: "presentation" });
    this.grid = make("div", { class: "grid" }, this.rows, this.tiles);
    this.empty = make("slot", { name: "empty", hidden: true }, make("p", { class: "none", text: say("gallery.empty") }));
    this.more = make("div", { class: "more", hidden: true });
    this.trouble = make("p", { class: "trouble", part: "trouble", role: "alert", hidden: true });
    this.heard = make("div", { class: "only-heard", role: "status" });
    this.shadowRoot.append(this.#newBar(), this.grid, this.empty, this.trouble, this.more, this.notices.element, this.heard);
    this.moving = new Moving(this);
    this.grid.addEventListener("click", (event) => this.#click(event));
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.grid.addEventListener("focusin", (event) => this.#activate(this.idAt(event.target)));
    this.grid.addEventListener("pointerenter", () => import("./viewer.js").catch(() => undefined), { once: true });
  }

  attach(client, signal) {
    const undone = ([id]) => (this.#viewer?.isOpen ? this.#viewer.open(id) : this.focusOn(id));
    const removal = (this.removal = new Removal(client, this.notices, () => this.#arrangeSoon(true), undone));
    this.#isRead = client.pictures.size > 0;
    this.#newest = Math.max(0, ...client.pictures.keys());
    client.addEventListener("pictures", (event) => this.#change(event.detail), { signal });
    for (const name of ["state", "problem"]) client.addEventListener(name, () => this.#arrangeSoon(), { signal });
    for (const name of ["scroll", "resize"]) {
      addEventListener(name, () => this.#paintSoon(), { signal, capture: true, passive: true });
    }
    document.addEventListener("visibilitychange", () => document.hidden && removal.commit(true), { signal });
    const counting = setInterval(() => this.#countDown(), 1000);
    signal.addEventListener("abort", () => {
      clearInterval(counting);
      removal.commit(true);
      this.#viewer?.close();
      this.#clear();
    });
    this.#resizing.observe(this);
    this.#arrangeSoon();
  }

  #clear() {
    this.#resizing.disconnect();
    this.moving.stop();
    for (const tile of this.#tiles.values()) tile.element.remove();
    this.#tiles.clear();
    this.selected.clear();
    this.#places.clear();
    Object.assign(this, { list: [], layout: justified([], 1, 1, 0) });
    this.#newest = this.#active = 0;
    this.#isSelecting = this.#isReading = false;
  }

  // --- changes, told and shown

  #change({ changed, removed }) {
    const { pictures } = this.client;
    const isFirst = !this.#isRead;
    for (const id of changed) {
      const picture = pictures.get(id);
      const before = this.list[this.#places.get(id)]?.state;
      if (picture && !isFirst && id > this.#newest) this.#tell("added");
      if (before && picture && picture.state !== before) this.#tell(picture.state, picture);
      if (picture) this.#tiles.get(id)?.fill(picture);
    }
    for (const id of removed) if (this.#places.has(id) && !this.removal.hidden.has(id)) this.#tell("gone");
    for (const id of changed) this.#newest = Math.max(this.#newest, id);
    this.#isRead = true;
    this.#arrangeSoon(true);
  }

  /** Tell screen readers: changes of one kind together. */
  #tell(kind, picture) {
    if (!["added", "completed", "failed", "gone"].includes(kind)) return;
    if (!this.#news) {
      this.#news = {};
      setTimeout(() => {
        const texts = Object.entries(this.#news).map(([name, { n, error }]) => say(`gallery.news_${name}`, { n, error }));
        this.#news = null;
        this.hear(texts.join(" "));
      }, NEWS_MS);
    }
    this.#news[kind] = { n: (this.#news[kind]?.n ?? 0) + 1, error: sentence(reasonText(picture ?? {})) };
  }

  hear(text) {
    this.heard.textContent = text;
  }

  #countDown() {
    for (const { picture } of this.#tiles.values()) if (picture.retry) this.#tiles.get(picture.id).fill(picture);
  }

  #arrangeSoon(isMoving = false) {
    this.#isStale = true;
    if (isMoving) this.#moved = performance.now();
    this.#paintSoon();
  }

  #paintSoon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (!this.client || !this.clientWidth) return; // without a width all pictures would be near the screen
      if (this.#isStale) this.#arrange();
      this.#paint();
    });
  }

  /** Compute what is where. The picture at the top of the screen stays where it is. */
  #arrange() {
    this.#isStale = false;
    const { client, removal } = this;
    const top = this.grid.getBoundingClientRect().top;
    const [first] = between(this.layout, -top, -top);
    const anchor = top < 0 && this.#shownOrder === client.order ? this.list[first] : null;
    this.#shownOrder = client.order;
    const anchorY = anchor && this.layout.boxes[first].y;
    const wasAt = this.#places.get(this.#active) ?? 0;
    this.list = client.sorted().filter((each) => !removal.hidden.has(each.id));
    this.#places = new Map(this.list.map((each, index) => [each.id, index]));
    for (const id of this.selected) if (!this.#places.has(id)) this.selected.delete(id);
    if (!this.list.length) this.moving.stop();
    if (!this.#places.has(this.#active)) this.#active = this.list[Math.min(wasAt, this.list.length - 1)]?.id ?? 0;
    const width = this.clientWidth;
    const wanted = Math.min(230, Math.max(104, width / 3));
    const ratios = this.list.map((each) => ratioOf(each, Math.min(2.5, (0.62 * width) / wanted)));
    this.layout = justified(ratios, width, wanted, width < 600 ? 4 : 8);
    this.grid.toggleAttribute("data-moving", performance.now() - this.#moved < MOVE_MS);
    this.grid.style.height = `${this.layout.height}px`;
    this.rows.setAttribute("aria-rowcount", client.hasMore ? -1 : this.layout.rows.length);
    const isThere = anchor && this.#places.has(anchor.id);
    if (isThere) this.#scroller().scrollBy(0, this.layout.boxes[this.#places.get(anchor.id)].y - anchorY);
    this.#showBar();
  }

  #scroller() {
    for (let up = this.parentElement; up; up = up.parentElement) {
      if (up.scrollHeight > up.clientHeight && /auto|scroll/.test(getComputedStyle(up).overflowY)) return up;
    }
    return document.scrollingElement;
  }

  /** Put the tiles near the screen into the document, and take the others out. */
  #paint() {
    const { layout, list, grid } = this;
    const { top, bottom } = grid.getBoundingClientRect();
    const [first, end] = between(layout, -top - MARGIN_PX, innerHeight - top + MARGIN_PX);
    const wanted = new Set(list.slice(first, end).map(({ id }) => id));
    for (const id of [this.#active, ...this.moving.lifted]) if (this.#places.has(id)) wanted.add(id);
    const hadFocus = this.shadowRoot.activeElement?.closest(".tile");
    for (const [id, tile] of this.#tiles) if (!wanted.has(id)) this.#tiles.delete(id) && tile.element.remove();
    const order = [...wanted].sort((one, other) => this.#places.get(one) - this.#places.get(other));
    let next = this.tiles.firstElementChild;
    for (const id of order) {
      const { element } = this.#tile(id);
      if (element === next) next = next.nextElementSibling;
      else this.tiles.insertBefore(element, next);
    }
    this.#paintRows(order);
    const hasFocus = this.shadowRoot.activeElement?.closest(".tile");
    if (hadFocus && hadFocus !== hasFocus) this.focusOn(this.#active);
    if (this.client.hasMore && bottom - innerHeight < MORE_PX) this.#readMore();
  }

  #tile(id) {
    const picture = this.list[this.#places.get(id)];
    const known = this.#tiles.get(id);
    const tile = known ?? new Tile(picture, (each) => this.renew(each));
    tile.place(this.layout.boxes[this.#places.get(id)]);
    if (!known) {
      this.#tiles.set(id, tile);
      tile.fill(picture);
    }
    tile.mark({ isActive: id === this.#active, isSelected: this.selected.has(id), isLifted: this.moving.lifted.has(id) });
    return tile;
  }

  /** The rows for screen readers. */
  #paintRows(order) {
    const owned = new Map();
    for (const id of order) {
      const { row } = this.layout.boxes[this.#places.get(id)];
      owned.set(row, `${owned.get(row) ?? ""} tile${id}`);
    }
    const row = ([index, ids]) => make("div", { role: "row", "aria-rowindex": index + 1, "aria-owns": ids.trim() });
    this.rows.replaceChildren(...[...owned].map(row));
  }

  async #readMore() {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      await this.client.loadMore();
    } catch {
      await new Promise((done) => setTimeout(done, MORE_AGAIN_MS)); // the page says that the connection is lost
    }
    this.#isReading = false;
    this.#paintSoon();
  }

  /** A picture whose file could not be loaded, read again; its signature or the browser's cookie may have ended. */
  async renew({ id }) {
    try {
      const { client } = this;
      if ((await client.settings()).media_access === "owner") {
        await client.call("POST", "api/auth/media-cookie", { credentials: "include" });
      }
      return await client.detail(id);
    } catch {
      return null;
    }
  }

  // --- the bar

  #newBar() {
    const button = (name, onclick, look = "", ...icons) => {
      const text = say(`gallery.${name}`);
      const given = { type: "button", class: look, onclick, "aria-label": text, "data-bar": name };
      return make("button", given, ...icons.map(icon), make("span", { text }));
    };
    const order = (name) => button(name, () => this.#order(name));
    this.count = make("p");
    this.choice = make("div", { class: "choice", role: "group", "aria-label": say("gallery.order") });
    this.choice.append(order("newest"), order("position"));
    this.rest = [this.choice, button("select", () => this.#setSelecting(true), "", SELECT)];
    this.acts = [
      button("all", () => this.#selectAll()),
      button("delete", () => this.remove([...this.selected]), "bad", BIN),
      button("done", () => this.#setSelecting(false)),
    ];
    this.bar = make("div", { class: "bar", part: "bar", hidden: true }, this.count, ...this.rest, ...this.acts);
    return this.bar;
  }

  #showBar() {
    const { client, list } = this;
    const isSelecting = this.#isSelecting;
    const count = say("pictures", { n: list.length }).replace(list.length, `${list.length}${client.hasMore ? "+" : ""}`);
    this.count.textContent = isSelecting ? say("gallery.selected", { n: this.selected.size }) : count;
    if (this.canMove && !isSelecting) this.count.append(make("small", { text: say("gallery.move_hint") }));
    this.bar.hidden = list.length === 0;
    this.bar.toggleAttribute("data-selecting", isSelecting);
    this.grid.toggleAttribute("data-selecting", isSelecting);
    this.rest.forEach((each) => (each.hidden = isSelecting));
    this.acts.forEach((each) => (each.hidden = !isSelecting));
    this.acts[1].disabled = this.selected.size === 0;
    for (const each of this.choice.children) each.setAttribute("aria-pressed", each.dataset.bar === client.order);
    this.grid.hidden = list.length === 0;
    this.#showTrouble();
    this.empty.hidden = list.length > 0 || client.hasMore || !this.#isRead;
  }

  /** Without pictures, the reason why there are none yet. */
  #showTrouble() {
    const { state, reason, problem, hasMore } = this.client;
    const text = state === "refused" ? reason || say("page.refused") : (problem?.message ?? "");
    const isNeeded = this.list.length === 0 && text;
    this.trouble.hidden = !isNeeded;
    if (isNeeded && this.trouble.textContent !== sentence(text)) this.trouble.textContent = sentence(text);
    this.more.hidden = Boolean(isNeeded) || (this.#isRead && !hasMore);
  }

  #order(name) {
    this.client.order = name;
    if (this.canMove) this.hear(say("gallery.move_hint"));
    this.#arrangeSoon(true);
  }

  // --- selection

  #setSelecting(isSelecting) {
    this.#isSelecting = isSelecting;
    if (!isSelecting) this.selected.clear();
    this.#arrangeSoon();
    if (this.#active) this.focusOn(this.#active);
  }

  select(ids, isSelected = true) {
    for (const id of ids) {
      if (isSelected) this.selected.add(id);
      else this.selected.delete(id);
    }
    this.#isSelecting ||= this.selected.size > 0;
    this.#arrangeSoon();
  }

  #toggle(id) {
    this.#from = id;
    this.select([id], !this.selected.has(id));
  }

  #selectTo(id) {
    const ends = [this.#places.get(this.#from) ?? this.#places.get(id), this.#places.get(id)];
    this.select(this.list.slice(Math.min(...ends), Math.max(...ends) + 1).map((each) => each.id));
  }

  async #selectAll() {
    const { client } = this;
    this.#isSelecting = true;
    try {
      while (client === this.client) {
        this.select(client.sorted().map(({ id }) => id).filter((id) => !this.removal.hidden.has(id)));
        if (!client.hasMore || !this.#isSelecting) break;
        await client.loadMore();
      }
    } catch (error) {
      this.#fail(client, "gallery.not_read", error);
    }
  }

  /** Say a failure, if its client is still in use. */
  #fail(client, key, error) {
    if (client === this.client) this.notices.fail(say(key, { error: error.message }));
  }

  /** The list as it is now, even if the tiles wait for the next frame. */
  shown() {
    if (this.#isStale && this.client) this.#arrange();
    return this.list;
  }

  // --- what a reader does

  idAt(target) {
    return Number(target.closest?.(".tile")?.dataset.id ?? 0);
  }

  #click(event) {
    const id = this.idAt(event.target);
    if (!id) return;
    this.#activate(id);
    const act = event.target.closest("[data-act]")?.dataset.act;
    if (act === "again") this.again(id);
    else if (act === "delete") this.remove([id]);
    else if (event.shiftKey) this.#selectTo(id);
    else if (act === "tick" || this.#isSelecting || event.ctrlKey || event.metaKey) this.#toggle(id);
    else this.open(id);
  }

  #key(event) {
    const id = this.#active;
    if (event.target.closest("button") || !id || event.altKey || (event.repeat && event.key === "Delete")) return;
    const isMeta = event.ctrlKey || event.metaKey;
    const acts = {
      Enter: () => this.open(id),
      " ": () => this.#toggle(id),
      Delete: () => this.remove(this.selected.size ? [...this.selected] : [id]),
      Escape: () => this.#setSelecting(false),
      Home: () => this.focusOn(this.list[0].id),
      End: () => this.focusOn(this.list.at(-1).id),
      m: () => this.moving.pickUp(id),
    };
    let act = acts[event.key];
    if (this.moving.lifted.size) act = () => this.moving.key(event.key);
    else if (isMeta && event.key === "a") act = () => this.#selectAll();
    else if (isMeta && event.key.length === 1) return;
    else if (event.key === "Escape" && !this.#isSelecting) return;
    else if (event.key in STEPS) act = () => this.#step(id, event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  #step(id, { key, shiftKey }) {
    const at = this.#places.get(id);
    const by = STEPS[key];
    const next = key.endsWith("Up") || key.endsWith("Down") ? beside(this.layout, at, by) : at + by;
    const to = this.list[next]?.id;
    if (!to) return;
    if (shiftKey && !this.selected.size) this.#from = id;
    if (shiftKey) this.#selectTo(to);
    this.focusOn(to);
  }

  #activate(id) {
    if (!id || id === this.#active) return;
    this.#active = id;
    this.#paintSoon();
  }

  /** Focus a tile, and bring it to the screen. */
  focusOn(id, isScrolled = true) {
    this.shown();
    if (!this.#places.has(id)) return;
    this.#active = id;
    this.#paint();
    const { element } = this.#tiles.get(id);
    element.focus({ preventScroll: true });
    if (isScrolled) element.scrollIntoView({ block: "nearest" });
  }

  /** Take the focus of a button that goes. */
  #focusBack() {
    this.shown(); // which may make another tile the active one
    if (this.#viewer?.isOpen) this.#viewer.dialog.focus();
    else this.focusOn(this.#active, false);
  }

  async open(id) {
    try {
      const { Viewer } = await import("./viewer.js");
      if (!this.client) return;
      this.#viewer ??= new Viewer(this);
      this.#viewer.open(id);
    } catch {
      this.notices.fail(say("error.connection"));
    }
  }

  remove(ids) {
    if (!ids.length) return;
    this.hear(say("gallery.deleted", { n: ids.length }));
    this.removal.add(ids);
    this.selected.clear();
    this.#isSelecting = false;
    if (this.bar.contains(this.shadowRoot.activeElement)) this.#focusBack();
  }

  /** Delete now what could still be undone; resolves when the server has answered. */
  async settle() {
    await this.removal?.commit();
  }

  async again(id) {
    const { client } = this;
    if (!this.#viewer?.isOpen) this.focusOn(id);
    try {
      await client.retry(id);
    } catch (error) {
      this.#fail(client, "gallery.not_again", error);
    }
  }

  // --- the own order

  get canMove() {
    return this.client?.order === "position";
  }

  gapAt(x, y) {
    const { left, top } = this.grid.getBoundingClientRect();
    return gapAt(this.layout, x - left, y - top);
  }

  gapBefore(index) {
    return gapBefore(this.layout, index);
  }

  placeOf(id) {
    return this.#places.get(id);
  }

  /** The image of a tile, for what is dragged. */
  imageOf(id) {
    return this.#tiles.get(id)?.element.querySelector("img")?.currentSrc ?? "";
  }

  repaint() {
    this.#paintSoon();
  }

  /** Put pictures before the one at an index of the list. */
  async move(ids, before) {
    const { client } = this;
    const next = this.list[before];
    const behind = next ? client.sorted().indexOf(next) : client.sorted().length;
    try {
      let found = rearranged(client.sorted(), ids, behind);
      while (found.isOpen && client.hasMore) {
        await client.loadMore();
        found = rearranged(client.sorted(), ids, behind);
      }
      const { changes } = found;
      for (let at = 0; at < changes.length; at += MOST_POSITIONS) {
        await client.reorder(changes.slice(at, at + MOST_POSITIONS));
      }
    } catch (error) {
      this.#fail(client, "gallery.not_moved", error);
    }
  }
}
