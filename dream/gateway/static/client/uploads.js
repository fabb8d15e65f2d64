// The queue of files to send. A large file is a request of its own; small ones go together.
//
// waiting ─► sending ─► accepted      the picture is in the client's store
//    ▲          ├─────► refused       for good, with a sentence
//    └──────────┴─────► failed        may be sent again

import { reasonText, say, sentence } from "./words.js";

const GROUP_FILES = 10;
const GROUP_BYTES = 1e6;
const REQUESTS = 2; // at once
const TRIES = 6; // of the server's errors; a lost connection is waited for
const RETRY_MS = 1000;
const RETRY_MAX_MS = 30_000;
const PASSING = [408, 409, 425, 429];
const RECORDS = "dream.unsent"; // in localStorage: what pages had not sent, by page
const OPEN = ["waiting", "sending", "failed"];

/** A name that no other has; `crypto.randomUUID` needs HTTPS. */
function fresh() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (each) => each.toString(16).padStart(2, "0")).join("");
}

export class UploadQueue extends EventTarget {
  /** The files that are not accepted yet, and those that were refused. */
  items = [];
  /** The calls of `add`: `{ id, count, bytes, sent, accepted, tasks, items }`. */
  batches = [];
  /** The reason for which nothing is sent now, and when it is tried again (ms since the epoch); or null. */
  pause = null;

  #client;
  #groups = [];
  #number = 0;
  #retryMs = RETRY_MS;
  #timer = 0;
  #settings = {};
  #page = "";
  #recorded = "";
  #use = null; // from the first file until `close`
  #changed = false;

