// The panel of <dream-upload>: a bar for each batch, and a row for each file that is not accepted yet.

import { icon, make, sheet } from "./theme.js";
import { reasonText, say, sentence, sizeText, stateText, timeText } from "./words.js";

const SHOWN_ROWS = 40;
const DONE_MS = 6_000; // a batch that went well is shown for so long after its end
const TICK_MS = 1000; // waits count down

const look = sheet(`
.panel { display: flex; flex-direction: column; gap: .2rem; overflow: auto; max-height: inherit; }
.panel ul { list-style: none; margin: 0; padding: 0; }
.batch, .file { display: grid; align-items: center; gap: .1rem .7rem; padding: .55rem .8rem; }
.batch { grid-template-columns: 1fr auto; }
.batch + .batch { border-top: 1px solid var(--line); }
.batch p, .file p { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.batch .title { font-weight: 600; }
progress { grid-column: 1 / -1; width: 100%; height: .4rem; border: 0; border-radius: 1rem; overflow: hidden; appearance: none;
  background: var(--well); }
progress::-webkit-progress-bar { background: var(--well); }
progress::-webkit-progress-value { background: var(--accent); border-radius: 1rem; transition: inline-size .2s; }
progress::-moz-progress-bar { background: var(--accent); }
.batch .note, .file .note { grid-column: 1 / -1; font-size: .875rem; color: var(--soft); white-space: pre-line; }
.file { grid-template-columns: 3rem 1fr auto; border-top: 1px solid var(--line); }
.file .text { min-width: 0; }
.file .name { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-size: .94rem; }
.file .note { font-size: .82rem; }
.file[data-state="refused"] .note, .file[data-state="failed"] .note { color: var(--bad); }
.file[data-state="refused"] .name { white-space: normal; }
.ring { position: relative; width: 3rem; height: 3rem; display: grid; place-items: center; border-radius: .5rem; overflow: hidden;
  background: var(--well); color: var(--soft); }
.ring > *, .ring::after { grid-area: 1 / 1; }
.ring img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; }
.ring::after { content: ""; display: none; position: relative; width: 1.7rem; height: 1.7rem; border-radius: 50%;
  background: conic-gradient(#fff calc(var(--share) * 1turn), #fff5 0);
  mask: radial-gradient(closest-side, #0000 68%, #000 71%); }
.file[data-state="sending"] .ring::before, .file[data-state="waiting"] .ring::before { content: ""; position: absolute; inset: 0; z-index: 1;
  background: #0007; }
.file[data-state="sending"] .ring::after, .file[data-state="waiting"] .ring::after { display: block; z-index: 2; }
.file button { min-height: 2.2rem; }
.file button.round { width: 2.2rem; }
`);

/** Show the queue in an element until the signal aborts. `focusBack` is called when the panel has nothing to focus. */
export function showPanel(place, client, signal, focusBack) {
  new UploadPanel(place, client, signal, focusBack);
}

class UploadPanel {
  #client;
  #queue;
  #focusBack;
  #batches = make("ul", { "aria-label": say("upload.batches") });
  #files = make("ul", { "aria-label": say("upload.files") });
  #more = make("p", { class: "note" });
  #heard = make("p", { class: "only-heard", role: "status" });
  #alert = make("p", { class: "only-heard", role: "alert" });
  #root;
  #rows = new Map(); // item or batch → its parts
  #ended = new WeakMap(); // batch → when it was over
  #seen = new WeakSet(); // batches with a picture in the store

  constructor(place, client, signal, focusBack) {
    this.#client = client;
    this.#queue = client.uploads;
    this.#focusBack = focusBack;
    const root = place.getRootNode();
    root.adoptedStyleSheets = [...root.adoptedStyleSheets, look];
    this.#root = make("section", { class: "panel", part: "queue", "aria-label": say("upload.queue") });
    this.#root.append(this.#batches, this.#files, this.#more);
    place.append(this.#root, this.#heard, this.#alert);
    const draw = () => this.#draw();
    this.#queue.addEventListener("change", draw, { signal });
    client.addEventListener("pictures", draw, { signal });
    const ticking = setInterval(draw, TICK_MS);
    signal.addEventListener("abort", () => {
      clearInterval(ticking);
      root.adoptedStyleSheets = root.adoptedStyleSheets.filter((each) => each !== look);
    });
    draw();
  }

  #draw() {
    const { batches, items } = this.#queue;
    const shown = [...items.filter((each) => each.error), ...items.filter((each) => !each.error)].slice(0, SHOWN_ROWS);
    for (const [key, row] of this.#rows) {
      if (shown.includes(key) || batches.includes(key)) continue;
      const hadFocus = row.root.matches(":focus-within");
      row.root.remove();
      this.#rows.delete(key);
      if (hadFocus) this.#focusBack();
    }
    for (const batch of batches) this.#drawBatch(batch);
    for (const item of shown) this.#drawFile(item);
    this.#more.textContent = items.length > shown.length ? say("upload.more", { n: items.length - shown.length }) : "";
    this.#more.hidden = items.length === shown.length;
    this.#root.hidden = batches.length === 0 && items.length === 0;
  }

  // --- a batch

