// The section of failed tasks: a list that is read page by page, details, replay, and deletion after a question.

import { icon, make } from "../client/theme.js";
import { duration, moment, number, say } from "./words.js";

const CHEVRON = "M9 6l6 6-6 6";
const AT_ONCE = 100; // tasks of one request, as the gateway takes them
const AGAIN_MS = 15_000;

export class Failed {
  #call;
  #changed;
  #tasks = []; // as listed
  #chosen = new Set();
  #next = "";
  #count = null;
  #readAt = 0;
  #isReading = false;
  #isActing = false;

  /** @param call calls the API @param changed is called after an action */
  constructor(call, changed) {
    this.#call = call;
    this.#changed = changed;
    this.list = make("ul", { class: "failed-list" });
    this.all = make("input", { type: "checkbox", id: "all", onchange: () => this.#chooseAll(this.all.checked) });
    this.counted = make("span", { class: "soft" });
    this.replay = make("button", { text: say("ops.replay"), disabled: true, onclick: () => this.#act("replay") });
    this.purge = make("button", { class: "bad", text: say("ops.purge"), disabled: true, onclick: () => this.#ask() });
    this.tools = make("div", { class: "choice", hidden: true }, make("label", { for: "all" }, this.all, say("ops.selectall")), this.counted, this.replay, this.purge);
    this.said = make("p", { class: "said", role: "status" });
    this.problem = make("div", { class: "note bad", role: "alert", hidden: true });
    this.none = make("p", { class: "soft", text: say("ops.loading") });
    this.more = make("button", { text: say("ops.more"), hidden: true, onclick: () => this.#read(this.#next) });
    this.title = make("h2", { id: "title-failed", tabindex: "-1", text: say("ops.failures") });
    this.dialog = make("dialog", { "aria-labelledby": "ask-title" });
    this.element = make(
      "section",
      { class: "card failed", id: "failed", "aria-labelledby": "title-failed" },
      this.title, this.tools, this.problem, this.said, this.none, this.list, this.more, this.dialog,
    );
  }

  /** Note the number of failed tasks; read the list again if it has changed, or after a while. */
  update(count, many) {
    const title = count ? `${say("ops.failures")} · ${many(count)}` : say("ops.failures");
    if (this.title.textContent !== title) this.title.textContent = title;
    if (count === null) this.none.textContent = say("ops.unknown");
    else if (count !== this.#count || performance.now() - this.#readAt > AGAIN_MS) this.#read();
    this.#count = count;
  }

  async #read(next = "") {
    if (this.#isReading || this.#isActing) return;
    this.#isReading = true;
    this.#readAt = performance.now();
    try {
      // As many as are shown now, so that a longer list stays as long.
      const limit = Math.min(AT_ONCE, Math.max(25, this.#tasks.length));
      const found = await this.#call(next || `/api/ops/failed?limit=${limit}`);
      if (next) this.#tasks.push(...found.body);
      else if (found.next && this.#tasks.length > limit) this.#tasks = [...found.body, ...this.#tasks.slice(limit)];
      else this.#tasks = found.body;
      if (next || this.#tasks.length <= limit) this.#next = found.next;
      this.#show();
    } catch (error) {
      if (error.status !== 503) this.#tell(error.message);
    } finally {
      this.#isReading = false;
    }
  }

  #show() {
    const ids = new Map(this.#tasks.map((task) => [task.id, task]));
    this.#tasks = [...ids.values()]; // a page that was read anew may overlap with the next one
    for (const id of this.#chosen) if (!ids.has(id)) this.#chosen.delete(id);
    const there = new Map([...this.list.children].map((item) => [item.dataset.id, item]));
    const hadFocus = this.list.contains(document.activeElement);
    this.list.replaceChildren(...this.#tasks.map((task) => there.get(task.id) ?? this.#item(task)));
    if (hadFocus && !this.list.contains(document.activeElement)) (this.list.querySelector("input") ?? this.title).focus();
    this.none.textContent = say("ops.failures.none");
    this.none.hidden = ids.size > 0;
    this.tools.hidden = !ids.size;
    this.more.hidden = !this.#next;
    this.#showChoice();
  }

  #item(task) {
    const name = task.task.split(".").at(-1);
    const box = make("input", { type: "checkbox", "aria-label": say("ops.select", { id: task.id }), onchange: () => this.#choose(task.id, box.checked) });
    box.checked = this.#chosen.has(task.id);
    const about = [task.dream_id === null ? "" : `${say("ops.dream")} ${task.dream_id}`, task.failed_at ? moment(task.failed_at) : "", say("ops.ran", { n: task.runs })];
    const details = make("div", { class: "details" });
    const summary = make("summary", {}, icon(CHEVRON), make("span", { class: "why", text: task.error ?? say("ops.unknown") }), make("span", { class: "soft", text: [name, ...about].filter(Boolean).join(" · ") }));
    const opened = make("details", { ontoggle: () => opened.open && this.#detail(task, details) }, summary, details);
    return make("li", { "data-id": task.id }, box, opened);
  }

  async #detail(task, box) {
    if (box.querySelector("dl")) return;
    try {
      const { body } = await this.#call(`/api/ops/failed/${encodeURIComponent(task.id)}`);
      const facts = [
        [say("ops.id"), body.id],
        [say("ops.task"), body.task],
        [say("ops.outcome"), body.error_code ?? "–"],
        [say("ops.lasts"), body.failed_at ? duration(body.failed_at - body.created_at) : "–"],
        [say("ops.deaths"), body.deaths],
      ].flatMap(([label, value]) => [make("dt", { text: label }), make("dd", { text: value })]);
      box.replaceChildren(make("dl", {}, ...facts));
      if (body.detail) box.append(make("pre", { tabindex: "0", "aria-label": say("ops.details"), text: body.detail }));
      const pictures = body.images.map((each) => make("li", {}, make("strong", { text: each.filename }), ` ${each.state}${each.error ? `: ${each.error}` : ""}`));
      if (pictures.length) box.append(make("h3", { text: say("ops.pictures") }), make("ul", {}, ...pictures));
    } catch (error) {
      box.replaceChildren(make("p", { class: "problem", text: error.message }));
    }
  }

  // --- the choice

  #choose(id, isChosen) {
    this.#chosen[isChosen ? "add" : "delete"](id);
    this.#showChoice();
  }

  #chooseAll(isChosen) {
    for (const { id } of this.#tasks) this.#chosen[isChosen ? "add" : "delete"](id);
    for (const box of this.list.querySelectorAll("input")) box.checked = isChosen;
    this.#showChoice();
  }

  #showChoice() {
    const count = this.#chosen.size;
    this.all.checked = count > 0 && count === this.#tasks.length;
    this.all.indeterminate = count > 0 && count < this.#tasks.length;
    this.counted.textContent = count ? say("ops.selected", { n: number(count) }) : "";
    for (const button of [this.replay, this.purge]) button.disabled = !count || this.#isActing;
  }

  // --- actions

  #ask() {
    const cancel = make("button", { text: say("ops.cancel"), onclick: () => this.dialog.close() });
    const sure = make("button", { class: "main danger", text: say("ops.purge.yes"), onclick: () => (this.dialog.close(), this.#act("purge")) });
    const title = make("h2", { id: "ask-title", text: say("ops.purge.ask", { n: this.#chosen.size }) });
    this.dialog.replaceChildren(title, make("p", { text: say("ops.purge.more") }), make("div", { class: "choice" }, cancel, sure));
    this.dialog.showModal();
    cancel.focus();
  }

  async #act(action) {
    const ids = [...this.#chosen];
    const sum = { done: 0, gone: 0 };
    this.#isActing = true;
    this.problem.hidden = true;
    this.#showChoice();
    try {
      for (let at = 0; at < ids.length; at += AT_ONCE) {
        const { body } = await this.#call(`/api/ops/failed/${action}`, { ids: ids.slice(at, at + AT_ONCE) });
        sum.done += body.done.length;
        sum.gone += body.gone.length;
        for (const id of [...body.done, ...body.gone]) this.#chosen.delete(id);
        this.#tasks = this.#tasks.filter(({ id }) => !body.done.includes(id) && !body.gone.includes(id));
      }
    } catch (error) {
      this.#tell(say("ops.acted.not", { why: error.message }));
    } finally {
      this.#isActing = false;
    }
    const said = [say(action === "replay" ? "ops.replayed" : "ops.purged", { n: sum.done })];
    if (sum.gone) said.push(say("ops.gone", { n: sum.gone }));
    this.said.textContent = said.join(" ");
    this.#show();
    this.title.focus();
    this.#changed();
  }

  #tell(text) {
    const dismiss = make("button", { text: say("ops.dismiss"), onclick: () => ((this.problem.hidden = true), this.title.focus()) });
    this.problem.replaceChildren(make("span", { text }), dismiss);
    this.problem.hidden = false;
  }
}
