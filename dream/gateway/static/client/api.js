// A dream's pictures for a page: the calls of the REST API, and a store that live events keep true.

import { LiveSocket } from "./socket.js";
import { UploadQueue } from "./uploads.js";
import { say } from "./words.js";

const HOME = new URL("../../", import.meta.url).href; // the gateway that this file comes from
const REFRESH_MS = 300; // events within this time cause one request
const RETRY_MS = 5_000;
const PAGE_PICTURES = 100;
const REREAD_PICTURES = 1000;
const MANY_TASKS = 10; // from here on reading all again costs less than reading each
const READ_MS = 30_000; // without an answer the connection is lost, though nobody has said so
const RELEASE_MS = 30_000; // a page shows the stored picture by then
const ENDED = ["completed", "failed"];

/** An answer that is an error, or no answer: then `status` is 0. */
export class DreamError extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.name = "DreamError";
    this.status = status;
    this.code = code;
  }
}

const clients = new Map(); // by their options: { client, users }

export class DreamClient extends EventTarget {
  state = "off";
  reason = "";
  /** The error that keeps the pictures from being read; null if they are true. */
  problem = null;
  /** Every known picture by its id. */
  pictures = new Map();

  #token;
  #given = Promise.resolve(""); // the last token
  #order = "newest";
  #socket;
  #settings = null;
  #listening = null;
  #uploads = null;
  // The list is known up to `last`; `rest` is the query of the next page. `isStale`: all must be read again.
  #list = { last: null, rest: "", isStale: true };
  #reading = Promise.resolve();
  #refresh = 0;
  #tasks = new Set(); // whose pictures must be read
  #work = new Map(); // task id → what its events say
  #own = new Map(); // task id of an own upload → addresses of its files' previews, in order
  #previews = new Map(); // picture id → address
  #deleted = new Set(); // ids that an answer on its way may still list
  #changes = null;
  #sorted = null;

