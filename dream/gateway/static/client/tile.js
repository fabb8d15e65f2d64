// One picture of the gallery: its thumbnail, or its state in words with a ring.

import { icon, make } from "./theme.js";
import { blurred } from "./thumbhash.js";
import { reasonText, say, sentence, stateText } from "./words.js";

/** Codes of failures that another attempt cannot mend. */
const FINAL = /^(file_|not_|format_|heic_|raw_|image_damaged|too_m|side_|metadata_|cannot_|upload_gone)/;
const MOST_DRAWINGS = 500;
const TICK = "M5 12.5l4.5 4.5L19 7.5";

/** Whether a picture has a file to show. */
export const isShown = (picture) => picture.state === "completed" && /^https?:/.test(picture.url ?? "");

/** Whether another attempt may help. */
export const canRetry = (picture) => picture.state === "failed" && !FINAL.test(picture.error_code ?? "");

/** The shape of a tile: width divided by height. Very long pictures are cropped. */
export function ratioOf(picture, most) {
  if (!isShown(picture) || !picture.width_px) return Math.min(4 / 3, most);
  return Math.min(most, Math.max(0.6, picture.width_px / picture.height_px));
}

/** A picture in words, for labels: its name, its state if it is not ready, and the reason of a failure. */
function labelOf(picture) {
  return [picture.filename, !isShown(picture) && stateText(picture), reasonText(picture)].filter(Boolean).join(", ");
}

/** Let an image show a picture, as wide as needed; once more, with what the server says then, if it cannot be loaded. */
export function showWith(image, picture, widthPx, renew) {
  showIn(image, picture, widthPx);
  image.onerror = async () => {
    image.onerror = null;
    const renewed = await renew(picture); // its signature or the browser's cookie was too old, or the connection was lost
    if (renewed) showIn(image, renewed, parseFloat(image.sizes));
  };
}

function showIn(image, picture, widthPx) {
  const srcset = picture.signed_srcset ?? picture.srcset;
  image.sizes = `${widthPx}px`;
  if (srcset) image.srcset = srcset;
  image.src = picture.signed_url ?? picture.url;
  image.alt = picture.filename;
}

const drawings = new Map(); // the last placeholders, for tiles that come back

/** The CSS of the placeholder; empty behind a transparent picture, where it would stay visible. */
export function placeholderOf(picture) {
  const hash = picture.placeholder;
  if (hash && !drawings.has(hash)) drawings.set(hash, blurred(hash));
  const drawn = drawings.get(hash);
  if (drawings.size > MOST_DRAWINGS) drawings.delete(drawings.keys().next().value);
  return drawn ? `${picture.dominant_colour ?? ""} url(${drawn}) center / cover no-repeat` : "";
}

export class Tile {
  #image = null;
  #url = "";
  #box = { width: 0, height: 0 };

  /** @param {(picture: object) => Promise<object>} renew reads a picture again whose file could not be loaded */
  constructor(picture, renew) {
    this.renew = renew;
    this.word = make("strong");
    this.reason = make("span", { class: "reason" });
    this.name = make("span", { class: "name", text: picture.filename });
    this.ring = make("span", { class: "ring", role: "progressbar", "aria-label": picture.filename });
    this.acts = make("span", { class: "acts" });
    this.body = make("div", { class: "state" }, this.ring, this.word, this.name, this.reason, this.acts);
    const tick = make("span", { class: "tick", "data-act": "tick" }, icon(TICK));
    const given = { class: "tile", role: "gridcell", id: `tile${picture.id}`, "data-id": picture.id, tabindex: -1 };
    this.element = make("div", { ...given, title: picture.filename }, this.body, tick);
  }

  /** Show the picture as it is now. */
  fill(picture) {
    this.picture = picture;
    this.element.dataset.state = picture.state;
    this.element.setAttribute("aria-label", labelOf(picture));
    this.body.hidden = isShown(picture);
    if (isShown(picture)) return this.#show();
    if (picture.preview) this.element.style.background = `url(${picture.preview}) center / cover no-repeat`;
    this.element.toggleAttribute("data-preview", Boolean(picture.preview));
    this.word.textContent = sentence(stateText(picture));
    const isFailed = picture.state === "failed";
    this.reason.textContent = isFailed ? sentence(reasonText(picture)) : "";
    this.ring.hidden = isFailed;
    if (picture.progress == null) this.ring.removeAttribute("aria-valuenow");
    else this.ring.setAttribute("aria-valuenow", Math.round(picture.progress));
    this.ring.style.setProperty("--share", `${picture.progress ?? 25}%`);
    const acts = isFailed ? [...(canRetry(picture) ? ["again"] : []), "delete"] : [];
    if (this.acts.children.length !== acts.length) this.acts.replaceChildren(...acts.map((act) => this.#button(act)));
  }

  /** Stand at a place of the layout. */
  place(box) {
    const { x, y, width, height } = (this.#box = box);
    const transform = `translate(${x}px, ${y}px)`;
    Object.assign(this.element.style, { width: `${width}px`, height: `${height}px`, transform });
    if (this.#image) this.#size();
  }

  mark({ isActive, isSelected, isLifted }) {
    this.element.tabIndex = isActive ? 0 : -1;
    this.element.setAttribute("aria-selected", isSelected);
    this.element.toggleAttribute("data-lifted", isLifted);
    for (const button of this.acts.children) button.tabIndex = isActive ? 0 : -1;
  }

  #button(act) {
    const text = say(act === "again" ? act : `gallery.${act}`);
    return make("button", { type: "button", "data-act": act, text, tabindex: this.element.tabIndex });
  }

  #show() {
    const { picture } = this;
    const [x, y] = (picture.focus ?? picture.found_focus ?? [0.5, 0.5]).map((share) => `${100 * share}%`);
    this.#image ??= this.#newImage();
    this.#image.style.objectPosition = `${x} ${y}`;
    if (this.#url === picture.url) return; // a signed URL is another one after a while
    this.#url = picture.url;
    if (!picture.preview) this.element.style.background = placeholderOf(picture);
    this.element.removeAttribute("data-preview");
    this.#size();
    showWith(this.#image, picture, this.#needed(), this.renew);
  }

  #newImage() {
    const image = make("img", { loading: "lazy", decoding: "async", draggable: "false" });
    image.addEventListener("load", () => (image.dataset.loaded = ""));
    this.element.prepend(image);
    return image;
  }

  /** A picture that is wider than its tile is cropped, so it is shown larger than the tile. */
  #needed() {
    const { width_px: width, height_px: height } = this.picture;
    return Math.ceil(Math.max(this.#box.width, width ? (this.#box.height * width) / height : 0));
  }

  #size() {
    const wanted = this.#needed();
    // A smaller tile keeps the file that it has.
    if (wanted > parseFloat(this.#image.sizes || 0)) this.#image.sizes = `${wanted}px`;
  }
}