  #drawBatch(batch) {
    const row = this.#rows.get(batch) ?? this.#newBatch(batch);
    const { title, note, share, isOver, hasFailed } = this.#stateOf(batch);
    setText(row.title, title);
    setText(row.note, note);
    row.note.hidden = !note;
    row.bar.hidden = isOver;
    row.bar.value = share;
    row.dismiss.hidden = !isOver;
    if (!isOver) return void this.#ended.delete(batch);
    if (!this.#ended.has(batch)) {
      this.#ended.set(batch, Date.now());
      this.#heard.textContent = title;
    }
    if (!hasFailed && Date.now() - this.#ended.get(batch) > DONE_MS && !row.root.matches(":focus-within")) this.#queue.dismissBatch(batch);
  }

  #stateOf(batch) {
    const pictures = [...this.#client.pictures.values()].filter((each) => batch.tasks.has(each.task_id));
    const isEnded = (each) => each.state === "completed" || each.state === "failed";
    const [ended, failed] = [pictures.filter(isEnded), pictures.filter((each) => each.state === "failed")];
    const open = batch.items.filter((each) => each.state === "waiting" || each.state === "sending");
    const sent = open.reduce((sum, each) => sum + each.share * each.size, batch.sent);
    const title = say("pictures", { n: batch.count });
    if (pictures.length > 0) this.#seen.add(batch);
    if (open.length > 0) {
      const { pause } = this.#queue;
      const wait = pause && say("upload.pause", { error: pause.error, s: timeText((pause.until - Date.now()) / 1000) });
      const note = wait ?? say("upload.sending", { n: batch.accepted, all: batch.count, done: sizeText(sent), size: sizeText(batch.bytes) });
      return { title, note, share: sent / (batch.bytes || 1), isOver: false };
    }
    // A picture that was deleted meanwhile is over, too.
    const working = pictures.filter((each) => !isEnded(each));
    const isRead = this.#seen.has(batch) || batch.accepted === 0;
    if (working.length > 0 || !isRead) {
      const retry = working.find((each) => each.retry);
      const note = retry ? sentence(stateText(retry)) : say("upload.processing", { n: ended.length, all: batch.accepted });
      return { title, note, share: ended.length / (batch.accepted || 1), isOver: false };
    }
    const done = batch.accepted - failed.length;
    const reasons = failed.map((each) => `${each.filename}: ${reasonText(each)}`).join("\n");
    const failures = failed.length + batch.items.filter((each) => each.state === "failed").length;
    const text = failures > 0 ? say("upload.some", { n: done, failed: failures }) : say("upload.done", { n: done });
    return { title: text, note: reasons, share: 1, isOver: true, hasFailed: failures > 0 };
  }

  #newBatch(batch) {
    const row = {
      root: make("li", { class: "batch" }),
      title: make("p", { class: "title" }),
      bar: make("progress", { max: 1, value: 0, "aria-label": say("pictures", { n: batch.count }) }),
      note: make("p", { class: "note" }),
      dismiss: closer(say("dismiss"), () => this.#after(row.root, () => this.#queue.dismissBatch(batch))),
    };
    row.root.append(row.title, row.dismiss, row.bar, row.note);
    this.#rows.set(batch, row);
    this.#batches.append(row.root);
    this.#heard.textContent = say("upload.begun", { n: batch.count });
    return row;
  }

  // --- a file

  #drawFile(item) {
    const row = this.#rows.get(item) ?? this.#newFile(item);
    if (row.root.dataset.state !== item.state && item.error) this.#alert.textContent = `${item.name}: ${item.error}`;
    row.root.dataset.state = item.state;
    row.ring.style.setProperty("--share", item.share);
    setText(row.note, item.error || sizeText(item.size));
    const hadFocus = row.root.matches(":focus-within");
    row.cancel.hidden = !this.#queue.canCancel(item);
    row.retry.hidden = item.state !== "failed";
    row.dismiss.hidden = !item.error;
    if (hadFocus && !row.root.querySelector(":focus:not([hidden])")) this.#focusBack();
  }

  #newFile(item) {
    const { name, preview } = item;
    const row = {
      root: make("li", { class: "file" }),
      ring: make("div", { class: "ring" }, icon("M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4")),
      note: make("p", { class: "note" }),
      cancel: closer(say("upload.cancel", { name }), () => this.#after(row.root, () => this.#queue.cancel(item))),
      retry: make("button", { text: say("again"), "aria-label": say("upload.again", { name }), onclick: () => this.#retry(item) }),
      dismiss: closer(say("upload.dismiss", { name }), () => this.#after(row.root, () => this.#queue.dismiss(item))),
    };
    if (preview) row.ring.append(make("img", { src: preview, alt: "", decoding: "async", onerror: (event) => event.target.remove() }));
    const text = make("div", { class: "text" }, make("p", { class: "name", text: name, title: name }), row.note);
    row.root.append(row.ring, text, make("div", {}, row.retry, row.cancel, row.dismiss));
    this.#rows.set(item, row);
    if (item.error) this.#files.prepend(row.root);
    else this.#files.append(row.root);
    return row;
  }

  #retry(item) {
    this.#queue.retry(item);
    this.#drawFile(item);
    this.#rows.get(item).cancel.focus();
  }

  /** Act on a row that goes away, and give the focus to a neighbour. */
  #after(row, act) {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    act();
    const button = next && [...next.querySelectorAll("button")].find((each) => !each.hidden);
    if (button) button.focus();
    else this.#focusBack();
  }
}

function closer(label, onclick) {
  return make("button", { class: "round bare", "aria-label": label, title: label, onclick }, icon("M6 6l12 12M18 6L6 18"));
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
