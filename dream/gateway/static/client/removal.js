// Deletion with undo: pictures disappear at once, and the server is asked a few seconds later.

import { make } from "./theme.js";
import { say } from "./words.js";

const UNDO_MS = 6_000;
const LANES = 4; // requests at a time
const TOO_MANY_MS = 1_000; // the wait after a request that the server refused as one too many

/** A stack of short messages. Each stays until it is closed; a message never replaces another one. */
export class Notices {
  element = make("div", { class: "notices", part: "notices" });

  /** @param {() => void} focusBack gives the focus of a message that was dismissed to another element */
  constructor(focusBack) {
    this.focusBack = focusBack;
  }

  /** @returns {HTMLElement} the message; `remove()` closes it */
  add(text, act, onAct, isError = false) {
    const button = make("button", { type: "button", text: act });
    const given = { class: isError ? "notice bad" : "notice", role: isError && "alert" };
    const notice = make("div", given, make("span", { text }), button);
    button.addEventListener("click", () => {
      notice.remove();
      onAct();
    });
    this.element.append(notice);
    return notice;
  }

  /** Say a failure until the reader dismisses it. */
  fail(text) {
    this.add(text, say("dismiss"), this.focusBack, true);
  }
}

/**
 * Pictures that are about to be deleted. A page that is closed or hidden in the meantime deletes them at once, because its
 * reader saw them go.
 */
export class Removal {
  /** Ids of pictures that the gallery does not show. */
  hidden = new Set();
  #waiting = [];
  #timer = 0;
  #notice = null;

  /**
   * @param {(ids: number[]) => void} onChange called when pictures have gone or come back
   * @param {(ids: number[]) => void} onUndo called after an undo
   */
  constructor(client, notices, onChange, onUndo) {
    Object.assign(this, { client, notices, onChange, onUndo });
  }

  add(ids) {
    this.commit();
    this.#waiting = ids;
    ids.forEach((id) => this.hidden.add(id));
    this.#notice = this.notices.add(say("gallery.deleted", { n: ids.length }), say("gallery.undo"), () => this.undo());
    // Readers who are about to press the button have all the time they need.
    for (const name of ["pointerenter", "focusin"]) this.#notice.addEventListener(name, () => clearTimeout(this.#timer));
    for (const name of ["pointerleave", "focusout"]) this.#notice.addEventListener(name, () => this.#wait());
    this.#wait();
    this.onChange();
  }

  undo() {
    const ids = this.#take();
    ids.forEach((id) => this.hidden.delete(id));
    this.onChange();
    if (ids.length) this.onUndo(ids);
  }

  /** Ask the server now. `isLast`: the page may be gone before it answers. */
  async commit(isLast = false) {
    const ids = this.#take();
    const rest = [...ids];
    const failed = [];
    const lane = async () => {
      for (let id = rest.shift(); id !== undefined; id = rest.shift()) {
        await this.#remove(id, isLast).catch((error) => failed.push(error));
        this.hidden.delete(id);
      }
    };
    await Promise.all(Array.from({ length: isLast ? ids.length : LANES }, lane));
    if (failed.length) {
      this.notices.fail(say("gallery.not_deleted", { n: failed.length, error: failed[0].message }));
      this.onChange();
    }
  }

  async #remove(id, isLast) {
    try {
      await this.client.remove(id, { isLast });
    } catch (error) {
      if (error.status !== 429) throw error;
      await new Promise((done) => setTimeout(done, TOO_MANY_MS));
      await this.#remove(id, isLast);
    }
  }

  #wait() {
    clearTimeout(this.#timer);
    if (this.#waiting.length) this.#timer = setTimeout(() => this.commit(), UNDO_MS);
  }

  #take() {
    clearTimeout(this.#timer);
    this.#notice?.remove();
    this.#notice = null;
    const ids = this.#waiting;
    this.#waiting = [];
    return ids;
  }
}