  constructor(client) {
    super();
    this.#client = client;
    client.settings().then((settings) => (this.#settings = settings), () => undefined);
  }

  /** Listen to the page while there are files. */
  #begin() {
    if (this.#use) return;
    this.#use = new AbortController();
    const { signal } = this.#use;
    this.#page = fresh();
    this.#recorded = "[]";
    const resume = () => this.pause?.isOffline && this.#resume();
    addEventListener("online", resume, { signal });
    this.#client.addEventListener("state", () => this.#client.state === "live" && resume(), { signal });
    addEventListener("beforeunload", (event) => {
      if (this.items.some((each) => ["waiting", "sending"].includes(each.state))) event.preventDefault();
    }, { signal });
    // Other pages see by this lock that this page still lives.
    const held = () => new Promise((done) => signal.addEventListener("abort", done));
    navigator.locks?.request(`${RECORDS}.${this.#page}`, { signal }, held).catch(() => undefined);
  }

  /** Send files; returns their batch. */
  add(files) {
    this.#begin();
    const batch = { id: ++this.#number, count: 0, bytes: 0, sent: 0, accepted: 0, tasks: new Set(), items: [] };
    for (const file of files) this.#addFile(batch, file);
    if (batch.count > 0) this.batches.push(batch);
    this.#tell();
    this.#next();
    return batch;
  }

  #addFile(batch, file) {
    const isPicture = /^image\//.test(file.type) || !file.type;
    const item = {
      id: `${batch.id}.${batch.items.length}`,
      name: file.name || "picture",
      size: file.size,
      file,
      preview: isPicture ? URL.createObjectURL(file) : "",
      batch,
      state: "waiting",
      share: 0,
      error: "",
      code: "",
      tries: 0,
      key: fresh(),
    };
    batch.items.push(item);
    this.items.push(item);
    const most = this.#settings.max_upload_bytes;
    if (most && file.size > most) this.#end(item, "refused", tooLarge(file.size, most), "file_too_large");
    else {
      batch.count++;
      batch.bytes += file.size;
    }
  }

  /** Say why a thing that was chosen is no file to send. */
  refuse(name, error) {
    const batch = { id: ++this.#number, count: 0, bytes: 0, sent: 0, accepted: 0, tasks: new Set(), items: [] };
    const item = { id: `${batch.id}.0`, name, size: 0, preview: "", batch, state: "refused", share: 0, error: sentence(error), code: "" };
    batch.items.push(item);
    this.items.push(item);
    this.#tell();
  }

  /** Do not send a file. A request that brings others too, or that has sent all, is not stopped. */
  cancel(item) {
    if (!this.canCancel(item)) return false;
    const group = this.#groups.find((each) => each.items.includes(item));
    if (group) stop(group);
    this.#uncount(item);
    this.dismiss(item);
    this.#next();
    return true;
  }

  canCancel(item) {
    const group = this.#groups.find((each) => each.items.includes(item));
    // The server may have accepted them all, although its answer was lost.
    return (item.state === "waiting" && !(item.together?.length > 1)) || Boolean(group && group.items.length === 1 && !group.isSent);
  }

  /** Send a failed file again, and the others of its request. */
  retry(item) {
    if (item.state !== "failed") return;
    for (const each of item.together) Object.assign(each, { state: "waiting", error: "", code: "", tries: 0 });
    if (!this.batches.includes(item.batch)) this.batches.push(item.batch); // it was dismissed
    this.#resume();
  }

  /** Forget a file that is not being sent. */
  dismiss(item) {
    if (item.preview) URL.revokeObjectURL(item.preview);
    // Without this file the others are a new request, so they need new keys.
    for (const each of item.together ?? []) Object.assign(each, { together: [each], key: fresh() });
    this.#drop(item);
    this.#tell();
  }

  dismissBatch(batch) {
    this.batches = this.batches.filter((each) => each !== batch);
    this.#tell();
  }

  /** Stop everything. The next visit is told what was not sent. */
  close() {
    if (this.#use) this.#record();
    this.#use?.abort();
    this.#use = null;
    clearTimeout(this.#timer);
    this.#groups.splice(0).forEach(stop);
    for (const item of [...this.items]) this.dismiss(item);
    this.batches = [];
    this.pause = null;
    this.#tell();
  }

  /** The names that closed pages had not sent to this dream; they are told once. */
  async unsent() {
    const records = readRecords();
    const locks = (await navigator.locks?.query())?.held ?? [];
    const alive = new Set([this.#page, ...locks.map((each) => each.name.slice(RECORDS.length + 1))]);
    const names = [];
    for (const [page, record] of Object.entries(records)) {
      if (alive.has(page) || record.about !== this.#about) continue;
      names.push(...record.names);
      delete records[page];
    }
    if (names.length > 0) writeRecords(records);
    return names;
  }

  get #about() {
    return `${this.#client.base} ${this.#client.dream}`;
  }

  #record() {
    const names = this.items.filter((each) => OPEN.includes(each.state)).map((each) => each.name);
    if (JSON.stringify(names) === this.#recorded) return;
    this.#recorded = JSON.stringify(names);
    const records = readRecords();
    if (names.length > 0) records[this.#page] = { about: this.#about, names };
    else delete records[this.#page];
    writeRecords(records);
  }

  // --- sending

  #next() {
    while (!this.pause && this.#groups.length < REQUESTS) {
      const items = this.#nextGroup();
      if (items.length === 0) break;
      this.#send(items);
    }
  }

  /** Waiting files of the batch with the fewest requests. */
  #nextGroup() {
    const busy = (batch) => this.#groups.filter((each) => each.items[0].batch === batch).length;
    const ready = this.batches.filter((batch) => batch.items.some((each) => each.state === "waiting"));
    ready.sort((one, other) => busy(one) - busy(other));
    const group = [];
    let bytes = 0;
    for (const item of ready[0]?.items ?? []) {
      if (item.state !== "waiting") continue;
      // A key names the same files each time (`canCancel` says why).
      if (item.together) return item.together;
      bytes += item.size;
      if (group.length > 0 && bytes > GROUP_BYTES) break;
      group.push(item);
      if (group.length === GROUP_FILES) break;
    }
    return group;
  }

  async #send(items) {
    const request = new XMLHttpRequest(); // fetch reports no progress
    const group = { items, request, isSent: false, isStopped: false };
    const bytes = items.reduce((sum, each) => sum + each.size, 0);
    this.#groups.push(group);
    for (const item of items) Object.assign(item, { state: "sending", share: 0, together: items });
    this.#tell();
    const answer = await this.#post(group, (share) => {
      group.isSent = share >= 1;
      if (group.isSent) items.forEach((each) => (each.wasSent = true));
      let before = 0;
      for (const item of items) {
        item.share = Math.min(1, Math.max(0, (share * bytes - before) / (item.size || 1)));
        before += item.size;
      }
      this.#tell();
    });
    if (!this.#groups.includes(group)) return; // closed
    const gone = answer?.status === 0 ? await unreadable(items) : [];
    if (!this.#groups.includes(group)) return;
    this.#groups.splice(this.#groups.indexOf(group), 1);
    if (answer && !group.isStopped) gone.length > 0 ? this.#without(gone, items) : this.#answered(items, answer);
    this.#tell();
    this.#next();
  }

  /** The server's answer; null if the request was stopped. */
  async #post(group, onShare) {
    const { items, request } = group;
    const form = new FormData();
    for (const item of items) form.append("files", item.file, item.name);
    const send = (authorization) =>
      new Promise((resolve) => {
        request.onabort = request.onload = request.onerror = request.ontimeout = () => resolve(request);
        if (group.isStopped) return resolve(request);
        request.open("POST", new URL(this.#client.path(), this.#client.base));
        request.setRequestHeader("Authorization", authorization);
        request.setRequestHeader("Idempotency-Key", items[0].key);
        request.upload.onprogress = (event) => event.lengthComputable && onShare(event.loaded / event.total);
        request.send(form);
      });
    try {
      await this.#client.authorized(send);
    } catch (error) {
      return { status: error.status ?? 0, body: { error: error.message } };
    }
    if (group.isStopped) return null;
    let body = {};
    try {
      body = JSON.parse(request.responseText);
    } catch {
      // no JSON: the connection was lost, or another server answered
    }
    const waitMs = 1000 * Number(request.getResponseHeader("Retry-After")) || 0; // a proxy may name a date
    return { status: request.status, body, waitMs };
  }

  /** Refuse files that the browser cannot read any more. The others are sent in another request, unless the server may have them. */
  #without(gone, items) {
    const mayBeThere = items.some((each) => each.wasSent);
    for (const item of items) {
      if (gone.includes(item)) this.#end(item, "refused", say("upload.unreadable"));
      else if (mayBeThere) this.#end(item, "failed", say("error.connection"));
      else Object.assign(item, { state: "waiting", share: 0 });
      Object.assign(item, { together: mayBeThere ? [item] : undefined, key: fresh() });
    }
  }

  #answered(items, { status, body, waitMs }) {
    const refused = new Map((body.refused ?? []).map((each) => [each.index, each]));
    if (status === 202 || (refused.size > 0 && refused.size === items.length)) {
      this.#retryMs = RETRY_MS;
      const accepted = items.filter((_, index) => !refused.has(index));
      refused.forEach(({ error, code }, index) => this.#end(items[index], "refused", error, code));
      accepted.forEach((each) => this.#end(each, "accepted"));
      if (accepted.length > 0) {
        accepted[0].batch.tasks.add(body.task_id);
        this.#client.adopt(body.task_id, accepted.map((each) => each.preview));
      }
      return;
    }
    const error = sentence(body.error ?? say(status ? "error.status" : "error.connection", { status }));
    const mayPass = PASSING.includes(status) || status >= 500;
    const isOver = status && (!mayPass || items.some((each) => ++each.tries >= TRIES));
    for (const item of items) {
      if (isOver) this.#end(item, status < 500 && !mayPass && status !== 401 ? "refused" : "failed", error, body.code);
      else Object.assign(item, { state: "waiting", share: 0 });
    }
    if (!isOver) this.#wait(error, waitMs, !status);
  }

  #end(item, state, error = "", code = "") {
    const wasCounted = item.state === "sending";
    const reason = sentence(reasonText({ error, error_code: code }));
    Object.assign(item, { state, error: reason, code, share: state === "accepted" ? 1 : 0 });
    if (state === "accepted") {
      item.batch.accepted++;
      item.batch.sent += item.size;
      this.#drop(item);
    } else if (wasCounted && state === "refused") this.#uncount(item);
  }

  /** A file that is not sent is not in its batch's sums; a batch without a file is none. */
  #uncount({ batch, size }) {
    batch.count--;
    batch.bytes -= size;
    if (batch.count === 0) this.dismissBatch(batch);
  }

  #drop(item) {
    this.items = this.items.filter((each) => each !== item);
    item.batch.items = item.batch.items.filter((each) => each !== item);
  }

  #wait(error, waitMs, isOffline) {
    const forMs = Math.max(waitMs, this.#retryMs * (0.75 + Math.random() / 2));
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MAX_MS);
    this.pause = { error, until: Date.now() + forMs, isOffline };
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#resume(), forMs);
  }

  #resume() {
    clearTimeout(this.#timer);
    this.pause = null;
    this.#tell();
    this.#next();
  }

  /** Tell of changes at most once a frame or so. */
  #tell() {
    if (this.#changed) return;
    this.#changed = true;
    setTimeout(() => {
      this.#changed = false;
      if (this.#use) this.#record();
      this.dispatchEvent(new Event("change"));
    }, 30);
  }
}

/** The files that were changed, moved or deleted since they were chosen. */
async function unreadable(items) {
  const isGone = await Promise.all(items.map(({ file }) => file.slice(0, 1).arrayBuffer().then(() => false, () => true)));
  return items.filter((_, index) => isGone[index]);
}

function stop(group) {
  group.isStopped = true;
  group.request.abort();
}

/** The server's sentence about such a file (`dream.messages.arguments.refusal_of`). */
function tooLarge(bytes, most) {
  const text = (size) => (size >= 1e5 ? `${(size / 1e6).toFixed(1)} MB` : `${size} bytes`);
  const [size, limit] = [text(bytes), text(most)];
  return size === limit ? `the file has more than the ${limit} allowed` : `the file has ${size}, more than the ${limit} allowed`;
}

function readRecords() {
  try {
    return JSON.parse(localStorage.getItem(RECORDS) ?? "{}");
  } catch {
    return {}; // no storage
  }
}

function writeRecords(records) {
  try {
    localStorage.setItem(RECORDS, JSON.stringify(records));
  } catch {
    // no storage: a closed page is not told of
  }
}
