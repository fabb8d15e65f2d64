// <dream-upload>: the place to choose, drop, paste or take pictures. `upload-panel.js` shows how far they are.

import { DreamElement } from "./element.js";
import { icon, make, sheet } from "./theme.js";
import { showPanel } from "./upload-panel.js";
import { say, sizeText } from "./words.js";

const look = sheet(`
.zone { display: flex; flex-direction: column; align-items: center; justify-content: center; gap: .5rem; text-align: center;
  padding: 2.6rem 1.2rem 2.2rem; color: var(--soft); background: var(--card); border: 2px dashed var(--line);
  border-radius: calc(1.6 * var(--radius)); }
h2 { color: var(--text); font-size: 1.4rem; line-height: 1.25; margin: 0 0 .3rem; text-wrap: balance; }
.hint { margin: 0; font-size: .94rem; text-wrap: balance; }
.art { width: 9rem; height: 6.5rem; margin-bottom: .4rem; }
:host([compact]) .zone { padding: 0; border: 0; background: none; }
:host([compact]) :is(h2, .hint, .art) { display: none; }
.art rect { fill: var(--card); stroke: var(--line); stroke-width: 1.5; }
.art path { fill: var(--well); }
.art circle { fill: var(--accent); opacity: .55; }
.buttons { display: flex; flex-wrap: wrap; justify-content: center; gap: .6rem; }
.camera { display: none; }
@media (pointer: coarse) {
  .camera { display: inline-flex; }
  .hint.drop { display: none; }
}
@media (max-width: 40rem) {
  :host([compact]) button { width: 2.5rem; padding: 0; }
  :host([compact]) button span { display: none; }
}
.over { position: fixed; inset: 0; z-index: 60; display: grid; place-items: center; margin: 0; font-size: 1.5rem; font-weight: 600;
  color: var(--accent); background: color-mix(in srgb, var(--back) 86%, transparent); outline: 3px dashed var(--accent);
  outline-offset: -1.2rem; pointer-events: none; }
`);

const SVG = "http://www.w3.org/2000/svg";

/** Two pictures that lie on each other. */
function art() {
  const drawing = document.createElementNS(SVG, "svg");
  const add = (name, given) => {
    const part = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(given)) part.setAttribute(key, value);
    drawing.append(part);
  };
  for (const [key, value] of Object.entries({ viewBox: "0 0 144 104", class: "art", "aria-hidden": "true" })) drawing.setAttribute(key, value);
  add("rect", { x: 20, y: 18, width: 74, height: 62, rx: 8, transform: "rotate(-9 57 49)" });
  add("rect", { x: 48, y: 20, width: 80, height: 66, rx: 8, transform: "rotate(6 88 53)" });
  add("path", { d: "M58 74l18-24 14 16 9-9 19 17z", transform: "rotate(6 88 53)" });
  add("circle", { cx: 104, cy: 40, r: 7 });
  return drawing;
}

export class DreamUpload extends DreamElement {
  #client = null;
  #input = make("input", { type: "file", multiple: true, hidden: true });
  #camera = make("input", { type: "file", accept: "image/*", capture: "environment", hidden: true });
  #invitation = [art(), make("h2", { text: say("upload.title") })];
  #formats = make("p", { class: "hint formats" });
  #panel = make("div", { part: "panel" });
  #over = make("p", { class: "over", part: "over", text: say("upload.over"), hidden: true });

  constructor() {
    super(look);
    const button = (name, look, drawing, input) => {
      const text = say(`upload.${name}`);
      const given = { type: "button", class: look, part: name, "aria-label": text, title: text, onclick: () => input.click() };
      return make("button", given, icon(drawing), make("span", { text }));
    };
    const choose = button("choose", "main", "M12 5v14M5 12h14", this.#input);
    const camera = button("camera", "camera", "M4 8h3l2-3h6l2 3h3v11H4zM12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7", this.#camera);
    const zone = make("div", { class: "zone", part: "zone" }, ...this.#invitation);
    zone.append(make("div", { class: "buttons" }, choose, camera), make("p", { class: "hint drop", text: say("upload.drop") }), this.#formats);
    for (const input of [this.#input, this.#camera]) {
      input.addEventListener("change", () => {
        this.add([...input.files]);
        input.value = "";
      });
    }
    this.shadowRoot.append(zone, this.#input, this.#camera, this.#panel, this.#over);
  }

  attach(client, signal) {
    this.#client = client;
    signal.addEventListener("abort", () => {
      this.#client = null;
      this.#over.hidden = true;
      this.#panel.replaceChildren();
    });
    client.settings().then(({ accept, max_upload_bytes: most }) => {
      this.#input.accept = accept;
      const kinds = accept.split(",").filter((each) => each.startsWith("image/")).map((each) => each.slice(6).replace("jpeg", "jpg"));
      this.#formats.textContent = say("upload.formats", { kinds: kinds.join(", ").toUpperCase(), size: sizeText(most) });
    }, () => undefined);
    const invite = () => this.#invitation.forEach((each) => each.toggleAttribute("hidden", client.pictures.size > 0));
    client.addEventListener("pictures", invite, { signal });
    invite();
    this.#takeDrops(signal);
    showPanel(this.#panel, client, signal, () => this.focus());
    client.uploads.unsent().then((names) => names.length > 0 && client.uploads.refuse(names.join(", "), say("upload.unsent")));
  }

  /** Send these files. */
  add(files) {
    if (files.length > 0) this.#client?.uploads.add(files);
  }

  focus() {
    this.shadowRoot.querySelector("button").focus();
  }

  /** Take what is dropped or pasted anywhere: the browser would open a file that no page takes, and leave the page. */
  #takeDrops(signal) {
    let isOwn = false; // a picture that is dragged from this page is not sent
    const listen = (names, listener) => names.split(" ").forEach((each) => addEventListener(each, listener, { signal }));
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files") && !isOwn;
    const isField = (event) => {
      const [at] = event.composedPath();
      return /^(INPUT|TEXTAREA)$/.test(at?.tagName) || at?.isContentEditable;
    };
    // Another element, of another dream perhaps, takes what falls on it.
    const isOthers = (event) => event.composedPath().some((each) => each instanceof DreamUpload && each !== this && each.client);
    listen("dragstart", () => (isOwn = true));
    listen("dragend pointerdown", () => (isOwn = false));
    listen("dragenter dragover", (event) => {
      if (!event.dataTransfer?.types.includes("Files") && (isField(event) || isOwn)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = hasFiles(event) ? "copy" : "none";
      this.#over.hidden = !hasFiles(event);
    });
    listen("dragleave", (event) => event.relatedTarget === null && (this.#over.hidden = true));
    listen("drop", (event) => {
      this.#over.hidden = true;
      if (event.defaultPrevented || isOthers(event) || !event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      if (!isOwn) this.#drop(event.dataTransfer);
    });
    listen("paste", (event) => {
      const files = [...event.clipboardData.files];
      if (event.defaultPrevented || isField(event) || isOthers(event) || files.length === 0) return;
      event.preventDefault();
      this.add(files);
    });
  }

  #drop(transfer) {
    const files = [];
    for (const item of [...transfer.items].filter((each) => each.kind === "file")) {
      const entry = item.webkitGetAsEntry();
      if (entry?.isDirectory) this.#client.uploads.refuse(entry.name, say("upload.folder"));
      else files.push(item.getAsFile());
    }
    this.add(files);
  }
}