  constructor({ dream, token, base = HOME }) {
    super();
    this.dream = Number(dream);
    this.base = new URL(base, location.href).href;
    this.#token = typeof token === "string" ? token.replace(/^Bearer\s+/i, "") : token;
    this.#socket = new LiveSocket(
      new URL(`ws/dream-images/${this.dream}/`, this.base),
      (refused) => this.#currentToken(refused),
      (message) => this.#receive(message),
      (state, reason = "") => this.#changeState(state, reason),
    );
  }

  /** The client of these options. The elements of a page share it; each calls `release` at its end. */
  static shared(options) {
    const key = JSON.stringify([String(options.dream), options.token, options.base ?? ""]);
    if (!clients.has(key)) clients.set(key, { key, client: new DreamClient(options), users: 0 });
    const entry = clients.get(key);
    entry.users++;
    entry.client.connect();
    return entry.client;
  }

  static release(client) {
    const entry = [...clients.values()].find((each) => each.client === client);
    if (!entry || --entry.users > 0) return;
    clients.delete(entry.key);
    client.close();
  }

  connect() {
    if (this.#listening) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    const wake = () => document.visibilityState === "visible" && this.#socket.wake();
    for (const name of ["online", "offline", "pageshow"]) addEventListener(name, wake, { signal });
    document.addEventListener("visibilitychange", wake, { signal });
    this.settings(); // the first reading of the list needs them
    this.#socket.open();
  }

  close() {
    this.#listening?.abort();
    this.#listening = null;
    this.#socket.close();
    this.#uploads?.close();
    clearTimeout(this.#refresh);
    this.#refresh = 0;
    for (const id of [...this.#previews.keys()]) this.#dropPreview(id);
    for (const previews of this.#own.values()) previews.splice(0).forEach((each) => URL.revokeObjectURL(each));
    this.#list = { ...this.#list, isStale: true }; // what is still being read is not used
    this.#changeState("off", "");
  }

  /** The queue of files to send. */
  get uploads() {
    return (this.#uploads ??= new UploadQueue(this));
  }

  // --- calls

  /** A call of the gateway's REST API; its path is relative to the base. */
  async call(method, path, { json, ...options } = {}) {
    const headers = { ...options.headers };
    if (json !== undefined) {
      headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(json);
    }
    const answer = await this.authorized(async (Authorization) => {
      try {
        const answer = await fetch(new URL(path, this.base), { ...options, method, headers: { Authorization, ...headers } });
        return Object.assign(answer, { words: await answer.text() });
      } catch (error) {
        const isStopped = options.signal?.aborted && error.name !== "TimeoutError";
        throw isStopped ? error : new DreamError(say("error.connection"));
      }
    });
    const body = parsed(answer.words || "{}");
    if (answer.ok && body) return { body, headers: answer.headers };
    throw new DreamError(body?.error ?? say("error.status", answer), answer.status, body?.code ?? "");
  }

  /** The answer to `send(authorization)`; sent again if the token is refused and another can be had. */
  async authorized(send) {
    const token = await this.#currentToken();
    const answer = await send(`Bearer ${token}`);
    const other = answer.status === 401 ? await this.#currentToken(token) : token;
    return other === token ? answer : send(`Bearer ${other}`);
  }

  /** One renewal serves all whose token was refused. */
  async #currentToken(refused = "") {
    if (typeof this.#token !== "function") return this.#token;
    const last = this.#given;
    if ((await last) === refused && last === this.#given) {
      this.#given = (async () => String(await this.#token()))();
      this.#given.catch(() => (this.#given = last));
    }
    return this.#given;
  }

  /** The limits and formats of the server: `accept`, `max_upload_bytes`, `media_access`. */
  settings() {
    this.#settings ??= this.call("GET", "api/client-settings", inTime()).then((answer) => answer.body);
    this.#settings.catch(() => (this.#settings = null));
    return this.#settings;
  }

  path(rest = "") {
    return `api/dreams/${this.dream}/images${rest}`;
  }

  /** One picture with the private facts about its photo. */
  async detail(id) {
    const { body } = await this.call("GET", this.path(`/${id}`));
    this.#put(body);
    return body;
  }

  /** Delete a picture. `isLast`: the request may outlive the page. */
  async remove(id, { isLast = false } = {}) {
    try {
      await this.call("DELETE", this.path(`/${id}`), { keepalive: isLast });
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    this.#delete(id);
  }

  /** Run a failed picture again. */
  async retry(id) {
    const { body } = await this.call("POST", this.path(`/${id}/retry`));
    this.#readSoon(body.task_id);
  }

  /** Change positions: all of them or none. */
  async reorder(positions) {
    await this.call("PATCH", this.path(), { json: { positions } });
    for (const { id, position } of positions) this.#patch(id, { position });
  }

  /** Set the point that crops keep, as shares of the width and height; null for the found one. */
  async setFocus(id, focus) {
    const { body } = await this.call("PUT", this.path(`/${id}/focus`), { json: { focus } });
    this.#patch(id, { focus: body.focus, found_focus: body.found_focus });
  }

  /** Revoke the token. */
  async logOut() {
    await this.call("POST", "api/auth/logout");
    this.close();
  }

  // --- the list

  /** `newest` or `position`. A change reads the list again. */
  get order() {
    return this.#order;
  }

  set order(order) {
    if (order === this.#order) return;
    this.#order = order;
    this.#sorted = null;
    const ids = new Set(this.pictures.keys());
    this.#list = { last: null, rest: "", isStale: true, isNew: true };
    this.#tell(ids);
    if (this.#listening) this.#refreshSoon(0);
  }

  /** Whether the server has pictures that are not read yet. */
  get hasMore() {
    return this.#list.rest !== "";
  }

  /** The known pictures in the list's order. */
  sorted() {
    this.#sorted ??= [...this.pictures.values()].sort((one, other) => (this.#isBefore(one, other) ? -1 : 1));
    return this.#sorted;
  }

  /** Read the next page; resolves when it is in `pictures`. */
  loadMore() {
    return this.#inTurn(async () => {
      const list = this.#list;
      if (list.isStale) await this.#readAgain();
      else if (list.rest) {
        const page = await this.#page(list.rest);
        if (list === this.#list) this.#take(page);
      }
    });
  }

  #isBefore(one, other) {
    if (this.#order === "newest") return one.id > other.id;
    return one.position < other.position || (one.position === other.position && one.id < other.id);
  }

  /** Reads change the list one after another. */
  #inTurn(work) {
    const turn = this.#reading.then(work);
    this.#reading = turn.catch(() => undefined);
    return turn;
  }

  async #page(query) {
    const { body, headers } = await this.call("GET", this.path(query), inTime());
    const next = /<([^>]*)>; rel="next"/.exec(headers.get("Link") ?? "");
    return { pictures: body, rest: next ? new URL(next[1], this.base).search : "" };
  }

  #take({ pictures, rest }) {
    pictures.forEach((each) => this.#put(each));
    Object.assign(this.#list, { last: pictures.at(-1) ?? this.#list.last, rest });
    this.#tell();
  }

  #refreshSoon(delayMs = REFRESH_MS) {
    this.#refresh ||= setTimeout(() => {
      this.#refresh = 0;
      this.#inTurn(() => this.#readWhatChanged());
    }, delayMs);
  }

  #readSoon(task) {
    this.#tasks.add(task);
    this.#refreshSoon();
  }

  async #readWhatChanged() {
    try {
      if (this.#list.isStale || this.#tasks.size > MANY_TASKS) await this.#readAgain();
      for (const task of [...this.#tasks]) await this.#readTask(task);
      this.#report(null);
    } catch (error) {
      this.#report(error);
      if (this.#listening) this.#refreshSoon(RETRY_MS);
    }
  }

  #report(problem) {
    if (problem === this.problem) return;
    this.problem = problem;
    this.dispatchEvent(new Event("problem"));
  }

  /** Read as many pages as are known, at least one, and forget what is not there any more. */
  async #readAgain() {
    const list = this.#list;
    // An <img> sends no token, so the browser gets a cookie.
    if ((await this.settings()).media_access === "owner") {
      await this.call("POST", "api/auth/media-cookie", { credentials: "include", ...inTime() });
    }
    // Events that come while it reads ask for another reading.
    list.isStale = false;
    this.#tasks.clear();
    const there = new Set();
    const limit = this.pictures.size > PAGE_PICTURES ? REREAD_PICTURES : PAGE_PICTURES;
    const end = list.isNew ? null : list.last;
    let page = { rest: `?${new URLSearchParams({ limit, order: this.#order })}` };
    let last = null;
    try {
      do {
        page = await this.#page(page.rest);
        if (list !== this.#list) return;
        page.pictures.forEach((each) => there.add(each.id) && this.#put(each));
        last = page.pictures.at(-1) ?? last;
      } while (page.rest && end && this.#isBefore(last, end));
    } catch (error) {
      list.isStale = true;
      throw error;
    }
    for (const picture of this.pictures.values()) {
      const isInside = !page.rest || !this.#isBefore(last, picture);
      if (!there.has(picture.id) && (isInside || list.isNew)) this.#forget(picture.id);
    }
    Object.assign(list, { last, rest: page.rest, isNew: false });
    this.#tell();
  }

  /** Read the pictures of one upload. Pictures behind `last` come with their page later, except own uploads. */
  async #readTask(task) {
    const list = this.#list;
    const there = new Set();
    let rest = `?${new URLSearchParams({ task_id: task, limit: PAGE_PICTURES })}`;
    this.#tasks.delete(task);
    while (rest) {
      const page = await this.#page(rest).catch((error) => {
        this.#tasks.add(task);
        throw error;
      });
      if (list !== this.#list) return;
      for (const each of page.pictures) {
        there.add(each.id);
        const isInside = !list.rest || (list.last && !this.#isBefore(list.last, each));
        if (isInside || this.pictures.has(each.id) || this.#own.has(task)) this.#put(each);
      }
      rest = page.rest;
    }
    for (const picture of this.pictures.values()) {
      if (picture.task_id === task && !there.has(picture.id)) this.#forget(picture.id);
    }
    this.#usePreviews(task);
    this.#tell();
  }

  // --- the store

  #put(listed) {
    if (this.#deleted.has(listed.id)) return;
    const work = this.#work.get(listed.task_id);
    const picture = { ...listed };
    if (!ENDED.includes(listed.state)) Object.assign(picture, this.#progressOf(listed.id, work));
    if (this.#previews.has(listed.id)) picture.preview = this.#previews.get(listed.id);
    this.pictures.set(listed.id, picture);
    this.#tell([listed.id]);
    if (picture.preview && listed.state === "completed") setTimeout(() => this.#dropPreview(listed.id), RELEASE_MS);
  }

  #progressOf(id, work) {
    if (!work) return {};
    const { progress, retry } = work;
    return { progress, retry, step: work.steps.get(id) };
  }

  #patch(id, changes) {
    const picture = this.pictures.get(id);
    if (!picture) return;
    this.pictures.set(id, { ...picture, ...changes });
    this.#tell([id]);
  }

  #forget(id) {
    if (!this.pictures.delete(id)) return;
    this.#dropPreview(id);
    this.#tell([], [id]);
  }

  #delete(id) {
    this.#deleted.add(id);
    this.#forget(id);
  }

  /** Tell of changes together, once the running work is done. */
  #tell(changed = [], removed = []) {
    this.#sorted = null;
    if (!this.#changes) {
      this.#changes = { changed: new Set(), removed: new Set() };
      queueMicrotask(() => {
        const detail = this.#changes;
        this.#changes = null;
        this.dispatchEvent(new CustomEvent("pictures", { detail }));
      });
    }
    for (const id of changed) {
      this.#changes.changed.add(id);
      this.#changes.removed.delete(id);
    }
    for (const id of removed) {
      this.#changes.removed.add(id);
      this.#changes.changed.delete(id);
    }
  }

  /** An own upload was accepted: its pictures show the previews of its files until they are stored. */
  adopt(task, previews) {
    this.#own.set(task, previews);
    this.#readSoon(task);
  }

  #usePreviews(task) {
    const previews = this.#own.get(task) ?? [];
    const ids = [...this.pictures.values()].filter((each) => each.task_id === task).map((each) => each.id);
    if (previews.length === 0 || ids.length !== previews.length) return;
    ids.sort((one, other) => one - other).forEach((id, place) => {
      if (!previews[place]) return;
      this.#previews.set(id, previews[place]);
      if (ENDED.includes(this.pictures.get(id).state)) this.#dropPreview(id);
      else this.#patch(id, { preview: previews[place] });
    });
    this.#own.set(task, []);
  }

  #dropPreview(id) {
    if (!this.#previews.has(id)) return;
    URL.revokeObjectURL(this.#previews.get(id));
    this.#previews.delete(id);
    this.#patch(id, { preview: undefined });
  }

  // --- events

  #changeState(state, reason) {
    if (state === this.state && reason === this.reason) return;
    Object.assign(this, { state, reason });
    this.dispatchEvent(new Event("state"));
  }

  #receive(message) {
    if (message.type === "connection_established") {
      this.#list.isStale = true;
      this.#refreshSoon(0);
    }
    if (message.type !== "image_update") return;
    const { task_id: task, status } = message;
    if (task) this.#noteWork(task, message);
    if (status === "delete_failed") this.#deleted.clear();
    if (status === "delete_completed") message.images.forEach((each) => this.#forgetDeleted(each));
    else if (!task || status === "delete_failed") this.#list.isStale = true;
    else if (status !== "delete_processing") this.#tasks.add(task);
    if (status !== "delete_completed") this.#refreshSoon();
    this.dispatchEvent(new CustomEvent("update", { detail: message }));
  }

  #noteWork(task, message) {
    if (message.status !== "processing") {
      this.#work.delete(task);
      return;
    }
    const { progress, attempt, max_retries, retry_at, steps = [] } = message;
    const work = this.#work.get(task) ?? { steps: new Map() };
    for (const each of steps) work.steps.set(each.id, each.step);
    Object.assign(work, { progress, retry: retry_at ? { attempt, max_retries, retry_at } : undefined });
    this.#work.set(task, work);
    for (const picture of this.pictures.values()) {
      if (picture.task_id === task && !ENDED.includes(picture.state)) this.#patch(picture.id, this.#progressOf(picture.id, work));
    }
  }

  /** Forget a deleted picture. Its URL names it, because the event's id may be the caller's own. */
  #forgetDeleted({ id, url }) {
    for (const picture of this.pictures.values()) {
      if (url ? picture.url === url : picture.id === id) this.#delete(picture.id);
    }
  }
}

/** For calls on which other readings wait. */
function inTime() {
  return { signal: AbortSignal.timeout(READ_MS) };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // another server answered
  }
}
